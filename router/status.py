"""What the router tells about itself when it is asked: nodes, pools, routes, pings."""

from __future__ import annotations

from dataclasses import dataclass

from router.cache.status import CacheStatus
from router.health import Health
from router.listeners import ListenerStats
from router.pools.bounds import BudgetStatus, PoolStatus
from router.servers import Server
from router.topology import Role


@dataclass(frozen=True, slots=True)
class Standing:
    """Say whether a node is known to have what a read must see."""

    name: str
    role: str
    position: str  # last known; "" if none is
    caught_up: bool
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Say where a statement would go, and why; nothing was run."""

    tenant: str
    schema: str | None
    cluster: str
    database: str
    physical_schema: str | None
    role: str
    node: str
    candidates: tuple[str, ...]
    reason: str
    kind: str
    tables: tuple[str, ...]
    functions: tuple[str, ...]
    fingerprint: str
    normalized: str
    notes: tuple[str, ...]  # what became of tokens that could not be used
    nodes: tuple[Standing, ...]  # with ``after`` or bounds: which of them the read may use
    cacheable: bool | None  # whether an answer may be cached; None: the database's catalog was not asked
    uncached: str  # why not; "" if it may be
    ttl: float | None  # seconds for which a rule of the tenant's has it cached
    depends: tuple[str, ...]  # tables whose change ends a cached answer, where the catalog was asked
    runs_as: str | None = None  # the database's role; None for the login itself
    rows: str | None = None  # that the tenant has in shared tables, as setting = value


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Show one node at one moment; ``latency`` in seconds, 0.0 while unknown."""

    cluster: str
    name: str
    role: str
    address: str
    usable: bool
    reason: str  # why it is not usable; "" if it is
    lag_seconds: float | None  # of a replica; None while it is not known
    lag_bytes: int | None  # where the engine counts them
    in_flight: int
    latency: float
    breaker: bool = False  # whether it is left alone because requests failed there


@dataclass(frozen=True, slots=True)
class Ping:
    """Say whether a node answered; ``seconds`` covers connecting, if that was necessary, and one query."""

    cluster: str
    node: str
    role: str
    address: str
    ok: bool
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Show the router at one moment."""

    nodes: tuple[NodeStatus, ...]
    budgets: tuple[BudgetStatus, ...]  # by node
    pools: tuple[PoolStatus, ...]
    listeners: tuple[ListenerStats, ...]
    tenants: int
    cache: CacheStatus | None  # while the router is open
    generation: int  # of the configuration in force, from 1; each process counts its own
    refused: str  # why a newer one is not taken over; "" if there is none


def node_status(health: Health, server: Server) -> NodeStatus:
    """Return what is known of a server now."""
    node, lag = server.node, server.standing.lag
    snapshot = health.snapshot()
    return NodeStatus(
        node.cluster,
        node.name,
        node.role.value,
        node.address,
        node is snapshot.primary or node in snapshot.replicas,
        health.why_not(server),
        lag.seconds if lag.known and node.role is Role.REPLICA else None,
        lag.size if node.role is Role.REPLICA else None,
        server.load.in_flight,
        server.load.latency,
        server.breaker.banned,
    )
