"""Transactions: all or none, one connection, clear refusals, and a whole run again after a real conflict."""

import asyncio
import contextlib

import pytest

from router import Router, predicates
from router.errors import (
    ConcurrentUse,
    ForeignKeyViolation,
    ParameterError,
    ReadOnlyViolation,
    RouterClosed,
    StatementError,
    TransactionAborted,
    TransactionStateError,
    UniqueViolation,
)
from router.events import RequestEvent, TransactionCommitted, TransactionRolledBack
from tests.engines import POSTGRESQL, SERVED, Engine, Recorder, only


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
        assert predicates.is_read_only(caught.value)
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
async def test_a_level_reaches_the_server_after_a_value_that_was_wrong(router: Router, items: str) -> None:
    """What was prepared and never run leaves no transaction behind that has a level already."""
    async with router.session("acme") as session:
        with pytest.raises(ParameterError):
            await session.execute(f"UPDATE {items} SET amount = :n WHERE amount = :n + 1", {"n": "many"})
        async with session.transaction(isolation="serializable") as tx:
            assert await tx.fetch_value("SELECT current_setting('transaction_isolation')") == "serializable"


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
