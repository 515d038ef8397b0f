"""Cached answers of tenants that share tables: none is ever seen by another, in either tier."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from router import Router
from router.cache.refusal import Refusal
from tests.isolation import ROLES, ROWS, Isolated
from tests.servers import PostgresqlCluster, RedisServer

KEY = "canary-key-of-cached-values"
COMMON = """
    CREATE TABLE shared.common (name TEXT); INSERT INTO shared.common VALUES ('first');
    GRANT ALL ON shared.common TO router_app;
    CREATE VIEW shared.through WITH (security_invoker = true) AS SELECT tenant FROM shared.owned;
    GRANT SELECT ON shared.through TO router_app;
"""
#: By the search path "$user" one name leads each role to a table of its own.
OWN = """
    CREATE SCHEMA {role} AUTHORIZATION {role};
    SET ROLE {role}; CREATE TABLE {role}.places (name TEXT); INSERT INTO {role}.places VALUES ('{name}');
    RESET ROLE;
"""
USERS = dict(zip(("user_a", "user_b"), ROLES, strict=True))


@pytest.fixture(scope="module")
def isolated(postgresql: PostgresqlCluster) -> Iterator[Isolated]:
    """Make tenants that share tables."""
    made = Isolated(postgresql)
    made.run(COMMON)
    for tenant, role in USERS.items():
        made.run(OWN.format(role=made.roles[role], name=tenant))
    made.run(f"ALTER TABLE {made.roles['role_a']}.places ENABLE ROW LEVEL SECURITY")
    yield made
    made.drop()


@pytest.fixture
async def routers(isolated: Isolated, redis: RedisServer) -> AsyncIterator[list[Router]]:
    """Open two routers that stand for processes, with a tier on Redis between them."""
    config = isolated.config(
        connections=4,
        tenants={name: {"isolation": "row", "role": isolated.roles[role]} for name, role in USERS.items()},
        cache={
            "broadcast": "redis",
            "remote": {"url": redis.dsn(), "key": KEY, "prefix": f"t{secrets.token_hex(4)}"},
        },
        tokens={"keys": [KEY]},
    )
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Router.open(config)) for _ in range(2)]
        for router in opened:
            await router.ready()
        yield opened


async def names(router: Router, tenant: str, table: str = "common") -> list[str]:
    """Return what a session of its own reads through the cache."""
    rows = await router.fetch_all(f"SELECT name FROM {table} ORDER BY name", tenant=tenant, cache=60)
    return [row.name for row in rows]


async def test_rows_behind_row_security_are_not_kept(isolated: Isolated, routers: list[Router]) -> None:
    """What is seen of such a table depends on who asks: nothing of it is cached, nor of views of it."""
    for router in routers * 2:
        for tenant in ROWS * 2:
            for table in ("owned", "through") if tenant != "row_p" else ("owned",):
                rows = await router.fetch_all(f"SELECT tenant FROM {table}", tenant=tenant, cache=60)
                assert {row.tenant for row in rows} == {isolated.key(tenant)}
    for router in routers:
        stats = router.cache.stats()
        assert stats.entries == 0
        assert all(stats.tenants[tenant].bypasses[Refusal.ROW_SECURITY] for tenant in ROWS)


async def test_each_tenant_has_answers_of_its_own_and_hears_of_the_others_writes(
    routers: list[Router],
) -> None:
    """A table that all share is kept once for each tenant; one's write overrules what all others have."""
    first, second = routers
    tenants = ("row_a", "row_b")
    for tenant in tenants:
        for _ in range(3):
            assert await names(first, tenant) == ["first"]
        assert first.cache.stats().tenants[tenant].hits == 2
        assert first.cache.stats().tenants[tenant].remote == 0  # nothing of the other's was taken
    for tenant in tenants:
        assert await names(second, tenant) == ["first"]
        assert second.cache.stats().tenants[tenant].remote == 1
    await first.execute("INSERT INTO common VALUES ('second')", tenant="row_b")
    try:
        for tenant in tenants:
            assert await names(first, tenant) == ["first", "second"]
        deadline = time.monotonic() + 5
        while [await names(second, each) for each in tenants] != [["first", "second"]] * 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
    finally:
        await first.execute("DELETE FROM common WHERE name = 'second'", tenant="row_a")


async def test_one_name_may_lead_each_role_elsewhere(isolated: Isolated, routers: list[Router]) -> None:
    """By "$user" in the search path: answers, and what is known of tables, are those of the role's own."""
    policy = f"CREATE POLICY own ON {isolated.roles['role_a']}.places USING (true)"
    isolated.run(policy)
    for router in routers * 2:
        for tenant in USERS:
            assert await names(router, tenant, "places") == [tenant]
    first = routers[0].cache.stats().tenants
    assert first["user_a"].bypasses[Refusal.ROW_SECURITY] == 2
    assert first["user_b"].hits == 1
    await routers[0].execute("INSERT INTO places VALUES ('zebra')", tenant="user_b")
    assert await names(routers[0], "user_b", "places") == ["user_b", "zebra"]


async def test_another_key_of_a_tenant_makes_its_answers_strange(
    isolated: Isolated, redis: RedisServer
) -> None:
    """What a tenant was shown under one role is not what it is shown under another, after a change of it."""
    remote = {"url": redis.dsn(), "key": KEY, "prefix": f"t{secrets.token_hex(4)}"}
    roles = ", ".join(isolated.roles[role] for role in ROLES)
    isolated.run(f"GRANT USAGE ON SCHEMA shared TO {roles}; GRANT SELECT ON shared.common TO {roles}")
    for role in ROLES:
        section: dict[str, Any] = {"isolation": "row", "schema": "shared", "role": isolated.roles[role]}
        config = isolated.config(
            tenants={"moved": section},
            cache={"broadcast": "alone", "remote": remote},
            tokens={"keys": [KEY]},
        )
        async with Router.open(config) as router:
            await router.ready()
            assert await names(router, "moved") == ["first"]
            assert router.cache.stats().tenants["moved"].remote == 0
    async with Router.open(config) as router:
        await router.ready()
        assert await names(router, "moved") == ["first"]
        assert router.cache.stats().tenants["moved"].remote == 1
