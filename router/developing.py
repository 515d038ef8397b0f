"""Make a picture of what was found at one moment, in a thread that gives way to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import router as package
from router import troubles
from router.cache.status import CacheStatus
from router.cache.tally import Tally
from router.digests import Digest
from router.events import RequestEvent, RequestFailed, RetryScheduled
from router.listeners import ListenerStats
from router.pacing import paced, politely
from router.picture import (
    FORMAT,
    BudgetRow,
    CacheRow,
    ClusterRow,
    DigestRow,
    ListenerRow,
    NodeRow,
    Picture,
    PoolRow,
    QueueRow,
    RequestRow,
    RunningRow,
    Steps,
)
from router.pools.bounds import BudgetStatus, PoolStatus
from router.recording import Recorded, Running
from router.status import NodeStatus, Status
from router.windows import busy, pace

DIGESTS = 25
"""Statements that are shown."""

TEXT_LIMIT = 500
"""Characters of a statement that are shown."""

_POOLS = 50  # rows of each kind at most
_QUEUES = 30
_RUNNING = 20
_BUSY = 20
_NAMES = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """Hold what was found; nothing of it changes any more, and ``tallies`` may be called in any thread."""

    pid: int
    at: float  # on the wall clock
    now: float  # on the monotonic clock
    up: float
    status: Status  # without what the cache has counted for each tenant
    recorded: Recorded
    digests: list[Digest]
    tallies: Callable[[], Iterable[Tally]]


def develop(moment: Moment) -> Picture:
    """Return the picture of a moment."""
    status, recorded = moment.status, moment.recorded
    running = recorded.running
    with politely():
        picture = Picture(
            format=FORMAT,
            version=package.__version__,
            pid=moment.pid,
            at=moment.at,
            up=moment.up,
            watched=recorded.seconds,
            tenants=status.tenants,
            generation=status.generation,
            refused=status.refused,
            troubles=(),
            clusters=clusters_of(status.nodes),
            nodes=tuple(map(_node, status.nodes)),
            budgets=tuple(map(_budget, status.budgets)),
            pools=busiest(status.pools),
            pools_total=len(status.pools),
            queues=_queues(status.pools),
            pace=pace(recorded.windows),
            running=tuple(_running(task, each, moment.now) for task, each in running[:_RUNNING]),
            running_total=len(running),
            requests=tuple(request_row(event) for event in paced(reversed(recorded.recent))),
            failures=tuple(request_row(event) for event in paced(reversed(recorded.failed))),
            busy=busy(recorded.windows, _BUSY),
            statements=tuple(map(_digest, paced(moment.digests))),
            cache=None if status.cache is None else _cache(status.cache, moment.tallies()),
            changes=recorded.changes[::-1],
            listeners=_listeners(status.listeners),
        )
    return replace(picture, troubles=troubles.of(picture))


def clusters_of(nodes: Iterable[NodeStatus]) -> tuple[ClusterRow, ...]:
    """Return what the nodes say of their clusters."""
    found: dict[str, list[NodeStatus]] = {}
    for node in nodes:
        found.setdefault(node.cluster, []).append(node)
    return tuple(
        ClusterRow(
            cluster,
            next((each.name for each in members if each.role == "primary" and each.usable), ""),
            sum(each.role == "replica" for each in members),
            sum(each.role == "replica" and each.usable for each in members),
        )
        for cluster, members in found.items()
    )


def _node(node: NodeStatus) -> NodeRow:
    return NodeRow(
        node.cluster,
        node.name,
        node.role,
        node.address,
        node.usable,
        node.reason,
        node.breaker,
        node.lag_seconds,
        node.lag_bytes,
        node.in_flight,
        node.latency,
    )


def _budget(budget: BudgetStatus) -> BudgetRow:
    return BudgetRow(
        budget.node,
        budget.size,
        budget.idle,
        budget.in_use,
        budget.opening,
        budget.waiting,
        budget.max,
        budget.pools,
    )


def busiest(pools: Iterable[PoolStatus]) -> tuple[PoolRow, ...]:
    """Return the pools that most wait for, then those that most hold."""
    ordered = sorted(pools, key=lambda each: (-each.waiting, -each.in_use, each.node, each.database))
    return tuple(
        PoolRow(
            each.node,
            each.database,
            each.user,
            each.size,
            each.idle,
            each.in_use,
            each.waiting,
            each.max,
        )
        for each in ordered[:_POOLS]
    )


def _queues(pools: Iterable[PoolStatus]) -> tuple[QueueRow, ...]:
    held: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for pool in paced(pools):
        for tenant, in_use, waiting in pool.shares:
            held[tenant] = held.get(tenant, 0) + in_use
            wanted[tenant] = wanted.get(tenant, 0) + waiting
    rows = (QueueRow(tenant, in_use, wanted[tenant]) for tenant, in_use in held.items())
    return tuple(sorted(rows, key=lambda row: (-row.waiting, -row.in_use, row.tenant))[:_QUEUES])


def request_row(event: RequestEvent) -> RequestRow:
    """Return one request as it is shown."""
    failed = event if isinstance(event, RequestFailed) else None
    context = event.context
    return RequestRow(
        at=event.at,
        tenant=event.tenant,
        schema=event.schema or "",
        text=event.normalized[:TEXT_LIMIT],
        fingerprint=event.fingerprint,
        kind=str(event.kind),
        node="" if event.node is None else event.node.label,
        role=event.role.value,
        reason=event.reason.value,
        outcome=event.outcome,
        error="" if failed is None else failed.error,
        code="" if failed is None else failed.code or "",
        message="" if failed is None else failed.message,
        total=event.total,
        steps=Steps(
            event.lookup,
            event.waits.queue,
            event.waits.connect,
            event.waits.bind,
            event.waits.catch_up,
            event.execute,
            event.fetch,
        ),
        attempts=event.attempts,
        retries=tuple(map(_retry, event.retries)),
        rows=getattr(event, "rows", -1),
        cache=event.cache,
        token=event.token,
        unit=event.unit,
        actor="" if context is None else context.actor or "",
        context_id=event.context_id or "",
        trace_id=event.trace_id or "",
    )


def _retry(event: RetryScheduled) -> str:
    return f"{'none' if event.node is None else event.node.label}: {event.error}"


def _running(task: asyncio.Task[Any] | None, running: Running, now: float) -> RunningRow:
    event = running.event
    return RunningRow(
        at=event.at,
        seconds=now - running.began,
        tenant=event.tenant,
        schema=event.schema or "",
        text=event.normalized[:TEXT_LIMIT],
        fingerprint=event.fingerprint,
        kind=str(event.kind),
        task="" if task is None else task.get_name(),
        actor="" if event.context is None else event.context.actor or "",
        context_id=event.context_id or "",
        trace_id=event.trace_id or "",
    )


def _digest(digest: Digest) -> DigestRow:
    return DigestRow(
        fingerprint=digest.fingerprint,
        text=digest.text[:TEXT_LIMIT],
        kind=str(digest.kind),
        count=digest.count,
        cached=digest.cached,
        slow=digest.slow,
        errors=digest.errors,
        rows=digest.rows,
        total=digest.total,
        waited=digest.waited,
        maximum=digest.maximum,
        p50=digest.p50,
        p99=digest.p99,
        load=digest.load,
        tenants=_most(digest.tenants),
        nodes=_most(digest.nodes),
        last=digest.last,
        trace_id=digest.trace_id or "",
        error=digest.error or "",
        plan="" if digest.plan is None else digest.plan.text,
    )


def _listeners(stats: Iterable[ListenerStats]) -> tuple[ListenerRow, ...]:
    """Return one row for each name: a listener may be subscribed for many events."""
    found: dict[str, list[ListenerStats]] = {}
    for each in stats:
        found.setdefault(each.name, []).append(each)
    rows = (
        ListenerRow(
            name,
            sum(each.delivered for each in group),
            sum(each.failed for each in group),
            sum(each.dropped for each in group),
            sum(each.queued for each in group),
            any(each.muted for each in group),
        )
        for name, group in found.items()
    )
    return tuple(sorted(rows, key=lambda row: (not row.muted, -row.dropped, -row.failed, -row.delivered)))


def _most(counted: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(sorted(counted, key=lambda name: -counted[name])[:_NAMES])


def _cache(status: CacheStatus, tallies: Iterable[Tally]) -> CacheRow:
    total = Tally()
    for each in paced(tallies):
        total.include(each)
    return CacheRow(
        status.entries,
        status.size,
        status.evictions,
        status.flushes,
        status.heard,
        status.remote,
        total.hits,
        total.joined,
        total.remote,
        total.misses,
        total.ratio,
        total.saved,
    )
