"""Cancellation at every suspension of every verb, on every engine: nothing leaks, nothing is mixed up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from router import Router
from router.events import CommitUnknown, TransactionCommitted, TransactionEvent
from router.transaction import Transaction
from tests.engines import TENANTS, Engine, Recorder
from tests.stepping import WAYS, Run, break_off, cleaned, stepping, traces

_marks = count(1)


class Base(DeclarativeBase):
    pass


class Stepped(Base):
    __tablename__ = "stepped"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    mark: Mapped[int]


READ = "SELECT tenant, mark FROM stepped WHERE mark IN (0, :mark) ORDER BY id"
WRITE = "INSERT INTO stepped (tenant, mark) VALUES ('acme', :mark)"


@pytest.fixture(scope="module", autouse=True)
def table(engine: Engine) -> None:
    """Create the table for each tenant; the row of mark 0 says whose it is."""

    async def make() -> None:
        async with engine.open(cluster=alone(engine)) as router:
            for tenant in TENANTS:
                async with router.session(tenant) as session:
                    await session.execute(
                        f"CREATE TABLE stepped (id {engine.key}, tenant VARCHAR(20), mark INT)"
                    )
                    await session.execute(f"INSERT INTO stepped (tenant, mark) VALUES ('{tenant}', 0)")

    asyncio.run(make())


def alone(engine: Engine, size: int = 1) -> dict[str, Any]:
    """Return the section of a cluster without replicas, so that all must share its few connections."""
    section: dict[str, Any] = {"connections": {"max": size}}
    return section if engine.dialect == "sqlite" else {**section, "replicas": []}


@asynccontextmanager
async def opened(engine: Engine, size: int = 1) -> AsyncIterator[Router]:
    """Open a router whose next user can only get what the last one left."""
    async with engine.open(cluster=alone(engine, size), defaults={"slow_query": "1h"}) as router:
        yield router


async def read(router: Router, mark: int, tenant: str = "acme") -> int:
    """Return how many rows of a mark a tenant has, and see that all that it gets are its own."""
    rows = await router.fetch_all(READ, {"mark": mark}, tenant=tenant, primary=True)
    assert {row.tenant for row in rows} == {tenant}, rows
    marks = [row.mark for row in rows]
    assert marks.count(0) == 1
    return len(marks) - 1


# --- what is broken off: each returns after writing as many rows as its entry says ------------------------


async def fetch_one(router: Router, mark: int) -> None:
    row = await router.fetch_one(READ, {"mark": mark}, tenant="acme", primary=True)
    assert row is not None
    assert row.tenant == "acme"


async def execute(router: Router, mark: int) -> None:
    await router.execute(WRITE, {"mark": mark}, tenant="acme")


async def execute_many(router: Router, mark: int) -> None:
    await router.execute_many(WRITE, [{"mark": mark}] * 3, tenant="acme")


async def execute_raw(router: Router, mark: int) -> None:
    await router.execute_raw(WRITE.replace(":mark", str(mark)), tenant="acme")


async def stream(router: Router, mark: int) -> None:
    async with aclosing(router.stream(READ, {"mark": mark}, tenant="acme", batch=1)) as rows:
        async for row in rows:
            assert row.tenant == "acme"


async def core(router: Router, mark: int) -> None:
    await router.execute(sa.insert(Stepped).values(tenant="acme", mark=mark), tenant="acme")


async def transaction(router: Router, mark: int) -> None:
    async with router.session("acme") as session, session.transaction() as tx:
        await tx.execute(WRITE, {"mark": mark})
        async with tx.savepoint():
            await tx.execute(WRITE, {"mark": mark})
        rows = await tx.fetch_all(READ, {"mark": mark})
        assert [row.tenant for row in rows] == ["acme"] * 3


async def by_hand(router: Router, mark: int) -> None:
    async with router.session("acme") as session:
        await session.begin()
        await session.execute(WRITE, {"mark": mark})
        await session.rollback()
        await session.begin()
        await session.execute(WRITE, {"mark": mark})
        await session.commit()


async def rolled_back(router: Router, mark: int) -> None:
    try:
        async with router.session("acme") as session, session.transaction() as tx:
            await tx.execute(WRITE, {"mark": mark})
            try:
                async with tx.savepoint():
                    await tx.execute(WRITE, {"mark": mark})
                    raise ZeroDivisionError
            except ZeroDivisionError:
                raise LookupError from None
    except LookupError:
        pass


async def run(router: Router, mark: int) -> None:
    async def work(tx: Transaction) -> None:
        await tx.execute(WRITE, {"mark": mark})

    async with router.session("acme") as session:
        await session.run(work)


async def orm(router: Router, mark: int) -> None:
    async with router.session("acme") as session, session.orm() as unit:
        unit.add(Stepped(tenant="acme", mark=mark))
        await unit.commit()
        found = await unit.scalars(sa.select(Stepped.tenant).where(Stepped.mark == mark))
        assert found.all() == ["acme"]


async def orm_undone(router: Router, mark: int) -> None:
    async with router.session("acme") as session, session.orm() as unit:
        unit.add(Stepped(tenant="acme", mark=mark))
        await unit.flush()
        await unit.rollback()


VERBS: dict[Callable[[Router, int], Awaitable[None]], tuple[int, bool]] = {
    # what it does: rows that it leaves, whether they are written in a transaction
    fetch_one: (0, False),
    execute: (1, False),
    execute_many: (3, False),
    execute_raw: (1, False),
    stream: (0, False),
    core: (1, False),
    transaction: (2, True),
    by_hand: (1, True),
    rolled_back: (0, True),
    run: (1, True),
    orm: (1, True),
    orm_undone: (0, True),
}
FEW = 200  # suspensions; more would mean that the loop below never ends


def check(done: Run, found: int, rows: int, transactional: bool, heard: Recorder, way: str) -> None:
    """See that a run ended as it must, and that what it wrote fits what was told."""
    told = heard.of(TransactionEvent)
    if done.error is None:
        assert not done.hit or way in ("timeout", "scope"), "the cancellation was swallowed"
        assert found == rows
        return
    assert done.hit, repr(done.error)
    assert isinstance(done.error, TimeoutError if way == "timeout" else asyncio.CancelledError), done.error
    if not transactional or any(isinstance(event, CommitUnknown) for event in told):
        assert found in (0, rows)
    else:
        committed = any(isinstance(event, TransactionCommitted) for event in told)
        assert found == (rows if committed else 0), told


async def step_through(
    engine: Engine,
    work: Callable[[Router, int], Awaitable[None]],
    way: str,
    router: Router | None = None,
) -> int:
    """Break ``work`` off at each suspension in turn, check all that must hold; return their number."""
    rows, transactional = VERBS[work]
    with traces() as left:
        for at in range(1, FEW):
            mark = next(_marks)
            async with _either(router, engine) as used:
                heard = Recorder(used)

                async def once(used: Router = used, mark: int = mark) -> None:
                    await work(used, mark)

                done = await break_off(once, at, way)
                await cleaned(used)
                assert not left.tasks(), f"after {at} suspensions: {left.tasks()}"
                found = await read(used, mark)
                check(done, found, rows, transactional, heard, way)
                assert await read(used, mark, "globex") == 0
                await cleaned(used)
            if not done.hit:
                return at - 1
    raise AssertionError(f"{work.__name__} never came to its end")


@asynccontextmanager
async def _either(router: Router | None, engine: Engine) -> AsyncIterator[Router]:
    if router is not None:
        yield router
    else:
        async with opened(engine) as cold:
            yield cold


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("work", VERBS, ids=lambda work: work.__name__)
async def test_any_await_may_be_cancelled(
    engine: Engine, work: Callable[[Router, int], Awaitable[None]], way: str
) -> None:
    """Broken off at any await, a verb leaves a sound pool, its own rows, and no trace (fault cases 37)."""
    with stepping():
        async with opened(engine, 1 + WAYS.index(way) % 2) as router:
            assert await read(router, 0) == 0
            assert await step_through(engine, work, way, router) >= 1
