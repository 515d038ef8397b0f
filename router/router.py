"""The router: builds its parts from the configuration, opens and closes them, and hands out sessions.

Longer than other modules: it is the one place that knows all parts, and what a user may ask of them.
"""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from router import building, parts
from router.audit.audit import Audit
from router.audit.handle import AuditHandle
from router.auditing import AuditedExecutor
from router.backend import Backend, Target
from router.cache.cache import Cache
from router.cache.status import status_of
from router.causality import After
from router.config import Config, TenantConfig
from router.config.loader import Loader
from router.config.stores import check_functions
from router.credentials import Passwords
from router.deferred import DeferredSession
from router.dispatcher import Dispatcher
from router.drivers.registry import engines
from router.errors import CatalogUnavailable, RouterClosed, TenantNotAsked, UsageError
from router.events import PrimaryChanged
from router.execution import Executor
from router.explaining import explain
from router.finding import Finder
from router.handle import CacheHandle
from router.home import Home, tell_when_forked
from router.metrics import Parts
from router.oneshot import OneShot
from router.pinging import ping
from router.pools.registry import Pools
from router.queries import Level, options, seconds
from router.reloading import Reloaded, Reloading, Running
from router.row_checks import check_rows
from router.row_security import RowFinding
from router.session import Session
from router.slowlog import SlowLog
from router.sources import Lookup, Source
from router.status import Explanation, Ping, Status, node_status
from router.stores.calls import NO_FUNCTIONS, Function
from router.stores.keeper import Keeper
from router.table_source import session as control_session
from router.table_source import source_of
from router.tenants import Placement
from router.topology import Node
from router.watching import Watch

T = TypeVar("T")

_LOOKUPS = 3  # of one tenant for one session
_GRACE = 10.0  # seconds that close() waits for running requests


