"""What visitors of a leak check do: one thing each, in a session of one tenant, as applications do it.

Some are careless: they leave session state behind, fail, are cancelled, read a stream to its middle.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

from sqlalchemy import column, select, table
from sqlalchemy import text as plain
from sqlalchemy.exc import DBAPIError

from router.drivers.driver import Binding
from router.errors import DatabaseError, RouterError, StatementError, UsageError
from router.rows import Row
from router.statements import Dialect
from router.visiting import Visit, Visitor, new_mark

# --- who reads -------------------------------------------------------------------------------------------


async def reads(visit: Visit) -> None:
    """Read a few times, wherever the router sends it."""
    for _ in range(visit.rng.randint(4, 40)):
        await visit.read_base()
    await visit.read(primary=visit.rng.random() < 0.3)


async def reads_all_columns(visit: Visit) -> None:
    """Read with a star, whose columns may change meanwhile."""
    await visit.read(text=f"SELECT * FROM {visit.place.table}")  # noqa: S608


async def reads_readonly(visit: Visit) -> None:
    """Read in a transaction that may use a replica."""
    async with visit.session.transaction(readonly=True) as tx:
        await visit.read_base(tx)
        await visit.read(tx)


async def reads_prepared(visit: Visit) -> None:
    """Read by a prepared statement, several times."""
    statement = await visit.session.prepare(visit.place.everything)
    for _ in range(3):
        glance = visit.glance(primary=False)
        rows = await statement.fetch_all()
        visit.judge(rows, glance)
    glance = visit.glance(primary=True)
    visit.judge((await statement.execute(primary=True)).rows, glance)


async def reads_cached(visit: Visit) -> None:
    """Read what may come from memory."""
    for _ in range(3):
        await visit.read_base(cache=30)
    await visit.read(cache=1)


async def reads_by_core(visit: Visit) -> None:
    """Read with a construct of SQLAlchemy, and with an ORM session."""
    owned = table(visit.place.table, column("tenant"), column("mark"))
    query = select(owned.c.tenant, owned.c.mark)
    glance = visit.glance(primary=False)
    visit.judge(await visit.session.fetch_all(query), glance)
    readonly = visit.rng.random() < 0.5
    async with visit.session.orm(readonly=readonly) as orm:
        glance = visit.glance(primary=not readonly)
        visit.judge((await orm.execute(query)).all(), glance)


async def reads_half(visit: Visit) -> None:
    """Read a stream, often only to its middle."""
    glance = visit.glance(primary=False)
    seen: list[Row] = []
    async with aclosing(visit.session.stream(visit.place.everything, batch=2)) as rows:
        async for row in rows:
            seen.append(row)
            if visit.rng.random() < 0.2:
                visit.see([each.tenant for each in seen])
                return
    visit.judge(seen, glance)


async def reads_by_hand(visit: Visit) -> None:
    """Read on a connection that is lent, and leave something behind on it."""
    readonly = visit.rng.random() < 0.5
    try:
        async with visit.session.connection(readonly=readonly) as lease:
            glance = visit.glance(primary=not readonly)
            rows = await lease.run("fetch_all", visit.place.everything, (), None)
            visit.judge(rows, glance)
            with suppress(DatabaseError):
                await lease.run("execute_raw", visit.rng.choice(spoilers(visit)), 5.0)
    except UsageError as error:  # behind a pooler nothing is lent that would be the tenant's
        visit.refuse(error)


# --- who writes ------------------------------------------------------------------------------------------


async def writes(visit: Visit) -> None:
    """Write by single statements and a batch, and read that."""
    async with visit.writing() as mark:
        await visit.session.execute(visit.place.insert, visit.row(mark))
    await visit.read()
    async with visit.writing(2) as mark:
        await visit.session.execute_many(visit.place.insert, [visit.row(mark, n) for n in range(2)])
    await visit.read(primary=True)
    await visit.trim()


async def writes_together(visit: Visit) -> None:
    """Write in a transaction, a part of which is taken back."""
    glance = visit.owned.glance()
    async with visit.committing(2) as (tx, mark):
        await tx.execute(visit.place.insert, visit.row(mark, 0))
        with suppress(ZeroDivisionError):
            async with tx.savepoint():
                await tx.execute(visit.place.insert, visit.row(new_mark()))
                raise ZeroDivisionError
        await tx.execute(visit.place.insert, visit.row(mark, 1))
        rows = await tx.fetch_all(visit.place.everything)
        visit.judge([row for row in rows if row.mark != mark], glance)
        visit.see([row.tenant for row in rows if row.mark == mark], least=2)
    await visit.read()
    await visit.trim()


async def undoes(visit: Visit) -> None:
    """Write in a transaction that is rolled back, by an error or on purpose."""
    with suppress(ZeroDivisionError):
        async with visit.session.transaction() as tx:
            await tx.execute(visit.place.insert, visit.row(new_mark()))
            if visit.rng.random() < 0.5:
                await tx.rollback()
            else:
                raise ZeroDivisionError
    await visit.read(primary=True)


async def fails(visit: Visit) -> None:
    """Send what the server refuses, outside and inside of a transaction, and a write among it."""
    wrong = f"SELECT nothing FROM {visit.place.table}"  # noqa: S608
    with suppress(DatabaseError):
        await visit.session.fetch_all(wrong)
    with suppress(DatabaseError):
        async with visit.session.transaction() as tx:
            await tx.execute(visit.place.insert, visit.row(new_mark()))
            await tx.fetch_all(wrong)
    await visit.read()


# --- who is careless -------------------------------------------------------------------------------------


async def spoils(visit: Visit) -> None:
    """Change session state by text or a construct, as a careless application would, and read."""
    text: Any = visit.rng.choice(spoilers(visit))
    try:
        await visit.session.execute(text if visit.rng.random() < 0.7 else construct(text), primary=True)
    except (StatementError, DatabaseError) as error:
        visit.refuse(error)  # what the tenant may not do
    await visit.read(primary=True)
    await visit.read()


async def spoils_raw(visit: Visit) -> None:
    """Change session state by a text that the router does not look at."""
    try:
        await visit.session.execute_raw(visit.rng.choice(spoilers(visit)))
    except (StatementError, DatabaseError) as error:
        visit.refuse(error)
    await visit.read(primary=True)


async def spoils_by_orm(visit: Visit) -> None:
    """Change session state through an ORM session."""
    try:
        async with visit.session.orm() as orm:
            await orm.execute(construct(visit.rng.choice(spoilers(visit))))
            await orm.commit()
    except (StatementError, DatabaseError, DBAPIError) as error:
        visit.refuse(error)
    await visit.read(primary=True)


async def spoils_inside(visit: Visit) -> None:
    """Change session state in a transaction that ends one way or the other."""
    with suppress(ZeroDivisionError):
        try:
            async with visit.session.transaction() as tx:
                await tx.execute(visit.rng.choice(spoilers(visit)))
                if visit.rng.random() < 0.5:
                    raise ZeroDivisionError
        except (StatementError, DatabaseError) as error:
            visit.refuse(error)
    await visit.read(primary=True)


def construct(text: str) -> Any:
    """Return a text as SQLAlchemy takes it, without parameters."""
    return plain(text.replace(":", r"\:"))


_ROW = "'temporary' AS tenant, 0 AS mark, 0 AS n"


def spoilers(visit: Visit) -> list[str]:
    """Return texts that change the session, and if they lasted would lead to another tenant's rows."""
    name, other = visit.place.table, visit.other.binding or Binding()
    shadow = f"CREATE TEMPORARY TABLE {name} AS SELECT {_ROW}"
    if visit.place.dialect is Dialect.MYSQL:
        return [shadow, *_of_mysql(name, other)]
    shadows = [shadow, f"CREATE TEMP VIEW {name} AS SELECT {_ROW}"]
    if visit.place.dialect is Dialect.SQLITE:
        return [*shadows, "BEGIN", "PRAGMA query_only = ON", "PRAGMA case_sensitive_like = ON"]
    return [*shadows, *_of_postgresql(name), *_into(other)]


