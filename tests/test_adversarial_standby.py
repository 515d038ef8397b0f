"""The adversarial list against a real standby: whatever we would send there is refused or harmless."""

import asyncio
from typing import Any

import asyncpg

from router.errors import StatementError
from router.lexer import Dialect
from router.reasons import Reason
from router.statements import Kind, parse
from tests.adversarial import CASES, POSTGRESQL_OBJECTS, STABLE
from tests.servers import PostgresqlCluster

DATABASE = "adversarial"
# What a statement could have changed: every row of every table, sequences, roles' settings, objects.
_ROWS = "(SELECT md5(string_agg(x::text, '|' ORDER BY x::text)) FROM {} x)"
_PRIMARY_STATE = f"""
    SELECT {_ROWS.format("t")}, {_ROWS.format("accounts")}, {_ROWS.format("log")},
           (SELECT concat_ws('/', last_value, is_called) FROM s),
           (SELECT concat_ws('/', last_value, is_called) FROM log_id_seq),
           {_ROWS.format("pg_db_role_setting")},
           (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc),
           (SELECT count(*) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_replication_slots)
"""
# What it could have left on its connection to the standby.
_STANDBY_STATE = """
    SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
           (SELECT md5(string_agg(name || '=' || setting, '|' ORDER BY name)) FROM pg_settings),
           (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors),
           (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), session_user, current_user
"""
_VOLATILITY = "SELECT DISTINCT proname::text FROM pg_proc WHERE provolatile = 'v'"


async def state_of(connection: "asyncpg.Connection[Any]", query: str) -> tuple[object, ...]:
    row = await connection.fetchrow(query)
    assert row is not None
    return tuple(row)


async def refused_or_harmless(primary_dsn: str, standby_dsn: str) -> tuple[int, int]:
    """Run what we call reads on the standby; return how many ran and how many of these it refused.

    Every PostgreSQL case whose verdict is a read and whose unproven functions are all stable in the
    catalog is run in autocommit. It must leave primary and connection as they were.
    """
    primary = await asyncpg.connect(primary_dsn)
    standby = await asyncpg.connect(standby_dsn, statement_cache_size=0)
    try:
        assert await standby.fetchval("SELECT pg_is_in_recovery()")
        volatile = {row[0] for row in await primary.fetch(_VOLATILITY)}
        assert not STABLE & volatile
        assert {"writes_a_row", "locks", "nextval"} <= volatile
        ran = refused = 0
        before = await state_of(primary, _PRIMARY_STATE), await state_of(standby, _STANDBY_STATE)
        for case in CASES:
            if case.dialect is not Dialect.POSTGRESQL or not _is_sent(case.sql):
                continue
            ran += 1
            try:
                await standby.fetch(case.sql)
            except asyncpg.PostgresError:
                refused += 1
            after = await state_of(primary, _PRIMARY_STATE), await state_of(standby, _STANDBY_STATE)
            assert after == before, case.sql
        await standby.fetch("SELECT locks(), set_config('work_mem', '9MB', false)")
        left = await state_of(standby, _STANDBY_STATE)
        assert left[:2] != before[1][:2], "the check does not notice what a statement leaves behind"
        return ran, refused
    finally:
        await primary.close()
        await standby.close()


def _is_sent(sql: str) -> bool:
    try:
        statement = parse(sql, Dialect.POSTGRESQL)
    except StatementError:
        return False
    return statement.verdict is Reason.READ and statement.kind is Kind.READ and statement.unproven <= STABLE


async def prepare(primary_dsn: str) -> None:
    """Create what the list's statements name."""
    primary = await asyncpg.connect(primary_dsn)
    try:
        await primary.execute(POSTGRESQL_OBJECTS)
    finally:
        await primary.close()


async def test_a_standby_refuses_or_is_not_harmed(postgresql: PostgresqlCluster) -> None:
    """Each statement of the list that we would send to a replica leaves no trace, on any node."""
    await asyncio.to_thread(postgresql.create_database, DATABASE)
    try:
        await prepare(postgresql.primary.dsn(user="admin", database=DATABASE))
        await asyncio.to_thread(postgresql.wait_for_replicas)
        ran, refused = await refused_or_harmless(
            postgresql.primary.dsn(user="admin", database=DATABASE),
            postgresql.replicas[0].dsn(user="admin", database=DATABASE),
        )
    finally:
        await asyncio.to_thread(postgresql.drop_database, DATABASE)
    assert ran >= 55
    assert refused <= 3  # those that only the server can tell from a read: a view, functional notation
