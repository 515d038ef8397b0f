"""The domain: entities, what it needs from the outside, and the use case. It imports no database."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Product:
    """Describe a product and how many are in stock."""

    id: int
    name: str
    stock: int


@dataclass(frozen=True, slots=True)
class OrderLine:
    """Ask for a number of one product."""

    product: int
    count: int


class OutOfStock(Exception):
    """Refuse an order for more than there is."""


class Products(Protocol):
    """Keep products."""

    async def get(self, number: int) -> Product | None:
        """Return a product, or ``None``."""

    async def add(self, products: list[Product]) -> None:
        """Add products, all or none."""

    async def take(self, number: int, count: int) -> bool:
        """Take ``count`` pieces out of the stock; return False if there are not so many."""


class Orders(Protocol):
    """Keep orders."""

    async def place(self, lines: list[OrderLine]) -> int:
        """Store an order and return its number."""


class UnitOfWork(Protocol):
    """Hold the repositories that share one transaction."""

    @property
    def products(self) -> Products:
        """Return the products, in this transaction."""

    @property
    def orders(self) -> Orders:
        """Return the orders, in this transaction."""


class Store(Protocol):
    """Open units of work: committed at the end of the block, rolled back on an error."""

    def unit_of_work(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """Return a unit of work to use with ``async with``."""


async def place_order(store: Store, lines: list[OrderLine]) -> int:
    """Take every line out of the stock and store the order; on an error nothing is changed."""
    async with store.unit_of_work() as work:
        for line in sorted(lines, key=lambda line: line.product):  # one order for all: no deadlock
            if not await work.products.take(line.product, line.count):
                raise OutOfStock(f"there are not {line.count} of product {line.product}")
        return await work.orders.place(lines)
