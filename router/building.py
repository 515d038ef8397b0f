"""Build the parts of a router from its configuration."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from router import events
from router.audit.audit import Audit
from router.auditing import place_of
from router.backend import Access, Backend
from router.balancing import Policy
from router.cache.broadcast import Alone, Broadcast, Nobody, OnLost, OnMessage
from router.cache.cache import Cache
from router.cache.envelope import Seal
from router.cache.remote import Remote
from router.cache.tier import Tier
from router.config import CacheConfig, ClusterConfig, Config, LoginConfig, NodeConfig, RemoteCacheConfig
from router.credentials import Credentials, Passwords
from router.drivers import tls
from router.drivers.driver import Login, Setup
from router.drivers.registry import driver_for
from router.execution import Executor
from router.health import Health
from router.holding import Patience
from router.metrics import BUCKETS, Metrics
from router.planner import Planner
from router.pools.bounds import Limits
from router.pools.registry import Pools
from router.servers import Rules
from router.slowlog import SlowLog
from router.standing import Limits as Lateness
from router.tokens import Tokens
from router.topology import Cluster, Engine, Node, Role

_QUICK = 0.1  # seconds between probes after a sign of change


@dataclass(frozen=True, slots=True)
class Clocks:
    """Hold the two clocks: only the monotonic one measures, the other dates what is told."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


def backends(
    config: Config, pools: Pools, emit: Callable[[events.Event], None], clocks: Clocks, rng: random.Random
) -> dict[str, Backend]:
    """Return the backend of every cluster, by its name."""
    longest: dict[str, float] = {}
    passwords = Passwords(emit, clocks.wall)
    for tenant in config.tenants.values():
        limit = tenant.settings.statement_timeout
        longest[tenant.cluster] = max(longest.get(tenant.cluster, limit), limit)
    return {
        name: backend(name, cluster, config.source, pools, passwords, emit, clocks, rng, longest.get(name))
        for name, cluster in config.clusters.items()
    }


def backend(
    name: str,
    config: ClusterConfig,
    folder: Path,
    pools: Pools,
    passwords: Passwords,
    emit: Callable[[events.Event], None],
    clocks: Clocks,
    rng: random.Random,
    longest: float | None = None,
) -> Backend:
    """Return the backend of one cluster; ``longest`` is the most that a statement of its tenants may take."""
    described, driver = cluster(name, config), driver_for(config.engine)
    configured = [config.primary, *(config.replicas or (config.primary,) * config.readers)]
    setup = _setup(config, longest)
    access = {
        node.name: _access(config, configured[index], folder, setup, passwords, driver_limit=1)
        if config.engine == "sqlite"
        else _access(config, configured[index], folder, setup, passwords)
        for index, node in enumerate(described.nodes)
    }
    health = Health(
        described,
        clocks.monotonic,
        rules=_rules(config),
        probed=driver.probes,
        rng=rng,
        wall=clocks.wall,
        emit=emit,
    )
    return Backend(
        described,
        driver,
        access,
        pools,
        health,
        policy=Policy(config.balancing),
        patience=Patience(config.failover.hold, config.failover.waiting),
        extensions=config.extensions,
        clock=clocks.monotonic,
        rng=rng,
    )


def _rules(config: ClusterConfig) -> Rules:
    checks = config.checks
    return Rules(
        Lateness(config.lag.max_time, config.lag.max_bytes),
        checks.interval,
        checks.timeout,
        quick=min(_QUICK, checks.interval),
        follow=config.failover.follow,
    )


def cluster(name: str, config: ClusterConfig) -> Cluster:
    """Return the cluster that a section describes.

    SQLite has no servers: its readers are named like replicas, on the primary's folder.
    """
    if config.engine == "sqlite":
        replicas = tuple(
            _node(name, config.primary, Role.REPLICA, f"reader-{number}")
            for number in range(1, config.readers + 1)
        )
    else:
        replicas = tuple(_node(name, each, Role.REPLICA) for each in config.replicas)
    return Cluster(
        name,
        config.engine,
        _node(name, config.primary, Role.PRIMARY),
        replicas,
        database=config.database or "",
        # a reader over the write-ahead log sees every commit that ended before its statement began
        replicas_current=config.engine == "sqlite",
        options={**config.options, "server_settings": config.server_settings}
        if config.server_settings
        else config.options,
    )


def _node(cluster_name: str, config: NodeConfig, role: Role, name: str | None = None) -> Node:
    return Node(
        name or config.name or role.value,
        cluster_name,
        role,
        config.host or "",
        config.port or 0,
        config.path or "",
        config.weight,
        config.zone,
    )


def _setup(config: ClusterConfig, longest: float | None) -> Setup:
    # Later than any client's deadline, so that it ends only what the client could not cancel.
    wall = None if longest is None else longest + max(1.0, longest / 10)
    return Setup(wall, config.resolve_commits, config.pooler == "transaction")


def _access(
    config: ClusterConfig,
    node_config: NodeConfig,
    folder: Path,
    setup: Setup,
    passwords: Passwords,
    driver_limit: int | None = None,
) -> Access:
    monitor = config.credentials.monitor if config.credentials is not None else None
    context = tls.context(
        config.tls_mode(node_config),
        ca=_file(folder, config.tls.ca),
        certificate=_file(folder, config.tls.certificate),
        key=_file(folder, config.tls.key),
    )
    limits = config.connections
    most = limits.max if driver_limit is None else driver_limit
    return Access(
        _login(config.login(node_config, writer=True), passwords),
        _login(config.login(node_config, writer=False), passwords),
        None if monitor is None else _login(monitor, passwords),
        context,
        Limits(min(limits.min, most), most, limits.idle, limits.lifetime, limits.waiting, limits.leak_after),
        setup,
    )


def _file(folder: Path, name: str | None) -> str | None:
    return None if name is None else str(folder / name)


def _login(config: LoginConfig | None, passwords: Passwords) -> Login:
    """Return a login that reads the password anew at each connect."""
    if config is None:
        return Login("", _nothing)
    credentials = Credentials.of(config)

    async def password() -> str:
        return passwords.read(credentials)

    return Login(credentials.username, password)


async def _nothing() -> str:
    return ""


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
        from router.cache.broadcast_postgresql import PostgresqlBroadcast

        for name, backend in backends.items():
            if backend.cluster.engine == Engine.POSTGRESQL:
                database = config.clusters[name].database or _first_database(config, name)
                found[name] = PostgresqlBroadcast(
                    partial(backend.link, database), clock=clock, on_message=on_message, on_lost=on_lost
                )
    return found


def _first_database(config: Config, cluster_name: str) -> str:
    """Return the database that all processes meet in: NOTIFY is heard in one only."""
    return min(each.database or "" for each in config.tenants.values() if each.cluster == cluster_name)


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


def any_database(config: Config, cluster_name: str, executor: Executor) -> str:
    """Return a database that a ping of the cluster may connect to."""
    database = config.clusters[cluster_name].database
    for tenant in config.tenants.values():
        if tenant.cluster == cluster_name:
            return executor.target(tenant.tenant, None).database
    return database or ""


def plan(config: Config, executor: Executor, slowlog: SlowLog, pools: Pools, rng: random.Random) -> None:
    """Have plans asked for beside all requests, if the configuration says so."""
    rules = config.observability.slow.explain
    if rules is not None:
        pools.beside(Planner(rules, executor, slowlog, rng).run(), "router planner")
