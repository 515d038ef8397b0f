"""The adapters: the domain's protocols on router. SQL is here, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from domain import OrderLine, Product

from router import Router
from router.queries import Queries

SCHEMA = (
    "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, stock INTEGER CHECK (stock >= 0))",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY)",
    "CREATE TABLE lines (order_id INTEGER REFERENCES orders, product INTEGER REFERENCES products, count)",
)


@dataclass(frozen=True, slots=True)
class SqlProducts:
    """Keep products in a table; ``on`` is a session or a transaction, both have the same methods."""

    on: Queries

    async def get(self, number: int) -> Product | None:
        """Return a product, or ``None``."""
        sql = "SELECT id, name, stock FROM products WHERE id = :id"
        return await self.on.fetch_one(sql, {"id": number}, into=Product)

    async def add(self, products: list[Product]) -> None:
        """Add products in one batch."""
        sql = "INSERT INTO products (id, name, stock) VALUES (:id, :name, :stock)"
        await self.on.execute_many(sql, [asdict(product) for product in products])

    async def take(self, number: int, count: int) -> bool:
        """Take pieces out of the stock if there are so many, in one statement."""
        sql = "UPDATE products SET stock = stock - :count WHERE id = :id AND stock >= :count"
        return (await self.on.execute(sql, {"id": number, "count": count})).rowcount == 1


@dataclass(frozen=True, slots=True)
class SqlOrders:
    """Keep orders in two tables."""

    on: Queries

    async def place(self, lines: list[OrderLine]) -> int:
        """Store an order with its lines."""
        number: int = await self.on.fetch_value("INSERT INTO orders DEFAULT VALUES RETURNING id")
        sql = "INSERT INTO lines (order_id, product, count) VALUES (:order_id, :product, :count)"
        await self.on.execute_many(sql, [{"order_id": number, **asdict(line)} for line in lines])
        return number


@dataclass(frozen=True, slots=True)
class SqlUnitOfWork:
    """Hold the repositories of one transaction."""

    products: SqlProducts
    orders: SqlOrders


@dataclass(frozen=True, slots=True)
class TenantStore:
    """Open units of work for one tenant."""

    router: Router
    tenant: str

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[SqlUnitOfWork]:
        """Yield repositories that share one transaction."""
        async with self.router.session(self.tenant) as session, session.transaction() as tx:
            yield SqlUnitOfWork(SqlProducts(tx), SqlOrders(tx))
