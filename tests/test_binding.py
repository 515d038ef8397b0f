"""Tenants by row, role and schema over the same connections: what is in force is the tenant's alone."""

import asyncio
import random

import pytest

from router import Router, errors
from router.drivers.driver import Binding
from router.drivers.postgresql_binding import InForce, doubt
from router.errors import DatabaseNotFound, PermissionDenied, RouterError
from tests.isolation import MOODS, ROLES, ROWS, SCHEMAS, TENANTS, Isolated
from tests.isolation import isolated as isolated
from tests.isolation import router as router

STATE = (
    "SELECT current_user AS user, current_setting('role') AS role, current_schemas(false)::text AS path, "
    "current_setting('app.tenant', true) AS tenant, pg_backend_pid() AS pid"
)


async def in_force(router: Router, tenant: str) -> tuple[str, str, str]:
    """Return user, search path and row setting of a tenant's session."""
    row = await router.fetch_one(STATE, tenant=tenant, primary=True)
    assert row is not None
    assert row.user == (row.role if row.role != "none" else "router_app")
    return row.user, row.path, row.tenant or ""


def expected(isolated: Isolated, tenant: str) -> tuple[str, str, str]:
    """Return what must be in force for a tenant."""
    schema = "public" if tenant == "row_p" else "shared" if tenant in ROWS else tenant
    return (
        isolated.roles.get(tenant, "router_app"),
        f"{{{schema}}}",
        isolated.key(tenant) if tenant in ROWS else "",
    )


async def test_whoever_came_before_the_session_is_the_tenants(router: Router, isolated: Isolated) -> None:
    """Each tenant after each other over one connection: role, path and row setting are its own."""
    order = [each for one in TENANTS for other in TENANTS for each in (one, other)]
    pids = set()
    for tenant in order:
        assert await in_force(router, tenant) == expected(isolated, tenant)
        rows = await router.fetch_all("SELECT * FROM owned", tenant=tenant, primary=True)
        assert [row.tenant for row in rows] == [isolated.key(tenant)]
        if tenant in MOODS:  # an enum of its own under the same text
            assert rows[0].feels == MOODS[tenant]
        pids.add(await router.fetch_value("SELECT pg_backend_pid()", tenant=tenant, primary=True))
    assert len(pids) == 1


async def test_tenants_share_few_connections_and_see_only_their_own(isolated: Isolated) -> None:
    """Writes, errors, changed sessions, cancellations at any point: every row is the tenant's."""

    async def work(router: Router, rng: random.Random) -> None:
        for _ in range(6):
            tenant = rng.choice(TENANTS)
            async with router.session(tenant) as session:
                rows = await session.fetch_all("SELECT tenant FROM owned")
                assert {row.tenant for row in rows} == {isolated.key(tenant)}
                with pytest.raises(errors.InvalidStatement):
                    await session.fetch_all("SELECT nothing FROM owned")
                async with session.transaction() as tx:
                    await tx.execute("INSERT INTO owned (n) VALUES (1)")
                    rows = await tx.fetch_all("SELECT tenant FROM owned")
                    assert {row.tenant for row in rows} == {isolated.key(tenant)}
                    await tx.rollback()
                if rng.random() < 0.3:
                    await session.execute("SET work_mem = '1MB'")
                task = asyncio.create_task(session.fetch_all("SELECT tenant FROM owned"))
                await asyncio.sleep(rng.uniform(0, 0.004))
                task.cancel()  # while it waits, binds or reads
                await asyncio.wait([task])
                if not task.cancelled():
                    assert {row.tenant for row in task.result()} == {isolated.key(tenant)}

    async with Router.open(isolated.config(connections=3)) as router, asyncio.TaskGroup() as group:
        for task in range(16):
            group.create_task(work(router, random.Random(task)))


@pytest.mark.parametrize("path", ["", "public, pg_catalog"])
async def test_the_login_s_own_path_comes_back(isolated: Isolated, path: str) -> None:
    """A tenant by row without a schema has the path that sessions begin with, whatever that is."""
    cluster = {"server_settings": {"search_path": path}}
    async with Router.open(isolated.config(cluster=cluster)) as router:
        for tenant in ("schema_a", "row_p", "role_a", "row_p", "schema_a", "row_p"):
            found = await router.fetch_value("SHOW search_path", tenant=tenant)
            assert found in ((path, path or '""') if tenant == "row_p" else (tenant, f'"{tenant}"'))
            owned = "public.owned" if tenant == "row_p" else "owned"
            assert await router.fetch_value(f"SELECT tenant FROM {owned}", tenant=tenant) == tenant


