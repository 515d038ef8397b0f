"""Real conflicts between transactions: told apart, and the whole run again where that is safe."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from router import Router, predicates
from router.errors import Deadlock, LockTimeout, SerializationFailure, TransactionAborted, UniqueViolation
from router.events import RetryScheduled
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


async def _two_rows(router: Router, items: str) -> asyncio.Barrier:
    """Insert the rows a and b; return where two transactions meet before each goes for the other's row."""
    text = insert(items, "a").replace("'a'", ":n")
    await router.execute_many(text, [{"n": "a"}, {"n": "b"}], tenant="acme")
    return asyncio.Barrier(2)


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
    meet = await _two_rows(router, items)
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
    meet = await _two_rows(router, items)
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
    meet = await _two_rows(router, items)
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
    """The function runs as often as configured and no more; the last error lists all of them."""
    runs = 0

    async def lose(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await tx.execute(insert(items, "a"))
        raise SerializationFailure(f"run {runs}")

    with pytest.raises(SerializationFailure, match="run 3") as caught:
        await router.session("acme").run(lose)
    assert (runs, len(heard.of(RetryScheduled)), len(caught.value.attempts)) == (3, 2, 3)
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
        assert predicates.is_timeout(caught.value)
        assert predicates.is_retryable(caught.value)
        assert caught.value.code == "SQLITE_BUSY"
        assert await names_of_readers(router, name) == []
    with locked(engine, 0.1):
        await router.execute(insert(name, "b"), tenant="acme", idempotent=True)
    assert await names(router, name) == ["b"]


async def names_of_readers(router: Router, items: str) -> list[str]:
    """Return the names that a reader sees; readers are never blocked by the writer."""
    session: Session = router.session("acme", consistency="eventual")
    return [row.name for row in await session.fetch_all(f"SELECT name FROM {items}")]
