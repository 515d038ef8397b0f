"""What a cancelled or late statement leaves on the server: nothing. What is told of a commit is true."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from router import Router
from router.errors import RouterError, SerializationFailure, ServerError, StatementTimeout
from router.events import (
    CommitUnknown,
    ConnectionClosed,
    StatementsLeft,
    TransactionCommitted,
    TransactionRolledBack,
)
from tests.doubles import Server
from tests.doubles import opened as scripted
from tests.engines import POSTGRESQL, SERVED, Engine, Recorder, only
from tests.lateness import taking
from tests.orphans import LONG, SOON, long_read, until
from tests.stepping import cleaned, stepping, traces


async def becomes(condition: Callable[[], Any]) -> None:
    """Return once a condition holds."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.005)


@asynccontextmanager
async def alone(engine: Engine, size: int = 4) -> AsyncIterator[Router]:
    """Open a router without replicas."""
    async with engine.open(cluster={"replicas": [], "connections": {"max": size}}) as router:
        yield router


async def fetch(router: Router, sql: str) -> None:
    await router.fetch_all(sql, tenant="acme")


async def raw(router: Router, sql: str) -> None:
    await router.execute_raw(sql, tenant="acme")


async def transaction(router: Router, sql: str) -> None:
    async with router.session("acme") as session, session.transaction() as tx:
        await tx.fetch_all(sql)


async def stream(router: Router, sql: str) -> None:
    async with aclosing(router.stream(sql, tenant="acme")) as rows:
        async for _ in rows:
            pass


async def orm(router: Router, sql: str) -> None:
    async with router.session("acme") as session, session.orm() as unit:
        await unit.execute(sa.text(sql))


async def core(router: Router, sql: str) -> None:
    await router.fetch_all(sa.text(sql), tenant="acme")


VERBS = [fetch, raw, transaction, stream, orm, core]


