"""What pools, breakers, the cache, the configuration and secrets tell, and in whose context."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router import Router, acting
from router.config import SecretReference, parse
from router.context import current
from router.credentials import Credentials, Passwords
from router.drivers import registry
from router.errors import ConfigurationError, PoolDeadlock, PoolFull, PoolTimeout, RouterError
from router.events import (
    BreakerChanged,
    CacheFlushed,
    CacheTierChanged,
    ConfigurationLoaded,
    ConnectionClosed,
    ConnectionOpened,
    Event,
    PoolClosed,
    PoolOpened,
    PoolRefused,
    SecretChanged,
    SecretFailed,
)
from router.health import Health
from router.probing import Prober
from router.stores.keeper import Keeper
from tests.doubles import Server, config, opened
from tests.engines import Engine, Recorder, only
from tests.servers import RedisServer
from tests.test_health import R1, UNREACHABLE, Told, replica
from tests.test_health import clock as clock
from tests.test_health import health as health
from tests.test_health import told as told
from tests.test_pool import Clock

CANARY = "canary-5ecre7-of-the-events"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# --- pools -----------------------------------------------------------------------------------------------


async def test_a_pool_is_told_when_it_is_made_and_when_it_is_closed(engine: Engine) -> None:
    """Once each, before the first and after the last of its connections."""
    async with engine.open() as router:
        heard = Recorder(router)
        await router.fetch_value("SELECT 1", tenant="acme", primary=True)
        await router.fetch_value("SELECT 1", tenant="acme", primary=True)
        pools = [event for event in heard.of(PoolOpened) if event.node.name == "primary"]
        assert heard.of(PoolClosed) == []
    closed = [event for event in heard.of(PoolClosed) if event.node.name == "primary"]
    assert len(pools) == len(closed) == 1
    assert (pools[0].database, pools[0].user) == (closed[0].database, closed[0].user)
    assert closed[0].leftovers == 0
    kinds = [type(event) for event in heard.events]
    assert kinds.index(PoolOpened) < kinds.index(ConnectionOpened)
    assert kinds.index(PoolClosed) > max(
        index for index, kind in enumerate(kinds) if kind is ConnectionClosed
    )


async def test_what_was_cut_when_a_pool_was_closed_is_told(server: Server) -> None:
    """By its own number; a second close tells nothing new."""
    router = Router(config())
    await router.connect()
    heard = Recorder(router)
    session = router.session("acme")
    await session.begin()
    await router.close(grace=0.01)
    await router.close()
    assert [(event.node.name, event.leftovers) for event in heard.of(PoolClosed)] == [("primary", 1)]


async def test_who_gets_no_connection_is_told(server: Server) -> None:
    """With the tenant, the error, how long it waited and how full the pool was."""
    given = {"timeouts": {"acquire": "30ms", "statement": "5s"}}
    async with opened(connections={"max": 1, "waiting": 1}, defaults=given) as router:
        heard = Recorder(router)
        gate = server.block("execute")
        running = asyncio.create_task(router.execute("UPDATE plans SET seats = 1", tenant="acme"))
        await until(lambda: any("execute" in each.calls for each in server.connections))
        waiting = asyncio.create_task(router.execute("UPDATE plans SET seats = 2", tenant="globex"))
        await asyncio.sleep(0)
        with pytest.raises(PoolFull):
            await router.execute("UPDATE plans SET seats = 3", tenant="acme")
        with pytest.raises(PoolTimeout):
            await waiting
        gate.set()
        await running
        async with router.session("acme").transaction():
            with pytest.raises(PoolDeadlock):
                await router.execute("UPDATE plans SET seats = 4", tenant="acme")
    full, late, deadlock = heard.of(PoolRefused)
    assert (full.tenant, full.error, full.waited) == ("acme", "PoolFull", 0.0)
    assert (full.in_use, full.waiting, full.limit) == (1, 1, 1)
    assert (late.tenant, late.error, late.in_use, late.waiting) == ("globex", "PoolTimeout", 1, 0)
    assert late.waited == pytest.approx(0.03, abs=0.02)
    assert (deadlock.tenant, deadlock.error) == ("acme", "PoolDeadlock")


# --- breakers --------------------------------------------------------------------------------------------


def test_a_breaker_tells_when_it_opens_and_closes(health: Health, clock: Clock, told: Told) -> None:
    """Once each; and so it does of a replica that is left out for another reason, which is no news."""
    for _ in range(2):
        for _ in range(3):
            health.failed(R1, UNREACHABLE)
        clock.now += 3
        replica(health, clock, "r1", 1000)
    found = [(e.node.name, e.open, e.failures, e.error) for e in told.of(BreakerChanged)]
    assert found == [
        ("r1", True, 1, "unreachable"),
        ("r1", False, 1, ""),
        ("r1", True, 2, "unreachable"),
        ("r1", False, 2, ""),
    ]


async def test_a_replica_that_is_left_alone_is_told(server: Server) -> None:
    """By the request that met it."""
    server.down.add("r1")
    async with opened() as router:
        heard = Recorder(router)
        async with asyncio.timeout(10):
            while not heard.of(BreakerChanged):  # chance chooses who is asked
                await router.fetch_all("SELECT 1", tenant="acme")
    (event,) = heard.of(BreakerChanged)
    assert (event.node.name, event.open, event.error) == ("r1", True, "unreachable")


# --- cache -----------------------------------------------------------------------------------------------


@only("sqlite")
async def test_who_lets_go_of_everything_is_told(engine: Engine, redis: RedisServer) -> None:
    """Of one tenant or of all; so is every other process that keeps answers."""
    remote = {"url": redis.dsn(), "key": "k" * 43, "prefix": engine.prefix, "wait": "1s"}
    cached = {"broadcast": "redis", "remote": remote}
    async with engine.open(cache=cached) as one, engine.open(cache=cached) as two:
        mine, theirs = Recorder(one), Recorder(two)
        for router in (one, two):
            assert (await router.cache.reach()).deaf == ()
            await router.fetch_all("SELECT 1 AS x", tenant="acme", cache=60)
        one.cache.invalidate("acme", tables="plans")
        one.cache.invalidate("acme", "analytics")
        one.cache.invalidate("acme")
        one.cache.flush()
        await until(lambda: bool(theirs.of(CacheFlushed)))
    assert [(event.tenant, event.reason) for event in mine.of(CacheFlushed)] == [
        ("acme", "asked"),
        (None, "asked"),
    ]
    assert {(event.tenant, event.reason) for event in theirs.of(CacheFlushed)} <= {
        (None, "told"),
        (None, "broadcast_lost"),
    }


@only("sqlite")
async def test_a_shared_cache_that_fails_is_told(engine: Engine) -> None:
    """Once, when it is left alone, with the name of the error; requests do not notice."""
    remote = {"url": "redis://127.0.0.1:1", "key": "k" * 43, "prefix": engine.prefix}
    async with engine.open(cache={"broadcast": "alone", "remote": remote}) as router:
        heard = Recorder(router)
        with acting(actor="alice"):
            await router.execute("CREATE TABLE IF NOT EXISTS tiers (id INTEGER)", tenant="acme")
        await until(lambda: bool(heard.of(CacheTierChanged)))
    (event,) = heard.of(CacheTierChanged)
    assert not event.usable and event.error
    assert event.context is None or event.context.actor is None, "it was found out beside"


# --- configuration and secrets ---------------------------------------------------------------------------


@only("sqlite")
async def test_a_configuration_is_told_once_it_is_in_use(engine: Engine) -> None:
    """To who has subscribed before the router is opened; opening it twice changes nothing."""
    router = Router(engine.config())
    heard = Recorder(router)
    async with router:
        await router.connect()
    (event,) = heard.of(ConfigurationLoaded)
    assert (event.generation, event.clusters, event.tenants) == (1, 1, 2)


def _passwords(told: list[Any]) -> Passwords:
    keeper = Keeper({}, 60.0, 1.0, clock=lambda: 7.0, rng=Random(1), failed=told.append)
    return Passwords(told.append, lambda: 7.0, keeper)


async def test_a_password_that_changes_is_told_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each change, whoever connects; what is kept of it is no password."""
    told: list[Any] = []
    passwords = _passwords(told)
    credentials = Credentials("app", SecretReference.parse("${env:EVENTS_PW}"))
    logins = [passwords.account(credentials) for _ in range(2)]
    for value in ("one", "one", "two", "two", "one"):
        monkeypatch.setenv("EVENTS_PW", f"{CANARY}-{value}")
        for login in logins:
            assert (await login.fetch()).password.reveal() == f"{CANARY}-{value}"
    assert [(type(event), event.at, event.user, event.source) for event in told] == [
        (SecretChanged, 7.0, "app", "${env:EVENTS_PW}")
    ] * 2
    assert CANARY not in repr(told) and CANARY not in repr(vars(passwords))


