"""What is told of transactions and of writes, and what is done after a commit, on every engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from router import Router, acting
from router.errors import CommitOutcomeUnknown, ConnectionLost, RouterError, TransactionStateError, UsageError
from router.events import (
    RequestFinished,
    RequestStarted,
    TransactionBegun,
    TransactionCommitted,
    TransactionRolledBack,
    WriteCommitted,
)
from router.topology import Role
from router.transaction import Transaction
from tests.doubles import Server, opened
from tests.engines import POSTGRESQL, Engine, Recorder, only


def writes(heard: Recorder) -> list[tuple[set[str], int]]:
    """Return tables and number of statements of each write that was told."""
    return [(set(event.tables), event.statements) for event in heard.of(WriteCommitted)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# --- begin -----------------------------------------------------------------------------------------------


async def test_a_transaction_is_told_when_it_begins(router: Router, heard: Recorder, items: str) -> None:
    """With where it runs and why, what it waited for, and the number that all of its events have."""
    async with router.session("acme") as session, session.transaction() as tx:
        (begun,) = heard.of(TransactionBegun)
        await tx.execute(f"INSERT INTO {items} (name, amount) VALUES ('a', 1)")
    (committed,) = heard.of(TransactionCommitted)
    assert (begun.role, begun.reason, begun.statements) == (Role.PRIMARY, "transaction", 0)
    assert begun.unit == committed.unit == heard.last.unit > 0
    assert 0 <= begun.waits.total <= begun.duration <= committed.duration


async def test_each_transaction_of_the_orm_is_told_when_it_begins(
    router: Router, heard: Recorder, items: str
) -> None:
    """Several may follow one another on the same connection; only the first had to wait for it."""
    async with router.session("acme") as session, session.orm() as orm:
        for number in (1, 2):
            await orm.execute(sa.text(f"INSERT INTO {items} (name, amount) VALUES ('n{number}', 1)"))
            await orm.commit()
    first, second = heard.of(TransactionBegun)
    assert first.unit == second.unit == heard.last.unit
    assert second.waits.total == 0.0 and second.duration >= 0
    assert len(heard.of(TransactionCommitted)) == 2


# --- writes that commit by themselves --------------------------------------------------------------------


async def test_a_write_is_told_once_it_is_committed(router: Router, heard: Recorder, items: str) -> None:
    """After the request that made it, with the table that its text names and who acted."""
    heard.clear()
    with acting(actor="alice"):
        await router.execute(f"INSERT INTO {items} (name, amount) VALUES ('a', 1)", tenant="acme")
    kinds = [type(event) for event in heard.events if isinstance(event, RequestFinished | WriteCommitted)]
    assert kinds == [RequestFinished, WriteCommitted]
    (event,) = heard.of(WriteCommitted)
    assert (event.tenant, event.schema, event.node, event.tables, event.statements, event.unit) == (
        "acme", None, heard.last.node, {items}, 1, 0,
    )  # fmt: skip
    assert event.context is not None and event.context.actor == "alice"


async def test_every_way_to_write_is_told(router: Router, heard: Recorder, items: str) -> None:
    """Rows, many rows, DDL, texts that are not looked at, SQLAlchemy's constructs."""
    heard.clear()
    session = router.session("acme")
    rows = [{"name": name, "amount": 1} for name in ("a", "b")]
    await session.execute_many(f"INSERT INTO {items} (name, amount) VALUES (:name, :amount)", rows)
    await session.execute(f"CREATE TABLE {items}_more (id INTEGER PRIMARY KEY)")
    await session.execute_raw(f"INSERT INTO {items}_more VALUES (1)")
    table = sa.table(items, sa.column("name"), sa.column("amount"))
    await session.execute(sa.update(table).values(amount=2).where(table.c.name == "a"))
    await session.fetch_all(sa.select(table.c.name))
    assert writes(heard) == [({items}, 1), (set(), 1), (set(), 1), ({items}, 1)]