@SERVED
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
async def test_a_cancelled_statement_ends_on_the_server_too(
    engine: Engine, verb: Callable[[Router, str], Awaitable[None]]
) -> None:
    """Whoever cancels a long statement does not leave it running as an orphan (fault cases 37, 39)."""
    async with alone(engine) as router:
        task = asyncio.ensure_future(verb(router, long_read(engine)))
        await until(engine, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(engine, 0)


@SERVED
async def test_a_late_statement_ends_on_the_server_too(engine: Engine) -> None:
    """A statement that ran out of its time, or into the caller's, is not left running."""
    async with alone(engine) as router:
        with pytest.raises(StatementTimeout):
            await router.fetch_all(long_read(engine), tenant="acme", timeout=0.3)
        await until(engine, 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await router.fetch_all(long_read(engine), tenant="acme")
        await until(engine, 0)
        async with router.session("acme") as session:
            with pytest.raises(StatementTimeout):
                async with session.transaction() as tx:
                    await tx.fetch_all(long_read(engine), timeout=0.3)
        await until(engine, 0)


@SERVED
async def test_what_runs_when_the_router_closes_ends_on_the_server(engine: Engine) -> None:
    """A connection that is cut at the end of the grace does not leave its statement running."""
    async with alone(engine) as router:
        task = asyncio.ensure_future(router.fetch_all(long_read(engine), tenant="acme"))
        await until(engine, 1)
        assert await router.close(grace=0.1) == 1
        with pytest.raises(RouterError):
            await task
        await until(engine, 0)


@only("mariadb")
async def test_a_storm_of_cancellations_opens_one_more_connection(engine: Engine) -> None:
    """Orphans are killed one after the other over one connection, and all are gone within a second or so."""
    many = 40
    async with alone(engine, many) as router:
        tasks = [asyncio.ensure_future(fetch(router, long_read(engine))) for _ in range(many)]
        await until(engine, many, 20.0)
        count = "SHOW GLOBAL STATUS LIKE 'Connections'"
        before = int((await asyncio.to_thread(engine.server.run, count)).split()[-1])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert router._pools is not None
        async with asyncio.timeout(SOON):
            while reaping := set(router._pools.reaper._tasks):
                await asyncio.wait(reaping)
        after = int((await asyncio.to_thread(engine.server.run, count)).split()[-1])
        assert after - before <= 3  # and the one that asks
        await until(engine, 0)


@only("mariadb")
async def test_a_session_is_killed_only_on_its_own_server(engine: Engine) -> None:
    """The number of a session means nothing on another server, nor after a restart of its own."""
    async with (
        alone(engine) as router,
        engine.open() as other,
        router.session("acme").connection() as lease,
        router.session("acme").connection() as here,
        other.session("acme").connection(readonly=True) as elsewhere,
    ):
        victim = lease.connection
        await elsewhere.connection.kill(victim, 0.0)
        await here.connection.kill(victim, 10.0**9)
        assert await lease.run("fetch_all", "SELECT 1", (), 5.0)
        await here.connection.kill(victim, 0.0)
        await here.connection.kill(victim, 0.0)  # gone by now: no error
        with pytest.raises(RouterError):
            await lease.run("fetch_all", "SELECT 1", (), 5.0)


@only("mariadb")
async def test_a_kill_that_fails_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server takes no further connection, an event says that statements are left to it."""
    async with alone(engine) as router:
        heard = Recorder(router)
        task = asyncio.ensure_future(fetch(router, long_read(engine)))
        await until(engine, 1)

        async def refuse(*_: object) -> None:
            raise ConnectionRefusedError

        monkeypatch.setattr(type(router._backends["main"].driver), "connect", refuse)
        task.cancel()
        await asyncio.wait((task,))
        await becomes(lambda: heard.of(StatementsLeft))
        (told,) = heard.of(StatementsLeft)
        assert (told.count, told.error) == (1, "ConnectionLost")
        monkeypatch.undo()
        mine = f"info LIKE '%{engine.prefix} */%' AND id <> connection_id()"
        left = engine.server.run(f"SELECT id FROM information_schema.processlist WHERE {mine}")
        engine.server.run(f"KILL {left}")


@only("sqlite")
async def test_sqlite_interrupts_what_is_cancelled(engine: Engine) -> None:
    """A cancelled or late statement stops in its thread, which ends with its connection."""
    before = threading.active_count()
    async with engine.open() as router:
        task = asyncio.ensure_future(router.fetch_all(engine.sleep(LONG), tenant="acme", primary=True))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(StatementTimeout):
            await router.fetch_all(engine.sleep(LONG), tenant="acme", primary=True, timeout=0.1)
        await becomes(lambda: threading.active_count() <= before)


@only("sqlite")
async def test_what_sqlite_has_not_begun_is_not_begun_after_a_cancellation(engine: Engine) -> None:
    """A statement that waits for the thread and is cancelled meanwhile is left out."""
    async with engine.open() as router, router.session("acme").connection() as lease:
        held: Any = lease.connection.driver_connection
        gate = threading.Event()
        first = asyncio.ensure_future(held._execute(gate.wait, 10))
        ran: list[int] = []
        second = asyncio.ensure_future(lease.connection._call(None, lambda _: ran.append(1)))  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first
        await lease.connection.control("SELECT 1", 5.0)
        assert not ran


@POSTGRESQL
async def test_a_cancellation_never_hits_the_next_statement(engine: Engine) -> None:
    """PostgreSQL cancels by connection, not by statement: no other task's statement is ever cancelled."""
    async with alone(engine, 3) as router:
        stop = asyncio.Event()

        async def neighbour() -> int:
            done = 0
            while not stop.is_set():
                row = await router.fetch_one("SELECT pg_sleep(0.002), 'globex' AS tenant", tenant="globex")
                assert row is not None
                assert row.tenant == "globex"
                done += 1
            return done

        neighbours = [asyncio.ensure_future(neighbour()) for _ in range(3)]
        for _ in range(4):
            tasks = [asyncio.ensure_future(fetch(router, "SELECT pg_sleep(0.02)")) for _ in range(25)]
            for number, task in enumerate(tasks):
                await asyncio.sleep(0.001 * (number % 5))
                task.cancel()
            await asyncio.wait(tasks)
        stop.set()
        assert min(await asyncio.gather(*neighbours)) > 0  # raises if one was cancelled


# --- commit ----------------------------------------------------------------------------------------------


async def committing(router: Router) -> None:
    async with router.session("acme") as session, session.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")


async def reach(server: Server, text: str) -> None:
    """Return once a call of a verb is under way."""
    await becomes(lambda: any(each.calls[-1:] == [text] for each in server.connections))


async def test_a_cancelled_commit_waits_for_its_answer(server: Server) -> None:
    """Once the answer is there the cancellation goes on; the connection serves on (fault case 38)."""
    async with scripted() as router:
        heard = Recorder(router)
        answer = server.block("commit")
        task = asyncio.ensure_future(committing(router))
        await reach(server, "commit")
        for _ in range(3):  # once or often
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 3
        assert server.count("COMMIT") == 1
        assert (len(heard.of(TransactionCommitted)), heard.of(ConnectionClosed)) == (1, [])


@pytest.mark.timed
async def test_a_cancelled_commit_without_an_answer_is_unknown_soon(server: Server) -> None:
    """No answer within a second: the cancellation goes on, the outcome is told as unknown (fault case 38)."""
    async with scripted() as router:
        heard = Recorder(router)
        server.block("commit")
        session = router.session("acme")
        await session.begin()
        await session.execute("INSERT INTO t VALUES (1)")
        task = asyncio.ensure_future(session.commit())
        await reach(server, "commit")
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert 0.9 <= time.monotonic() - started < SOON
        assert len(heard.of(CommitUnknown)) == 1
        assert [event.reason for event in heard.of(ConnectionClosed)] == ["cancelled"]
        assert session.wrote


@pytest.mark.timed
async def test_the_deadline_of_a_commit_is_not_held_back(server: Server) -> None:
    """A cancelled commit never outlives its own limit: the shorter of the two ends the wait."""
    async with scripted(defaults={"timeouts": {"statement": "200ms"}}) as router:
        heard = Recorder(router)
        server.block("commit")
        task = asyncio.ensure_future(committing(router))
        await reach(server, "commit")
        async with taking(0.9):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(heard.of(CommitUnknown)) == 1


async def test_a_refused_commit_that_was_cancelled_is_a_rollback(server: Server) -> None:
    """The server answers with an error: the cancellation goes on, and nothing was applied."""
    async with scripted() as router:
        heard = Recorder(router)
        answer = server.block("commit")
        server.faults[-1].error = SerializationFailure("conflict")
        task = asyncio.ensure_future(committing(router))
        await reach(server, "commit")
        task.cancel()
        await asyncio.sleep(0)
        answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [event.error for event in heard.of(TransactionRolledBack)] == ["CancelledError"]
        assert not heard.of(CommitUnknown)


async def test_a_scope_that_cancels_again_and_again_does_not_break_a_commit_off(server: Server) -> None:
    """anyio cancels at every turn of the loop; the commit is waited for all the same (fault case 38)."""
    async with scripted() as router:
        heard = Recorder(router)
        answer = server.block("commit")
        async with anyio.create_task_group() as group:
            group.start_soon(committing, router)
            await reach(server, "commit")
            group.cancel_scope.cancel()
            asyncio.get_running_loop().call_later(0.05, answer.set)
        assert len(heard.of(TransactionCommitted)) == 1


async def test_a_cancelled_write_counts_as_written(server: Server) -> None:
    """A write that was broken off may have been applied: the session reads on where it would be seen."""
    async with scripted() as router:
        session = router.session("acme")
        server.block("execute")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await session.execute("INSERT INTO t VALUES (1)")
        assert session.wrote


# --- whatever is met in the middle of a call is not used again ------------------------------------------


@pytest.mark.parametrize(
    "verb", ["bind", "fetch_all", "begin", "execute", "savepoint", "release", "rollback"]
)
async def test_a_connection_that_is_cancelled_at_work_is_closed(server: Server, verb: str) -> None:
    """Between sending and the whole answer a connection belongs to nobody else any more (fault case 37)."""

    async def work(router: Router) -> None:
        async with router.session("acme") as session:
            await session.fetch_all("SELECT 1", primary=True)
            async with session.transaction() as tx:
                async with tx.savepoint():
                    await tx.execute("INSERT INTO t VALUES (1)")
                raise LookupError

    async with scripted(replicas=0, connections={"max": 1}) as router:
        heard = Recorder(router)
        await router.fetch_all("SELECT 1", tenant="globex")
        server.block(verb)
        task = asyncio.ensure_future(work(router))
        await reach(server, verb)
        await asyncio.sleep(0.01)  # blocked by now
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [event.reason for event in heard.of(ConnectionClosed)] == ["cancelled"]
        await cleaned(router)


# --- a driver that raises, at every call it gets ---------------------------------------------------------


CALLS = ("connect", "bind", "begin", "fetch_all", "execute", "savepoint", "release", "rollback", "commit")


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), ServerError("no"), TimeoutError()])
async def test_any_call_of_the_driver_may_fail(server: Server, verb: str, error: Exception) -> None:
    """Whatever call fails, and however, no connection stays lent and the next user is served."""
    with stepping():
        async with scripted(replicas=0, connections={"max": 1}) as router:
            with traces():
                for _ in range(2):  # the second on a connection that is there already
                    server.fail(verb, error, breaks=isinstance(error, OSError), times=5)
                    with suppress(RouterError):
                        async with router.session("acme") as session:
                            await session.fetch_all("SELECT 1")
                    with suppress(RouterError, LookupError):
                        async with router.session("globex") as session, session.transaction() as tx:
                            await tx.fetch_all("SELECT 1")
                            async with tx.savepoint():
                                await tx.execute("INSERT INTO t VALUES (1)")
                            if verb == "rollback":
                                raise LookupError
                    server.faults.clear()
                    await cleaned(router)
                    assert len(await router.fetch_all("SELECT 1", tenant="acme")) == 1
                    await cleaned(router)
                    assert len(server.open) <= 1
