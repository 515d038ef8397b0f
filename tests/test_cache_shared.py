"""Answers that several processes share: told of each other's writes, and through a tier on a real server."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from router import Router
from tests.engines import Engine, only
from tests.holding import ask_until_current, holding
from tests.servers import MemcachedServer, RedisServer

pytestmark = only("postgresql", "mariadb")
KEY = "canary-key-of-cached-values"
SQL = "SELECT name FROM {} ORDER BY id"


@pytest.fixture(autouse=True)
async def settled(engine: Engine, items: str) -> None:
    """Begin with replicas that have the table."""
    await engine.settle()


def remote(url: str) -> dict[str, Any]:
    """Return the section of a tier of its own."""
    return {"remote": {"url": url, "key": KEY, "prefix": f"t{secrets.token_hex(4)}"}}


@asynccontextmanager
async def processes(engine: Engine, cache: dict[str, Any], count: int = 2) -> AsyncIterator[list[Router]]:
    """Open routers that stand for processes: each has a memory of its own."""
    async with AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(engine.open(cache=cache, connections=8, keys=(KEY,)))
            for _ in range(count)
        ]
        for router in routers:
            await router.ready()
            await ask_until_current(router)
        yield routers


async def names(router: Router, items: str, **given: Any) -> list[str]:
    """Return what a session of its own reads through the cache."""
    rows = await router.fetch_all(SQL.format(items), tenant="acme", cache=60, **given)
    return [row.name for row in rows]


async def insert(router: Router, items: str, name: str) -> str:
    """Write a row and return the token of the session."""
    session = router.session("acme")
    await session.execute(f"INSERT INTO {items} (name, amount) VALUES (:name, 1)", {"name": name})
    return await session.token()


async def soon(router: Router, items: str, expected: list[str], within: float = 5.0) -> float:
    """Wait until reads through the cache give these rows; return the seconds that it took."""
    began = time.monotonic()
    deadline = began + within
    while await names(router, items) != expected:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def kept(router: Router, items: str) -> None:
    """Read until the answer is kept: a replica has to be known to have what was written before."""
    async with asyncio.timeout(5):
        while not (router.cache.stats().entries and router.cache.stats().tenants["acme"].hits):
            await names(router, items)
            await ask_until_current(router)


@pytest.mark.parametrize("kind", ["redis", "postgresql"])
async def test_a_write_elsewhere_is_heard_of(
    engine: Engine, redis: RedisServer, items: str, kind: str
) -> None:
    """Though the answers live for a minute; and without a broadcast they do."""
    if kind == "postgresql" and engine.id != "postgresql":
        kind = "redis"
    async with processes(engine, {"broadcast": kind, **remote(redis.dsn())}) as (one, two):
        await insert(one, items, "first")
        await soon(two, items, ["first"])
        await kept(two, items)
        await insert(one, items, "second")
        await soon(two, items, ["first", "second"])


async def test_without_a_broadcast_only_tokens_tell(engine: Engine, items: str) -> None:
    """Who has written sees it everywhere, others after the time to live."""
    async with processes(engine, {"broadcast": "none"}) as (one, two):
        await insert(one, items, "first")
        await soon(two, items, ["first"])
        await kept(two, items)
        token = await insert(one, items, "second")
        assert await names(two, items) == ["first"]
        assert await names(two, items, after=token) == ["first", "second"]


@pytest.mark.parametrize("server", ["redis", "memcached"])
async def test_what_one_process_has_read_another_need_not(
    engine: Engine, request: pytest.FixtureRequest, items: str, server: str
) -> None:
    """It comes from the shared tier, is checked, and is gone for all once it is written."""
    place: RedisServer | MemcachedServer = request.getfixturevalue(server)
    async with processes(engine, remote(place.dsn())) as (one, two):
        await insert(one, items, "first")
        await kept_remotely(one, items)
        tally = await read_remotely(two, items, ["first"])
        assert tally.remote == 1
        token = await insert(one, items, "second")
        assert await names(two, items, after=token) == ["first", "second"]


async def kept_remotely(router: Router, items: str) -> None:
    """Read on the primary until the answer is in the shared tier."""
    tier = router._executor.cache.tier  # type: ignore[union-attr]
    assert tier is not None
    async with asyncio.timeout(10):
        while not tier.remote.counts.stored or tier.remote.counts.hits == 0:
            router._executor.cache.memory.clear()  # type: ignore[union-attr]
            await names(router, items)
            await asyncio.sleep(0.05)
            await ask_until_current(router)


async def read_remotely(router: Router, items: str, expected: list[str]) -> Any:
    """Read until an answer comes from the shared tier; return what was counted."""
    async with asyncio.timeout(10):
        while True:
            await ask_until_current(router)
            assert await names(router, items) == expected
            tally = router.cache.stats().tenants["acme"]
            if tally.remote:
                return tally
            router._executor.cache.memory.clear()  # type: ignore[union-attr]
            await asyncio.sleep(0.05)


async def test_a_held_back_replica_spoils_no_shared_answer(
    engine: Engine, redis: RedisServer, items: str
) -> None:
    """What it gives after a write that it lacks is not kept, neither here nor there."""
    cache = {"broadcast": "redis", **remote(redis.dsn())}
    async with processes(engine, cache, 3) as (one, two, three):
        await insert(one, items, "first")
        await soon(two, items, ["first"])
        async with holding(engine):
            await insert(one, items, "second")
            for _ in range(10):
                await names(two, items)
                await names(three, items)
                await asyncio.sleep(0.01)
        for router in (one, two, three):
            await soon(router, items, ["first", "second"])
            assert await names(router, items) == ["first", "second"]


async def test_an_eventual_read_with_a_token_vouches_for_nothing(engine: Engine, items: str) -> None:
    """It may have been answered by a replica that lacks what the token stands for."""
    sql = f"SELECT amount FROM {items}"
    async with processes(engine, {"broadcast": "none"}) as (one, two):
        await names(two, items)
        await ask_until_current(two)
        async with holding(engine):
            token = await insert(one, items, "first")
            reader = two.session("acme", after=token)
            assert len(await reader.fetch_all(sql)) == 1
            async with asyncio.timeout(5):  # kept once the replica is known to be the one that was asked
                while not two.cache.stats().tenants["acme"].stored:
                    assert await reader.fetch_all(sql, cache=60, consistency="eventual") == []
            assert len(await two.fetch_all(sql, tenant="acme", cache=60, after=token)) == 1