def _of_mysql(name: str, other: Binding) -> list[str]:
    return [
        *([f"USE `{other.schema}`"] if other.schema else []),
        f"LOCK TABLES {name} READ",
        "START TRANSACTION READ ONLY",
        "SELECT GET_LOCK('leak check', 0)",
        "SET @tenant = 'somebody'",
        "SET SESSION TRANSACTION READ ONLY",
        "SET SESSION autocommit = 0",
        "SET SESSION sql_mode = 'ANSI_QUOTES'",
    ]


def _of_postgresql(name: str) -> list[str]:
    return [
        f"SELECT {_ROW} INTO TEMP {name}",
        f"CREATE TABLE pg_temp.{name} AS SELECT {_ROW}",
        f"SELECT {_ROW} INTO pg_temp.{name}",
        f"CREATE VIEW pg_temp.{name} AS SELECT {_ROW}",
        f"DO $$ BEGIN CREATE TEMP TABLE {name} AS SELECT {_ROW}; END $$",
        f"EXPLAIN ANALYZE CREATE TEMP TABLE {name} AS SELECT {_ROW}",
        "CREATE FUNCTION pg_temp.careless() RETURNS text LANGUAGE sql RETURN 'left'",
        "BEGIN",
        "SELECT pg_advisory_lock(trunc(random() * 1e9)::bigint)",
        "SET default_transaction_read_only = on",
        "SET statement_timeout = 1",
        "SET search_path = pg_catalog",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SELECT set_config('search_path', 'pg_catalog', 1 = 2)",
        "DO $$ BEGIN PERFORM set_config('search_path', 'pg_catalog', false); END $$",
        "UPDATE pg_settings SET setting = 'pg_catalog' WHERE name = 'search_path'",
        "RESET search_path",
        "RESET ALL",
        "RESET ROLE",
        "DISCARD ALL",
        "DEALLOCATE ALL",
        "PREPARE leak_check AS SELECT 1",
        "DECLARE leak_check CURSOR WITH HOLD FOR SELECT 1",
    ]


