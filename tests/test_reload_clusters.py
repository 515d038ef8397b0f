"""Reloads of clusters: what is unchanged is not touched, what is changed goes over without an error."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router import Router
from router.config import Config, parse
from router.drivers import registry
from router.errors import ConfigurationError, ServerRemoved, UnknownTenant
from router.events import ConnectionOpened, ReplicaChanged, RequestFailed
from router.testing import record
from tests import certificates
from tests.doubles import ScriptedDriver, Server

READ = "SELECT 1"


def cluster(*replicas: str, password: str = "first-secret", **more: Any) -> dict[str, Any]:
    return {
        "engine": "scripted",
        "primary": {"host": "127.0.0.1", "port": 1},
        "replicas": [{"name": name, "host": "127.0.0.1", "port": 10 + int(name[1:])} for name in replicas],
        "credentials": {"writer": {"username": "app", "password": password}},
        "connections": {"max": 2},
        **more,
    }


def configured(tenants: str = "acme globex", **clusters: dict[str, Any]) -> Config:
    """Return a configuration of tenants on the first cluster."""
    first = next(iter(clusters))
    found = {
        name: {"cluster": first, "isolation": "database", "database": f"{name}_db"}
        for name in tenants.split()
    }
    retries = {"retries": {"attempts": 1}}
    data = {"version": 1, "clusters": clusters, "tenants": found, "defaults": retries}
    return parse(data, known_engines=registry.engines())


@asynccontextmanager
async def opened(config: Config, farewell: float = 0.05) -> AsyncIterator[Router]:
    """Open a router that gives open sessions a short farewell; no request may fail in it by itself."""
    async with Router.open(config) as router:
        router._reloading._farewell = farewell  # type: ignore[union-attr]
        yield router
        await asyncio.sleep(0.01)
        assert not [pool for pool in router.status().pools if pool.in_use or pool.waiting]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.01)


async def test_an_unchanged_cluster_keeps_its_connections(server: Server) -> None:
    """A reload of something else opens and closes nothing there."""
    async with opened(configured(main=cluster("r1"), other=cluster())) as router:
        session = router.session("acme")
        await session.fetch_all(READ)
        before = list(server.open)
        changed = configured(
            "acme globex initech", main=cluster("r1"), other=cluster(balancing="round_robin")
        )
        done = await router.reload(changed)
        assert (done.clusters.changed, done.tenants.added) == ({"other"}, {"initech"})
        await session.fetch_all(READ)
        await router.fetch_all(READ, tenant="initech")
        assert server.open == before


async def test_a_soft_change_keeps_the_connections(server: Server) -> None:
    """What no connection depends on is taken over beside all that is open."""
    async with opened(configured(main=cluster("r1", "r2"))) as router:
        await router.fetch_all(READ, tenant="acme")
        before = list(server.open)
        rules = {"failover": {"hold": "3s"}, "lag": {"max_time": "9s"}, "balancing": "round_robin"}
        await router.reload(configured(main=cluster("r1", "r2", **rules)))
        backend = router._backends["main"]
        assert (backend.holding.patience.longest, backend.health.rules.lag.seconds) == (3, 9)
        await router.fetch_all(READ, tenant="acme")
        assert before[0] in server.open


async def test_other_credentials_replace_the_connections(server: Server) -> None:
    """Idle connections close, a lent one when it comes back; from then on the new login is used."""
    async with opened(configured(main=cluster())) as router:
        session = router.session("acme")
        async with session.transaction() as work:
            await work.execute("INSERT INTO t VALUES (1)")
            await router.reload(configured(main=cluster(password="second-secret")))
            await work.execute("INSERT INTO t VALUES (2)")
            (old,) = server.open
            await router.fetch_all(READ, tenant="globex")
            assert {each.password for each in server.open} == {"first-secret", "second-secret"}
        await asyncio.sleep(0.01)
        assert old.closed
        await session.fetch_all(READ)
        assert {each.password for each in server.open} == {"second-secret"}
        assert [pool.size for pool in router.status().pools] == [1]


async def test_requests_that_wait_move_on_to_the_new_connections(server: Server) -> None:
    """Who stands in the queue of a pool that is replaced is served by the new one (fault case 46)."""
    async with opened(configured(main=cluster(connections={"max": 1}))) as router:
        gate = server.block("fetch_all")
        running = asyncio.create_task(router.fetch_all(READ, tenant="acme"))
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(router.fetch_all(READ, tenant="acme")) for _ in range(5)]
        await asyncio.sleep(0.01)
        with record(router, RequestFailed) as failed:
            await router.reload(configured(main=cluster(connections={"max": 1}, password="second-secret")))
            gate.set()
            await asyncio.gather(running, *waiting)
        assert not failed.events
        assert [each.password for each in server.open] == ["second-secret"]
        assert server.most == 1  # the node's budget holds for old and new ones together


async def test_a_connection_that_is_being_opened_is_replaced_too(server: Server) -> None:
    """A handshake under the old login is given up; its request opens one under the new login."""
    async with opened(configured(main=cluster())) as router:
        server.block("connect")
        running = asyncio.create_task(router.fetch_all(READ, tenant="acme"))
        await asyncio.sleep(0.01)
        await router.reload(configured(main=cluster(password="second-secret")))
        assert await running
        assert {each.password for each in server.open} == {"second-secret"}


async def test_a_probe_that_is_being_connected_is_replaced_too(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server would be asked under the old login for good, and not at all once that is revoked."""
    monkeypatch.setattr(ScriptedDriver, "probes", True)
    async with opened(configured(main=cluster("r1"))) as router:
        await router.fetch_all(READ, tenant="acme")
        backend, gate = router._backends["main"], server.block("connect", node="r1")
        await router.reload(configured(main=cluster("r1", password="second-secret")))
        await until(lambda: not server.faults)
        await router.reload(configured(main=cluster("r1", password="third-secret")))
        gate.set()
        for node in backend.nodes:
            await backend.ask(node, backend.clock() + 1)
        probing = [each for each in server.open if "probe" in each.calls]
        assert [each.password for each in probing] == ["third-secret"] * 2