async def test_what_reads_is_no_write(router: Router, engine: Engine, heard: Recorder, items: str) -> None:
    """Not on a replica, not on the primary, not with a lock, not in a transaction, not as a stream."""
    session = router.session("acme")
    heard.clear()
    await session.fetch_all(f"SELECT count(*) FROM {items}", primary=True)
    await session.fetch_all(f"SELECT * FROM {items}")
    if engine.id != "sqlite":
        await session.fetch_all(f"SELECT * FROM {items} FOR UPDATE")
    async with session.transaction() as tx:
        await tx.fetch_all(f"SELECT count(*) FROM {items}")
    async with session.transaction(readonly=True) as tx:
        await tx.fetch_all(f"SELECT * FROM {items}")
    assert [row async for row in session.stream(f"SELECT * FROM {items}")] == []
    async with session.orm() as orm:
        await orm.execute(sa.text(f"SELECT * FROM {items}"))
    async with session.orm(readonly=True) as orm:
        await orm.execute(sa.text(f"SELECT count(*) FROM {items}"))
    assert writes(heard) == []


async def test_a_write_that_fails_is_not_told(router: Router, heard: Recorder, items: str) -> None:
    """By itself or in a transaction that is rolled back for it."""
    text = f"INSERT INTO {items} (name, amount) VALUES ('a', 1)"
    await router.execute(text, tenant="acme")
    heard.clear()
    with pytest.raises(RouterError):
        await router.execute(text, tenant="acme")
    with pytest.raises(RouterError):
        async with router.session("acme").transaction() as tx:
            await tx.execute(text)
    assert writes(heard) == []
    assert len(heard.of(TransactionRolledBack)) == 1


@POSTGRESQL
async def test_a_function_that_writes_is_told_as_one_that_may(router: Router, heard: Recorder) -> None:
    """The text does not say what it writes; a function that the database calls stable is a read."""
    for kind in ("volatile", "stable"):
        text = f"CREATE OR REPLACE FUNCTION told_{kind}() RETURNS int {kind} LANGUAGE sql AS 'SELECT 1'"
        await router.execute(text, tenant="acme")
    heard.clear()
    await router.fetch_value("SELECT told_stable()", tenant="acme")
    await router.fetch_value("SELECT told_volatile()", tenant="acme")
    assert writes(heard) == [(set(), 1)]


# --- writes in a transaction -----------------------------------------------------------------------------


async def test_a_transaction_is_one_write(router: Router, heard: Recorder, items: str) -> None:
    """With the tables of all its statements that write, after its commit."""
    session = router.session("acme")
    await session.execute(f"CREATE TABLE {items}_log (name VARCHAR(50))")
    heard.clear()
    async with session.transaction() as tx:
        for name in ("a", "b"):
            await tx.execute(f"INSERT INTO {items} (name, amount) VALUES (:name, 1)", {"name": name})
        await tx.execute_many(f"INSERT INTO {items}_log VALUES (:name)", [{"name": "a"}])
        await tx.fetch_all(f"SELECT * FROM {items}")
        assert heard.of(WriteCommitted) == []
    assert writes(heard) == [({items, f"{items}_log"}, 3)]
    assert heard.of(WriteCommitted)[0].unit == heard.last.unit
    assert [type(event) for event in heard.events[-2:]] == [TransactionCommitted, WriteCommitted]


async def test_only_the_attempt_that_is_committed_is_told(
    router: Router, heard: Recorder, items: str
) -> None:
    """``run`` repeats the whole transaction; what was rolled back has not been written."""
    calls, attempts = [], []

    async def work(tx: Transaction) -> None:
        attempts.append(1)
        tx.after_commit(partial(calls.append, len(attempts)))
        await tx.execute(f"INSERT INTO {items} (name, amount) VALUES ('a', 1)")
        if len(attempts) == 1:
            raise ConnectionLost("as if the server had gone away")

    heard.clear()
    await router.session("acme").run(work)
    assert len(attempts) == 2 and calls == [2]
    assert writes(heard) == [({items}, 1)]


async def test_what_a_savepoint_takes_back_was_not_written(
    router: Router, heard: Recorder, items: str
) -> None:
    """Nor is done what was to follow it."""
    heard.clear()
    calls: list[str] = []
    text = f"INSERT INTO {items} (name, amount) VALUES (:name, 1)"
    async with router.session("acme").transaction() as tx:
        with pytest.raises(ValueError):
            async with tx.savepoint():
                await tx.execute(text, {"name": "a"})
                tx.after_commit(lambda: calls.append("undone"))
                raise ValueError
    assert (writes(heard), calls) == ([], [])
    async with router.session("acme").transaction() as tx, tx.savepoint():
        await tx.execute(text, {"name": "b"})
        tx.after_commit(lambda: calls.append("kept"))
    assert (writes(heard), calls) == ([({items}, 1)], ["kept"])


