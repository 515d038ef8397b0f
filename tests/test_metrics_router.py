"""Metrics of real routers: what is scraped is what the router did, and what servers and pools are like."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from router import Router
from router.errors import PoolTimeout
from tests.engines import Engine, Postgresql, only
from tests.holding import ask_until_current

Labels = dict[str, str]


class Scraped:
    """Hold what one rendering said."""

    def __init__(self, router: Router) -> None:
        self.samples: dict[str, list[tuple[Labels, float]]] = {}
        for family in parse(router.metrics.render().decode()):
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples with these labels; ``None`` if there is none."""
        found = [
            value for have, value in self.samples.get(f"router_{name}", ()) if labels.items() <= have.items()
        ]
        return sum(found) if found else None


async def until(router: Router, right: Callable[[Scraped], bool]) -> Scraped:
    """Return a rendering that is as expected."""
    for _ in range(200):
        if right(found := Scraped(router)):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(found.samples)


@only("sqlite")
async def test_a_router_shows_all_that_it_knows(engine: Engine) -> None:
    """Requests, steps, tenants, pools, nodes, cache and the process itself, from the first scrape on."""
    async with engine.open(observability={"metrics": {"always": ["globex"]}}) as router:
        await router.execute("CREATE TABLE seen (id INTEGER)", tenant="acme")
        async with router.session("acme") as session, session.transaction() as tx:
            await tx.execute("INSERT INTO seen VALUES (1)")
            busy = Scraped(router)
        await router.fetch_all("SELECT * FROM seen", tenant="acme")
        await router.fetch_all("SELECT 1", tenant="globex", cache=60)
        found = Scraped(router)
        status = router.status()
    assert busy("pool_connections", node="main/primary", state="in_use") == 1
    assert found("requests_total", cluster="main", outcome="ok") == 4
    assert found("tenant_requests_total", tenant="acme", outcome="ok") == 3
    assert found("tenant_requests_total", tenant="globex") == 1
    assert found("tenant_rows_total", tenant="acme") == 2
    assert (found("tenants_configured"), found("tenants_folded")) == (2, 0)
    assert found("transactions_total", cluster="main", outcome="committed") == 1
    assert found("transaction_duration_seconds_count", cluster="main", outcome="committed") == 1
    assert found("request_step_seconds_total", cluster="main", step="execute") > 0  # type: ignore[operator]
    for node in status.nodes:
        label = f"{node.cluster}/{node.name}"
        assert found("node_up", node=label, role=node.role) == 1
        assert found("node_usable", node=label) == 1
        assert found("breaker_open", node=label) == 0
        assert found("node_in_flight", node=label) == 0
        assert found("primary", cluster="main", node=label) == (node.role == "primary")
    for pool in status.pools:
        same = [each for each in status.pools if each.node == pool.node]
        assert found("pools", node=pool.node) == len(same)
        assert found("pool_limit", node=pool.node) == pool.max
        assert found("pool_connections", node=pool.node, state="idle") == sum(each.idle for each in same)
    assert found("retry_budget_ratio", cluster="main") == 1
    assert found("cache_requests_total", tenant="globex") == 1
    assert found("listener_muted") == 0
    assert found("build_info") == 1
    assert found("slow_statement_seconds_total") > 0  # type: ignore[operator]


@only("sqlite")
async def test_what_alerts_look_at_begins_at_none(engine: Engine) -> None:
    """A counter that first appears at one is no increase to Prometheus."""
    async with engine.open() as router:
        found = Scraped(router)
    for name in ("failovers", "retries_denied", "commits_unknown", "writes_lost", "slow_requests"):
        assert found(f"{name}_total", cluster="main") == 0
    for name in ("breaker_changes", "pool_refused", "connections_held"):
        assert found(f"{name}_total", node="main/primary") == 0


@only("sqlite")
async def test_who_waits_and_who_is_refused_is_shown(engine: Engine) -> None:
    """A full pool has waiters and a refusal, by node."""
    async with engine.open(defaults={"timeouts": {"acquire": "200ms"}}) as router:
        async with router.session("acme") as session, session.transaction() as tx:
            await tx.execute("CREATE TABLE held (id INTEGER)")
            waiting = asyncio.create_task(router.execute("INSERT INTO held VALUES (1)", tenant="acme"))
            await until(router, lambda found: found("pool_waiters", node="main/primary") == 1)
            with pytest.raises(PoolTimeout):
                await waiting
        found = Scraped(router)
    assert found("pool_refused_total", node="main/primary", error="PoolTimeout") == 1
    assert found("pool_waiters", node="main/primary") == 0
    assert found("tenant_wait_seconds_total", tenant="acme") > 0.1  # type: ignore[operator]


@only("sqlite")
async def test_metrics_end_with_the_router(engine: Engine) -> None:
    """A closed router is scraped without an error and leaves no timer behind."""
    async with engine.open() as router:
        await router.fetch_all("SELECT 1", tenant="acme")
        await router.metrics.scrape()
    assert Scraped(router)("requests_total", outcome="ok") == 1
    assert router.metrics._process.loop._handle is None


# --- servers ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def held_back(engine: Postgresql) -> AsyncIterator[str]:
    """Keep the first replica from applying, and give its name."""
    replica = engine.server.replicas[0]
    await asyncio.to_thread(replica.pause)
    try:
        yield replica.name
    finally:
        await asyncio.to_thread(replica.resume)


@only("postgresql")
async def test_lag_and_pools_of_real_servers(engine: Any) -> None:
    """A replica that does not apply has a growing lag in seconds and bytes; each server has its pool."""
    checks = {"checks": {"interval": "100ms"}, "lag": {"max_time": "1h"}}
    async with engine.open(cluster=checks) as router:
        await router.execute("CREATE TABLE lagging (id INTEGER)", tenant="acme")
        await router.ready()
        await ask_until_current(router)  # a lag is known of what has had all that the primary had
        replicas = [node.name for node in router.status().nodes if node.role == "replica"]
        async with held_back(engine):
            await router.execute("INSERT INTO lagging SELECT generate_series(1, 1000)", tenant="acme")

            def behind(found: Scraped) -> bool:
                lags = [found("replica_lag_bytes", node=f"main/{name}") or 0 for name in replicas]
                return max(lags) > 10_000 and min(lags) == 0

            found = await until(router, behind)
            (late,) = (each for each in replicas if found("replica_lag_bytes", node=f"main/{each}"))
            await until(router, lambda found: (found("replica_lag_seconds", node=f"main/{late}") or 0) > 0.3)
            found = Scraped(router)
        assert all(found("node_up", node=f"main/{name}", role="replica") == 1 for name in replicas)
        assert found("replica_lag_seconds", node="main/primary") is None
        size = sum(pool.size for pool in router.status().pools if pool.node == "main/primary")
        assert size > 0
        assert found("pool_connections", node="main/primary") == size
        assert found("connections_opened_total", node="main/primary") == size
        assert found("connect_duration_seconds_count", node="main/primary") == size
        assert found("primary", cluster="main", node="main/primary") == 1
        await until(router, lambda found: found("replica_lag_bytes", node=f"main/{late}") == 0)
