"""Transactions: all or none, one connection, clear refusals, and a whole run again after a real conflict."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from router import Router, errors
from router.errors import (
    ConcurrentUse,
    Deadlock,
    ForeignKeyViolation,
    LockTimeout,
    ReadOnlyViolation,
    RouterClosed,
    SerializationFailure,
    StatementError,
    TransactionAborted,
    TransactionStateError,
    UniqueViolation,
)
from router.events import RequestEvent, RetryScheduled, TransactionCommitted, TransactionRolledBack
from router.session import Session
from router.transaction import Transaction
from tests.engines import POSTGRESQL, SERVED, Engine, Recorder, Sqlite, only


async def names(router: Router, items: str) -> list[str]:
    """Return the committed names, as another session sees them on the primary."""
    rows = await router.fetch_all(f"SELECT name FROM {items} ORDER BY name", tenant="acme", primary=True)
    return [row.name for row in rows]


def insert(items: str, name: str) -> str:
    """Return an INSERT of one row."""
    return f"INSERT INTO {items} (name, amount) VALUES ('{name}', 1)"


# --- all or none -----------------------------------------------------------------------------------------


async def test_a_transaction_commits_at_the_end(router: Router, heard: Recorder, items: str) -> None:
    """Nothing is seen outside before the block ends, all of it after; the events tell one commit."""
    heard.clear()
    async with router.session("acme") as session:
        async with session.transaction() as tx:
            await tx.execute(insert(items, "a"))
            assert heard.route == ("primary", "transaction")
            await tx.execute(insert(items, "b"))
            assert await tx.fetch_value(f"SELECT count(*) FROM {items}") == 2
            assert heard.of(TransactionCommitted) == []
        assert await names(router, items) == ["a", "b"]
    (told,) = heard.of(TransactionCommitted)
    assert (told.tenant, told.statements, told.readonly, told.node.name) == ("acme", 3, False, "primary")
    assert len({event.node for event in heard.of(RequestEvent)[:3]}) == 1


async def test_an_error_rolls_all_back(router: Router, heard: Recorder, items: str) -> None:
    """Any exception that leaves the block undoes it and goes on to the caller."""
    async with router.session("acme") as session:
        with pytest.raises(ZeroDivisionError):
            async with session.transaction() as tx:
                await tx.execute(insert(items, "a"))
                _ = 1 / 0
        with pytest.raises(UniqueViolation):
            async with session.transaction() as tx:
                await tx.execute(insert(items, "a"))
                await tx.execute(insert(items, "a"))
    assert await names(router, items) == []
    assert [event.error for event in heard.of(TransactionRolledBack)] == [
        "ZeroDivisionError",
        "UniqueViolation",
    ]
    assert heard.of(TransactionCommitted) == []


async def test_cancellation_rolls_back(router: Router, items: str) -> None:
    """A task cancelled inside of the block leaves nothing behind."""

    async def work() -> None:
        async with router.session("acme") as session, session.transaction() as tx:
            await tx.execute(insert(items, "a"))
            started.set()
            await asyncio.sleep(60)

    started = asyncio.Event()
    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(router, items) == []


async def test_a_swallowed_error_never_commits_a_part(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """On PostgreSQL a failed statement aborts the transaction: its commit must fail and never look done.

    On the other engines only the statement is undone, and the commit is a real one.
    """
    async with router.session("acme") as session:
        transaction = session.transaction()
        with contextlib.suppress(TransactionAborted):
            async with transaction as tx:
                await tx.execute(insert(items, "a"))
                with pytest.raises(UniqueViolation):
                    await tx.execute(insert(items, "a"))
        committed = bool(heard.of(TransactionCommitted))
    assert committed == (engine.dialect != "postgresql")
    assert await names(router, items) == (["a"] if committed else [])


async def test_a_savepoint_undoes_its_block_only(router: Router, items: str) -> None:
    """An error in a savepoint, at any depth, undoes that block; the transaction goes on and commits."""
    async with router.session("acme") as session, session.transaction() as tx:
        await tx.execute(insert(items, "a"))
        async with tx.savepoint():
            await tx.execute(insert(items, "b"))
            with pytest.raises(UniqueViolation):
                async with tx.savepoint():
                    await tx.execute(insert(items, "c"))
                    await tx.execute(insert(items, "a"))
            with pytest.raises(ZeroDivisionError):
                async with tx.savepoint():
                    await tx.execute(insert(items, "d"))
                    _ = 1 / 0
            await tx.execute(insert(items, "e"))
        with pytest.raises(RuntimeError):
            async with tx.savepoint():
                await tx.execute(insert(items, "f"))
                async with tx.savepoint():
                    await tx.execute(insert(items, "g"))
                raise RuntimeError
    assert await names(router, items) == ["a", "b", "e"]


# --- verbs -----------------------------------------------------------------------------------------------


async def test_begin_commit_rollback(router: Router, items: str) -> None:
    """After begin() the session's own methods run in the transaction, until commit() or rollback()."""
    async with router.session("acme") as session:
        await session.begin()
        await session.execute(insert(items, "a"))
        await session.rollback()
        await session.begin()
        await session.execute(insert(items, "b"))
        await session.commit()
        await session.execute(insert(items, "c"))
    assert await names(router, items) == ["b", "c"]


