"""PgBouncer in transaction mode: each transaction gets another session, and nobody may notice."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from router import Router, errors
from router.config import Config, parse
from router.errors import ConfigurationError, ConnectError, StatementError
from router.pooling import refusal
from router.statements import Dialect
from router.statements import parse as understand
from tests.conftest import start_or_skip
from tests.servers import PostgresqlCluster
from tests.servers.pgbouncer import Pgbouncer

TASKS = 20


@pytest.fixture(scope="module")
def pgbouncer(postgresql: PostgresqlCluster) -> Iterator[Pgbouncer]:
    """Start PgBouncer with two connections to the primary."""
    server: Pgbouncer = start_or_skip(lambda: Pgbouncer(postgresql, {"": 2}))  # type: ignore[type-var]
    postgresql.run("CREATE TABLE pooled (id SERIAL PRIMARY KEY, task INT, note TEXT)")
    postgresql.run("CREATE TYPE pooled_mood AS ENUM ('calm', 'storm')")
    postgresql.run("GRANT ALL ON pooled, pooled_id_seq TO router_app")
    yield server
    server.close()
    postgresql.run("DROP TABLE pooled; DROP TYPE pooled_mood")


def config(pgbouncer: Pgbouncer, postgresql: PostgresqlCluster, **cluster: Any) -> Config:
    """Return a configuration of one tenant, in the database that PgBouncer names after the primary."""
    login = {"username": "router_app", "password": postgresql.primary.password("router_app")}
    section = {
        "engine": "postgresql",
        "primary": {"host": pgbouncer.host, "port": pgbouncer.port},
        "credentials": {"writer": login},
        "connections": {"max": TASKS},
        "pooler": "pgbouncer-transaction",
        **cluster,
    }
    return parse(
        {
            "version": 1,
            "clusters": {"main": section},
            "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "primary"}},
        }
    )


@pytest.fixture
async def pooled(pgbouncer: Pgbouncer, postgresql: PostgresqlCluster) -> AsyncIterator[Router]:
    """Open a router behind PgBouncer."""
    async with Router.open(config(pgbouncer, postgresql, resolve_commits=True)) as router:
        yield router


async def test_plans_leave_nothing_behind(pooled: Router) -> None:
    """Many ask for plans over two sessions at once; none meets what another has prepared, errors included."""
    executor = pooled._executor
    assert executor is not None
    target = executor.target("acme", None)
    node = target.backend.health.snapshot().primary or target.backend.cluster.primary

    async def ask(sql: str) -> str:
        lease = await target.lease(node, executor.clock() + 10)
        try:
            return str(await lease.run("plan", sql, 1, 5.0, limit=5.0))
        finally:
            lease.release()

    async with asyncio.timeout(30):
        for _ in range(3):
            good = [ask("SELECT note FROM pooled WHERE id = $1") for _ in range(TASKS // 2)]
            bad = [ask("SELECT nothing FROM pooled WHERE id = $1") for _ in range(TASKS // 4)]
            late = [ask("SELECT note FROM pooled WHERE id = $1 AND 1 / 0 = 1") for _ in range(TASKS // 4)]
            found = await asyncio.gather(*good, *bad, *late, return_exceptions=True)
            assert all("pooled" in str(each) for each in found[: len(good)])
            assert all(isinstance(each, errors.DatabaseError) for each in found[len(good) :])


async def _work(router: Router, task: int, rng: random.Random) -> None:
    """Do a bit of everything, and check that each row is the task's own."""
    mine = {"task": task}
    for _ in range(8):
        async with router.session("acme") as session:
            await session.execute("INSERT INTO pooled (task) VALUES (:task)", mine)
            rows = await session.fetch_all("SELECT task FROM pooled WHERE task = :task", mine)
            assert {row.task for row in rows} == {task}
            # texts of their own: each would be a prepared statement with a name of its own
            number = rng.randrange(1_000_000)
            assert await session.fetch_value(f"SELECT {number} + :task", mine) == number + task
            assert await session.fetch_value("SELECT :mood::pooled_mood", {"mood": "calm"}) == "calm"
            async with session.transaction() as tx:
                await tx.execute("SET LOCAL application_name = 'mine'")
                await tx.execute("INSERT INTO pooled (task) VALUES (:task)", mine)
                async with tx.savepoint():
                    assert await tx.fetch_value("SELECT :task::int", mine) == task
                seen = [
                    row.task
                    async for row in tx.stream("SELECT task FROM pooled WHERE task = :task", mine, batch=3)
                ]
                assert set(seen) == {task}
            await session.execute_many("INSERT INTO pooled (task) VALUES (:task)", [mine] * 3)
            async with session.orm() as orm:
                found = await orm.execute(text("SELECT task FROM pooled WHERE task = :task"), mine)
                assert {row.task for row in found} == {task}
            found_by_core = await session.fetch_all(text("SELECT task FROM pooled WHERE task = :task"), mine)
            assert {row.task for row in found_by_core} == {task}


