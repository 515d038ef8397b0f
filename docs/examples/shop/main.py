"""Put domain and adapters together: an order that fits, and one that does not and leaves nothing behind."""

import asyncio
import tempfile

from adapters import SCHEMA, SqlProducts, TenantStore
from domain import OrderLine, OutOfStock, Product, place_order

from router import Router, parse


async def main() -> None:
    """Place two orders."""
    with tempfile.TemporaryDirectory() as folder:
        config = parse(
            {
                "version": 1,
                "clusters": {"main": {"engine": "sqlite", "primary": {"path": folder}}},
                "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}},
            }
        )
        async with Router.open(config) as router, router.session("acme") as session:
            for sql in SCHEMA:
                await session.execute(sql)
            products = SqlProducts(session)  # outside of a transaction: each statement by itself
            await products.add([Product(1, "chair", 10), Product(2, "table", 2)])

            store = TenantStore(router, "acme")
            print("order", await place_order(store, [OrderLine(1, 4), OrderLine(2, 1)]))
            try:
                await place_order(store, [OrderLine(1, 4), OrderLine(2, 4)])
            except OutOfStock as error:
                print("refused:", error)
            print("left:", await products.get(1), await products.get(2))


asyncio.run(main())
