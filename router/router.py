"""The router: builds its parts from the configuration, opens and closes them, and hands out sessions."""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from router import building
from router.audit.audit import Audit
from router.audit.handle import AuditHandle
from router.audit.metrics import AuditMetrics
from router.auditing import AuditedExecutor
from router.backend import Backend
from router.cache.cache import Cache
from router.cache.status import status_of
from router.causality import After
from router.config import Config, load
from router.dispatcher import Dispatcher
from router.drivers.registry import engines
from router.errors import RouterClosed
from router.events import ConfigurationLoaded, PrimaryChanged
from router.execution import Executor
from router.explaining import explain
from router.handle import CacheHandle
from router.home import Home, tell_when_forked
from router.metrics import Parts
from router.oneshot import OneShot
from router.pinging import ping
from router.pools.registry import Pools
from router.queries import Level, options, seconds
from router.session import Session
from router.slowlog import SlowLog
from router.status import Explanation, Ping, Status, node_status
from router.tenants import Catalog
from router.topology import Node

_GRACE = 10.0  # seconds that close() waits for running requests


class Router(OneShot):
    """Map (tenant, schema, statement) to connections. One per event loop; share it between all requests.

    ``async with Router.open("config") as router`` opens it; no connection is made before it is needed.
    ``clock`` is the monotonic clock, ``wall`` the wall clock, both in seconds.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config
        self._clock = clock
        self._wall = wall
        self._rng = rng or random.Random()  # noqa: S311  # chooses replicas and jitter, guards nothing
        self.dispatcher = Dispatcher(wall)
        self.metrics = building.metrics(config, clock)
        self.metrics.attach(self.dispatcher)
        self.slowlog = SlowLog(self.dispatcher, config.observability.slow.digests)
        self._executor: Executor | None = None
        self._backends: dict[str, Backend] = {}
        self._pools: Pools | None = None
        self._cache: Cache | None = None
        self._audit: Audit | None = None
        self._home: Home | None = None
        self._ending: asyncio.Future[int] | None = None  # since close() was called

    @classmethod
    def open(cls, source: str | Path | Config) -> Self:
        """Return a router of a configuration folder, to use with ``async with``.

        Raises ConfigurationError with every mistake that the folder has.
        """
        return cls(source if isinstance(source, Config) else load(source, known_engines=engines()))

    # --- life --------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Build the parts on the running event loop; connections follow when they are needed."""
        if self._ending is not None:
            raise RouterClosed("the router is closed. Open a new one")
        if self._executor is not None:
            self._executor.check_loop()
            return
        emit = self.dispatcher.emit
        self._pools = Pools(
            emit=emit,
            clock=self._clock,
            wall=self._wall,
            rng=self._rng,
            # knows the backends, not the router: one that nobody closed must be seen to go
            suspect=partial(_suspect, self._backends),
        )
        clocks = building.Clocks(self._clock, self._wall)
        self._backends.update(building.backends(self.config, self._pools, emit, clocks, self._rng))
        clusters = {name: backend.cluster for name, backend in self._backends.items()}
        cache = self._cache = building.cache(self.config, self._backends, emit, clocks)
        recorded = building.audited(self.config)
        executor = (AuditedExecutor if recorded else Executor)(
            Catalog(self.config.tenants, clusters),
            self._backends,
            self.dispatcher,
            clock=self._clock,
            wall=self._wall,
            rng=self._rng,
            cache=cache,
            tokens=building.tokens(self.config, self._wall),
        )
        if recorded:
            audit = self._audit = executor.audit = building.audit(self.config, executor, emit, clocks)
            audit.attach(self.dispatcher)
            self.metrics.registry.register(AuditMetrics(audit.status))
        self._executor = executor  # only now: without the journal that it needs, nothing runs
        self._home = executor.home
        tell_when_forked(self)
        self.metrics.watch(
            Parts(self._backends, self._pools, cache, self.config.tenants, self.slowlog.seconds, self._clock)
        )
        self.dispatcher.subscribe(PrimaryChanged, partial(_renew, cache))
        await cache.start()
        building.plan(self.config, self._executor, self.slowlog, self._pools, self._rng)
        emit(ConfigurationLoaded(self._wall(), 1, len(clusters), len(self.config.tenants)))

    async def close(self, grace: float = _GRACE) -> int:
        """Refuse new work, wait ``grace`` seconds for running requests, close everything.

        Return how many connections had to be cut. A further call waits for the first and returns the same.
        Cancelled, the first closes all at once. In a forked child it does nothing: nothing there is open.
        """
        if self._home is not None and self._home.left:
            return 0
        if self._ending is not None:
            return await asyncio.shield(self._ending)  # who is cancelled here does not cut the first short
        if self._home is not None:
            self._home.check()
        self._ending = asyncio.get_running_loop().create_future()
        self._executor = None
        pools, backends, cache = self._pools, self._backends.values(), self._cache
        try:
            if pools is not None and cache is not None:
                cache.rest()
                await asyncio.gather(*(backend.close() for backend in backends))
                await pools.close(grace)
                await cache.close()
            if self._audit is not None:
                await self._audit.close()
            await self.dispatcher.aclose()
            await self.metrics.close()
        except BaseException:
            if pools is not None and cache is not None:
                _cut(self._backends, pools, cache)
            if self._audit is not None:
                self._audit.cancel()
            raise
        finally:
            self._ending.set_result(pools.leftovers if pools is not None else 0)
        return self._ending.result()

    def forked(self) -> None:
        """Let go of what belongs to the parent process; called in the child, see :mod:`router.home`."""
        if self._home is not None and self._pools is not None:
            self._home.leave()
            self._pools.detach(self._home.refusal)
            self.metrics.forked()
            for backend in self._backends.values():
                backend.detach()
            if self._audit is not None:
                self._audit.forked()

    def __del__(self) -> None:
        home, pools = getattr(self, "_home", None), getattr(self, "_pools", None)
        if home is None or pools is None or home.left or self._ending is not None:
            return
        try:
            warnings.warn(
                f"{self!r} was not closed; its connections are cut now. Open it with: "
                "async with Router.open(...), or await its close()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
        finally:
            if home.loop is None or home.loop.is_closed():
                pools.detach(home.refusal)
            else:  # the collector may run in any thread
                home.loop.call_soon_threadsafe(_cut, self._backends, pools, self._cache)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._ending is not None else "open" if self._executor is not None else "not open"
        return f"<Router {state}: {len(self.config.clusters)} clusters, {len(self.config.tenants)} tenants>"

    def _running(self) -> Executor:
        if self._executor is None:
            state = "closed" if self._ending is not None else "not open yet"
            raise RouterClosed(f"the router is {state}. Use it inside of: async with Router.open(...)")
        return self._executor

    # --- sessions ----------------------------------------------------------------------------------------

    def session(
        self,
        tenant: str,
        schema: str | None = None,
        *,
        consistency: Level = None,
        timeout: float | None = None,
        context_id: str | None = None,
        after: After = None,
    ) -> Session:
        """Return a session of a tenant, for one request of the application.

        Its reads see all that ``after`` stands for: a token, another session of the tenant, or several.

        Raises:
            UnknownTenant: the catalog has no such tenant.
            UnknownSchema: the tenant has no such schema.
        """
        executor = self._running()
        target = executor.target(tenant, schema)
        return Session(
            executor, target, consistency=consistency, timeout=timeout, context_id=context_id, after=after
        )

    def merge_tokens(self, *tokens: str) -> str:
        """Return one token for what several of one tenant stand for, such as those of parallel jobs.

        It expires with the oldest. Raises UsageError for one that is not believed, or of another tenant.
        """
        return self._running().causality.merge(tokens)

    @property
    def cache(self) -> CacheHandle:
        """Return what can be asked of the cache: ``invalidate``, ``flush``, ``stats`` and more."""
        return CacheHandle(self._running())

    @property
    def audit(self) -> AuditHandle:
        """Return what can be asked of the record of writes: ``deliver``, ``status`` and ``head``."""
        self._running()
        return AuditHandle(self._audit)

    # --- looking -----------------------------------------------------------------------------------------

    def explain(
        self,
        sql: str,
        *,
        tenant: str,
        schema: str | None = None,
        readonly: bool = False,
        primary: bool = False,
        consistency: Level = None,
        after: After = None,
    ) -> Explanation:
        """Return where a statement would go, and why, without running it or asking any server.

        A function that only the database can vouch for counts as unknown until the router has asked, and a
        replica as not caught up with ``after`` until it was probed, see :meth:`ready`.
        """
        given = options(readonly=readonly, primary=primary, consistency=consistency)
        return explain(self._running(), sql, tenant, schema, given, after)

    async def ready(self, *, timeout: float = 5.0) -> None:
        """Begin to watch the servers of every cluster, and return when they have been asked a first time.

        Otherwise the first request of a cluster does. Raises nothing where a server does not answer: see
        :meth:`status` for what was found.
        """
        executor = self._running()
        executor.check_loop()
        deadline = self._clock() + (seconds(timeout) or 0)
        await asyncio.gather(
            *(
                backend.look(building.any_database(self.config, name, executor), deadline)
                for name, backend in self._backends.items()
                if not backend.health.known
            )
        )

    def status(self, *, tenants: bool = True) -> Status:
        """Return nodes, pools, listeners and the cache as they are now.

        Without ``tenants`` the cache's counts of each are left out: there may be ten thousand.
        """
        nodes = tuple(
            node_status(backend.health, server)
            for backend in self._backends.values()
            for server in backend.health.servers
        )
        pools = self._pools.status() if self._pools is not None else ()
        cache = None if self._executor is None else status_of(self._executor.cache, tenants=tenants)
        return Status(nodes, pools, self.dispatcher.stats(), len(self.config.tenants), cache)

    async def ping(self, *, timeout: float = 5.0) -> tuple[Ping, ...]:
        """Ask every node for an answer, primaries first, each within ``timeout`` seconds."""
        executor = self._running()
        executor.check_loop()
        seconds(timeout)
        databases = {name: building.any_database(self.config, name, executor) for name in self._backends}
        return await ping(self._backends, databases, timeout)


def _renew(cache: Cache, event: PrimaryChanged) -> None:
    cache.broadcasts[event.cluster].renew()


def _suspect(backends: dict[str, Backend], node: Node) -> None:
    backends[node.cluster].health.suspect(node)


def _cut(backends: dict[str, Backend], pools: Pools, cache: Cache) -> None:
    cache.cancel()
    for backend in backends.values():
        backend.cancel()
    pools.cut()
