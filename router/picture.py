"""A picture of a running router, ready for JSON: what /status, the console and ``router top`` show.

``GET /status`` answers with one :class:`Picture` as a JSON object whose members are named like the fields
below; ``GET /status/stream`` sends one a second as server-sent events (``event: picture``, the same object on
one ``data:`` line). Times ``at`` are seconds since the epoch, durations are seconds. ``format`` changes when
a member is taken away or gets another meaning; new members may come without that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """Show one cluster; ``primary`` is "" while nobody takes its writes."""

    name: str
    primary: str
    replicas: int
    usable: int  # replicas that may be read now


@dataclass(frozen=True, slots=True)
class NodeRow:
    """Show one node; lag is of a replica, ``None`` while it is not known."""

    cluster: str
    name: str
    role: str
    address: str
    usable: bool
    reason: str  # why it is not usable; "" if it is
    breaker: bool  # whether it is left alone because requests failed there
    lag_seconds: float | None
    lag_bytes: int | None
    in_flight: int
    latency: float  # smoothed; 0.0 while unknown


@dataclass(frozen=True, slots=True)
class PoolRow:
    """Show one pool."""

    node: str  # "cluster/name"
    database: str
    user: str
    size: int
    idle: int
    in_use: int
    waiting: int
    max: int


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """Show the connections to one node, over all its pools."""

    node: str  # "cluster/name"
    size: int  # all, also those that are being opened or cleaned
    idle: int
    in_use: int
    opening: int
    waiting: int  # requests
    max: int
    pools: int


@dataclass(frozen=True, slots=True)
class QueueRow:
    """Show what one tenant holds and waits for, in all pools together."""

    tenant: str  # "" is the router's own work
    in_use: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Steps:
    """Hold what a request's time went into."""

    lookup: float
    queue: float
    connect: float
    bind: float
    catch_up: float
    execute: float
    fetch: float


@dataclass(frozen=True, slots=True)
class RequestRow:
    """Show one request that has ended; a text is "" where there is none, such as the error of a good one."""

    at: float
    tenant: str
    schema: str
    text: str  # of the statement, without literals, shortened
    fingerprint: str
    kind: str
    node: str
    role: str
    reason: str
    outcome: str  # ok, error
    error: str
    code: str
    message: str
    total: float
    steps: Steps
    attempts: int
    retries: tuple[str, ...]  # "node: error" of each attempt that was followed by another
    rows: int  # -1: unknown
    cache: str
    token: str
    unit: int  # number of its transaction; 0: none
    actor: str
    context_id: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class RunningRow:
    """Show one request that has not ended yet; those answered from memory are not seen."""

    at: float
    seconds: float
    tenant: str
    schema: str
    text: str
    fingerprint: str
    kind: str
    task: str  # name of the task that it runs in
    actor: str
    context_id: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class TenantRow:
    """Show what one tenant did lately; each number is for one second."""

    tenant: str
    requests: float
    errors: float
    seconds: float  # of requests
    waiting: float  # seconds of waiting for a connection


@dataclass(frozen=True, slots=True)
class DigestRow:
    """Show what one statement has cost since it is counted; see :class:`router.digests.Digest`."""

    fingerprint: str
    text: str
    kind: str
    count: int
    cached: int
    slow: int
    errors: int
    rows: int
    total: float
    waited: float
    maximum: float
    p50: float
    p99: float
    load: float  # how many ran at once lately
    tenants: tuple[str, ...]  # who spent most
    nodes: tuple[str, ...]  # asked most
    last: float
    trace_id: str
    error: str
    plan: str  # "" where none was asked for


@dataclass(frozen=True, slots=True)
class CacheRow:
    """Show the cache of this process."""

    entries: int
    size: int  # bytes
    evictions: int
    flushes: int
    heard: bool  # whether other processes are heard, where that is configured
    remote: bool | None  # whether the shared tier is in use; None if there is none
    hits: int
    joined: int
    shared: int  # answered by the shared tier
    misses: int
    ratio: float | None  # share of look-ups that the database did not see
    saved: float  # seconds of database time


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """Show something that happened to the router or its servers."""

    at: float  # of the last time
    kind: str  # primary, replica, breaker, configuration, ...
    level: str  # good, info, bad
    where: str
    text: str
    count: int  # how often, one after the other


@dataclass(frozen=True, slots=True)
class ListenerRow:
    """Show how a listener of the dispatcher fares."""

    name: str
    delivered: int
    failed: int
    dropped: int
    queued: int
    muted: bool


@dataclass(frozen=True, slots=True)
class TroubleRow:
    """Point at something that is wrong now."""

    level: str  # bad, warn
    topic: str  # changes, nodes, pools, failures, running, cache, listeners
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Second:
    """Count the requests of about one second."""

    at: float
    requests: float
    errors: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Show the last ten seconds: requests and errors a second, and how long requests took.

    ``p50`` to ``p99`` are upper bounds, from a histogram; ``None`` where there were no requests.
    """

    requests: float
    errors: float
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    seconds: tuple[Second, ...]  # up to a minute, the oldest first


@dataclass(frozen=True, slots=True)
class Picture:
    """Show the router of one process."""

    format: int
    version: str  # of the package
    pid: int
    at: float
    up: float  # seconds since this process began to be watched
    watched: float  # seconds for which requests were looked at; nobody looks while nobody asks
    tenants: int
    generation: int  # of the configuration in force, from 1; each process counts its own
    refused: str  # why a newer one is not taken over; "" if there is none
    troubles: tuple[TroubleRow, ...]  # the worst first
    clusters: tuple[ClusterRow, ...]
    nodes: tuple[NodeRow, ...]
    budgets: tuple[BudgetRow, ...]  # of each node that is connected to
    pools: tuple[PoolRow, ...]  # the busiest, see pools_total
    pools_total: int
    queues: tuple[QueueRow, ...]  # who waits or holds most
    pace: Pace
    running: tuple[RunningRow, ...]  # the longest first
    running_total: int
    requests: tuple[RequestRow, ...]  # the newest first
    failures: tuple[RequestRow, ...]  # the newest first
    busy: tuple[TenantRow, ...]  # tenants by the time of their requests
    statements: tuple[DigestRow, ...]  # by total time
    cache: CacheRow | None
    changes: tuple[ChangeRow, ...]  # the newest first
    listeners: tuple[ListenerRow, ...]  # those in trouble first


def encode(value: object) -> bytes:
    """Return rows, or what holds them, as JSON."""
    return json.dumps(value, default=_members, separators=(",", ":"), allow_nan=False).encode()


def _members(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in type(row).__slots__}  # type: ignore[attr-defined]