# --- the ORM ---------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Told(Base):
    __tablename__ = "told"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


@pytest.fixture
async def told(router: Router, engine: Engine) -> str:
    """Create the mapped table, empty."""
    with contextlib.suppress(RouterError):  # another test has
        await router.execute(f"CREATE TABLE told (id {engine.key}, name VARCHAR(50))", tenant="acme")
    await router.execute("DELETE FROM told", tenant="acme")
    return "told"


async def test_commits_of_the_orm_are_told(router: Router, heard: Recorder, told: str) -> None:
    """Each of them, and none of what it rolls back, as a whole or to a savepoint."""
    heard.clear()
    async with router.session("acme") as session, session.orm() as orm:
        orm.add(Told(name="a"))
        await orm.commit()
        orm.add(Told(name="b"))
        await orm.flush()
        await orm.rollback()
        nested = await orm.begin_nested()
        orm.add(Told(name="c"))
        await orm.flush()
        await nested.rollback()
        await orm.commit()
        async with orm.begin_nested():
            orm.add(Told(name="d"))
        await orm.commit()
    assert [set(event.tables) for event in heard.of(WriteCommitted)] == [{told}, {told}]
    assert await router.fetch_value("SELECT count(*) FROM told", tenant="acme", primary=True) == 2


async def test_the_orm_in_a_transaction_is_part_of_its_write(
    router: Router, heard: Recorder, items: str, told: str
) -> None:
    """The transaction decides, and tells once."""
    heard.clear()
    calls: list[str] = []
    async with router.session("acme") as session, session.transaction() as tx:
        tx.after_commit(lambda: calls.append("done"))
        await tx.execute(f"INSERT INTO {items} (name, amount) VALUES ('a', 1)")
        async with session.orm() as orm:
            orm.add(Told(name="a"))
            await orm.commit()
        assert (writes(heard), calls) == ([], [])
    assert (writes(heard), calls) == ([({items, told}, 2)], ["done"])


async def test_statements_of_the_orm_are_announced(router: Router, heard: Recorder, told: str) -> None:
    """As all others, so that what listeners add is on the event that ends the request."""
    listening = router.dispatcher.subscribe(RequestStarted, lambda event: event.add("page", "7"))
    async with router.session("acme") as session, session.orm() as orm:
        with acting(tags={"page": "mine", "team": "x"}):
            orm.add(Told(name="a"))
            await orm.flush()
        await orm.scalars(sa.select(Told))
    listening.cancel()
    started = [event for event in heard.of(RequestStarted) if "told" in event.tables]
    ended = [event for event in heard.of(RequestFinished) if "told" in event.tables]
    assert [event.kind for event in started][-2:] == ["write", "read"]
    assert [dict(event.tags) for event in ended][-2:] == [{"page": "mine", "team": "x"}, {"page": "7"}]


# --- what is done after a commit -------------------------------------------------------------------------


async def test_calls_are_made_in_order_once_the_commit_is_certain(router: Router, items: str) -> None:
    """Plain functions at once, when the connection is free again; what must be awaited beside."""
    made: list[str] = []
    held = asyncio.Event()

    async def slow() -> None:
        await held.wait()
        made.append("slow")

    async with router.session("acme").transaction() as tx:
        await tx.execute(f"INSERT INTO {items} (name, amount) VALUES ('a', 1)")
        tx.after_commit(lambda: made.append(f"{sum(pool.in_use for pool in router.status().pools)} in use"))
        tx.after_commit(slow)
        tx.after_commit(lambda: made.append("last"))
        assert made == []
    assert made == ["0 in use"]
    held.set()
    await until(lambda: len(made) == 3)
    assert made == ["0 in use", "slow", "last"]


async def test_nothing_is_done_after_a_rollback(router: Router) -> None:
    """By request, or because of an error."""
    made: list[int] = []
    session = router.session("acme")
    with pytest.raises(ValueError):
        async with session.transaction() as tx:
            tx.after_commit(lambda: made.append(1))
            raise ValueError
    tx = await session.begin()
    tx.after_commit(lambda: made.append(2))
    await session.rollback()
    assert made == []


