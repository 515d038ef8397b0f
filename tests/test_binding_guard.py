"""Statements that would make a session another tenant's are refused before they are sent."""

import pytest
from sqlalchemy import func, select, text

from router import Router, errors
from router.belonging import Guard
from router.errors import StatementError
from router.statements import Dialect, parse
from tests.isolation import Isolated
from tests.isolation import isolated as isolated
from tests.isolation import router as router

REFUSED = [
    "SET ROLE other",
    "set role none",
    "SET LOCAL ROLE other",
    "SET SESSION ROLE other",
    "SET role = 'other'",
    "SET \"ROLE\" TO 'other'",
    "/* careful */ SET /* here */ ROLE other",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION other",
    "SET LOCAL SESSION AUTHORIZATION other",
    "RESET SESSION AUTHORIZATION",
    "SET app.tenant = 'other'",
    "SET LOCAL app.tenant = 'other'",
    "SET App.Tenant TO other",
    'SET "app"."tenant" = \'other\'',
    "SET \"app.tenant\" = 'other'",
    "SET U&\"app.t\\0065nant\" = 'other'",
    "RESET app.tenant",
    "RESET ALL",
    "DISCARD ALL",
    "SELECT set_config('app.tenant', 'other', true)",
    "SELECT pg_catalog.set_config('role', 'other', false)",
    "SELECT \"set_config\"('APP.tenant', 'other', false)",
    "SELECT set_config(:name, 'other', false)",
    "SELECT set_config('app.' || 'tenant', 'other', false)",
    "SELECT set_config('app.'\n'tenant', 'other', false)",
    "SELECT set_config(E'app.tenant', 'other', false)",
    "SELECT set_config(setting_name => 'app.tenant', new_value => 'x', is_local => false)",
    "SELECT 1 WHERE EXISTS (SELECT set_config ('app.tenant', 'other', false))",
    "WITH a AS (SELECT set_config('work_mem', '1MB', true), set_config('role', 'x', true)) SELECT * FROM a",
    "EXPLAIN ANALYZE SELECT set_config('app.tenant', 'other', false)",
    "UPDATE pg_settings SET setting = 'other' WHERE name = 'app.tenant'",
    "PREPARE p AS SELECT set_config('app.tenant', 'other', false)",
    "DO $$ BEGIN PERFORM set_config('app.tenant', 'other', false); END $$",
    "DO $$ BEGIN SET ROLE other; END $$",
    "DO 'BEGIN EXECUTE ''SET '' || ''ROLE other''; END'",
    "SELECT query_to_xml('SELECT set_config(''app.tenant'', ''other'', false)', true, true, '')",
]
ALLOWED = [
    "SELECT role, \"reset all\", 'SET ROLE other' FROM app.tenant",
    "INSERT INTO notes VALUES ('call set_config(''app.tenant'')')",
    "UPDATE users SET role = 'admin' WHERE id = 1",
    "SELECT set_config('work_mem', '1MB', true)",
    "SELECT current_setting('app.tenant')",
    "SET work_mem = '1MB'",
    "SET LOCAL search_path = other",
    "SET app.tenants = 'x'",
    "RESET work_mem",
    "DISCARD TEMP",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SELECT * FROM pg_settings",
    "CREATE ROLE other",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_what_would_change_whose_session_it_is_is_refused(sql: str) -> None:
    """However it is written, as far as a text shows it; and the second time as the first."""
    guard, statement = Guard("app.tenant"), parse(sql, Dialect.POSTGRESQL)
    assert "says whose session it is" in (guard.refusal(statement) or "")
    assert guard.refusal(statement) == guard.refusal(parse(sql, Dialect.POSTGRESQL))


@pytest.mark.parametrize("sql", ALLOWED)
def test_what_only_looks_like_it_runs(sql: str) -> None:
    """Names, literals and other settings are none of its business."""
    assert Guard("app.tenant").refusal(parse(sql, Dialect.POSTGRESQL)) is None


@pytest.mark.parametrize(
    ("sql", "refused"),
    [
        ("SET ROLE other", True),
        ("SET ROLE NONE", True),
        ("/*!50000 SET ROLE other */", True),
        ("PREPARE p FROM 'SET ROLE other'", True),
        ("SET @role = 'other'", False),
        ("UPDATE users SET role = 'admin'", False),
    ],
)
def test_roles_of_mysql_are_guarded_too(sql: str, refused: bool) -> None:
    """SET ROLE is the only word there is for it, also in a comment that the server runs."""
    assert (Guard(None).refusal(parse(sql, Dialect.MYSQL)) is not None) is refused


@pytest.mark.parametrize("tenant", ["row_a", "role_a"])
async def test_every_way_to_a_session_is_guarded(router: Router, isolated: Isolated, tenant: str) -> None:
    """Text, transactions, streams, Core and the ORM refuse it; nothing was sent, and all goes on."""
    refused = pytest.raises(StatementError, match=r"changes role: that says whose session it is")
    session = router.session(tenant)
    with refused as caught:
        await session.execute("SET ROLE other")
    assert (caught.value.tenant, caught.value.sent) == (tenant, errors.Sent.NO)
    with refused:
        await session.fetch_all(text("SET ROLE other"))
    async with session.transaction() as tx:
        with refused:
            await tx.execute("SET LOCAL ROLE other")
        with refused:
            [row async for row in tx.stream("SELECT set_config('role', 'other', true)")]
        with pytest.raises(StatementError, match="not a plain literal"):
            await tx.fetch_all(select(func.set_config("app.tenant", "other", True)))
        assert await tx.fetch_value("SELECT min(tenant) FROM owned") == isolated.key(tenant)
    async with session.orm() as orm:
        with refused:
            await orm.execute(text("SET ROLE other"))
        with pytest.raises(StatementError, match="not a plain literal"):
            await orm.execute(select(func.set_config("app.tenant", "other", True)))
        assert await orm.scalar(text("SELECT min(tenant) FROM owned")) == isolated.key(tenant)


async def test_who_has_neither_role_nor_rows_is_not_guarded(router: Router) -> None:
    """A tenant by schema may take a role; its connection is closed afterwards, as ever."""
    assert router._executor is not None
    assert router._executor.target("schema_a", None).refusal is None
    await router.execute("SET ROLE router_app", tenant="schema_a")


async def test_a_raw_text_runs_as_it_is_and_costs_the_connection(router: Router, isolated: Isolated) -> None:
    """Nobody looks into a raw text, so what it leaves is seen by nobody after its unit of work."""
    pid = await router.fetch_value("SELECT pg_backend_pid()", tenant="row_a")
    await router.execute_raw("SET app.tenant = 'row_b'; RESET search_path", tenant="row_a")
    assert await router.fetch_value("SELECT tenant FROM owned", tenant="row_a") == isolated.key("row_a")
    assert await router.fetch_value("SELECT pg_backend_pid()", tenant="row_a") != pid