async def test_session_methods_run_in_the_open_transaction(
    router: Router, heard: Recorder, items: str
) -> None:
    """Inside of the block session.execute is part of the transaction, after it no more."""
    async with router.session("acme") as session:
        async with session.transaction() as tx:
            await session.execute(insert(items, "a"))
            assert heard.route == ("primary", "transaction")
            await tx.rollback()
        await session.execute(insert(items, "b"))
        assert heard.route == ("primary", "write")
    assert await names(router, items) == ["b"]


async def test_commit_inside_of_the_block_ends_it(router: Router, heard: Recorder, items: str) -> None:
    """An early commit() is the commit; the end of the block adds nothing, and the transaction is over."""
    async with router.session("acme") as session:
        async with session.transaction() as tx:
            await tx.execute(insert(items, "a"))
            await tx.commit()
            with pytest.raises(TransactionStateError):
                await tx.execute(insert(items, "b"))
        with pytest.raises(TransactionStateError):
            await tx.commit()
        with pytest.raises(TransactionStateError):
            await tx.begin()
    assert await names(router, items) == ["a"]
    assert len(heard.of(TransactionCommitted)) == 1


async def test_the_session_block_decides_about_an_open_begin(router: Router, items: str) -> None:
    """begin() without an end is committed by the session's block, rolled back on an error or by close()."""
    async with router.session("acme") as session:
        await session.begin()
        await session.execute(insert(items, "a"))
    with pytest.raises(ZeroDivisionError):
        async with router.session("acme") as session:
            await session.begin()
            await session.execute(insert(items, "b"))
            _ = 1 / 0
    session = router.session("acme")
    await session.begin()
    await session.execute(insert(items, "c"))
    await session.close()
    with pytest.raises(RouterClosed):
        await session.commit()
    assert await names(router, items) == ["a"]


# --- misuse ----------------------------------------------------------------------------------------------


async def test_misuse_is_refused_clearly(router: Router) -> None:
    """Nesting, commit or rollback without begin, use before begin, a wrong level: TransactionStateError."""
    async with router.session("acme") as session:
        for call in (session.commit, session.rollback):
            with pytest.raises(TransactionStateError, match=r"begin\(\) first") as caught:
                await call()
            assert caught.value.tenant == "acme"
        async with session.transaction():
            with pytest.raises(TransactionStateError, match="savepoint"):
                session.transaction()
            with pytest.raises(TransactionStateError, match="savepoint"):
                await session.begin()
        unbegun = session.transaction()
        with pytest.raises(TransactionStateError, match="not open"):
            await unbegun.execute("SELECT 1")
        with pytest.raises(TransactionStateError, match="isolation"):
            session.transaction(isolation="chaos")
        assert await session.fetch_value("SELECT 1") == 1


@pytest.mark.parametrize("text", ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "/* x */ commit"])
async def test_transaction_control_by_text_is_refused(router: Router, items: str, text: str) -> None:
    """Text cannot begin or end a transaction behind our back; the open one is not harmed."""
    async with router.session("acme") as session:
        with pytest.raises(StatementError):
            await session.execute(text)
        async with session.transaction() as tx:
            await tx.execute(insert(items, "a"))
            with pytest.raises(StatementError):
                await tx.execute(text)
    assert await names(router, items) == ["a"]


async def test_two_tasks_on_one_transaction(router: Router, engine: Engine, items: str) -> None:
    """The second statement at the same time is refused at once; the first and the transaction go on."""
    async with router.session("acme") as session, session.transaction() as tx:
        await tx.execute(insert(items, "a"))
        slow = asyncio.create_task(tx.fetch_all(engine.sleep(0.2)))
        await asyncio.sleep(0.02)
        with pytest.raises(ConcurrentUse, match="session of its own"):
            await tx.fetch_value("SELECT 1")
        await slow
        await tx.execute(insert(items, "b"))
    assert await names(router, items) == ["a", "b"]


