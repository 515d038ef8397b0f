"""A router under load on real servers, to which everything happens that boards and alerts are for.

First a calm, in which no alert may be raised; then trouble after trouble, while a real Prometheus watches.
Servers are killed, frozen and promoted in earnest; only what would take long or much luck is told as events.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from router import Router, RouterError, events
from router.config import Secret
from router.context import acting
from router.tokens import Tokens
from router.topology import Node, Role
from router.web import serve
from tests.engines import Postgresql
from tests.servers import PostgresqlCluster, PrometheusServer, RedisServer
from tests.servers.process import HOST, free_port, wait_until

TENANTS = ("acme", "globex", "initech")
ABSENT = "hooli"  # a tenant whose database nobody has created
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CREATE = "CREATE TABLE items (id INTEGER PRIMARY KEY, count INTEGER NOT NULL)"
FILL = "INSERT INTO items SELECT n, 0 FROM generate_series(1, 50) AS n"
READ = "SELECT count FROM items WHERE id = :id"
HOT = "SELECT sum(count) FROM items"
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'router_ro'"
WRITE = "UPDATE items SET count = count + 1 WHERE id = :id"

_CLUSTER = {
    "connections": {"max": 4, "waiting": 6, "leak_after": "500ms"},
    "checks": {"interval": "200ms", "timeout": "300ms"},
    "lag": {"max_time": "1s"},
}
_DEFAULTS = {
    "slow_query": "200ms",
    "timeouts": {"acquire": "1s", "connect": "1s"},
    "freshness": {"wait": "50ms"},
}


@dataclass
class Watched:
    """Hold what was seen: ``calm`` and ``whole`` are from when to when, by the wall clock."""

    prometheus: PrometheusServer
    calm: tuple[float, float] = (0.0, 0.0)
    whole: tuple[float, float] = (0.0, 0.0)
    exposition: str = ""  # what the process showed at the end
    said: dict[str, dict[str, str]] = field(default_factory=dict)  # annotations of each alert as raised

    def raised(self, *alerts: str) -> bool:
        """Tell whether all of these alerts were raised."""
        return self.said.keys() >= set(alerts)


class Load:
    """Run what an application does, for each tenant, until it is told to stop; errors are its users'."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Callable[[str, int], Coroutine[Any, Any, object]], *tenants: str) -> None:
        """Repeat some work for tenants."""
        for tenant in tenants:
            self._tasks.append(asyncio.create_task(self._repeat(work, tenant)))

    def as_usual(self) -> None:
        """Begin with what applications do all day."""
        self.start(self.usual, *TENANTS)
        self.start(self.transfer, *TENANTS)

    async def stop(self) -> None:
        """End what was started."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _repeat(self, work: Callable[[str, int], Coroutine[Any, Any, object]], tenant: str) -> None:
        for number in itertools.count():
            with contextlib.suppress(RouterError):
                await work(tenant, number % 50 + 1)
            await asyncio.sleep(0.1)

    # --- what is done ------------------------------------------------------------------------------------

    async def usual(self, tenant: str, number: int) -> None:
        """Read, read from the cache, write and read that back, here and with a token elsewhere."""
        router, value = self._router, {"id": number}
        with acting(trace_id=TRACE):
            await router.fetch_value(READ, value, tenant=tenant)
        await router.fetch_value(HOT, tenant=tenant, cache=60)
        async with router.session(tenant) as session:
            await session.fetch_value(READ, value)
            await session.execute(WRITE, value)
            await session.fetch_value(READ, value)
            token = await session.token()
        async with router.session(tenant, after=token) as session:
            await session.fetch_value(READ, value)
            async with session.transaction(readonly=True) as tx:
                await tx.fetch_value(READ, value)
                await tx.fetch_value(HOT, cache=60)

    async def transfer(self, tenant: str, number: int) -> None:
        """Write in a transaction; every other is given up."""
        async with self._router.session(tenant) as session:
            with contextlib.suppress(ZeroDivisionError):
                async with session.transaction() as tx:
                    await tx.execute(WRITE, {"id": number})
                    if number % 2:
                        raise ZeroDivisionError

    async def hot(self, tenant: str, number: int) -> None:
        """Read what is answered from memory, again and again."""
        for _ in range(5):
            await self._router.fetch_value("SELECT max(id) FROM items", tenant=tenant, cache=60)

    async def strange(self, tenant: str, number: int) -> None:
        """Ask for a tenant that nobody has heard of."""
        await self._router.fetch_value(READ, {"id": number}, tenant=f"{tenant}-{number}")

    async def slow(self, tenant: str, number: int) -> None:
        """Ask what takes the server long."""
        await self._router.fetch_value("SELECT count(*) FROM items, pg_sleep(0.3)", tenant=tenant)

    async def hold(self, tenant: str, number: int) -> None:
        """Keep a connection to the primary for long."""
        async with self._router.session(tenant) as session, session.transaction() as tx:
            await tx.execute(WRITE, {"id": number})
            await asyncio.sleep(1.5)

    async def mistaken(self, tenant: str, number: int) -> None:
        """Ask what is no SQL, and with what is no token."""
        forger = Tokens([Secret("a key that the router does not have")], 600.0, time.time)
        async with self._router.session(tenant, after=forger.sign(tenant, ())) as session:
            await session.fetch_value(READ, {"id": number})
        await self._router.fetch_value("SELECT nothing FROM items", tenant=tenant)


class Scene:
    """Let it all happen, on servers of one's own."""

    def __init__(self, folder: Path) -> None:
        self._cluster = PostgresqlCluster(2)
        self._redis = RedisServer()
        self._port = free_port()
        self._prometheus = PrometheusServer(f"{HOST}:{self._port}")
        self._servers = (self._cluster, self._redis, self._prometheus)
        self._folder = folder
        self._forgetful = False  # where passwords and tenants are kept, nothing is found any more

    async def play(self) -> AsyncIterator[Watched]:
        """Yield what was seen while Prometheus can still be asked."""
        async with contextlib.AsyncExitStack() as stack:
            for server in self._servers:
                stack.callback(server.close)
            await asyncio.gather(*(asyncio.to_thread(server.start) for server in self._servers))
            engine = Postgresql(self._folder, self._cluster)
            await asyncio.to_thread(engine.create, *TENANTS)
            router = await stack.enter_async_context(self._opened(engine))
            for tenant in TENANTS:
                await router.execute(CREATE, tenant=tenant)
                await router.execute(FILL, tenant=tenant)
            await engine.settle()
            yield await self._watched(router)

    def _opened(self, engine: Postgresql) -> Any:
        login = {"reader": {"username": "router_ro", "password": "${call:reader}"}}
        credentials = {**engine.cluster()["credentials"], **login}
        remote = {"url": self._redis.dsn(), "key": "a key for the values of this scene only", "wait": "300ms"}
        config = engine.config(
            (*TENANTS, ABSENT),
            cluster={**_CLUSTER, "credentials": credentials},
            secrets={"refresh": "1s"},
            defaults=_DEFAULTS,
            keys=("a key for the tokens of this scene only",),
            cache={"broadcast": "redis", "remote": remote},
        )
        return Router.open(config, secrets={"reader": self._password}, catalog=self._tenant)

    def _password(self) -> str:
        if self._forgetful:
            raise LookupError
        return str(self._cluster.primary.password("router_ro"))

    def _tenant(self, name: str) -> None:
        if self._forgetful:
            raise LookupError

    async def _watched(self, router: Router) -> Watched:
        watched, load = Watched(self._prometheus), Load(router)
        watching = asyncio.create_task(_watch(watched))
        try:
            load.as_usual()
            load.start(load.hot, *TENANTS)
            load.start(load.strange, ABSENT)
            await asyncio.sleep(1)  # pools fill
            async with serve(router, HOST, self._port):
                await asyncio.to_thread(
                    wait_until, partial(self._shows, "router_build_info"), 15, lambda: "nothing is scraped"
                )
                began = time.time()
                await asyncio.sleep(1)  # alerts of what was before are over
                calm = time.time()
                await asyncio.sleep(4)
                watched.calm = calm, time.time()
                await load.stop()
                await self._crowd(router, load, watched)
                load.as_usual()
                await self._late()
                await self._failover()
                await load.stop()
                watched.exposition = router.metrics.render().decode()
            await asyncio.sleep(3)  # nobody answers Prometheus
        finally:
            await load.stop()
            watching.cancel()
        watched.whole = began, time.time()
        return watched

    def _shows(self, expr: str) -> bool:
        now = time.time()
        return bool(self._prometheus.between(expr, now, now))

    async def _crowd(self, router: Router, load: Load, watched: Watched) -> None:
        """Slow statements only, held connections, a blocked loop, mistakes; no Redis, no secrets."""
        self._forgetful = True
        await asyncio.to_thread(self._redis.kill)
        router.dispatcher.subscribe(events.RequestFinished, _broken, name="broken")
        stuck = router.dispatcher.subscribe(events.RequestFinished, _stuck, name="stuck", capacity=1)
        crowd = (*("acme",) * 8, *("globex", "initech") * 3)
        load.start(load.slow, *crowd)
        load.start(load.hold, *crowd)
        load.start(load.mistaken, *TENANTS, ABSENT)
        load.start(load.strange, ABSENT)
        await asyncio.to_thread(self._cluster.replicas[0].run, CUT)
        await asyncio.sleep(1)
        _tell(router)
        for _ in range(40):  # the process looks once a second, and Prometheus as often
            if watched.raised(_BLOCKED):
                break
            time.sleep(0.4)  # noqa: ASYNC251 - blocks the loop, as is the point
            await asyncio.sleep(0.27)  # so that a second after a block ends there is one, and not a pause
        await asyncio.sleep(2)
        for _ in range(40):  # it lasts until it shows, whatever else the machine does
            if watched.raised(*_SLOWEST):
                break
            await asyncio.sleep(0.5)
        stuck.cancel()
        await load.stop()

    async def _late(self) -> None:
        """Replicas stand still, and are further behind than they may be."""
        for replica in self._cluster.replicas:
            await asyncio.to_thread(replica.pause)
        await asyncio.sleep(3)
        for replica in self._cluster.replicas:
            await asyncio.to_thread(replica.resume)

    async def _failover(self) -> None:
        """The primary dies, and after a while a replica takes its place."""
        await asyncio.sleep(1)
        await asyncio.to_thread(self._cluster.primary.kill)
        await asyncio.sleep(3)
        await asyncio.to_thread(self._cluster.promote, self._cluster.replicas[0])
        await asyncio.sleep(2)


