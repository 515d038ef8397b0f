"""Drivers when things go wrong: time runs out, connections die, schemas change under prepared statements."""

import asyncio
import contextlib
import secrets
from typing import Any

import pytest

from router import Router, errors, predicates
from router.drivers import mysql_errors
from router.events import RetryScheduled
from tests.engines import POSTGRESQL, SERVED, Engine, Recorder, only


async def test_a_statement_timeout(router: Router, engine: Engine, heard: Recorder) -> None:
    """A read that takes too long is given up within its timeout, once; its connection is not lent again."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(errors.StatementTimeout) as caught:
        await router.fetch_all(engine.sleep(3), tenant="acme", readonly=True, timeout=0.3)
    assert 0.25 < loop.time() - started < 1.5
    assert predicates.is_timeout(caught.value)
    assert heard.of(RetryScheduled) == []
    assert await router.fetch_value("SELECT 42", tenant="acme") == 42


async def test_a_write_that_times_out_has_an_unknown_outcome(
    router: Router, engine: Engine, items: str
) -> None:
    """Without an answer an autocommit write may have been applied: CommitOutcomeUnknown, no repeat."""
    slow = engine.sleep(2)
    heard = Recorder(router)
    with pytest.raises(errors.CommitOutcomeUnknown) as caught:
        await router.execute(
            f"INSERT INTO {items} (amount) SELECT 1 FROM ({slow}) AS slow", tenant="acme", timeout=0.2
        )
    assert not predicates.is_retryable(caught.value)
    assert heard.of(RetryScheduled) == []
    assert heard.last.attempts == 1


async def test_a_timeout_ends_the_transaction(router: Router, engine: Engine, items: str) -> None:
    """After a statement was given up nothing more runs in the transaction, and nothing of it stays."""
    async with router.session("acme") as session:
        with pytest.raises(errors.TransactionAborted):
            async with session.transaction() as tx:
                await tx.execute(f"INSERT INTO {items} (amount) VALUES (1)")
                with pytest.raises(errors.StatementTimeout):
                    await tx.execute(
                        f"INSERT INTO {items} (amount) SELECT 1 FROM ({engine.sleep(2)}) AS slow", timeout=0.1
                    )
                await tx.execute(f"INSERT INTO {items} (amount) VALUES (2)")
        assert await session.fetch_value(f"SELECT count(*) FROM {items}", primary=True, timeout=5) == 0


# --- a connection that dies ------------------------------------------------------------------------------


def kill(engine: Engine, server: Any, marker: str) -> bool:
    """Kill the connection whose statement holds the marker; tell whether there was one."""
    if engine.dialect == "postgresql":
        # asleep, not only active: while it is prepared nothing has been sent yet, which may be repeated
        found = server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE wait_event = 'PgSleep' AND query LIKE '%{marker}%'"
        )
        return bool(found.strip())
    found = server.run(
        "SELECT id FROM information_schema.processlist WHERE user LIKE 'router%' "
        f"AND info LIKE '%{marker}%' AND id <> connection_id()"
    )
    for number in found.split():
        server.run(f"KILL {number}")
    return bool(found.split())


async def kill_once(engine: Engine, servers: list[Any], marker: str) -> None:
    """Kill the first connection seen to run the statement, wherever it is."""
    for _ in range(200):
        for server in servers:
            if await asyncio.to_thread(kill, engine, server, marker):
                return
        await asyncio.sleep(0.02)
    pytest.fail("the statement was never seen running")


def slow(engine: Engine, marker: str, seconds: float) -> str:
    """Return a read that takes a while and can be found by its marker."""
    if engine.dialect == "postgresql":
        return f"SELECT 7 AS {marker} FROM pg_sleep({seconds})"
    return f"SELECT 7 + 0 * SLEEP({seconds}) AS {marker}"


@SERVED
async def test_a_read_whose_connection_is_killed_is_made_elsewhere(
    router: Router, engine: Engine, heard: Recorder
) -> None:
    """The read succeeds on another replica, or on the primary where there is none; one retry is told."""
    marker = f"kill_{secrets.token_hex(3)}"
    killer = asyncio.create_task(kill_once(engine, engine.server.replicas, marker))
    assert await router.fetch_value(slow(engine, marker, 0.7), tenant="acme", readonly=True, timeout=20) == 7
    await killer
    (retry,) = heard.of(RetryScheduled)
    assert retry.node is not None
    assert retry.node.name in engine.replicas
    assert heard.last.node is not retry.node
    assert heard.last.attempts == 2
    assert heard.last.role.value == ("replica" if len(engine.replicas) > 1 else "primary")
    assert (heard.last.reason == "replica_failed") == (len(engine.replicas) == 1)


@SERVED
async def test_a_write_whose_connection_is_killed_is_never_repeated(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """CommitOutcomeUnknown, one attempt; declared idempotent it is run again."""
    marker = f"kill_{secrets.token_hex(3)}"
    sql = f"INSERT INTO {items} (amount) SELECT z.{marker} FROM ({slow(engine, marker, 0.7)}) AS z"
    killer = asyncio.create_task(kill_once(engine, [engine.server.primary], marker))
    with pytest.raises(errors.CommitOutcomeUnknown) as caught:
        await router.execute(sql, tenant="acme", timeout=20)
    await killer
    assert predicates.is_connection_lost(caught.value)
    assert (heard.last.attempts, heard.of(RetryScheduled)) == (1, [])
    assert (caught.value.tenant, caught.value.node) == ("acme", "primary")
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 0
    killer = asyncio.create_task(kill_once(engine, [engine.server.primary], marker))
    await router.execute(sql, tenant="acme", timeout=20, idempotent=True)
    await killer
    assert await router.fetch_value(f"SELECT sum(amount) FROM {items}", tenant="acme", primary=True) == 7


@SERVED
async def test_a_write_declared_as_read_is_not_repeated_either(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A declaration that is plainly wrong does not make a write safe to repeat."""
    marker = f"kill_{secrets.token_hex(3)}"
    sql = f"INSERT INTO {items} (amount) SELECT z.{marker} FROM ({slow(engine, marker, 0.7)}) AS z"
    killer = asyncio.create_task(kill_once(engine, [engine.server.primary], marker))
    with pytest.raises(errors.CommitOutcomeUnknown):
        await router.execute(sql, tenant="acme", timeout=20, readonly=True, consistency="strong")
    await killer
    assert (heard.last.attempts, heard.of(RetryScheduled)) == (1, [])