async def test_many_tasks_share_two_sessions(pooled: Router, postgresql: PostgresqlCluster) -> None:
    """20 tasks over 2 sessions of the server: no error, no row of another's, nothing left behind.

    (fault case 28)
    """
    async with asyncio.TaskGroup() as group:
        for task in range(TASKS):
            group.create_task(_work(pooled, task, random.Random(task)))
    counts = postgresql.run("SELECT DISTINCT count(*) FROM pooled GROUP BY task")
    assert counts == str(8 * 5)
    sessions = [
        await pooled.fetch_one(
            "SELECT pg_backend_pid() AS pid, current_setting('application_name') AS name, "
            "(SELECT count(*) FROM pg_prepared_statements) AS prepared",
            tenant="acme",
            primary=True,
        )
        for _ in range(10)
    ]
    assert {(row.name, row.prepared) for row in sessions if row} == {("router", 0)}


async def test_a_transaction_is_marked_through_the_pooler_too(pooled: Router) -> None:
    """PgBouncer passes on what the server reports of itself at the begin."""
    async with pooled.session("acme").transaction() as tx:
        mark = tx.unit.lease.connection.mark
        assert mark is not None
        assert await tx.fetch_value("SELECT pg_current_xact_id()::text") == mark.transaction_id


OUTSIDE = [
    "SET work_mem = '1MB'",
    "SET LOCAL work_mem = '1MB'",
    "RESET ALL",
    "LISTEN channel",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "PREPARE p AS SELECT 1",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    "SELECT set_config('work_mem', '1MB', false)",
    "SELECT set_config('work_mem', '1MB', true)",
    "SELECT lastval()",
    "CREATE TEMP TABLE t (a INT)",
    "CREATE TEMPORARY TABLE t AS SELECT 1",
    "SELECT 1 AS a INTO TEMP t",
    "CREATE TABLE pg_temp.t (a INT)",
    'CREATE VIEW "pg_temp".t AS SELECT 1',
    "SELECT 1 AS a INTO pg_temp_3.t",
    "SET LOCAL search_path = pg_temp",  # where a table without a schema would be made
    "SELECT set_config('search_path', 'pg_temp', true)",
    "DO $$ BEGIN PERFORM set_config('search_path', 'pg_catalog', false); END $$",
    "/* why */ do $x$ begin if true then SET search_path = pg_catalog; end if; end $x$",
    "DO $$ BEGIN RESET ALL; END $$",
    "UPDATE pg_settings SET setting = 'pg_catalog' WHERE name = 'search_path'",
    "EXPLAIN ANALYZE SELECT set_config('search_path', 'pg_catalog', false)",
    "CREATE TABLE u AS SELECT set_config('search_path', 'pg_catalog', 1 = 2)",
    "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
    "DO $$ BEGIN CREATE TEMP TABLE t (a INT); END $$",
]
INSIDE = [
    "SET LOCAL work_mem = '1MB'",
    "SET TRANSACTION READ ONLY",
    "SET CONSTRAINTS ALL DEFERRED",
    "SELECT set_config('work_mem', '1MB', true)",
    "SELECT set_config('work_mem', :a, true)",
    "SELECT lastval()",
    "CREATE TEMP TABLE t (a INT) ON COMMIT DROP",
]
ALWAYS = [
    "SELECT 1",
    "SHOW work_mem",
    "INSERT INTO t VALUES (1)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT nextval('s')",
    "SELECT my_own_function()",
    "CREATE TABLE temperature (a INT)",
    "NOTIFY channel",
    "DO $$ BEGIN UPDATE t SET a = 1; PERFORM pg_advisory_xact_lock(1); END $$",
    "DO $$ BEGIN SET LOCAL work_mem = '1MB'; PERFORM set_config('work_mem', '1MB', true); END $$",
]


