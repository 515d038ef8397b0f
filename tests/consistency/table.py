"""The table of a history, and every way of the library to write to it and to read it."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Identity, Integer, MetaData, String, Table, select
from sqlalchemy.orm import registry

from router import Router, RouterError
from router.queries import Queries
from router.session import Session

#: What a read found: when it ended, and the rows: (tenant, number).
Found = tuple[float, list[tuple[str, int]]]


class Row(NamedTuple):
    """Hold what is written: a number of an item."""

    item: int
    number: int


class Shelf:
    """Hold one table, the view of it, and the texts that write and read there."""

    def __init__(self, name: str) -> None:
        self.name, self.view = name, f"{name}_seen"
        self.insert = f"INSERT INTO {name} (tenant, item, number) VALUES (:tenant, :item, :number)"
        self.select = f"SELECT tenant, number FROM {name} WHERE item = :item"
        self.ordered = f"SELECT number, tenant FROM {name} WHERE item = :item ORDER BY number"
        self.through = f"SELECT tenant, number FROM {self.view} WHERE item = :item"
        columns: tuple[Any, ...] = (
            Column("id", BigInteger, Identity(), primary_key=True),
            Column("tenant", String(20)),
            Column("item", Integer),
            Column("number", BigInteger),
        )
        self.table = Table(name, MetaData(), *columns)
        self.mapped: Any = type("Entry", (), {})
        registry().map_imperatively(self.mapped, self.table)

    async def create(self, router: Router, tenant: str, key: str) -> None:
        """Create the table of a tenant; ``key`` is the DDL of a primary key that the server generates."""
        columns = f"id {key}, tenant VARCHAR(20), item INT, number BIGINT"
        await router.execute(f"CREATE TABLE {self.name} ({columns})", tenant=tenant)
        await router.execute(f"CREATE INDEX {self.name}_item ON {self.name} (item)", tenant=tenant)
        seen = f"SELECT tenant, item, number FROM {self.name}"
        await router.execute(f"CREATE VIEW {self.view} AS {seen}", tenant=tenant)

    def entry(self, values: dict[str, Any]) -> Any:
        """Return an object that SQLAlchemy writes."""
        entry = self.mapped()
        for key, value in values.items():
            setattr(entry, key, value)
        return entry


class Entries:
    """Write and read rows (tenant, item, number); nothing keeps a number from being there twice.

    The items are spread over the tables.
    """

    def __init__(self, name: str, tables: int = 1) -> None:
        self.shelves = [Shelf(f"{name}_{number}") for number in range(tables)]

    def of(self, item: int) -> Shelf:
        """Return where an item is."""
        return self.shelves[item % len(self.shelves)]

    async def create(self, router: Router, tenant: str, key: str) -> None:
        """Create the tables of a tenant."""
        for shelf in self.shelves:
            await shelf.create(router, tenant, key)

    def values(self, tenant: str, rows: list[Row]) -> list[dict[str, Any]]:
        """Return the parameters of some rows."""
        return [{"tenant": tenant, "item": row.item, "number": row.number} for row in rows]

    # --- writing -----------------------------------------------------------------------------------------

    async def plain(self, session: Session, rows: list[Row]) -> None:
        """Write one row by a statement of its own, several by one for all; of two tables all or none."""
        if len({self.of(row.item) for row in rows}) > 1:
            await self.transaction(session, rows)
        else:
            await self._insert(session, session.tenant, rows)

    async def _insert(self, on: Queries, tenant: str, rows: list[Row]) -> None:
        for shelf in self.shelves:
            values = self.values(tenant, [row for row in rows if self.of(row.item) is shelf])
            if len(values) == 1:
                await on.execute(shelf.insert, values[0])
            elif values:
                await on.execute_many(shelf.insert, values)

    async def transaction(self, session: Session, rows: list[Row]) -> None:
        """Write in a transaction, and look at it before the commit."""
        async with session.transaction() as tx:
            for row in rows:
                (values,) = self.values(session.tenant, [row])
                await tx.execute(self.of(row.item).insert, values)
            await tx.fetch_all(self.of(rows[0].item).select, {"item": rows[0].item})

    async def begun(self, session: Session, rows: list[Row]) -> None:
        """Write between begin() and commit()."""
        await session.begin()
        try:
            await self._insert(session, session.tenant, rows)
        except BaseException:
            with suppress(RouterError):  # a connection that is lost is rolled back already
                await session.rollback()
            raise
        await session.commit()

    async def function(self, session: Session, rows: list[Row]) -> None:
        """Write in a function that is run again after a conflict."""

        async def work(tx: Any) -> None:
            await self._insert(tx, session.tenant, rows)

        await session.run(work)

    async def orm(self, session: Session, rows: list[Row]) -> None:
        """Write objects."""
        async with session.orm() as opened:
            for row, values in zip(rows, self.values(session.tenant, rows), strict=True):
                opened.add(self.of(row.item).entry(values))

    # --- reading -----------------------------------------------------------------------------------------

    async def fetch(self, session: Session, items: list[int], **given: Any) -> list[Found]:
        """Read each item by a statement of its own."""
        return [
            _found(await session.fetch_all(self.of(item).select, {"item": item}, **given)) for item in items
        ]

    async def ordered(self, session: Session, items: list[int], **given: Any) -> list[Found]:
        """Read each item by another text."""
        return [
            _found(await session.fetch_all(self.of(item).ordered, {"item": item}, **given)) for item in items
        ]

    async def through(self, session: Session, items: list[int], **given: Any) -> list[Found]:
        """Read each item through a view."""
        return [
            _found(await session.fetch_all(self.of(item).through, {"item": item}, **given)) for item in items
        ]

    async def together(self, session: Session, items: list[int], **given: Any) -> list[Found]:
        """Read all items by one statement, also of several tables."""
        parts = [
            f"SELECT tenant, item, number FROM {self.of(item).name} WHERE item = :item{number}"
            for number, item in enumerate(items)
        ]
        params = {f"item{number}": item for number, item in enumerate(items)}
        rows = await session.fetch_all(" UNION ALL ".join(parts), params, **given)
        return [_found(row for row in rows if row.item == item) for item in items]

    async def readonly(self, session: Session, items: list[int]) -> list[Found]:
        """Read in one read-only transaction."""
        async with session.transaction(readonly=True) as tx:
            return [_found(await tx.fetch_all(self.of(item).select, {"item": item})) for item in items]

    async def stream(self, session: Session, items: list[int]) -> list[Found]:
        """Read by a cursor on the server."""
        return [
            _found([row async for row in session.stream(self.of(item).select, {"item": item}, batch=20)])
            for item in items
        ]

    async def objects(self, session: Session, items: list[int]) -> list[Found]:
        """Read objects."""
        found = []
        async with session.orm(readonly=True) as opened:
            for item in items:
                shelf = self.of(item)
                entries = await opened.scalars(select(shelf.mapped).where(shelf.table.c.item == item))
                found.append(_found(entries))
        return found

    async def construct(self, session: Session, items: list[int], **given: Any) -> list[Found]:
        """Read by a construct of SQLAlchemy Core."""
        found = []
        for item in items:
            columns = self.of(item).table.c
            rows = await session.fetch_all(
                select(columns.tenant, columns.number).where(columns.item == item), **given
            )
            found.append(_found(rows))
        return found

    async def prepared(self, session: Session, items: list[int], **given: Any) -> list[Found]:
        """Read by a prepared statement."""
        found = []
        for item in items:
            statement = await session.prepare(self.of(item).select)
            found.append(_found(await statement.fetch_all({"item": item}, **given)))
        return found


def _found(rows: Iterable[Any]) -> Found:
    return monotonic(), [(row.tenant, row.number) for row in rows]


Write = Callable[[Entries, Session, list[Row]], Awaitable[None]]
Read = Callable[..., Awaitable[list[Found]]]

#: The ways, and how often each is taken.
WRITES: dict[Write, int] = {
    Entries.plain: 6,
    Entries.transaction: 3,
    Entries.begun: 1,
    Entries.function: 1,
    Entries.orm: 1,
}
READS: dict[Read, int] = {
    Entries.fetch: 8,
    Entries.readonly: 2,
    Entries.stream: 1,
    Entries.objects: 1,
    Entries.construct: 1,
    Entries.prepared: 1,
}
#: The same where reads are cached: the same items by several texts, alone and together.
CACHED_READS: dict[Read, int] = {
    Entries.fetch: 8,
    Entries.ordered: 3,
    Entries.through: 2,
    Entries.together: 4,
    Entries.prepared: 1,
    Entries.readonly: 1,
    Entries.stream: 1,
    Entries.objects: 1,
    Entries.construct: 1,
}
#: Those that read several items at once, as they were at one moment or one after the other.
SEVERAL: frozenset[Read] = frozenset({Entries.readonly, Entries.objects, Entries.together})
#: Those that take a level for a single call, and those of them whose answers can be cached.
LEVELLED: frozenset[Read] = frozenset(
    {
        Entries.fetch,
        Entries.ordered,
        Entries.through,
        Entries.together,
        Entries.construct,
        Entries.prepared,
    }
)
CACHEABLE: frozenset[Read] = LEVELLED - {Entries.construct}