def _into(other: Binding) -> list[str]:
    """Return texts that bind a session of PostgreSQL to another tenant."""
    texts = []
    if other.schema:
        texts += [
            f'SET search_path = "{other.schema}", public',
            f"SELECT set_config('search_path', '{other.schema}', false)",
            f"SELECT set_config('search_' || 'path', '{other.schema}', false)",
        ]
    if other.role:
        texts += [f'SET ROLE "{other.role}"', f"SELECT set_config('role', '{other.role}', false)"]
    if other.setting:
        texts += [
            f"SET {other.setting} = '{other.value}'",
            f"SELECT set_config('{other.setting}', '{other.value}', false)",
            f"RESET {other.setting}",
        ]
    return texts


# --- who is cut short ------------------------------------------------------------------------------------


async def is_cancelled(visit: Visit) -> None:
    """Begin anything else, and be cancelled at a random moment."""
    doing = visit.rng.choice(_CUT)

    async def work() -> None:
        inner = visit.again()
        async with inner.session:
            await doing(inner)

    task = asyncio.create_task(work())
    await asyncio.sleep(visit.rng.random() * 2 * visit.account.pace)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def is_cancelled_at_work(visit: Visit) -> None:
    """Be cancelled inside of a transaction, with a connection in use for certain."""
    begun = asyncio.Event()

    async def work() -> None:
        async with visit.again().session as session, session.transaction() as tx:
            await tx.execute(visit.place.insert, visit.row(new_mark()))
            begun.set()
            while True:
                await tx.fetch_all(visit.place.everything)

    task = asyncio.create_task(work())
    waits = asyncio.ensure_future(begun.wait())
    await asyncio.wait((task, waits), return_when=asyncio.FIRST_COMPLETED)
    waits.cancel()
    await asyncio.sleep(visit.rng.random() * 0.003)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await visit.read(primary=True)


async def is_late(visit: Visit) -> None:
    """Run into the limit of time, waiting for the server's answer."""
    slow = {
        Dialect.POSTGRESQL: f"{visit.place.everything}, pg_sleep(0.2)",
        Dialect.MYSQL: f"{visit.place.everything} WHERE SLEEP(0.1) = 0",
        Dialect.SQLITE: f"{visit.place.everything}, (WITH RECURSIVE n(i) AS "  # noqa: S608
        "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT count(*) FROM n)",
    }[visit.place.dialect]
    with suppress(RouterError):  # a PoolTimeout, if it was not its turn yet
        await visit.session.fetch_all(slow, timeout=visit.rng.uniform(0.01, 0.05))
    await visit.read()


_CUT: tuple[Visitor, ...] = (
    reads, reads_readonly, reads_prepared, reads_cached, reads_by_core, reads_half, reads_by_hand,
    writes, writes_together, undoes, fails, spoils, spoils_raw, spoils_inside, spoils_by_orm,
)  # fmt: skip
#: what is done, and how often beside the others
VISITORS: dict[Visitor, int] = {
    reads: 20, reads_all_columns: 2, reads_readonly: 4, reads_prepared: 4, reads_cached: 4, reads_by_core: 3,
    reads_half: 3, reads_by_hand: 1, writes: 3, writes_together: 3, undoes: 2, fails: 2, spoils: 3,
    spoils_raw: 1, spoils_inside: 2, spoils_by_orm: 1, is_cancelled: 4, is_cancelled_at_work: 1, is_late: 1,
}  # fmt: skip