async def test_the_budget_of_a_node_changes(server: Server) -> None:
    """A higher maximum counts at once."""
    async with opened(configured(main=cluster(connections={"max": 1}))) as router:
        await router.reload(configured(main=cluster(connections={"max": 3})))
        gates = [server.block("fetch_all") for _ in range(3)]
        tasks = [
            asyncio.create_task(router.fetch_all(READ, tenant=each)) for each in ("acme", "globex", "acme")
        ]
        await asyncio.sleep(0.05)
        assert len(server.open) == 3
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)


async def test_replicas_come_and_go(server: Server) -> None:
    """A new one is read, one that is gone is not; who reads there ends in peace, and its pool goes."""
    async with opened(configured(main=cluster("r1"))) as router:
        gate = server.block("fetch_all", node="r1")
        running = asyncio.create_task(router.fetch_all(READ, tenant="acme"))
        await asyncio.sleep(0.01)
        with record(router, ReplicaChanged, ConnectionOpened) as told:
            await router.reload(configured(main=cluster("r2")))
            assert (await router.fetch_all(READ, tenant="acme"))[0]["node"] == "r2"
        changes = {(each.node.name, each.usable, each.reason) for each in told.of(ReplicaChanged)}
        assert changes == {("r1", False, "removed"), ("r2", True, "")}
        gate.set()
        assert (await running)[0]["node"] == "r1"
        await asyncio.sleep(0.1)
        assert {each.endpoint.node.name for each in server.open} == {"r2"}
        health = router._backends["main"].health
        assert {node.name for node in health.load} == {"primary", "r2"}


async def test_a_session_goes_on_beside_its_old_replica(server: Server) -> None:
    """A session that has read from a replica that is gone reads on elsewhere."""
    async with opened(configured(main=cluster("r1"))) as router:
        session = router.session("acme")
        assert (await session.fetch_all(READ))[0]["node"] == "r1"
        await router.reload(configured(main=cluster("r2")))
        assert (await session.fetch_all(READ))[0]["node"] in ("r2", "primary")


