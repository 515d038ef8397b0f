"""The table of a history, and every way of the library to write to it and to read it."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Identity, Integer, MetaData, String, Table, select
from sqlalchemy.orm import registry

from router import Router, RouterError
from router.session import Session

#: What a read found: when it ended, and the rows: (tenant, number).
Found = tuple[float, list[tuple[str, int]]]


class Row(NamedTuple):
    """Hold what is written: a number of an item."""

    item: int
    number: int


class Entries:
    """Write and read rows (tenant, item, number); nothing keeps a number from being there twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.insert = f"INSERT INTO {name} (tenant, item, number) VALUES (:tenant, :item, :number)"
        self.select = f"SELECT tenant, number FROM {name} WHERE item = :item"
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

    def values(self, tenant: str, rows: list[Row]) -> list[dict[str, Any]]:
        """Return the parameters of some rows."""
        return [{"tenant": tenant, "item": row.item, "number": row.number} for row in rows]

    # --- writing -----------------------------------------------------------------------------------------

    async def plain(self, session: Session, rows: list[Row]) -> None:
        """Write one row by a statement of its own, several by one for all."""
        values = self.values(session.tenant, rows)
        if len(rows) == 1:
            await session.execute(self.insert, values[0])
        else:
            await session.execute_many(self.insert, values)

    async def transaction(self, session: Session, rows: list[Row]) -> None:
        """Write in a transaction, and look at it before the commit."""
        async with session.transaction() as tx:
            for values in self.values(session.tenant, rows):
                await tx.execute(self.insert, values)
            await tx.fetch_all(self.select, {"item": rows[0].item})

    async def begun(self, session: Session, rows: list[Row]) -> None:
        """Write between begin() and commit()."""
        await session.begin()
        try:
            await self.plain(session, rows)
        except BaseException:
            with suppress(RouterError):  # a connection that is lost is rolled back already
                await session.rollback()
            raise
        await session.commit()

    async def function(self, session: Session, rows: list[Row]) -> None:
        """Write in a function that is run again after a conflict."""

        async def work(tx: Any) -> None:
            await tx.execute_many(self.insert, self.values(session.tenant, rows))

        await session.run(work)

    async def orm(self, session: Session, rows: list[Row]) -> None:
        """Write objects."""
        async with session.orm() as opened:
            opened.add_all(self._entry(**values) for values in self.values(session.tenant, rows))

    def _entry(self, **values: Any) -> Any:
        entry = self.mapped()
        for key, value in values.items():
            setattr(entry, key, value)
        return entry

    # --- reading -----------------------------------------------------------------------------------------

    async def fetch(self, session: Session, items: list[int], **level: Any) -> list[Found]:
        """Read each item by a statement of its own."""
        found = []
        for item in items:
            rows = await session.fetch_all(self.select, {"item": item}, **level)
            found.append(_found(rows))
        return found

    async def readonly(self, session: Session, items: list[int]) -> list[Found]:
        """Read in one read-only transaction."""
        found = []
        async with session.transaction(readonly=True) as tx:
            for item in items:
                rows = await tx.fetch_all(self.select, {"item": item})
                found.append(_found(rows))
        return found

    async def stream(self, session: Session, items: list[int]) -> list[Found]:
        """Read by a cursor on the server."""
        return [
            _found([row async for row in session.stream(self.select, {"item": item}, batch=20)])
            for item in items
        ]

    async def objects(self, session: Session, items: list[int]) -> list[Found]:
        """Read objects."""
        found = []
        async with session.orm(readonly=True) as opened:
            for item in items:
                entries = await opened.scalars(select(self.mapped).where(self.table.c.item == item))
                found.append(_found(entries))
        return found

    async def construct(self, session: Session, items: list[int], **level: Any) -> list[Found]:
        """Read by a construct of SQLAlchemy Core."""
        columns = self.table.c
        found = []
        for item in items:
            rows = await session.fetch_all(
                select(columns.tenant, columns.number).where(columns.item == item), **level
            )
            found.append(_found(rows))
        return found

    async def prepared(self, session: Session, items: list[int], **level: Any) -> list[Found]:
        """Read by a prepared statement."""
        statement = await session.prepare(self.select)
        found = []
        for item in items:
            rows = await statement.fetch_all({"item": item}, **level)
            found.append(_found(rows))
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
#: Those that take a level for a single call.
LEVELLED: frozenset[Read] = frozenset({Entries.fetch, Entries.construct, Entries.prepared})
