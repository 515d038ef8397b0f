"""Tenants by schema, role and row behind PgBouncer: a session is a tenant's for one transaction only."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from router import Router, errors
from router.errors import (
    CommitOutcomeUnknown,
    DatabaseNotFound,
    PermissionDenied,
    RouterError,
    StatementError,
    UsageError,
)
from tests.conftest import start_or_skip
from tests.engines import Recorder
from tests.faults import Break, Cut, Direction
from tests.faults.proxy import Proxy
from tests.isolation import MOODS, ROWS, TENANTS, Isolated, Pooled
from tests.servers import PostgresqlCluster
from tests.test_binding import expected, in_force

TASKS, SESSIONS = 12, 2
STATE = (
    "SELECT current_user, current_schemas(false)::text, current_setting('app.tenant', true), "
    "(SELECT count(*) FROM pg_prepared_statements)"
)


@pytest.fixture(scope="module")
def isolated(postgresql: PostgresqlCluster) -> Iterator[Pooled]:
    """Make tenants of all models behind two sessions of PgBouncer."""
    made = start_or_skip(lambda: Pooled(postgresql, SESSIONS))
    yield made
    made.drop()


@pytest.fixture
async def router(isolated: Pooled) -> AsyncIterator[Router]:
    """Open a router whose connections outnumber the sessions behind them."""
    async with Router.open(isolated.config(connections=TASKS, cluster=isolated.through())) as opened:
        yield opened


async def _work(router: Router, isolated: Isolated, rng: random.Random) -> None:
    """Do a bit of everything as several tenants; each row that is seen is the tenant's."""
    for _ in range(3):
        tenant = rng.choice(TENANTS)
        own = {isolated.key(tenant)}
        read = "SELECT * FROM owned"
        async with router.session(tenant) as session:
            await session.execute("INSERT INTO owned (n) VALUES (:n)", {"n": 1})
            await session.execute_many("INSERT INTO owned (n) VALUES (:n)", [{"n": 2}] * 2)
            rows = await session.fetch_all(read)
            assert {row.tenant for row in rows} == own
            assert {getattr(row, "feels", None) for row in rows if tenant in MOODS} <= {MOODS.get(tenant)}
            with pytest.raises(errors.InvalidStatement):
                await session.execute("UPDATE owned SET nothing = 1")
            assert {row.tenant for row in await session.fetch_all(text("SELECT tenant FROM owned"))} == own
            assert {row.tenant async for row in session.stream(read, batch=1)} == own
            async with session.transaction(isolation="repeatable read") as tx:
                await tx.execute("INSERT INTO owned (n) VALUES (3)")
                with pytest.raises(errors.DataError):
                    async with tx.savepoint():
                        await tx.fetch_value("SELECT 1 / 0")
                assert {row.tenant for row in await tx.fetch_all(read)} == own
            async with session.orm() as orm:
                assert set(await orm.scalars(text("SELECT tenant FROM owned"))) == own
            task = asyncio.create_task(session.fetch_all(read))
            await asyncio.sleep(rng.uniform(0, 0.01))
            task.cancel()
            await asyncio.wait([task])


async def test_many_tasks_of_all_models_share_two_sessions(router: Router, isolated: Pooled) -> None:
    """Reads, writes, errors, cancellations, Core and the ORM: every row is the tenant's, nothing stays."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for task in range(TASKS):
            group.create_task(_work(router, isolated, random.Random(task)))
    for tenant in TENANTS:
        row = await router.fetch_one(STATE, tenant=tenant, primary=True)
        assert row is not None
        assert (*row[:2], row[2] or "") == expected(isolated, tenant)
        assert row[3] == 0


async def test_sessions_are_nobodys_between_transactions(router: Router, isolated: Pooled) -> None:
    """What was set for a transaction ends with it: a statement past the router finds the login's own."""
    await router.fetch_all("SELECT * FROM owned", tenant="role_a")
    executor = router._executor
    assert executor is not None
    target = executor.target("role_a", None)
    link = await target.backend.link(target.database, 5.0)
    try:
        for _ in range(2 * SESSIONS):
            row = await link.fetchrow(STATE)
            assert (row[0], row[1], row[2] or "") == ("router_app", "{public}", "")
    finally:
        await link.close()


@pytest.mark.parametrize(
    ("section", "kind", "words"),
    [
        ({"isolation": "schema", "schema": "nowhere"}, DatabaseNotFound, "schema 'nowhere' does not exist"),
        ({"isolation": "schema", "schema": "closed"}, PermissionDenied, 'GRANT USAGE ON SCHEMA "closed"'),
        ({"isolation": "row", "role": "nobody"}, DatabaseNotFound, "role 'nobody' does not exist"),
        ({"isolation": "row", "role": "{stranger}"}, PermissionDenied, 'GRANT "{stranger}" TO the user'),
        ({"isolation": "row", "role": "{almighty}"}, PermissionDenied, "row security does not hold"),
    ],
)
async def test_a_place_that_is_not_the_tenants_is_refused(
    isolated: Pooled, section: dict[str, str], kind: type[RouterError], words: str
) -> None:
    """As over a direct connection, with statements and transactions, before anything runs."""
    given = {name: each.format(**isolated.roles) for name, each in section.items()}
    config = isolated.config(tenants={"odd": given}, cluster=isolated.through())
    async with Router.open(config) as router:
        for _ in range(2):
            with pytest.raises(kind, match=words.format(**isolated.roles)) as caught:
                await router.execute("CREATE TABLE IF NOT EXISTS public.odd (n INT)", tenant="odd")
            assert (caught.value.tenant, caught.value.sent) == ("odd", errors.Sent.NO)
            with pytest.raises(kind, match=words.format(**isolated.roles)):
                async with router.session("odd").transaction():
                    pass
            with pytest.raises(kind, match=words.format(**isolated.roles)):
                await router.fetch_all(text("SELECT 1"), tenant="odd")
            assert await router.fetch_value("SELECT tenant FROM owned", tenant="schema_a") == "schema_a"
    assert isolated.run("SELECT to_regclass('public.odd')") == ""