async def test_a_removed_cluster_is_left_by_its_sessions_in_peace(server: Server) -> None:
    """What is open there may end; after the farewell its connections close, and nothing of it is kept."""
    both = configured(main=cluster(), other=cluster("r1"))
    async with opened(both) as router:
        session = router.session("acme")
        async with session.transaction() as work:
            await work.execute("INSERT INTO t VALUES (1)")
            await router.reload(configured("initech", other=cluster("r1")))
            gone = weakref.ref(next(iter(router._parting)))
            with pytest.raises(UnknownTenant):
                router.session("acme")
            await asyncio.sleep(0.1)
            await work.execute("INSERT INTO t VALUES (2)")
        await asyncio.sleep(0.02)
        assert not server.open
        with pytest.raises(ServerRemoved, match="Open a new session"):
            await session.fetch_all(READ)
        assert not router._parting
        assert [each.cluster for each in router.status().nodes] == ["other", "other"]
        del session, work
        gc.collect()
        assert gone() is None


async def test_a_primary_at_another_address_is_another_cluster(server: Server) -> None:
    """Nothing that was known of the old server is believed of the new one; old sessions may end."""
    async with opened(configured(main=cluster("r1"))) as router:
        session = router.session("acme")
        await session.execute("INSERT INTO t VALUES (1)")
        before = router._backends["main"]
        moved = cluster("r1") | {"primary": {"host": "127.0.0.2", "port": 1}}
        await router.reload(configured(main=moved))
        assert router._backends["main"] is not before
        await router.execute("INSERT INTO t VALUES (2)", tenant="acme")
        await session.execute("INSERT INTO t VALUES (3)")
        assert [each.endpoint.node.host for each in server.open] == ["127.0.0.1", "127.0.0.2"]
        await asyncio.sleep(0.1)
        assert [each.endpoint.node.host for each in server.open] == ["127.0.0.2"]
        assert before not in router._parting


async def test_closing_a_router_closes_what_a_reload_has_left(server: Server) -> None:
    """Neither a cluster that is gone nor a pool that is replaced outlives the router."""
    async with opened(configured(main=cluster(), other=cluster()), farewell=60) as router:
        await router.fetch_all(READ, tenant="acme")
        await router.reload(configured("initech", other=cluster(password="second-secret")))
        assert router._parting
    assert not server.open
    assert not [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]


async def test_longer_statements_get_longer_walls(server: Server) -> None:
    """A tenant whose statements may take longer is not cut off by what connections were told before."""
    async with opened(configured(main=cluster())) as router:
        await router.fetch_all(READ, tenant="acme")
        wall = server.open[0].endpoint.setup.wall
        slow = {"cluster": "main", "isolation": "database", "database": "slow_db"}
        data = {
            "version": 1,
            "clusters": {"main": cluster()},
            "tenants": {"slow": {**slow, "timeouts": {"statement": "9m"}}},
        }
        longer = parse(data, known_engines=registry.engines())
        await router.reload(longer)
        await router.fetch_all(READ, tenant="slow")
        assert wall is not None
        assert server.open[-1].endpoint.setup.wall > 540


@pytest.mark.skipif(certificates.missing(), reason="there is no openssl")
async def test_certificates_that_are_renewed_are_used(server: Server, tmp_path: Path) -> None:
    """A reload reads them again although the configuration names the same files; broken ones are refused."""
    new, ca = certificates.Authority(tmp_path / "new").certificate, tmp_path / "ca.pem"
    shutil.copy(certificates.Authority(tmp_path / "old").certificate, ca)
    config = configured(main=cluster(tls={"mode": "verify-ca", "ca": str(ca)}), other=cluster())
    async with opened(config) as router:
        await router.fetch_all(READ, tenant="acme")
        (old,) = server.open
        assert not (await router.reload(config)).clusters
        shutil.copy(new, ca)
        assert (await router.reload(config)).clusters.changed == {"main"}
        await router.fetch_all(READ, tenant="acme")
        assert (old.closed, server.open[0].endpoint.tls is old.endpoint.tls) == (True, False)
        ca.write_text("half of a certificate")
        with pytest.raises(ConfigurationError, match="cannot be used"):
            await router.reload(config)
        await router.fetch_all(READ, tenant="acme")
