"""Reloads on real servers: logins that change under load, replicas that come in late, primaries that move."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from router import Router
from router.errors import RouterError
from router.events import RequestFailed
from router.testing import record
from tests.chaos.cases import off_loop
from tests.engines import Engine, only
from tests.holding import ask_until_current, holding

KEYS = ("a-key-of-sixteen-characters",)


@asynccontextmanager
async def asking(router: Router, table: str, tasks: int = 4) -> AsyncIterator[list[RouterError]]:
    """Ask all the time, each task by sessions that read what they write; yield what went wrong."""
    over, wrong = asyncio.Event(), []

    async def ask(number: int) -> None:
        value = number * 1_000_000
        while not over.is_set():
            value += 1
            try:
                async with router.session("acme") as session:
                    await session.execute(f"INSERT INTO {table} VALUES (:a)", {"a": value})
                    sql = f"SELECT a FROM {table} WHERE a = :a"
                    assert await session.fetch_value(sql, {"a": value}) == value
            except RouterError as error:
                wrong.append(error)

    running = [asyncio.create_task(ask(number)) for number in range(tasks)]
    try:
        yield wrong
    finally:
        over.set()
        await asyncio.gather(*running)


@only("postgresql")
async def test_another_login_under_load(engine: Any) -> None:
    """Every request goes on; in the end nobody is connected as who it was before (fault case 46).

    That is so of requests, of probes, and of what listens for what other processes write.
    """
    told = {"broadcast": "postgresql"}
    table, user = engine.name(), f"r{secrets.token_hex(3)}"
    database = engine.database("acme")
    await off_loop(
        engine.server.run, f"CREATE ROLE {user} LOGIN PASSWORD 'rotated-pw' IN ROLE router_app", "postgres"
    )
    other = {"writer": {"username": user, "password": "rotated-pw"}}
    try:
        async with engine.open(connections=2, cache=told) as router:
            await router.execute(f"CREATE TABLE {table} (a INTEGER)", tenant="acme")
            await engine.settle()
            async with asking(router, table) as wrong:
                for credentials in (other, engine.cluster()["credentials"], other):
                    await asyncio.sleep(0.1)
                    changed = {"credentials": credentials}
                    await router.reload(engine.config(connections=2, cluster=changed, cache=told))
                await asyncio.sleep(0.1)
            assert not wrong
            sql = "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = :name"
            async with asyncio.timeout(10):  # the server takes note of each goodbye in its own time
                while True:
                    found = await router.fetch_all(sql, {"name": database}, tenant="acme", primary=True)
                    if [row["usename"] for row in found] == [user]:
                        break
                    await asyncio.sleep(0.02)
    finally:
        await off_loop(engine.server.run, f"REASSIGN OWNED BY {user} TO router_app", database)
        await off_loop(engine.server.run, f"DROP ROLE {user}", "postgres")


@only("postgresql", "mariadb")
async def test_a_replica_that_comes_in_is_not_read_before_it_has_what_was_seen(engine: Any) -> None:
    """Neither a session nor a token goes back in time on a server that a reload brings in late."""
    *_, late = engine.replicas
    table = engine.name()
    newest = f"SELECT max(a) FROM {table}"
    cluster = engine.cluster()
    fewer = {"replicas": [each for each in cluster["replicas"] if each["name"] != late]}
    async with engine.open(cluster=fewer, keys=KEYS, connections=2) as router:
        await router.execute(f"CREATE TABLE {table} (a INTEGER)", tenant="acme")
        await engine.settle()
        async with holding(engine, late):
            session = router.session("acme")
            await session.execute(f"INSERT INTO {table} VALUES (1)")
            token = await session.token()
            done = await router.reload(engine.config(keys=KEYS, connections=2))
            assert done.clusters.changed == {"main"}
            assert [each.name for each in router.status().nodes][1:] == list(engine.replicas)
            for _ in range(4):
                assert await session.fetch_value(newest) == 1
                assert await router.session("acme", after=token).fetch_value(newest) == 1
        await ask_until_current(router)
        assert {each.name for each in router.status().nodes if each.usable} >= {late}
        assert await session.fetch_value(newest) == 1
        # and out again: who was shown something there sees it elsewhere
        with record(router, RequestFailed) as failed:
            await router.reload(engine.config(cluster=fewer, keys=KEYS, connections=2))
            assert await session.fetch_value(newest) == 1
        assert not failed.events
        assert late not in [each.name for each in router.status().nodes]


@only("postgresql")
async def test_a_token_outlives_a_primary_at_another_address(engine: Engine) -> None:
    """The same server by another name: what a token stands for is seen there, and known to be there."""
    table = engine.name()
    newest = f"SELECT max(a) FROM {table}"
    async with engine.open(keys=KEYS, connections=2) as router:
        await router.execute(f"CREATE TABLE {table} (a INTEGER)", tenant="acme")
        session = router.session("acme")
        await session.execute(f"INSERT INTO {table} VALUES (7)")
        token = await session.token()
        primary = {**engine.cluster()["primary"], "host": "localhost"}
        await router.reload(engine.config(keys=KEYS, connections=2, cluster={"primary": primary}))
        assert router._parting
        with record(router) as told:
            assert await router.session("acme", after=token).fetch_value(newest) == 7
            assert await router.session("acme", after=session).fetch_value(newest) == 7
            assert await session.fetch_value(newest) == 7  # on the servers that it began on
        assert not [each for each in told.events if type(each).__name__ in ("TokenIgnored", "WriteLost")]
