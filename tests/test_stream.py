"""Streams: a cursor on the server, constant memory, and no rows left for whoever comes next."""

import asyncio
import contextlib
import tracemalloc
from contextlib import aclosing

import pytest

from router import Router
from router.errors import ConcurrentUse, InvalidStatement, RouterError, TransactionStateError
from router.events import ConnectionClosed, RequestFinished
from tests.engines import Engine, Recorder, only

MANY = 20_000


@pytest.fixture(scope="module")
def big(engine: Engine) -> str:
    """Create a table of many rows once for all tests of an engine."""
    name = engine.name()

    async def make() -> None:
        async with engine.open() as router, router.session("acme") as session:
            await session.execute(f"CREATE TABLE {name} (id INT PRIMARY KEY, pad VARCHAR(500))")
            await session.execute(
                f"INSERT INTO {name} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                f"WHERE i < {MANY // 20}) SELECT i, {_pad(engine)} FROM n"
            )
            for start in range(1, 20):
                await session.execute(
                    f"INSERT INTO {name} SELECT id + {start * (MANY // 20)}, pad FROM {name} "
                    f"WHERE id <= {MANY // 20}"
                )
            await engine.settle()

    asyncio.run(make())
    return name


def _pad(engine: Engine) -> str:
    return "hex(zeroblob(250))" if engine.dialect == "sqlite" else "repeat('x', 500)"


async def test_a_stream_yields_every_row_in_order(router: Router, heard: Recorder, big: str) -> None:
    """All rows come, as rows; one event tells their number and where they were read."""
    session = router.session("acme")
    seen = [row.id async for row in session.stream(f"SELECT id FROM {big} ORDER BY id", batch=777)]
    assert seen == list(range(1, MANY + 1))
    (told,) = heard.of(RequestFinished)
    assert (told.rows, heard.route) == (MANY, ("replica", "read_transaction"))


async def test_a_stream_takes_parameters_and_may_be_empty(router: Router, big: str) -> None:
    """Parameters are bound as everywhere; no rows is no error."""
    async with router.session("acme") as session:
        sql = f"SELECT id FROM {big} WHERE id > :least AND id <= :most ORDER BY id"
        assert [row[0] async for row in session.stream(sql, {"least": 3, "most": 6})] == [4, 5, 6]
        assert [row async for row in session.stream(sql, {"least": 9, "most": 1})] == []
    seen = [row["id"] async for row in router.stream(sql, {"least": 1, "most": 2}, tenant="acme")]
    assert seen == [2]


async def test_memory_stays_constant(router: Router, big: str) -> None:
    """A stream over 10 MB of rows keeps only a batch of them."""
    await router.fetch_value("SELECT 1", tenant="acme")
    tracemalloc.start()
    try:
        async for _ in router.session("acme").stream(f"SELECT id, pad FROM {big}", batch=100):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


async def test_an_early_end_leaves_nothing_behind(
    router: Router, engine: Engine, heard: Recorder, big: str
) -> None:
    """A stream left early is closed with its connection; the next statement gets its own rows."""
    async with router.session("acme") as session:
        async with aclosing(session.stream(f"SELECT id FROM {big} ORDER BY id", batch=10)) as rows:
            async for row in rows:
                assert row.id == 1
                break
        assert [pool.in_use for pool in router.status().pools if pool.in_use] == []
        assert heard.of(ConnectionClosed)[-1].reason == "abandoned"
        assert await session.fetch_value("SELECT 42") == 42


async def test_an_error_in_the_loop_ends_the_stream(router: Router, big: str) -> None:
    """An exception of the loop's body goes through, and the connection is given up."""
    with pytest.raises(ZeroDivisionError):
        async with aclosing(router.stream(f"SELECT id FROM {big}", tenant="acme")) as rows:
            async for _ in rows:
                _ = 1 / 0
    assert [pool.in_use for pool in router.status().pools if pool.in_use] == []


async def test_cancelling_a_stream_gives_the_connection_up(router: Router, big: str) -> None:
    """A task cancelled in the middle of a stream keeps no connection."""

    async def read() -> None:
        async with aclosing(router.stream(f"SELECT id FROM {big}", tenant="acme", batch=10)) as rows:
            async for _ in rows:
                started.set()
                await asyncio.sleep(0)

    started = asyncio.Event()
    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [pool.in_use for pool in router.status().pools if pool.in_use] == []
    assert await router.fetch_value("SELECT 42", tenant="acme") == 42


async def test_the_body_may_write_through_the_session(router: Router, items: str, big: str) -> None:
    """The stream has a connection of its own, so each row can lead to a write that stays."""
    async with router.session("acme") as session:
        async for row in session.stream(f"SELECT id FROM {big} WHERE id <= 5 ORDER BY id", batch=2):
            await session.execute(f"INSERT INTO {items} (amount) VALUES (:n)", {"n": row.id})
        assert await session.fetch_value(f"SELECT sum(amount) FROM {items}", primary=True) == 15


async def test_a_stream_in_a_transaction_sees_its_writes(router: Router, heard: Recorder, items: str) -> None:
    """In a transaction the stream runs on its connection, and the transaction goes on after it."""
    async with router.session("acme") as session:
        async with session.transaction() as tx:
            await tx.execute_many(f"INSERT INTO {items} (amount) VALUES (:n)", [{"n": n} for n in range(7)])
            seen = [row.amount async for row in tx.stream(f"SELECT amount FROM {items} ORDER BY id", batch=3)]
            assert seen == list(range(7))
            assert heard.route == ("primary", "transaction")
            also = [row.amount async for row in session.stream(f"SELECT amount FROM {items}", batch=3)]
            assert len(also) == 7
            await tx.execute(f"DELETE FROM {items} WHERE amount > 3")
        assert await session.fetch_value(f"SELECT count(*) FROM {items}", primary=True) == 4


@only("sqlite", "postgresql", "postgresql-schema")
async def test_statements_may_interleave_with_a_stream_of_the_transaction(router: Router, items: str) -> None:
    """Where the server keeps a cursor, other statements of the transaction run between its batches."""
    async with router.session("acme") as session, session.transaction() as tx:
        await tx.execute_many(f"INSERT INTO {items} (amount) VALUES (:n)", [{"n": n} for n in range(6)])
        total = 0
        async for row in tx.stream(f"SELECT id, amount FROM {items}", batch=2):
            total += await tx.fetch_value(f"SELECT amount FROM {items} WHERE id = :id", {"id": row.id})
        assert total == 15


@only("mariadb")
async def test_a_statement_during_a_stream_is_refused_on_mariadb(router: Router, items: str) -> None:
    """Its rows stand on the wire before anything else: another statement is ConcurrentUse."""
    async with router.session("acme") as session, session.transaction() as tx:
        await tx.execute_many(f"INSERT INTO {items} (amount) VALUES (:n)", [{"n": n} for n in range(6)])
        seen = []
        async for row in tx.stream(f"SELECT amount FROM {items} ORDER BY id", batch=2):
            seen.append(row.amount)
            with pytest.raises(ConcurrentUse):
                await tx.fetch_value("SELECT 1")
        assert seen == list(range(6))
        assert await tx.fetch_value("SELECT 1") == 1


async def test_an_early_end_in_a_transaction_never_mixes_rows(router: Router, items: str, big: str) -> None:
    """After a stream left early the transaction either works as before or refuses; rows never mix."""
    async with router.session("acme") as session:
        with contextlib.suppress(ConcurrentUse):  # MariaDB: the rest of the rows is still on the wire
            async with session.transaction() as tx:
                await tx.execute(f"INSERT INTO {items} (amount) VALUES (1)")
                async with aclosing(tx.stream(f"SELECT id FROM {big} ORDER BY id", batch=10)) as rows:
                    assert (await anext(rows)).id == 1
                assert await tx.fetch_value("SELECT 42") == 42
        assert await session.fetch_value(f"SELECT count(*) FROM {items}", primary=True) in (0, 1)
        assert await session.fetch_value("SELECT 43") == 43
    assert [pool.in_use for pool in router.status().pools if pool.in_use] == []


async def test_a_stream_that_fails_tells_it(router: Router, heard: Recorder) -> None:
    """A bad statement fails at the first row, as an error of ours with one event; the pool goes on."""
    with pytest.raises(InvalidStatement) as caught:
        async for _ in router.stream("SELECT nope FROM nowhere_at_all", tenant="acme"):
            pass
    assert (caught.value.tenant, caught.value.fingerprint is not None) == ("acme", True)
    assert type(heard.last).__name__ == "RequestFailed"
    assert await router.fetch_value("SELECT 42", tenant="acme") == 42


async def test_a_stream_is_bounded_by_its_timeout(router: Router, engine: Engine) -> None:
    """timeout holds for each batch."""
    await router.fetch_value("SELECT 1", tenant="acme", readonly=True)  # opening has a limit of its own
    with pytest.raises(RouterError) as caught:
        async for _ in router.stream(engine.sleep(2), tenant="acme", timeout=0.1, readonly=True):
            pass
    assert "time" in str(caught.value)
    assert [pool.in_use for pool in router.status().pools if pool.in_use] == []


async def test_a_stream_after_the_end_of_its_transaction_is_refused(router: Router) -> None:
    """A stream begun on a finished transaction is TransactionStateError."""
    async with router.session("acme") as session:
        async with session.transaction() as tx:
            pass
        with pytest.raises(TransactionStateError):
            async for _ in tx.stream("SELECT 1"):
                pass