async def test_a_password_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error goes on; a password that is there again is no change."""
    told: list[Any] = []
    login = _passwords(told).account(Credentials("app", SecretReference.parse("${env:EVENTS_PW}")))
    monkeypatch.setenv("EVENTS_PW", "one")
    await login.fetch()
    monkeypatch.delenv("EVENTS_PW")
    with pytest.raises(ConfigurationError):
        await login.fetch()
    monkeypatch.setenv("EVENTS_PW", "one")
    await login.fetch()
    (event,) = told
    assert (type(event), event.user, event.source) == (SecretFailed, "app", "${env:EVENTS_PW}")
    assert not event.kept
    assert "EVENTS_PW, which is not set" in event.message


async def test_connecting_tells_of_passwords(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new connection reads the password of now; all nodes of a login share what is known of it."""
    monkeypatch.setenv("EVENTS_PW", f"{CANARY}-one")
    section = {
        "engine": "scripted",
        "primary": {"host": "127.0.0.1", "port": 1},
        "replicas": [{"name": "r1", "host": "127.0.0.1", "port": 2}],
        "credentials": {"writer": {"username": "app", "password": "${env:EVENTS_PW}"}},
        "connections": {"max": 2},
    }
    tenants = {"acme": {"cluster": "main", "isolation": "database", "database": "acme_db"}}
    data = {"version": 1, "clusters": {"main": section}, "tenants": tenants}
    async with Router(parse(data, tmp_path, known_engines=registry.engines())) as router:
        heard = Recorder(router)
        await router.fetch_all("SELECT 1", tenant="acme")
        assert not heard.of(SecretChanged)
        monkeypatch.setenv("EVENTS_PW", f"{CANARY}-two")
        await router.fetch_all("SELECT 1", tenant="acme", primary=True)
        assert [event.user for event in heard.of(SecretChanged)] == ["app"]
        assert server.connections[-1].password == f"{CANARY}-two"
        monkeypatch.delenv("EVENTS_PW")
        session = router.session("acme")
        await session.begin()
        with pytest.raises(RouterError):
            await router.fetch_all("SELECT 1", tenant="acme", primary=True, timeout=0.3)
        await session.rollback()
        assert {event.source for event in heard.of(SecretFailed)} == {"${env:EVENTS_PW}"}
    assert CANARY not in repr(heard.events)