@SERVED
async def test_a_transaction_whose_connection_is_killed_can_be_run_again(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """Before the commit was sent everything is undone, so run() repeats the whole and succeeds."""
    marker = f"kill_{secrets.token_hex(3)}"
    runs = 0

    async def work(tx: Any) -> None:
        nonlocal runs
        runs += 1
        await tx.execute(f"INSERT INTO {items} (amount) VALUES (1)")
        await tx.fetch_value(slow(engine, marker, 0.7 if runs == 1 else 0))

    killer = asyncio.create_task(kill_once(engine, [engine.server.primary], marker))
    await router.session("acme", timeout=20).run(work)
    await killer
    assert (runs, len(heard.of(RetryScheduled))) == (2, 1)
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 1


@SERVED
async def test_idle_connections_that_died_are_not_noticed_by_the_caller(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """After the server closed every idle connection reads and writes still succeed."""
    await router.fetch_value("SELECT 1", tenant="acme")
    for server in engine.server.servers:
        if engine.dialect == "postgresql":
            server.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename IN ('router_app', 'router_ro')"
            )
        else:
            for number in server.run(
                "SELECT id FROM information_schema.processlist WHERE user IN ('router_app', 'router_ro')"
            ).split():
                with contextlib.suppress(RuntimeError):  # gone by itself meanwhile
                    server.run(f"KILL {number}")
    await asyncio.sleep(0.05)
    assert await router.fetch_value("SELECT 42", tenant="acme") == 42
    assert await router.execute(f"INSERT INTO {items} (amount) VALUES (1)", tenant="acme")
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 1


@POSTGRESQL
async def test_a_switchover_costs_no_read_and_no_transaction(
    router: Router, engine: Engine, items: str
) -> None:
    """All connections are ended at once, again and again: reads and session.run get through.

    (fault cases 1, 2, 10)
    """
    await router.execute(f"INSERT INTO {items} (amount) VALUES (0)", tenant="acme")
    await engine.settle()
    done = asyncio.Event()
    written = 0
    turns = [0] * 6

    async def add(tx: Any) -> None:
        await tx.execute(f"UPDATE {items} SET amount = amount + 1")

    async def work(number: int, writer: bool) -> None:
        nonlocal written
        while not done.is_set():
            if writer:
                with contextlib.suppress(errors.CommitOutcomeUnknown):
                    await router.session("acme").run(add)
                    written += 1
            else:
                assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme") == 1
            turns[number] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(work(number, number < 2))
        for _ in range(3):
            begun = list(turns)
            await asyncio.sleep(0.1)
            # the next round comes when all are past the last one: each request has three attempts
            while any(now == then for now, then in zip(turns, begun, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for server in engine.server.servers:
                await asyncio.to_thread(
                    server.run,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'router_%'",
                )
        done.set()
    amount = await router.fetch_value(f"SELECT amount FROM {items}", tenant="acme", primary=True)
    assert written <= amount <= written + 6, "each of three rounds may leave one outcome of each writer open"


def test_a_connection_closed_between_two_packets() -> None:
    """aiomysql then meets None in place of its reader: lost, outcome unknown, not a wrong parameter."""
    with pytest.raises(AttributeError) as caught:
        None.readexactly  # type: ignore[attr-defined]  # noqa: B018
    error = mysql_errors.translate(caught.value)
    assert isinstance(error, errors.ConnectionLost)
    assert error.sent is errors.Sent.UNKNOWN


# --- prepared statements and schema changes --------------------------------------------------------------


async def test_a_schema_change_under_prepared_statements(router: Router, engine: Engine, items: str) -> None:
    """A table altered by somebody else is read with its new shape; no stale plan reaches the caller."""
    sql = f"SELECT * FROM {items}"
    async with router.session("acme") as session, engine.open() as other:
        await session.execute(f"INSERT INTO {items} (amount) VALUES (1)")
        for number in range(3):
            await other.execute(
                f"ALTER TABLE {items} ADD COLUMN c{number} INT DEFAULT {number}", tenant="acme"
            )
            row = await session.fetch_one(sql, primary=True)
            assert row is not None
            assert row[f"c{number}"] == number
            result = await session.execute(sql, primary=True)
            assert [column.name for column in result.columns][-1] == f"c{number}"


@POSTGRESQL
async def test_statements_cancelled_by_the_server(router: Router) -> None:
    """A statement that somebody else cancelled is told apart from our own timeout."""
    async with router.session("acme") as session:
        with pytest.raises(errors.StatementCancelled) as caught:
            async with session.transaction() as tx:
                await tx.execute("SET LOCAL statement_timeout = 30")
                await tx.fetch_value("SELECT 1 FROM pg_sleep(3)")
    assert caught.value.code == "57014"


@only("mariadb")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, 2], {"a": 1}, object()])
async def test_values_that_mysql_cannot_hold_are_refused(router: Router, value: object) -> None:
    """What would be written as something else is ParameterError, before anything is sent."""
    with pytest.raises(errors.ParameterError):
        await router.fetch_value("SELECT :v", {"v": value}, tenant="acme")
    assert (
        await router.fetch_value("SELECT :v", {"v": bytearray(b"\xff\x00'")}, tenant="acme") == b"\xff\x00'"
    )