@pytest.mark.parametrize("sql", sorted({*OUTSIDE, *INSIDE, *ALWAYS}))
def test_what_would_change_a_session_is_refused(sql: str) -> None:
    """Outside of a transaction nothing may depend on the session; inside only what ends with it may."""
    statement = understand(sql, Dialect.POSTGRESQL)
    assert (refusal(statement, inside=False) is None) is (sql in ALWAYS)
    assert (refusal(statement, inside=True) is None) is (sql in ALWAYS or sql in INSIDE)


async def test_a_refusal_says_what_to_do(pooled: Router, postgresql: PostgresqlCluster) -> None:
    """StatementError before anything is sent, with the way to do it."""
    with pytest.raises(StatementError, match=r"pooler.*SET LOCAL inside of a transaction") as caught:
        await pooled.execute("SET work_mem = '1MB'", tenant="acme")
    assert caught.value.tenant == "acme"
    assert caught.value.sent is errors.Sent.NO
    async with pooled.session("acme").transaction() as tx:
        with pytest.raises(StatementError, match="pooler"):
            await tx.execute("SET work_mem = '1MB'")
        await tx.execute("SET LOCAL work_mem = '1MB'")
        assert await tx.fetch_value("SHOW work_mem") == "1MB"


async def test_without_the_option_the_pooler_refuses_and_the_error_names_the_option(
    pgbouncer: Pgbouncer, postgresql: PostgresqlCluster
) -> None:
    """PgBouncer takes no settings that it does not know; the message leads to the option."""
    async with Router.open(config(pgbouncer, postgresql, pooler=None)) as router:
        with pytest.raises(ConnectError, match=r"startup parameter.*Set pooler: pgbouncer-transaction"):
            await router.fetch_value("SELECT 1", tenant="acme")


CLUSTER = {
    "engine": "postgresql",
    "primary": {"host": "127.0.0.1"},
    "credentials": {"writer": {"username": "app"}},
    "database": "app",
    "pooler": "pgbouncer-transaction",
}
TENANT = {"cluster": "main", "isolation": "database", "database": "acme"}


@pytest.mark.parametrize(
    ("cluster", "tenant", "place", "remedy"),
    [
        ({"server_settings": {"work_mem": "1MB"}}, {}, "server_settings", "ALTER ROLE"),
        ({"engine": "mariadb"}, {}, "pooler", "Remove it"),
        ({"pooler": "session"}, {}, "pooler", "pgbouncer-transaction"),
        ({"pooler": None, "engine": "mariadb", "resolve_commits": True}, {}, "resolve_commits", "Remove it"),
        ({"pooler": None, "engine": "mariadb", "server_settings": {"a": 1}}, {}, "server_settings", "Remove"),
        ({"pooler": None, "server_settings": {"a.password": "x"}}, {}, "server_settings", "credentials"),
    ],
)
def test_what_cannot_work_behind_a_pooler_is_a_configuration_error(
    cluster: dict[str, Any], tenant: dict[str, Any], place: str, remedy: str
) -> None:
    """Refused with place and remedy, before anything is opened."""
    data = {
        "version": 1,
        "clusters": {"main": {**CLUSTER, **cluster}},
        "tenants": {"acme": {**TENANT, **tenant}},
    }
    with pytest.raises(ConfigurationError) as caught:
        parse(data)
    assert any(place in str(each) and remedy in str(each) for each in caught.value.problems), caught.value


def test_settings_of_a_session_are_text_for_the_server() -> None:
    """Numbers and truth values are written as PostgreSQL reads them."""
    settings = {"work_mem": 64, "jit": False, "geqo": True, "statement_timeout": "5s"}
    data = {
        "version": 1,
        "clusters": {"main": {**CLUSTER, "pooler": None, "server_settings": settings}},
        "tenants": {"acme": TENANT},
    }
    assert parse(data).clusters["main"].server_settings == {
        "work_mem": "64",
        "jit": "off",
        "geqo": "on",
        "statement_timeout": "5s",
    }
