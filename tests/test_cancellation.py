"""Cancellation at every suspension of every verb, on every engine: nothing leaks, nothing is mixed up."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from router import Router
from router.errors import RouterError
from router.events import CommitUnknown, ConnectionClosed, TransactionCommitted, TransactionEvent
from router.transaction import Transaction
from tests.engines import TENANTS, Engine, Recorder, only
from tests.orphans import long_read, until
from tests.stepping import WAYS, Run, break_off, cleaned, stepping, traces

_marks = count(1)
Work = Callable[[Router, int], Coroutine[Any, Any, None]]


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
    with stepping():
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


async def orm_failed(router: Router, mark: int) -> None:
    try:
        async with router.session("acme") as session, session.orm() as unit:
            unit.add(Stepped(tenant="acme", mark=mark))
            await unit.flush()
            raise LookupError
    except LookupError:
        pass


async def orm_inside(router: Router, mark: int) -> None:
    async with router.session("acme") as session, session.transaction() as tx:
        async with session.orm() as unit:
            unit.add(Stepped(tenant="acme", mark=mark))
            await unit.commit()
        await tx.execute(WRITE, {"mark": mark})


VERBS: dict[Work, tuple[int, bool]] = {
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
    orm_failed: (0, True),
    orm_inside: (2, True),
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
    work: Work,
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


# Where engine and verb are much like another, they are not broken off in every way.
FULL = (fetch_one, stream, transaction, orm)
CASES = [
    pytest.param(
        work,
        way,
        id=f"{work.__name__}-{way}",
        marks=() if way == "early" and work in FULL else only("sqlite", "postgresql-schema", "mariadb"),
    )
    for work in VERBS
    for way in WAYS
    if way in ("early", "late") or work in FULL
]


@pytest.mark.parametrize(("work", "way"), CASES)
async def test_any_await_may_be_cancelled(engine: Engine, work: Work, way: str) -> None:
    """Broken off at any await, a verb leaves a sound pool, its own rows, and no trace (fault case 37)."""
    with stepping():
        async with opened(engine, 1 + WAYS.index(way) % 2) as router:
            assert await read(router, 0) == 0
            assert await step_through(engine, work, way, router) >= 1


async def test_a_commit_that_is_cancelled_is_applied_and_told(engine: Engine) -> None:
    """Cancelled at the last await, the commit's: applied, and the connection stays (fault case 38)."""
    with stepping():
        async with opened(engine) as router:
            assert await read(router, 0) == 0
            for _ in range(2):  # the second meets a connection that has prepared its statements
                undisturbed = await break_off(lambda: run(router, -2), FEW, "early")
            heard, mark = Recorder(router), next(_marks)
            done = await break_off(lambda: run(router, mark), undisturbed.count, "early")
            assert isinstance(done.error, asyncio.CancelledError)
            assert len(heard.of(TransactionCommitted)) == 1
            assert await read(router, mark) == 1
            assert heard.of(ConnectionClosed) == []


async def lent(router: Router) -> None:
    """Return once a connection is lent."""
    while not any(pool.in_use for pool in router.status().pools):  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", ["early", "late"])
async def test_connecting_may_be_cancelled(engine: Engine, way: str) -> None:
    """Broken off anywhere in a cold start, no connection is lost (fault case 37)."""
    with stepping():
        assert await step_through(engine, fetch_one, way) >= 3


@pytest.mark.parametrize("way", WAYS)
async def test_waiting_for_a_connection_may_be_cancelled(engine: Engine, way: str) -> None:
    """Broken off in the queue, also just as its turn comes, a waiter loses no connection (fault case 37)."""

    async def queued(router: Router, mark: int) -> None:
        held = asyncio.Event()  # one suspension, however long a connection takes to open
        holding = asyncio.ensure_future(hold(router, held))
        try:
            await held.wait()
            await fetch_one(router, mark)
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.wait((holding,))

    async def hold(router: Router, held: asyncio.Event) -> None:
        async with router.session("acme") as session, session.transaction():
            held.set()
            for _ in range(1_000):
                if any(pool.waiting for pool in router.status().pools):
                    return
                await asyncio.sleep(0)

    VERBS[queued] = (0, False)
    with stepping():
        async with opened(engine) as router:
            assert await step_through(engine, queued, way, router) >= 2


