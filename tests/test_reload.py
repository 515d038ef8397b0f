"""Hot reload: another configuration is taken over while requests run, all of it at once or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from router import Router, errors
from router.events import ConfigurationLoaded, ConfigurationRefused, TokenIgnored
from router.testing import record
from tests.folders import ROUTER, TENANT, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "config", "acme", "globex")


def value(router: Router, name: str, **labels: str) -> Any:
    return router.metrics.registry.get_sample_value(f"router_configuration_{name}", labels)


async def test_reload_adds_changes_and_removes_tenants(folder: Folder) -> None:
    """New sessions see the new catalog; those that are open go on with what they had."""
    async with Router.open(folder.path) as router:
        acme, globex = router.session("acme"), router.session("globex")
        await globex.execute("CREATE TABLE t (a INTEGER)")
        folder.tenant("initech")
        folder.tenant("acme", "suspended: true\n")
        folder.drop("globex")
        done = await router.reload()
        assert (done.tenants.added, done.tenants.changed) == ({"initech"}, {"acme"})
        assert (done.tenants.removed, done.generation) == ({"globex"}, 2)
        assert len(await router.fetch_all("SELECT 1", tenant="initech")) == 1
        with pytest.raises(errors.TenantSuspended):
            router.session("acme")
        with pytest.raises(errors.UnknownTenant):
            router.session("globex")
        assert await acme.fetch_all("SELECT 1")
        assert await globex.fetch_all("SELECT a FROM t") == []


async def test_a_mistake_leaves_the_configuration_in_force(folder: Folder) -> None:
    """Every mistake is raised and told, and nothing of the new configuration counts (fault case 46)."""
    async with Router.open(folder.path) as router:
        before = router.config
        folder.tenant("initech")
        folder.tenant("acme", "tier: gone\n")
        folder.tenant("globex", "unknown: key\n")
        with record(router) as told, pytest.raises(errors.ConfigurationError) as refused:
            await router.reload()
        assert len(refused.value.problems) == 2
        (event,) = told.of(ConfigurationRefused)
        assert (event.generation, event.problems) == (1, 2)
        assert "acme.yaml:5:7" in event.message
        assert router.config is before
        with pytest.raises(errors.UnknownTenant):
            router.session("initech")


async def test_metrics_tell_the_generation_and_the_result(folder: Folder) -> None:
    """After a refusal the latest load has failed; one that goes well, changed or not, mends that."""
    async with Router.open(folder.path) as router:
        folder.router("version: 2\n")
        with pytest.raises(errors.ConfigurationError):
            await router.reload()
        assert (value(router, "generation"), value(router, "last_load_success")) == (1, 0)
        folder.router()
        with record(router, ConfigurationLoaded) as told:
            assert not (await router.reload()).tenants
        assert told.of(ConfigurationLoaded)[0].generation == 1
        assert (value(router, "generation"), value(router, "last_load_success")) == (1, 1)
        folder.tenant("initech")
        await router.reload()
        assert value(router, "generation") == 2
        assert value(router, "loads_total", result="loaded") == 3
        assert value(router, "loads_total", result="refused") == 1


async def test_no_moment_shows_a_mixture(folder: Folder) -> None:
    """Who looks at several tenants at once sees them all of one generation, under load (fault case 46)."""
    names = [f"t{number}" for number in range(8)]
    async with Router.open(folder.path) as router:
        over, asked = asyncio.Event(), 0

        async def ask() -> None:
            nonlocal asked
            while not over.is_set():
                sessions = [router.session(name) for name in names]
                seen = {session._target.placement.settings.slow_query for session in sessions}
                assert len(seen | {router.config.defaults.slow_query}) == 1
                assert len({(id(each._target.backend), len(router._backends)) for each in sessions}) == 1
                await sessions[asked % len(names)].fetch_all("SELECT 1")
                asked += 1

        for number in range(1, 13):
            more = f"  more{number}: {{engine: sqlite, primary: {{path: more{number}}}}}\n"
            options = f", options: {{timeout: {number}}}}}\n" if number % 3 else "}\n"
            clusters = ROUTER.replace("}\n", options) if number % 3 else ROUTER
            folder.router(clusters + more + f"defaults: {{slow_query: {number}s}}\n")
            for name in names:
                folder.tenant(name)
            await router.reload()
            if number == 1:
                for name in names:
                    await router.execute("CREATE TABLE t (a INTEGER)", tenant=name)
                tasks = [asyncio.create_task(ask()) for _ in range(6)]
            await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*tasks)
        assert asked > 20


async def test_two_reloads_at_once_take_turns(folder: Folder) -> None:
    """Each takes over what the folder holds when it begins; nothing is lost, and generations go up by one."""
    async with Router.open(folder.path) as router:
        first = asyncio.create_task(router.reload())
        await asyncio.sleep(0)
        folder.tenant("initech")
        second = await router.reload()
        assert [(await first).generation, second.generation] in ([1, 2], [2, 2])
        assert "initech" in router.config.tenants


async def test_a_reload_under_way_ends_with_the_router(folder: Folder) -> None:
    """What was read after the router was closed is not taken over."""
    router = Router.open(folder.path)
    await router.connect()
    folder.tenant("initech")
    running = asyncio.create_task(router.reload())
    await asyncio.sleep(0)
    await router.close()
    with pytest.raises(errors.RouterClosed):
        await running
    with pytest.raises(errors.RouterClosed):
        await router.reload()


async def test_keys_of_tokens_rotate(folder: Folder) -> None:
    """With a new key in front old tokens are still read; once the old key is gone they are not."""
    keys = ["the-first-key-of-all", "the-second-key-of-all"]

    def use(*numbers: int) -> None:
        folder.router(ROUTER + f"tokens: {{keys: [{', '.join(keys[each] for each in numbers)}]}}\n")

    use(0)
    async with Router.open(folder.path) as router:
        with record(router, TokenIgnored) as ignored:
            async with router.session("acme") as session:
                await session.execute("CREATE TABLE t (a INTEGER)")
                old = await session.token()
            use(1, 0)
            await router.reload()
            assert await router.session("acme", after=old).fetch_all("SELECT a FROM t") == []
            new = await router.session("acme", after=old).token()
            assert not ignored.events
            use(1)
            await router.reload()
            router.session("acme", after=new)
            assert not ignored.events
            router.session("acme", after=old)
            assert [each.refusal for each in ignored.of(TokenIgnored)] == ["forged"]


async def test_what_needs_a_restart_is_named_and_not_applied(folder: Folder) -> None:
    """The rest of the configuration counts; each further reload names it again."""
    async with Router.open(folder.path) as router:
        folder.router(ROUTER + "cache: {size: 1MiB}\nobservability: {slow: {digests: 10}}\n")
        folder.tenant("initech")
        with record(router, ConfigurationLoaded) as told:
            done = await router.reload()
        assert done.restart == ("cache", "observability.slow")
        assert told.of(ConfigurationLoaded)[0].restart == done.restart
        assert "initech" in router.config.tenants
        assert router.config.cache.size == 64 << 20
        assert (await router.reload()).restart == done.restart


async def test_a_session_of_a_changed_tenant_stays_where_it_was(folder: Folder) -> None:
    """A tenant that moves to another database: what is open reads the old one, what is new the new one."""
    async with Router.open(folder.path) as router:
        old = router.session("acme")
        await old.execute("CREATE TABLE t (a TEXT)")
        await old.execute("INSERT INTO t VALUES ('old')")
        text = TENANT.format("acme").replace("database: acme", "database: moved")
        (folder.path / "tenants" / "acme.yaml").write_text(text)
        await router.reload()
        new = router.session("acme")
        await new.execute("CREATE TABLE t (a TEXT)")
        await new.execute("INSERT INTO t VALUES ('new')")
        assert await old.fetch_value("SELECT a FROM t", cache=60) == "old"
        assert await new.fetch_value("SELECT a FROM t", cache=60) == "new"
        await old.execute("UPDATE t SET a = 'older'")
        assert await old.fetch_value("SELECT a FROM t", cache=60) == "older"
        assert await new.fetch_value("SELECT a FROM t", cache=60) == "new"