_BLOCKED = "RouterLoopLags"
# They take many requests, or pools that look every few seconds.
_SLOWEST = "RouterLatencyBurnFast", "RouterErrorsBurnFast", "RouterConnectionsHeld"


async def _watch(watched: Watched) -> None:
    """Keep what Prometheus says of alerts while they are raised."""
    while True:
        found = await asyncio.to_thread(watched.prometheus.api, "alerts")
        for alert in found["alerts"]:
            watched.said[alert["labels"]["alertname"]] = alert["annotations"]
        await asyncio.sleep(0.5)


def _tell(router: Router) -> None:
    """Emit what would take long, or much luck, to bring about; tests of each show that it is told."""
    emit, at = router.dispatcher.emit, router.dispatcher.clock()
    primary = Node("primary", "main", Role.PRIMARY, "db-1", 5432)
    for _ in range(3):
        emit(events.PrimaryChanged(at, "main", primary, None, ""))
    emit(events.CommitUnknown(at, "acme", None, primary, 0.1, 2, False, 1))
    emit(events.CommitResolved(at, "acme", primary, "7", True, 0.1))
    emit(events.WriteLost(at, "acme", "main", certain=True))
    emit(events.RetryDenied(at, "acme", "main", "primary", "ConnectionLost", None))
    emit(events.StatementsLeft(at, primary, 1, "ConnectError"))
    emit(events.ConfigurationRefused(at, 1, 1, "config/tenants/acme.yaml:5:1: tenat is an unknown key"))
    emit(events.SecretFailed(at, "router_app", "${env:APP_PASSWORD}", "is not set", kept=False))
    emit(events.CacheNotWorthIt(at, "acme", 1000, 0.1, 0.1, 1.0, "absent", "Leave it uncached"))


def _broken(event: events.Event) -> None:
    raise ValueError


async def _stuck(event: events.Event) -> None:
    await asyncio.sleep(0.5)