async def test_closing_may_be_cancelled(engine: Engine) -> None:
    """Broken off anywhere, close() still cuts what is left and lets every task end (fault case 37)."""

    async def work(router: Router) -> None:
        async with router.session("acme").connection() as lease:
            await lease.run("fetch_all", long_read(engine), (), 60.0)

    with stepping(), traces() as left:
        for at in range(1, FEW):
            router = Router(engine.config(cluster=alone(engine)))
            await router.connect()
            assert await read(router, 0) == 0
            busy = asyncio.ensure_future(work(router))
            await lent(router)

            async def close(router: Router = router) -> int:
                return await router.close(grace=0.05)

            done = await break_off(close, at, "early")
            with pytest.raises((RouterError, asyncio.CancelledError)):
                await busy
            await cleaned(router)
            assert await router.close() == 1  # as the first call found: the one that was lent
            while left.tasks():
                await asyncio.wait(left.tasks())
            if engine.server is not None:
                await until(engine, 0)
            assert {each.size for each in router.status().pools} == {0}
            if not done.hit:
                assert (done.value, done.error) == (1, None)
                assert at > 1
                return
            assert isinstance(done.error, asyncio.CancelledError)


async def test_an_abandoned_stream_costs_its_connection_only(engine: Engine) -> None:
    """A loop left half-way, closed or just dropped, leaves no rows for the next user (fault case 39)."""
    async with opened(engine) as router:
        heard = Recorder(router)
        await router.execute_many(WRITE, [{"mark": -1}] * 50, tenant="acme")
        sql = "SELECT tenant, mark FROM stepped"
        with traces():
            async with aclosing(router.stream(sql, tenant="acme", batch=2)) as rows:
                async for row in rows:
                    assert row.tenant == "acme"
                    break
            await cleaned(router)
            assert await read(router, 0) == 0
            dropped = router.session("acme").stream(sql, batch=2)
            assert (await anext(dropped)).tenant == "acme"
            del dropped, rows, row
            gc.collect()
            await asyncio.sleep(0.01)  # the event loop closes a generator that is gone, in a task
            assert await read(router, 0) == 0
            await cleaned(router)
        assert [event.reason for event in heard.of(ConnectionClosed)].count("abandoned") == 2
        await router.execute("DELETE FROM stepped WHERE mark = -1", tenant="acme")


async def test_a_task_group_of_anyio_takes_all_its_tasks_down(engine: Engine) -> None:
    """One task fails, the group cancels the others at every await: pools are whole again (fault case 37)."""
    async with opened(engine, 2) as router:
        with traces():
            for works in (fetch_one, transaction, stream, orm):

                async def fail(works: Work = works) -> None:
                    for _ in range(3):
                        await works(router, next(_marks))
                    raise LookupError

                async def forever(works: Work = works) -> None:
                    while True:
                        await works(router, next(_marks))

                with pytest.raises(ExceptionGroup) as caught:
                    async with anyio.create_task_group() as group:
                        for _ in range(4):
                            group.start_soon(forever)
                        group.start_soon(fail)
                assert [type(each) for each in caught.value.exceptions] == [LookupError]
                await cleaned(router)
                assert await read(router, 0) == 0
                await cleaned(router)


@only("sqlite", "postgresql-schema", "mariadb")
def test_under_uvloop(engine: Engine) -> None:
    """The same holds on uvloop, whose tasks, sockets and timers are its own (fault case 37)."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed. Install it with: make setup")

    async def run_all() -> None:
        with stepping():
            for work in (fetch_one, transaction, stream, orm):
                for way in ("early", "late"):
                    async with opened(engine) as router:
                        assert await read(router, 0) == 0
                        await step_through(engine, work, way, router)
            await step_through(engine, fetch_one, "early")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_all())
