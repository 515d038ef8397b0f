"""After a write's answer nobody in this process gets the rows of before, however it was written."""

import asyncio
from contextlib import suppress

import pytest
import sqlalchemy as sa

from router.errors import UniqueViolation
from router.session import Session
from tests.cache.forms import Form, forms
from tests.cache.looking import Look, Stage
from tests.cache.looking import stage as stage
from tests.engines import POSTGRESQL, only

pytestmark = only("sqlite", "postgresql", "mariadb")
MARIADB = only("mariadb")


@pytest.mark.parametrize(("ready", "write"), forms)
async def test_a_write_takes_effect_for_all_in_this_process(stage: Stage, ready: Form, write: Form) -> None:
    """For the session that wrote, for one that was there before, and for a new one."""
    writer, other = stage.router.session("acme"), stage.router.session("acme")
    readers: list[Session | str] = [writer, other, "acme"]
    await stage.look("acme", stage.sql)  # from now on the catalog is known
    await ready(stage, writer)
    # each has a text of its own, so that nobody finds what another one has read anew
    texts = [f"{stage.sql} WHERE id > {-number}" for number in range(len(readers))]
    for reader, text in zip(readers, texts, strict=True):
        before = await stage.look(reader, text)
        assert (await stage.look("acme", text)) == Look(before.rows, "cache")
    await write(stage, writer)
    truth = await stage.look.truth(stage.sql)
    assert truth != before.rows
    for reader, text in zip(readers, texts, strict=True):
        assert (await stage.look(reader, text)).rows == truth
        assert (await stage.look("acme", text)) == Look(truth, "cache")


async def test_a_write_under_way_while_the_cache_begins_counts(stage: Stage) -> None:
    """It was not taken note of when it was sent; its answer still is."""
    transaction = await stage.router.session("acme").begin()
    await transaction.execute(stage.insert(10))
    late, beside = f"{stage.sql} WHERE id > 0", f"SELECT count(*) FROM {stage.beside}"
    before = await stage.look("acme", late)
    assert before.rows == [(3, 3)]
    await transaction.execute(stage.insert(10, stage.beside))
    await transaction.commit()
    assert (await stage.look("acme", late)).rows == await stage.look.truth(late)
    assert (await stage.look("acme", beside)).rows == [(4,)]


@POSTGRESQL
async def test_a_statement_under_way_while_the_cache_begins_counts(stage: Stage) -> None:
    """A read that was sent before its commit has not seen it."""
    slow = f"UPDATE {stage.table} SET amount = 5 FROM (SELECT 1 FROM pg_sleep(0.3)) AS s"
    write = asyncio.create_task(stage.router.execute(slow, tenant="acme"))
    await asyncio.sleep(0.1)
    before = await stage.look("acme", stage.sql)
    assert before.rows == [(3, 3)]
    await write
    assert (await stage.look("acme", stage.sql)).rows == [(3, 15)]


async def test_what_was_rolled_back_invalidates_nothing(stage: Stage) -> None:
    """Nor does what failed by itself: what is cached stays."""
    session = stage.router.session("acme")
    await stage.look("acme", stage.sql)
    with suppress(ZeroDivisionError):
        async with session.transaction() as tx:
            await tx.execute(stage.insert(10))
            raise ZeroDivisionError
    await session.begin()
    await session.execute(stage.insert(10))
    await session.rollback()
    async with session.orm() as orm:
        await orm.execute(sa.text(stage.insert(10)))
        await orm.rollback()
    with pytest.raises(UniqueViolation):
        await session.execute(stage.insert(1))
    with pytest.raises(UniqueViolation):
        async with session.transaction() as tx:
            await tx.execute(stage.insert(1))
    assert await stage.look("acme", stage.sql) == Look([(3, 3)], "cache")
    assert (await stage.look(session, stage.sql)).rows == [(3, 3)]


async def test_a_write_leaves_what_was_read_of_other_tables(stage: Stage) -> None:
    """Once the catalog is known, only what it says that a write changes is doubted."""
    other = f"SELECT count(*) FROM {stage.beside}"
    await stage.look("acme", stage.sql)
    await stage.look("acme", other)
    session = stage.router.session("acme")
    await session.execute(stage.insert(10))
    async with session.transaction() as tx:
        await tx.execute(stage.insert(11))
    async with session.orm() as orm:
        await orm.execute(sa.text(stage.insert(12)))
    assert (await stage.look("acme", other)).cached
    assert not (await stage.look("acme", stage.sql)).cached


@MARIADB
async def test_what_a_rollback_cannot_undo_counts(stage: Stage) -> None:
    """DDL commits the transaction around it: what was written before it is there to stay."""
    session = stage.router.session("acme")
    await stage.look("acme", stage.sql)
    async with session.transaction() as tx:
        await tx.execute(stage.insert(10))
        await tx.execute(f"CREATE TABLE {stage.table}_more (id INT)")
        await tx.rollback()
    truth = await stage.look.truth(stage.sql)
    assert truth == [(4, 13)]
    assert (await stage.look("acme", stage.sql)).rows == truth


@MARIADB
async def test_tables_that_know_no_transactions_are_not_cached(stage: Stage) -> None:
    """A rollback, or the statement's own failure, leaves in them what it had written."""
    session = stage.router.session("acme")
    await session.execute(f"ALTER TABLE {stage.table} ENGINE = Aria")
    for _ in range(2):
        assert not (await stage.look("acme", stage.sql)).cached
    async with session.transaction() as tx:
        await tx.execute(stage.insert(10))
        await tx.rollback()
    assert (await stage.look("acme", stage.sql)).rows == await stage.look.truth(stage.sql) == [(4, 13)]
    with pytest.raises(UniqueViolation):
        await session.execute(f"INSERT INTO {stage.table} (id, amount) VALUES (20, 20), (1, 1)")
    assert (await stage.look("acme", stage.sql)).rows == await stage.look.truth(stage.sql) == [(5, 33)]
