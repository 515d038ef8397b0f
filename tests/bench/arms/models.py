"""The tables as SQLAlchemy sees them, and the same statements as constructs; shared by all ORM arms."""

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from tests.bench import texts


class Base(DeclarativeBase):
    """Registry of the models."""


class Plan(Base):
    """A row of ``plans``."""

    __tablename__ = "plans"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    seats: Mapped[int]


class Counter(Base):
    """A row of ``counters``."""

    __tablename__ = "counters"
    id: Mapped[int] = mapped_column(primary_key=True)
    seats: Mapped[int]


class Bulk(Base):
    """A row of ``bulk``."""

    __tablename__ = "bulk"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


_OTHER = aliased(Plan)


async def read(session: Any, key: int) -> None:
    """Read one object."""
    (await session.execute(select(Plan).where(Plan.id == key))).scalar_one()


async def write(session: Any, key: int) -> None:
    """Update one row; the caller commits."""
    await session.execute(
        update(Counter)
        .where(Counter.id == key)
        .values(seats=Counter.seats + 1)
        .execution_options(synchronize_session=False)
    )


async def look(session: Any, key: int) -> None:
    """Read one column of the row that is written."""
    (await session.execute(select(Counter.seats).where(Counter.id == key))).scalar_one()


async def three(session: Any, key: int) -> None:
    """Run the three statements of the transaction; the caller commits."""
    await look(session, key)
    await write(session, key)
    await look(session, key)


async def rows(session: Any, count: int) -> None:
    """Read ``count`` objects."""
    (await session.execute(select(Plan).where(Plan.id <= count))).scalars().all()


async def insert_many(session: Any) -> None:
    """Insert the bulk rows; the caller commits."""
    await session.execute(insert(Bulk), texts.BULK_PARAMS)


async def stream(session: Any, times: int) -> None:
    """Stream plain rows, not objects: the session would keep those."""
    chosen = select(Plan.id, Plan.name, Plan.seats).join(_OTHER, _OTHER.id <= times)
    result = await session.stream(chosen.execution_options(yield_per=texts.BATCH))
    async for _ in result:
        pass
