"""Build what stands beside the backends: cache, audit, tokens, catalog, metrics, planner."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial

from router import events
from router.audit.audit import Audit
from router.auditing import place_of
from router.backend import Backend
from router.building import Clocks, control
from router.cache.broadcast import Alone, Broadcast, Nobody, OnLost, OnMessage
from router.cache.cache import Cache
from router.cache.envelope import Seal
from router.cache.remote import Remote
from router.cache.tier import Tier
from router.config import CacheConfig, Config, RemoteCacheConfig
from router.execution import Executor
from router.found import Found, NobodyElse
from router.metrics import BUCKETS, Metrics
from router.planner import Planner
from router.pools.registry import Pools
from router.slowlog import SlowLog
from router.tenants import Catalog
from router.tokens import Tokens
from router.topology import Cluster, Engine


def tokens(config: Config, wall: Callable[[], float]) -> Tokens | None:
    """Return what signs and reads tokens, with the keys as they are now; ``None`` if none is configured."""
    if config.tokens is None:
        return None
    return Tokens([key.resolve() for key in config.tokens.keys], config.tokens.lifetime, wall)


def audited(config: Config) -> bool:
    """Tell whether writes are recorded."""
    given = config.observability.audit
    return given.trail is not None or given.outbox is not None


def audit(config: Config, executor: Executor, emit: Callable[[events.Event], None], clocks: Clocks) -> Audit:
    """Return what records writes; raises AuditUnavailable if its journal cannot be begun."""
    given = config.observability.audit
    return Audit(given, config.source, partial(place_of, executor), emit, clocks.wall)


def cache(
    config: Config, backends: Mapping[str, Backend], emit: Callable[[events.Event], None], clocks: Clocks
) -> Cache:
    """Return the cache; it does nothing before it is used."""
    given = config.cache

    def forgotten(tenant: str | None, reason: str) -> None:
        emit(events.CacheFlushed(clocks.wall(), tenant, reason))

    return Cache(
        size=given.size,
        entries=given.entries,
        largest=given.largest,
        broadcasts=partial(_broadcasts, config, backends, clocks.monotonic),
        tier=None if given.remote is None or not given.size else _tier(given, given.remote, emit, clocks),
        clock=clocks.monotonic,
        forgotten=forgotten,
    )


def _tier(
    config: CacheConfig, remote: RemoteCacheConfig, emit: Callable[[events.Event], None], clocks: Clocks
) -> Tier:
    """Return the tier that processes share; its connections follow when they are needed."""

    def changed(usable: bool, error: str) -> None:
        emit(events.CacheTierChanged(clocks.wall(), usable, error))

    return Tier(
        Remote(
            remote.url.resolve(),
            prefix=remote.prefix,
            limit=remote.wait,
            largest=config.largest,
            clock=clocks.monotonic,
            on_state=changed,
        ),
        Seal(remote.key.resolve().reveal().encode()),
        largest=config.largest,
        clock=clocks.monotonic,
        wall=clocks.wall,
    )


def broadcast(
    config: Config, name: str, backend: Backend, cache: Cache, clock: Callable[[], float]
) -> Broadcast:
    """Return by what the writes of a cluster are told to other processes that a reload has added."""
    if config.cache.broadcast == "postgresql":
        spoken = config.cache.size and backend.cluster.engine == Engine.POSTGRESQL
        return _by_notify(config, name, backend, clock, cache.noticed, cache.lost) if spoken else Nobody()
    return next(iter(cache.broadcasts.values()), None) or Nobody()  # all clusters share one


def _by_notify(
    config: Config,
    name: str,
    backend: Backend,
    clock: Callable[[], float],
    on_message: OnMessage,
    on_lost: OnLost,
) -> Broadcast:
    from router.cache.broadcast_postgresql import PostgresqlBroadcast

    database = config.clusters[name].database or _first_database(config, name)
    return PostgresqlBroadcast(
        partial(backend.link, database), clock=clock, on_message=on_message, on_lost=on_lost
    )


def _broadcasts(
    config: Config,
    backends: Mapping[str, Backend],
    clock: Callable[[], float],
    on_message: OnMessage,
    on_lost: OnLost,
) -> dict[str, Broadcast]:
    """Return by what each cluster's writes are told to other processes."""
    kind, remote = config.cache.broadcast, config.cache.remote
    shared: Broadcast = Alone(clock) if kind == "alone" else Nobody()
    if kind == "redis" and remote is not None and config.cache.size:
        from router.cache.broadcast_redis import RedisBroadcast

        shared = RedisBroadcast(
            remote.url.resolve(), prefix=remote.prefix, clock=clock, on_message=on_message, on_lost=on_lost
        )
    found: dict[str, Broadcast] = dict.fromkeys(backends, shared)
    if kind == "postgresql" and config.cache.size:
        for name, backend in backends.items():
            if backend.cluster.engine == Engine.POSTGRESQL:
                found[name] = _by_notify(config, name, backend, clock, on_message, on_lost)
    return found


def _first_database(config: Config, cluster_name: str) -> str:
    """Return the database that all processes meet in: NOTIFY is heard in one only."""
    found = (each.database or "" for each in config.tenants.values() if each.cluster == cluster_name)
    return min(found, default=control(config, cluster_name))


def catalog(config: Config, clusters: Mapping[str, Cluster], asks: bool, clocks: Clocks) -> Catalog:
    """Return what names are looked up in; ``asks`` if there is somebody to ask for further tenants."""
    given = config.catalog
    found = Found(given.cache, given.negative, clocks.monotonic) if asks else NobodyElse()
    return Catalog(config.tenants, clusters, config.admission, found)


def metrics(config: Config, clock: Callable[[], float]) -> Metrics:
    """Return what counts; it sees the parts once they are there."""
    given = config.observability.metrics
    return Metrics(
        tenants=given.tenants,
        always=given.always,
        buckets=given.buckets or BUCKETS,
        workers=None if given.workers is None else config.source / given.workers,
        clock=clock,
    )


def plan(config: Config, executor: Executor, slowlog: SlowLog, pools: Pools, rng: random.Random) -> None:
    """Have plans asked for beside all requests, if the configuration says so."""
    rules = config.observability.slow.explain
    if rules is not None:
        pools.beside(Planner(rules, executor, slowlog, rng).run(), "router planner")