# --- in whose context ------------------------------------------------------------------------------------


async def test_what_happens_beside_requests_is_nobodys(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is closed for being idle is not the doing of who sent the first request."""
    monkeypatch.setattr("router.pools.registry._SWEEP", 0.01)
    async with opened(connections={"max": 2, "idle": "20ms"}) as router:
        heard = Recorder(router)
        with acting(actor="alice", context_id="7"):
            await router.fetch_all("SELECT 1", tenant="acme")
        await until(lambda: bool(heard.of(ConnectionClosed)))
    (made,) = heard.of(ConnectionOpened)
    (closed, *_) = heard.of(ConnectionClosed)
    assert made.context is not None and made.context.actor == "alice"
    assert closed.reason == "idle"
    assert closed.context is not None and closed.context.actor is None


@only("postgresql")
async def test_probes_are_nobodys(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they find out is told in a context of their own, also if a request has started them."""
    actors: list[str | None] = []
    ask = Prober._ask

    async def noting(self: Prober, probe: Any) -> Any:
        actors.append(current().actor)
        return await ask(self, probe)

    monkeypatch.setattr(Prober, "_ask", noting)
    async with engine.open(cluster={"checks": {"interval": "100ms"}}) as router:
        with acting(actor="alice"):
            await router.fetch_all("SELECT 1", tenant="acme")
            await until(lambda: len(actors) > 6)
    assert set(actors) == {None}


async def test_a_request_that_a_listener_runs_is_not_told_to_it(server: Server) -> None:
    """So it comes to an end; others hear of it, and the router goes on telling everybody of the rest."""
    async with opened() as router:
        mine: list[Event] = []
        heard = Recorder(router)

        async def runs(event: Event) -> None:
            mine.append(event)
            with contextlib.suppress(RouterError):
                await router.execute("INSERT INTO log VALUES (1)", tenant="acme")

        listening = router.dispatcher.subscribe(Event, runs, name="runs")
        await router.fetch_all("SELECT 1", tenant="acme")
        await until(lambda: not router.dispatcher.stats()[-1].queued)
        await asyncio.sleep(0.05)
        listening.cancel()
        logged = [event for event in heard.requests if "log" in event.sql]
        assert 0 < len(logged) <= len(mine)
        assert not [event for event in mine if getattr(event, "sql", "") == "INSERT INTO log VALUES (1)"]
