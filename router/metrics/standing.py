"""Servers, primaries and retry budgets as they are when metrics are rendered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from router.backend import Backend
from router.health import Health
from router.metrics.families import Family, Numbers, Values
from router.servers import Server
from router.topology import Role

Rows = list[tuple[Values, float]]


def families(backends: Mapping[str, Backend], now: float, prefix: str) -> Iterator[Family]:
    """Yield what is known of every server; what is not known has no sample."""
    servers = [(each.health, server) for each in list(backends.values()) for server in each.health.servers]

    def gauge(name: str, text: str, of: Callable[[Health, Server], float | None]) -> Numbers:
        found = ((server.node.label, of(health, server)) for health, server in servers)
        rows = [((label,), value) for label, value in found if value is not None]
        return Numbers(f"{prefix}{name}", text, "gauge", ("node",), rows)

    yield Numbers(
        f"{prefix}node_up",
        "Whether a server answered when it was last asked",
        "gauge",
        ("node", "role"),
        [
            ((server.node.label, server.node.role.value), up)
            for health, server in servers
            if (up := _up(health, server)) is not None
        ],
    )
    yield gauge("node_usable", "Whether requests are sent to a server", _usable)
    yield gauge("node_in_flight", "Requests that a server works on", lambda _, server: server.load.in_flight)
    yield gauge(
        "node_latency_seconds",
        "Mean time of a server's latest answers",
        lambda _, server: server.load.latency,
    )
    yield gauge("replica_lag_seconds", "How long a replica lacks what the primary had", _lag_seconds)
    yield gauge("replica_lag_limit_seconds", "Lag from which a replica is not read", _lag_limit)
    yield gauge("replica_lag_bytes", "How much of the primary's log a replica lacks", _lag_bytes)
    yield gauge(
        "breaker_open",
        "Whether a server is left out after failures",
        lambda _, server: float(server.breaker.banned),
    )
    yield Numbers(
        f"{prefix}primary",
        "Whether a server takes the writes of its cluster now",
        "gauge",
        ("cluster", "node"),
        [
            ((health.cluster.name, server.node.label), float(server.node.name == health.primary_name))
            for health, server in servers
        ],
    )
    yield Numbers(
        f"{prefix}retry_budget_ratio",
        "Share of the retries that a cluster may make which is left",
        "gauge",
        ("cluster",),
        [((name,), backend.retries_left(now)) for name, backend in list(backends.items())],
    )


def _up(health: Health, server: Server) -> float | None:
    if not health.probed:
        return float(not server.breaker.banned)
    return float(not server.misses and not server.refused) if server.asked else None


def _usable(health: Health, server: Server) -> float:
    return float(server.node is health.present.primary or server.node in health.present.replicas)


def _lag_seconds(health: Health, server: Server) -> float | None:
    lag = server.standing.lag
    return lag.seconds if lag.known and server.node.role is Role.REPLICA else None


def _lag_limit(health: Health, server: Server) -> float | None:
    return health.rules.lag.seconds if server.node.role is Role.REPLICA else None


def _lag_bytes(health: Health, server: Server) -> float | None:
    return server.standing.lag.size if server.node.role is Role.REPLICA else None
