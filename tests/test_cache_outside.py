"""Writes that no router makes: told by the database itself, by a program, and before it ends."""

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncpg

from router import Router
from router.cache.linked import Linked
from router.cache.notices import Notice
from tests.engines import Engine, only
from tests.holding import ask_until_current

PAGE = Path(__file__).parents[1] / "docs" / "cache.md"


def recipe() -> str:
    """Return the trigger that the page about the cache shows."""
    (found,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


async def seats(router: Router, table: str) -> list[int]:
    """Return what a session of its own reads through the cache."""
    rows = await router.fetch_all(f"SELECT seats FROM {table}", tenant="acme", cache=600)
    return [row.seats for row in rows]


async def kept(router: Router, *tables: str) -> None:
    """Read until the answers are kept."""
    async with asyncio.timeout(10):
        for table in tables:
            before = router.cache.stats().tenants["acme"].hits if router.cache.stats().tenants else 0
            while True:
                await ask_until_current(router)
                await seats(router, table)
                if router.cache.stats().tenants["acme"].hits > before:
                    break


@only("postgresql-schema")
async def test_the_trigger_of_the_documentation_tells_of_writes(engine: Any) -> None:
    """A write through another program ends the answers of its table; writes of the router end no others."""
    defaults = {"cache": {"dependencies": {"plans": []}}}
    async with engine.open(cache={"broadcast": "postgresql"}, defaults=defaults) as router:
        await router.ready()
        primary, login = engine.server.primary, engine.login("router_app")
        other = await asyncpg.connect(
            host=primary.host,
            port=primary.port,
            user=login["username"],
            password=login["password"],
            database=engine.database("acme"),
            server_settings={"search_path": "acme"},
        )
        try:
            await other.execute("CREATE TABLE plans (seats int); CREATE TABLE apart (seats int)")
            await other.execute("INSERT INTO plans VALUES (1); INSERT INTO apart VALUES (7)")
            await other.execute(recipe())
            await asyncio.to_thread(engine.server.wait_for_replicas)
            await kept(router, "plans", "apart")
            await other.execute("UPDATE plans SET seats = 2")
            async with asyncio.timeout(5):
                while await seats(router, "plans") != [2]:  # noqa: ASYNC110 - nothing tells it
                    await asyncio.sleep(0.01)
            await kept(router, "plans", "apart")
            await router.execute("UPDATE plans SET seats = 3", tenant="acme")
            async with asyncio.timeout(5):
                while await seats(router, "plans") != [3]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            tally = router.cache.stats().tenants["acme"]
            hits = tally.hits
            assert await seats(router, "apart") == [7]
            assert router.cache.stats().tenants["acme"].hits == hits + 1
        finally:
            await other.close()


@only("postgresql-schema")
async def test_what_is_let_go_of_is_told_through_the_database(engine: Any) -> None:
    """Once ``told`` has returned it is on its way to all others; ``reach`` says by what."""
    async with (
        engine.open(cache={"broadcast": "postgresql"}) as one,
        engine.open(cache={"broadcast": "postgresql"}) as two,
    ):
        for router in (one, two):
            reached = await router.cache.reach()
            assert (reached.broadcasts, reached.deaf, reached.tier) == ({"main": "postgresql"}, (), None)
        before = two.cache.stats().flushes
        one.cache.flush()
        assert await one.cache.told()
        async with asyncio.timeout(5):
            while two.cache.stats().flushes == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@only("sqlite")
async def test_what_is_invalidated_by_name_is_that_table_only(engine: Engine) -> None:
    """Once the catalog was asked; until then it may be any table of the tenant's."""
    async with engine.open(cache={"broadcast": "alone"}) as router:
        for table in ("plans", "apart"):
            await router.execute(f"CREATE TABLE IF NOT EXISTS {table} (seats INTEGER)", tenant="acme")
        assert router.explain("SELECT * FROM plans", tenant="acme").cacheable is None
        await router.cache.ask("acme")
        found = router.explain("SELECT * FROM plans", tenant="acme")
        assert (found.cacheable, found.uncached, found.depends) == (True, "", ("main.plans",))
        await kept(router, "plans", "apart")
        router.cache.invalidate("acme", tables="plans")
        assert await hit(router, "apart")
        assert not await hit(router, "plans")
        router.cache.invalidate("acme", "analytics")
        assert await hit(router, "plans")
        router.cache.invalidate("acme")
        assert not await hit(router, "apart")
        assert await router.cache.told()


async def hit(router: Router, table: str) -> bool:
    """Tell whether a read is answered from memory."""
    before = router.cache.stats().tenants["acme"].hits
    await seats(router, table)
    return router.cache.stats().tenants["acme"].hits > before


@only("sqlite")
async def test_explain_knows_the_rules_of_the_tenant(engine: Engine) -> None:
    """A rule's time is shown for what may be cached, and a cache that is off says so."""
    rules = {"cache": {"rules": [{"tables": ["plans"], "ttl": "60s"}]}}
    async with engine.open(defaults=rules) as router:
        assert router.explain("SELECT * FROM plans", tenant="acme").ttl == 60
        assert router.explain("SELECT * FROM apart", tenant="acme").ttl is None
        assert router.explain("SELECT random() FROM plans", tenant="acme").ttl is None
    async with engine.open(defaults=rules, cache={"size": "0B"}) as router:
        assert router.explain("SELECT * FROM plans", tenant="acme").uncached == "off"


class Slow(Linked):
    """Take its time to say what is to be told."""

    kind = "slow"

    async def session(self) -> None:
        """Say all that is to be told, each time when it may."""
        self.said: list[Notice] = []
        self.may = asyncio.Event()
        self.join(self.clock())
        while True:
            await self.something.wait()
            notices = self.take()
            await self.may.wait()
            self.said += notices
            self.told(notices)


async def test_what_is_being_told_is_told_before_the_end() -> None:
    """A router that is closed just after a commit does not cut off the notice of it."""
    broadcast = Slow(on_message=lambda notice, at: None, on_lost=lambda: None)
    await broadcast.start()
    assert await broadcast.all_told(0.0)
    broadcast.publish("main/app", ["public.plans"])
    await asyncio.sleep(0.01)  # it is on its way now
    assert not broadcast.unsaid
    assert not await broadcast.all_told(0.0)
    asyncio.get_running_loop().call_later(0.05, broadcast.may.set)
    await broadcast.close()
    assert broadcast.said == [Notice("main/app", frozenset({"public.plans"}))]