@pytest.mark.parametrize(
    ("section", "kind", "words"),
    [
        ({"isolation": "schema", "schema": "nowhere"}, DatabaseNotFound, "schema 'nowhere' does not exist"),
        (
            {"isolation": "schema", "schema": "closed"},
            PermissionDenied,
            'GRANT USAGE ON SCHEMA "closed" TO "router_app"',
        ),
        ({"isolation": "row", "role": "nobody"}, DatabaseNotFound, "role 'nobody' does not exist"),
        ({"isolation": "row", "role": "{stranger}"}, PermissionDenied, 'GRANT "{stranger}" TO the user'),
        ({"isolation": "row", "role": "{almighty}"}, PermissionDenied, "row security does not hold"),
        (
            {"isolation": "schema", "schema": "schema_c", "role": "{role_a}"},
            PermissionDenied,
            'GRANT USAGE ON SCHEMA "schema_c" TO "{role_a}"',
        ),
    ],
)
async def test_a_place_that_is_not_the_tenants_is_refused(
    isolated: Isolated, section: dict[str, str], kind: type[RouterError], words: str
) -> None:
    """Missing schema or role, no right to either, or rows that nothing hides: refused, with the remedy."""
    isolated.run("CREATE SCHEMA IF NOT EXISTS schema_c AUTHORIZATION router_app")
    given = {name: each.format(**isolated.roles) for name, each in section.items()}
    async with Router.open(isolated.config(tenants={"odd": given})) as router:
        for tenant in random.sample(TENANTS, 3):  # whoever had the connection before, and has it after
            with pytest.raises(kind, match=words.format(**isolated.roles)) as caught:
                await router.fetch_all("SELECT 1", tenant="odd")
            assert caught.value.sent is errors.Sent.NO
            assert caught.value.tenant == "odd"
            assert await in_force(router, tenant) == expected(isolated, tenant)
        assert router.status().pools[0].size == 1


async def test_a_superuser_is_refused_rows(isolated: Isolated) -> None:
    """A login that sees all rows serves tenants by schema, and refuses those by row."""
    isolated.run("ALTER ROLE router_monitor SUPERUSER")
    try:
        async with Router.open(isolated.config(user="router_monitor")) as router:
            assert await router.fetch_value("SELECT tenant FROM owned", tenant="schema_a") == "schema_a"
            with pytest.raises(PermissionDenied, match="row security does not hold for router_monitor"):
                await router.fetch_all("SELECT * FROM owned", tenant="row_a")
    finally:
        isolated.run("ALTER ROLE router_monitor NOSUPERUSER")


@pytest.mark.parametrize("tenant", [*ROWS, *ROLES, *SCHEMAS])
async def test_a_reset_leaves_nothing(router: Router, isolated: Isolated, tenant: str) -> None:
    """After a statement that changes the session it is as it was before any tenant, and not closed."""
    pid = (await router.fetch_one(STATE, tenant=tenant, primary=True)).pid  # type: ignore[union-attr]
    await router.execute("SET work_mem = '1MB'", tenant=tenant)
    executor = router._executor
    assert executor is not None
    target = executor.target(tenant, None)
    lease = await target.backend.lease_unbound(
        target.pool(target.backend.cluster.primary)[0], executor.clock() + 5, 5
    )
    try:
        row = await lease.run("fetch_one", STATE, (), 5.0)
        assert (row.pid, row.user, row.role, row.path) == (pid, "router_app", "none", "{public}")
        assert not row.tenant
        assert await lease.run("fetch_all", "SELECT * FROM public.owned", (), 5.0) == []
    finally:
        lease.release()
    assert await in_force(router, tenant) == expected(isolated, tenant)


@pytest.mark.parametrize(
    ("binding", "found", "words"),
    [
        (Binding("acme", "clerk", "app.tenant", "1"), InForce("acme", "clerk", False), None),
        (Binding("acme"), InForce("public", "app", None), "may not use the schema"),
        (Binding("acme"), InForce(None, "app", None), "may not use the schema"),
        (Binding(None, "clerk"), InForce("public", "app", None), "would run as app, not as the role 'clerk'"),
        (Binding(None, None, "app.tenant", "1"), InForce("public", "app", True), "does not hold for app"),
        (Binding(None, None, "app.tenant", "1"), InForce("public", "app", None), "does not hold for app"),
    ],
)
def test_what_is_in_force_is_the_tenant_s_or_refused(
    binding: Binding, found: InForce, words: str | None
) -> None:
    """Each part by itself, also what a server has no way to do today: to take no role without an error."""
    refused = doubt(binding, found)
    assert (refused is None) is (words is None)
    assert words is None or words in str(refused)