async def test_a_plan_is_of_the_tenants_tables(router: Router) -> None:
    """Names in a plan lead where they do in the statement."""
    executor = router._executor
    assert executor is not None
    target = executor.target("schema_b", None)
    lease = await target.lease(target.backend.cluster.primary, executor.clock() + 5)
    try:
        assert "owned" in await lease.run("plan", "SELECT feels FROM owned WHERE n = $1", 1, 5.0)
    finally:
        lease.release()


async def test_a_transaction_of_a_tenant_is_marked_too(isolated: Pooled) -> None:
    """With resolve_commits its number comes back beside what makes it the tenant's."""
    cluster = isolated.through() | {"resolve_commits": True}
    async with Router.open(isolated.config(cluster=cluster)) as router:
        for tenant in ("role_a", "row_a"):
            async with router.session(tenant).transaction() as tx:
                mark = tx.unit.lease.connection.mark
                assert mark is not None
                assert await tx.fetch_value("SELECT pg_current_xact_id()::text") == mark.transaction_id
                row = await tx.fetch_one(STATE)
                assert row is not None
                assert (*row[:2], row[2] or "") == expected(isolated, tenant)


async def test_a_raw_text_is_one_transaction(router: Router, isolated: Pooled) -> None:
    """It runs in the tenant's place, all or nothing; one that would end the transaction is refused."""
    await router.execute_raw("CREATE TABLE raw (a INT); INSERT INTO raw VALUES (1)", tenant="schema_a")
    assert isolated.run("SELECT a FROM schema_a.raw") == "1"
    for sql in ("COMMIT; DELETE FROM raw", "DELETE FROM raw; /* and */ End; SELECT 1", "begin"):
        with pytest.raises(StatementError, match="would end its transaction"):
            await router.execute_raw(sql, tenant="schema_a")
    assert isolated.run("SELECT a FROM schema_a.raw") == "1"


@pytest.mark.parametrize(
    "sql",
    [
        "SET search_path = pg_catalog",
        "SELECT 1; set statement_timeout = 1",
        "/* a word */ RESET search_path",
        "DISCARD TEMP",
        "SELECT pg_advisory_lock(1)",
        "SELECT set_config('search_path', 'schema_b', false)",
        "SELECT 1; CREATE TEMP TABLE owned (a INT)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "DO $$ BEGIN PERFORM set_config('search_path', 'pg_catalog', false); END $$",
    ],
)
async def test_a_raw_text_leaves_nothing_in_a_session_that_others_get(
    router: Router, isolated: Pooled, sql: str
) -> None:
    """What outlasts the transaction is refused as it is in a single statement; what ends with it is not."""
    with pytest.raises(StatementError, match="pooler gives to somebody else once the transaction ends"):
        await router.execute_raw(sql, tenant="schema_a")
    await router.execute_raw("SET LOCAL work_mem = '1MB'; SELECT ';SET x = 1'", tenant="schema_a")
    assert {await in_force(router, tenant) for tenant in ROWS} == {
        expected(isolated, tenant) for tenant in ROWS
    }


async def test_a_connection_by_itself_is_not_lent(router: Router) -> None:
    """The driver's own would not be the tenant's; the error says where it is."""
    with pytest.raises(UsageError, match=r"not the tenant's\. Use transaction\(\)"):
        async with router.session("schema_a").connection():
            pass


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("make", [str, text], ids=["text", "core"])
async def test_a_write_that_is_cut_is_never_reported_wrong(
    isolated: Pooled, direction: Direction, make: Callable[[str], Any]
) -> None:
    """A COMMIT without an answer is unknown; what is lost before it is sent was not applied.

    Whatever byte is lost, nothing is applied twice, and nothing that is reported as applied is missing.
    """
    insert, reports = make("INSERT INTO owned (n) VALUES (:n)"), dict[int, str]()
    step = 11 if direction is Direction.TO_SERVER else 17  # less than a COMMIT, and its answer
    with Proxy(isolated.pgbouncer) as proxy:
        cluster = isolated.through() | {"primary": {"host": proxy.host, "port": proxy.port}}
        async with Router.open(isolated.config(cluster=cluster)) as router:
            heard, position = Recorder(router), 0
            for number in itertools.count(1000):
                await router.execute(insert, {"n": -1}, tenant="schema_b")
                cut = Cut(position, Break.CLOSE, direction=direction, times=1)
                proxy.add(cut)
                try:
                    await router.execute(insert, {"n": number}, tenant="schema_b")
                    reports[number] = "applied"
                except CommitOutcomeUnknown as unknown:
                    assert unknown.tenant == "schema_b"
                    reports[number] = "unknown"
                proxy.remove(cut)
                if not cut.fired:  # behind the last byte
                    break
                met = reports[number] == "unknown" or heard.last.attempts > 1
                position += step if met else 1  # a probe may be what was cut: the same again, nearly
            rows = await router.fetch_all("SELECT n FROM owned WHERE n >= 1000", tenant="schema_b")
            await router.execute("DELETE FROM owned WHERE n >= 1000", tenant="schema_b")
    found = Counter(row.n for row in rows)
    assert set(found.values()) == {1}
    assert {number for number, report in reports.items() if report == "applied"} <= set(found)
    counts = Counter(reports.values())
    assert counts["unknown"] > 0
    if make is str:  # run again by itself
        assert counts["applied"] > 2 * counts["unknown"]