class Router(OneShot):
    """Map (tenant, schema, statement) to connections. One per event loop; share it between all requests.

    ``async with Router.open("config") as router`` opens it; no connection is made before it is needed.
    ``clock`` is the monotonic clock, ``wall`` the wall clock, both in seconds. ``secrets`` are the functions
    that passwords written as ``${call:NAME}`` come from, by name; a coroutine function or a plain one, which
    is called in a thread.
    ``catalog`` is asked for tenants that the configuration does not have: a function of the tenant's id, or
    a :class:`router.sources.Source`.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        secrets: Mapping[str, Function] = NO_FUNCTIONS,
        catalog: Source | Lookup | None = None,
        loader: Loader | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._config = config
        self._loader = loader
        self._watch = watch
        self._source = catalog
        self._functions = secrets
        check_functions(config.stored, secrets)
        self._clock = clock
        self._wall = wall
        self._rng = rng or random.Random()  # noqa: S311  # chooses replicas and jitter, guards nothing
        self.dispatcher = Dispatcher(wall)
        self.metrics = parts.metrics(config, clock)
        self.metrics.attach(self.dispatcher)
        self.slowlog = SlowLog(self.dispatcher, config.observability.slow.digests)
        self._executor: Executor | None = None
        self._backends: dict[str, Backend] = {}
        self._parting: set[Backend] = set()  # of clusters that a reload has removed, while sessions use them
        self._reloading: Reloading | None = None
        self._pools: Pools | None = None
        self._keeper: Keeper | None = None
        self._cache: Cache | None = None
        self._audit: Audit | None = None
        self._home: Home | None = None
        self._finder: Finder | None = None
        self._ending: asyncio.Future[int] | None = None  # since close() was called

    @classmethod
    def open(
        cls,
        source: str | Path | Config,
        *,
        secrets: Mapping[str, Function] = NO_FUNCTIONS,
        watch: bool | Watch = False,
        catalog: Source | Lookup | None = None,
    ) -> Self:
        """Return a router of a configuration folder, to use with ``async with``.

        With ``watch`` it reloads whenever the folder has changed. Raises ConfigurationError with every
        mistake that the folder has.
        """
        if isinstance(source, Config):
            if watch:
                raise UsageError("there is no folder to watch. Open the router with one, or without watch")
            return cls(source, secrets=secrets, catalog=catalog)
        loader = Loader(source, known_engines=engines(), functions=secrets)
        times = Watch() if watch is True else watch or None
        return cls(loader.load(), secrets=secrets, catalog=catalog, loader=loader, watch=times)

    @property
    def config(self) -> Config:
        """Return the configuration in force."""
        return self._config if self._reloading is None else self._reloading.config

    # --- life --------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Build the parts on the running event loop; connections follow when they are needed."""
        if self._ending is not None:
            raise RouterClosed("the router is closed. Open a new one")
        if self._executor is not None:
            self._executor.check_loop()
            return
        emit, clocks = self.dispatcher.emit, building.Clocks(self._clock, self._wall)
        pools = self._pools = Pools(
            emit=emit,
            clock=self._clock,
            wall=self._wall,
            rng=self._rng,
            # knows the backends, not the router: one that nobody closed must be seen to go
            suspect=partial(_suspect, self._backends),
        )
        keeper = self._keeper = building.keeper(self.config, self._functions, emit, clocks, self._rng)
        passwords = Passwords(emit, self._wall, keeper)
        passwords.expect(self.config.logins)
        cache, executor = self._build(pools, passwords, clocks)
        self._executor = executor  # only now: without the journal that it needs, nothing runs
        self._home = executor.home
        tell_when_forked(self)
        finder = self._finder = self._looks_up(executor)
        self.metrics.watch(self._parts(pools, cache, executor, keeper))
        self.dispatcher.subscribe(PrimaryChanged, partial(_renew, cache))
        await cache.start()
        if finder is not None:
            finder.start()
        parts.plan(self.config, executor, self.slowlog, pools, self._rng)
        running = Running(
            executor,
            self._backends,
            self._parting,
            pools,
            cache,
            self.metrics,
            emit,
            clocks,
            self._rng,
            passwords,
            self._functions,
            finder,
        )
        self._reloading = Reloading(self.config, self._loader, running)
        self._reloading.loaded()
        if self._watch is not None:
            self._reloading.watch(self._watch)

    def _parts(self, pools: Pools, cache: Cache, executor: Executor, keeper: Keeper) -> Parts:
        """Return what the metrics look at."""
        return Parts(
            self._backends,
            pools,
            cache,
            executor.targets.catalog,
            self.slowlog.seconds,
            self._clock,
            keeper.conditions,
            self._finder,
            None if self._audit is None else self._audit.status,
        )

    @property
    def _asks(self) -> bool:
        """Tell whether there are tenants that have to be asked for."""
        return self._source is not None or self.config.catalog.asks

    def _build(self, pools: Pools, passwords: Passwords, clocks: building.Clocks) -> tuple[Cache, Executor]:
        """Build the backends, the cache, and what runs requests."""
        config, emit = self.config, self.dispatcher.emit
        further = self._asks or bool(config.admission.patterns)
        self._backends.update(
            building.backends(config, pools, passwords, emit, clocks, self._rng, further=further)
        )
        clusters = {name: backend.cluster for name, backend in self._backends.items()}
        cache = self._cache = parts.cache(config, self._backends, emit, clocks)
        recorded = parts.audited(config)
        executor = (AuditedExecutor if recorded else Executor)(
            parts.catalog(config, clusters, self._asks, clocks),
            self._backends,
            self.dispatcher,
            clock=self._clock,
            wall=self._wall,
            rng=self._rng,
            cache=cache,
            tokens=parts.tokens(config, self._wall),
        )
        if recorded:
            audit = self._audit = executor.audit = parts.audit(config, executor, emit, clocks)
            audit.attach(self.dispatcher)
        return cache, executor

    def _looks_up(self, executor: Executor) -> Finder | None:
        """Return who looks tenants up that have no file, where the configuration or the caller says how."""
        source = source_of(self._source, self.config, executor, self._backends, self._clock, self._rng)
        if source is None:
            return None
        return Finder(
            source,
            self.config,
            executor.targets.catalog.found,
            executor.targets.drop,
            emit=self.dispatcher.emit,
            clock=self._clock,
            wall=self._wall,
            rng=self._rng,
        )

    async def reload(self, config: Config | None = None) -> Reloaded:
        """Go over to what the configuration folder holds now, or to ``config``; return what has changed.

        All of it counts from one moment on, or with a mistake in it nothing: then the one before stays.
        Requests that run and sessions that are open go on.

        Raises:
            ConfigurationError: with every mistake.
            UsageError: the router was not opened from a folder, and no configuration is given.
        """
        self._running().check_loop()
        assert self._reloading is not None  # noqa: S101 - it is open; for the type checker
        return await self._reloading.reload(config)

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
        pools, cache = self._pools, self._cache
        backends = self._all_backends()
        reloading = self._reloading
        try:
            if reloading is not None:
                await reloading.close()
            if pools is not None and cache is not None:
                cache.rest()
                if self._finder is not None:
                    await self._finder.close()
                await asyncio.gather(*(backend.close() for backend in backends))
                await pools.close(grace)
                await cache.close()
            if self._keeper is not None:
                await self._keeper.close()
            if self._audit is not None:
                await self._audit.close()
            await self.dispatcher.aclose()
            await self.metrics.close()
        except BaseException:
            if pools is not None and cache is not None:
                _cut(backends, pools, cache, reloading, self._finder)
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
            for backend in self._all_backends():
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
                home.loop.call_soon_threadsafe(
                    _cut, self._all_backends(), pools, self._cache, self._reloading, self._finder
                )

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

    def _count(self) -> int:
        """Return how many tenants are known; those that a pattern makes are not counted."""
        return len(self.config.tenants) if self._executor is None else len(self._executor.targets.catalog)

    def _all_backends(self) -> list[Backend]:
        return [*self._backends.values(), *self._parting]

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
            TenantSuspended: its requests are refused for now.

        A tenant that must be looked up first is when the session is entered, or runs its first statement:
        these errors come then.
        """
        executor = self._running()
        try:
            return Session(
                executor,
                executor.target(tenant, schema),
                consistency=consistency,
                timeout=timeout,
                context_id=context_id,
                after=after,
            )
        except TenantNotAsked:
            given = {"consistency": consistency, "timeout": timeout, "context_id": context_id, "after": after}
            return DeferredSession(executor, (tenant, schema), self._find, given)

    async def find(self, tenant: str, *, timeout: float | None = None) -> TenantConfig:
        """Return what is configured of a tenant, looked up if it is not in memory yet.

        Then its sessions, and what takes its name at once such as :meth:`explain`, need not wait for it.

        Raises:
            UnknownTenant: there is no such tenant.
            CatalogUnavailable: it is not in memory, and could not be looked up.
            ConfigurationError: what was found has mistakes.
        """
        catalog = self._running().targets.catalog
        return await self._asked(tenant, seconds(timeout), lambda: catalog.tenant(tenant))

    def control(self) -> Session:
        """Return a session on the database of the table of tenants, for who writes it.

        Raises UsageError where the configuration names no table.
        """
        executor, table = self._running(), self.config.catalog.table
        if table is None:
            raise UsageError("there is no table of tenants. Name one under catalog.table in router.yaml")
        return control_session(executor, self._backends[table.cluster], table)

    def where(self, tenant: str, schema: str | None = None) -> Placement | None:
        """Return where a tenant's statements go, or last went; ``None`` if none were sent lately."""
        target = None if self._executor is None else self._executor.last(tenant, schema)
        return None if target is None else target.placement

    async def _find(self, tenant: str, schema: str | None, timeout: float | None) -> Target:
        return await self._asked(tenant, timeout, lambda: self._running().target(tenant, schema))

    async def _asked(self, tenant: str, timeout: float | None, known: Callable[[], T]) -> T:
        """Return what is ``known`` of a tenant, once it was looked up; what came of that may change soon."""
        for left in range(_LOOKUPS, -1, -1):
            with suppress(TenantNotAsked):
                return known()
            self._running().check_loop()
            if self._finder is not None and left:
                await self._finder.find(tenant, timeout)
        raise CatalogUnavailable(
            "the tenant was looked up and had to leave memory at once, several times. Raise catalog.cache"
        ).at(tenant=tenant)

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
        budgets = self._pools.budgets() if self._pools is not None else ()
        cache = None if self._executor is None else status_of(self._executor.cache, tenants=tenants)
        reloading = self._reloading
        return Status(
            nodes,
            budgets,
            pools,
            self.dispatcher.stats(),
            self._count(),
            cache,
            1 if reloading is None else reloading.generation,
            "" if reloading is None else reloading.refused,
        )

    async def ping(self, *, timeout: float = 5.0) -> tuple[Ping, ...]:
        """Ask every node for an answer, primaries first, each within ``timeout`` seconds."""
        executor = self._running()
        executor.check_loop()
        seconds(timeout)
        databases = {name: building.any_database(self.config, name, executor) for name in self._backends}
        return await ping(self._backends, databases, timeout)

    async def check_rows(
        self, shared: Iterable[str] = (), tenants: Iterable[TenantConfig] | None = None
    ) -> tuple[RowFinding, ...]:
        """Return what lets tenants by row see rows of others, by what the catalogs of their databases say.

        ``shared`` are tables that all may see, as ``schema.table``. Without ``tenants`` it is about those
        that are known by now. Raises what connecting raises.
        """
        executor = self._running()
        executor.check_loop()
        catalog = executor.targets.catalog
        whose = map(catalog.tenant, catalog) if tenants is None else tenants
        return await check_rows(self._backends, self.config, whose, frozenset(shared))


def _renew(cache: Cache, event: PrimaryChanged) -> None:
    if event.cluster in cache.broadcasts:
        cache.broadcasts[event.cluster].renew()


def _suspect(backends: dict[str, Backend], node: Node) -> None:
    if node.cluster in backends:  # else a reload has removed it
        backends[node.cluster].health.suspect(node)


def _cut(
    backends: list[Backend], pools: Pools, cache: Cache, reloading: Reloading | None, finder: Finder | None
) -> None:
    if reloading is not None:
        reloading.cancel()
    if finder is not None:
        finder.cancel()
    cache.cancel()
    for backend in backends:
        backend.cancel()
    pools.cut()