# --- declared read-only ----------------------------------------------------------------------------------


async def test_a_readonly_transaction_stays_on_one_replica(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """All its statements run on one replica, and it sees one state of the data."""
    await router.execute(insert(items, "a"), tenant="acme")
    await engine.settle()
    heard.clear()
    async with (
        router.session("acme") as session,
        session.transaction(readonly=True, isolation="repeatable read") as tx,
    ):
        assert await tx.fetch_value(f"SELECT count(*) FROM {items}") == 1
        await router.execute(insert(items, "b"), tenant="acme")
        await engine.settle()
        assert await tx.fetch_value(f"SELECT count(*) FROM {items}") == 1
    reads = [event for event in heard.requests if event.reason == "read_transaction"]
    assert len(reads) == 2
    assert {event.node.name for event in reads if event.node} <= set(engine.replicas)
    (told,) = heard.of(TransactionCommitted)
    assert told.readonly


async def test_the_database_itself_refuses_a_write_in_a_readonly_transaction(
    router: Router, engine: Engine, items: str
) -> None:
    """A write inside fails with ReadOnlyViolation and nothing is written."""
    await engine.settle()
    async with router.session("acme") as session:
        with pytest.raises(ReadOnlyViolation) as caught:
            async with session.transaction(readonly=True) as tx:
                await tx.execute(insert(items, "a"))
        assert errors.is_read_only(caught.value)
        assert caught.value.node in engine.replicas
    assert await names(router, items) == []


async def test_a_readonly_transaction_follows_own_writes(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """After a write of the session it runs where that write is seen, and is read-only there too."""
    async with router.session("acme") as session:
        await session.execute(insert(items, "a"))
        async with session.transaction(readonly=True) as tx:
            assert await tx.fetch_value(f"SELECT count(*) FROM {items}") == 1
        if engine.dialect != "sqlite":
            assert heard.route == ("primary", "own_write")
            with pytest.raises(ReadOnlyViolation):
                async with session.transaction(readonly=True) as tx:
                    await tx.execute(insert(items, "b"))
    assert await names(router, items) == ["a"]


# --- isolation and constraints at the end ----------------------------------------------------------------


@POSTGRESQL
@pytest.mark.parametrize("level", ["read uncommitted", "Read Committed", "repeatable read", "serializable"])
async def test_isolation_levels_reach_the_server(router: Router, level: str) -> None:
    """The level asked for is the level that the server uses."""
    async with router.session("acme") as session, session.transaction(isolation=level) as tx:
        assert await tx.fetch_value("SELECT current_setting('transaction_isolation')") == level.lower()


@SERVED
async def test_repeatable_read_sees_one_state(router: Router, engine: Engine, items: str) -> None:
    """With repeatable read a second look shows the same; with read committed on the servers it does not."""
    for level, expected in (("repeatable read", 0), ("read committed", 1)):
        await router.execute(f"DELETE FROM {items}", tenant="acme")
        async with router.session("acme") as session, session.transaction(isolation=level) as tx:
            assert await tx.fetch_value(f"SELECT count(*) FROM {items}") == 0
            await router.execute(insert(items, "x"), tenant="acme")
            assert await tx.fetch_value(f"SELECT count(*) FROM {items}") == expected


@only("sqlite", "postgresql", "postgresql-schema")
async def test_a_deferred_constraint_fails_at_commit(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """The violation comes from COMMIT, as the same error class; nothing stays and the pool goes on."""
    child = engine.name()
    async with router.session("acme") as session:
        await session.execute(
            f"CREATE TABLE {child} (item INT REFERENCES {items} (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        transaction = session.transaction()
        with pytest.raises(ForeignKeyViolation) as caught:
            async with transaction as tx:
                await tx.execute(f"INSERT INTO {child} VALUES (99)")
                assert await tx.fetch_value(f"SELECT count(*) FROM {child}") == 1
        assert (caught.value.tenant, caught.value.node) == ("acme", "primary")
        assert heard.of(TransactionRolledBack)[-1].error == "ForeignKeyViolation"
        assert await session.fetch_value(f"SELECT count(*) FROM {child}", primary=True) == 0
        async with session.transaction() as tx:  # parent after child is what deferring is for
            await tx.execute(f"INSERT INTO {child} VALUES (7)")
            await tx.execute(f"INSERT INTO {items} (id, name) VALUES (7, 'late')")
        assert await session.fetch_value(f"SELECT count(*) FROM {child}", primary=True) == 1


# --- conflicts -------------------------------------------------------------------------------------------


async def _cross(tx: Transaction, items: str, first: str, second: str, meet: asyncio.Barrier) -> None:
    await tx.execute(f"UPDATE {items} SET amount = amount + 1 WHERE name = '{first}'")
    if not meet.broken:
        with contextlib.suppress(asyncio.BrokenBarrierError):
            await asyncio.wait_for(meet.wait(), 5)
    await tx.execute(f"UPDATE {items} SET amount = amount + 1 WHERE name = '{second}'")


@SERVED
async def test_run_repeats_after_a_real_deadlock(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """Two transactions that lock two rows in opposite order: the victim runs again, both count."""
    await router.execute_many(
        insert(items, "a").replace("'a'", ":n"), [{"n": "a"}, {"n": "b"}], tenant="acme"
    )
    meet = asyncio.Barrier(2)
    runs = 0

    async def both(tx: Transaction, first: str, second: str) -> None:
        nonlocal runs
        runs += 1
        if runs > 2:
            await meet.abort()  # nobody to meet the second time
        await _cross(tx, items, first, second, meet)

    await asyncio.gather(
        router.session("acme").run(both, "a", "b"), router.session("acme").run(both, "b", "a")
    )
    assert runs == 3
    (retry,) = heard.of(RetryScheduled)
    assert (retry.error, retry.attempt, retry.tenant) == ("Deadlock", 1, "acme")
    amounts = await router.fetch_all(f"SELECT amount FROM {items}", tenant="acme", primary=True)
    assert [row.amount for row in amounts] == [3, 3]


@SERVED
async def test_after_a_deadlock_the_transaction_is_over(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A victim that catches the error and goes on is refused: its next statement would commit by itself."""
    await router.execute_many(
        insert(items, "a").replace("'a'", ":n"), [{"n": "a"}, {"n": "b"}], tenant="acme"
    )
    meet = asyncio.Barrier(2)
    refused: list[str] = []

    async def victim(first: str, second: str) -> None:
        async with router.session("acme") as session, session.transaction() as tx:
            try:
                await _cross(tx, items, first, second, meet)
            except Deadlock:
                with pytest.raises(TransactionAborted):
                    await tx.execute(insert(items, "stray"))
                refused.append(first)

    ended = await asyncio.gather(victim("a", "b"), victim("b", "a"), return_exceptions=True)
    assert len(refused) == 1
    assert sorted(type(each).__name__ for each in ended) == ["NoneType", "TransactionAborted"]
    assert "stray" not in await names(router, items)


@SERVED
async def test_a_deadlock_inside_of_a_savepoint_comes_through(
    router: Router, engine: Engine, items: str
) -> None:
    """The savepoint does not mask the deadlock, so that run() still repeats the whole."""
    await router.execute_many(
        insert(items, "a").replace("'a'", ":n"), [{"n": "a"}, {"n": "b"}], tenant="acme"
    )
    meet = asyncio.Barrier(2)
    runs = 0

    async def both(tx: Transaction, first: str, second: str) -> None:
        nonlocal runs
        runs += 1
        if runs > 2:
            await meet.abort()
        async with tx.savepoint():
            await _cross(tx, items, first, second, meet)

    await asyncio.gather(
        router.session("acme").run(both, "a", "b"), router.session("acme").run(both, "b", "a")
    )
    assert runs == 3


@POSTGRESQL
async def test_run_repeats_after_a_real_serialization_failure(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A row changed by another transaction since our snapshot: the second run sees it and succeeds."""
    await router.execute(insert(items, "a"), tenant="acme")
    runs = 0

    async def add(tx: Transaction) -> int:
        nonlocal runs
        runs += 1
        await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        amount: int = await tx.fetch_value(f"SELECT amount FROM {items} WHERE name = 'a'")
        if runs == 1:
            await router.execute(f"UPDATE {items} SET amount = 10", tenant="acme")
        await tx.execute(f"UPDATE {items} SET amount = :n", {"n": amount + 1})
        return amount

    assert await router.session("acme").run(add) == 10
    assert [event.error for event in heard.of(RetryScheduled)] == ["SerializationFailure"]
    assert await router.fetch_value(f"SELECT amount FROM {items}", tenant="acme", primary=True) == 11


async def test_run_gives_up_after_its_attempts(router: Router, heard: Recorder, items: str) -> None:
    """The function runs as often as configured and no more; the last error lists the earlier ones."""
    runs = 0

    async def lose(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await tx.execute(insert(items, "a"))
        raise SerializationFailure(f"run {runs}")

    with pytest.raises(SerializationFailure, match="run 3") as caught:
        await router.session("acme").run(lose)
    assert (runs, len(heard.of(RetryScheduled)), len(caught.value.attempts)) == (3, 2, 2)
    assert await names(router, items) == []


async def test_run_does_not_repeat_other_errors(router: Router, items: str) -> None:
    """A violation, or any exception of the function's own, is raised at once."""
    for error in (UniqueViolation, ZeroDivisionError):
        runs = 0

        async def fail(tx: Transaction, kind: type[Exception]) -> None:
            nonlocal runs
            runs += 1
            await tx.execute(insert(items, "a"))
            if kind is UniqueViolation:
                await tx.execute(insert(items, "a"))
            raise ZeroDivisionError

        with pytest.raises(error):
            await router.session("acme").run(fail, error)
        assert runs == 1
    assert await names(router, items) == []


async def test_run_passes_arguments_and_returns(router: Router, items: str) -> None:
    """run() hands its arguments on and returns what the function returns."""

    async def count(tx: Transaction, name: str, *, extra: str) -> int:
        await tx.execute(insert(items, name))
        await tx.execute(insert(items, extra))
        value: int = await tx.fetch_value(f"SELECT count(*) FROM {items}")
        return value

    assert await router.session("acme").run(count, "a", extra="b") == 2
    assert await names(router, items) == ["a", "b"]


# --- a busy file -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(engine: Sqlite, seconds: float) -> Iterator[None]:
    """Hold the write lock of acme's file from another connection for that long."""
    held = threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(engine.file("acme"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            held.set()
            done.wait(seconds)
            other.execute("ROLLBACK")

    done = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
async def impatient(engine: Engine) -> AsyncIterator[tuple[Router, Sqlite, str]]:
    """Open a router whose SQLite waits for a lock for 10 ms only."""
    assert isinstance(engine, Sqlite)
    many = {"retries": {"attempts": 20, "min_wait": "20ms", "max_wait": "100ms"}}
    async with engine.open(cluster={"options": {"timeout": 0.01}}, defaults=many) as router:
        name = engine.name()
        await router.execute(f"CREATE TABLE {name} (name TEXT, amount INT)", tenant="acme")
        yield router, engine, name


@only("sqlite")
async def test_run_repeats_after_a_real_busy(impatient: tuple[Router, Sqlite, str]) -> None:
    """While another process holds the write lock run() tries again, and gets through when it is gone."""
    router, engine, name = impatient
    heard = Recorder(router)

    async def write(tx: Transaction) -> None:
        await tx.execute(insert(name, "a"))

    with locked(engine, 0.15):
        await router.session("acme").run(write)
    assert {event.error for event in heard.of(RetryScheduled)} <= {"LockTimeout"}
    assert await names(router, name) == ["a"]


@only("sqlite")
async def test_a_busy_begin_without_run_is_tried_again_too(
    impatient: tuple[Router, Sqlite, str],
) -> None:
    """A BEGIN that finds the file busy had no effect, so a plain transaction tries it again."""
    router, engine, name = impatient
    with locked(engine, 0.15):
        async with router.session("acme") as session, session.transaction() as tx:
            await tx.execute(insert(name, "a"))
    assert await names(router, name) == ["a"]


@only("sqlite")
async def test_a_busy_autocommit_write_is_a_lock_timeout(impatient: tuple[Router, Sqlite, str]) -> None:
    """A single write is not repeated unless it is declared idempotent; the error is portable."""
    router, engine, name = impatient
    with locked(engine, 5):
        with pytest.raises(LockTimeout) as caught:
            await router.execute(insert(name, "a"), tenant="acme")
        assert errors.is_timeout(caught.value)
        assert errors.is_retryable(caught.value)
        assert caught.value.code == "SQLITE_BUSY"
        assert await names_of_readers(router, name) == []
    with locked(engine, 0.1):
        await router.execute(insert(name, "b"), tenant="acme", idempotent=True)
    assert await names(router, name) == ["b"]


async def names_of_readers(router: Router, items: str) -> list[str]:
    """Return the names that a reader sees; readers are never blocked by the writer."""
    session: Session = router.session("acme", consistency="eventual")
    return [row.name for row in await session.fetch_all(f"SELECT name FROM {items}")]