async def test_calls_are_for_an_open_transaction(router: Router) -> None:
    """Before and after it nothing could ever make them."""
    tx = router.session("acme").transaction()
    with pytest.raises(TransactionStateError):
        tx.after_commit(print)
    async with tx:
        with pytest.raises(UsageError, match="takes a callable"):
            tx.after_commit("publish")  # type: ignore[arg-type]
    with pytest.raises(TransactionStateError):
        tx.after_commit(print)


async def test_a_call_that_fails_changes_nothing(
    router: Router, items: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit stands, the other calls are made; the failure is counted, and logged once for each code."""
    made: list[int] = []

    def broken() -> None:
        raise ValueError("of the application")

    async def broken_too() -> None:
        raise asyncio.CancelledError

    for number in range(2):
        async with router.session("acme").transaction() as tx:
            await tx.execute(f"INSERT INTO {items} (name, amount) VALUES ('n{number}', 1)")
            for call in (broken, broken_too, lambda: made.append(1)):
                tx.after_commit(call)
    await until(lambda: len(made) == 2)
    stats = router.dispatcher.stats()[-1]
    assert (stats.name, stats.delivered, stats.failed, stats.dropped) == ("after_commit", 2, 4, 0)
    lines = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(lines) == 2 and all("failed after a commit" in line for line in lines)
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 2


@only("sqlite")
async def test_a_call_that_hangs_is_cancelled(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has failed, and the next one is made."""
    monkeypatch.setattr("router.afterwards.TIMEOUT", 0.01)
    made: list[int] = []
    async with router.session("acme").transaction() as tx:
        tx.after_commit(asyncio.Event().wait)
        tx.after_commit(lambda: made.append(1))
    await until(lambda: bool(made))
    assert router.dispatcher.stats()[-1][1:4] == (1, 1, 0)


@only("sqlite")
async def test_no_more_run_beside_than_there_is_room_for(
    router: Router, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of further commits are dropped, counted, and it is said once."""
    monkeypatch.setattr("router.afterwards.MOST", 2)
    gate = asyncio.Event()
    for _ in range(4):
        async with router.session("acme").transaction() as tx:
            tx.after_commit(gate.wait)
            tx.after_commit(print)
    assert router.dispatcher.stats()[-1][1:5] == (0, 0, 4, 2)
    assert sum("were dropped" in record.message for record in caplog.records) == 1
    gate.set()


@only("sqlite")
async def test_closing_waits_for_what_is_done_after_commits(engine: Engine) -> None:
    """Within the same time as for listeners; then nothing runs on."""
    made: list[str] = []

    async def publish() -> None:
        await asyncio.sleep(0.05)
        made.append("published")

    async with engine.open() as router, router.session("acme").transaction() as tx:
        tx.after_commit(publish)
    assert made == ["published"]


async def test_nothing_is_done_or_told_of_an_unknown_outcome(server: Server) -> None:
    """It may have been committed; whoever acts on that must read first."""
    made: list[int] = []
    async with opened() as router:
        heard = Recorder(router)
        server.fail("commit", ConnectionResetError(), after=True, breaks=True)
        with pytest.raises(CommitOutcomeUnknown):
            async with router.session("acme").transaction() as tx:
                tx.after_commit(lambda: made.append(1))
                await tx.execute("UPDATE plans SET seats = 1")
        server.fail("execute", ConnectionResetError(), after=True, breaks=True)
        with pytest.raises(CommitOutcomeUnknown):
            await router.execute("UPDATE plans SET seats = 1", tenant="acme")
    assert (made, heard.of(WriteCommitted)) == ([], [])


async def test_who_is_cancelled_after_the_answer_has_committed(server: Server) -> None:
    """The cancellation goes on, and so does what was to follow the commit."""
    made: list[Any] = []
    async with opened() as router:
        heard = Recorder(router)
        answer = server.block("commit")

        async def work() -> None:
            async with router.session("acme").transaction() as tx:
                tx.after_commit(lambda: made.append(1))
                await tx.execute("UPDATE plans SET seats = 1")

        task = asyncio.ensure_future(work())
        await until(lambda: any("commit" in each.calls for each in server.connections))
        task.cancel()
        await asyncio.sleep(0)
        answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (made, len(heard.of(WriteCommitted))) == ([1], 1)
