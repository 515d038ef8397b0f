"""Requests, counted and timed in plain numbers; they become metrics when somebody asks.

Every request passes here, so that this is one listener, and what can be told at a scrape is not counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter

from router.events import RequestEvent, RequestFinished
from router.metrics.bins import Bins, Exemplar
from router.metrics.counts import Counts, Times
from router.metrics.families import Family, Histogram, Numbers, Values
from router.metrics.tenants import Cell as TenantCell
from router.metrics.tenants import Tenants
from router.reasons import Reason
from router.waits import NO_WAITS, Waits

NO_CLUSTER = "none"
"""The cluster of a request that contacted no node."""

_STEPS = ("lookup", "queue", "connect", "bind", "catch_up", "execute", "fetch")

STALE_ACTIONS = ("primary", "waited", "checked", "refused")
"""What is done with a read that a late replica would answer with too little."""

# of a read that some replica would have answered with less than it must see
_STALE_AVOIDED = {
    Reason.WAITED: "waited",
    Reason.CHECKED: "checked",
    Reason.OWN_WRITE: "primary",
    Reason.SEEN_ON_PRIMARY: "primary",
    Reason.READ_AHEAD: "primary",
    Reason.TOKEN_AHEAD: "primary",
    Reason.TOKEN_IGNORED: "primary",
    Reason.OLD_REIGN: "primary",
    Reason.WAIT_TIMED_OUT: "primary",
    Reason.TOO_STALE: "primary",
    Reason.REPLICAS_LATE: "primary",
}


class _Cell:
    """Add up the requests of one kind."""

    __slots__ = (
        "bind",
        "catch_up",
        "connect",
        "count",
        "durations",
        "execute",
        "exemplars",
        "fetch",
        "key",
        "lookup",
        "queue",
        "seconds",
        "waited",
    )  # fmt: skip

    def __init__(self, key: Values, bounds: int) -> None:
        self.key = key  # cluster, role, kind, reason, outcome
        self.count = 0
        self.seconds = 0.0
        self.durations = [0] * (bounds + 1)
        self.exemplars: dict[int, Exemplar] | None = None
        self.waited: Bins | None = None  # of those that had to wait for a connection
        self.lookup = self.queue = self.connect = self.bind = self.catch_up = self.execute = self.fetch = 0.0


class Requests:
    """Count requests, also by tenant; ``count`` is for the event loop alone."""

    def __init__(self, bounds: Sequence[float], tenants: Tenants) -> None:
        self._bounds = bounds
        self._tenants = tenants
        self._finished: dict[tuple[str, str, str, str], _Cell] = {}
        self._failed: dict[tuple[str, str, str, str], _Cell] = {}
        self._tokens = Counts("tokens", "Requests of sessions with a token", "cluster", "outcome")
        text = "Time that reads waited for a replica"
        self._token_waits = Times(bounds, "token_wait_duration", text, "cluster")

    def count(self, event: RequestEvent) -> None:
        """Count one request."""
        node, waits, total, context = event.node, event.waits, event.total, event.context
        cluster = NO_CLUSTER if node is None else node.cluster
        finished = event.__class__ is RequestFinished
        cells = self._finished if finished else self._failed
        cell = cells.get((cluster, event.role, event.kind, event.reason))
        if cell is None:
            cell = self._begin(cells, cluster, event)
        place = bisect_left(self._bounds, total)
        cell.seconds += total
        cell.lookup += event.lookup
        cell.execute += event.execute
        cell.durations[place] += 1
        cell.count += 1
        if event.fetch:
            cell.fetch += event.fetch
        if event.token:
            self._tokens.add(cluster, event.token)
        if context is not None and context.trace_id is not None and context.sampled:
            cell.exemplars = cell.exemplars or {}
            cell.exemplars[place] = context.trace_id, total, event.at
        tenant = self._tenants.cells.get(event.tenant)
        if tenant is None:
            tenant = self._tenants.cells[event.tenant] = TenantCell()
        tenant.seconds += total
        if waits is not NO_WAITS:
            self._wait(cluster, cell, tenant, waits)
        if not finished:
            tenant.errors += 1
            return
        if event.rows > 0:  # type: ignore[attr-defined]  # isinstance would cost as much as two of these
            tenant.rows += event.rows  # type: ignore[attr-defined]
        tenant.ok += 1

    def _begin(
        self, cells: dict[tuple[str, str, str, str], _Cell], cluster: str, event: RequestEvent
    ) -> _Cell:
        place = (cluster, str(event.role), str(event.kind), str(event.reason))
        cell = cells[place] = _Cell((*place, event.outcome), len(self._bounds))
        return cell

    def _wait(self, cluster: str, cell: _Cell, tenant: TenantCell, waits: Waits) -> None:
        total = waits.total
        if not total:
            return
        tenant.waited += total
        cell.queue += waits.queue
        cell.connect += waits.connect
        cell.bind += waits.bind
        if waits.catch_up:
            cell.catch_up += waits.catch_up
            self._token_waits.add(cluster, seconds=waits.catch_up)
        if cell.waited is None:
            cell.waited = Bins(len(self._bounds))
        cell.waited.add(self._bounds, total)

    # --- output ------------------------------------------------------------------------------------------

    def totals(self, label: str) -> dict[str, int]:
        """Return the number of requests by a label: cluster, role, kind, reason or outcome."""
        place = ("cluster", "role", "kind", "reason", "outcome").index(label)
        totals: dict[str, int] = {}
        for cell in self._cells():
            name = cell.key[place]
            totals[name] = totals.get(name, 0) + cell.count
        return totals

    def stale_avoided(self) -> Iterator[tuple[Values, int]]:
        """Yield how many reads saw more than a late replica would have shown, by cluster and how."""
        for cell in self._cells():
            action = _STALE_AVOIDED.get(cell.key[3])  # type: ignore[call-overload]  # equal to its word
            if action is not None and cell.key[4] == "ok":
                yield (cell.key[0], action), cell.count

    def _cells(self) -> list[_Cell]:
        return [*self._finished.copy().values(), *self._failed.copy().values()]

    def families(self, prefix: str) -> Iterator[Family]:
        """Yield the metrics of all requests."""
        cells = self._cells()

        def counter(name: str, text: str, labels: Values, values: Callable[[Values], Values]) -> Numbers:
            rows = summed((values(cell.key), cell.count) for cell in cells)
            return Numbers(f"{prefix}{name}", text, "counter", labels, rows)

        yield counter("requests", "Requests", ("cluster", "role", "kind", "outcome"), itemgetter(0, 1, 2, 4))
        yield counter("routes", "Routing decisions", ("cluster", "role", "reason"), itemgetter(0, 1, 3))
        yield self._durations(prefix, cells)
        yield self._steps(prefix, cells)
        yield self._acquires(prefix, cells)
        yield self._tokens.family(prefix)
        yield self._token_waits.family(prefix)

    def _durations(self, prefix: str, cells: list[_Cell]) -> Histogram:
        sums: dict[Values, Bins] = {}
        for cell in cells:
            bins = sums.setdefault(cell.key[:3], Bins(len(self._bounds)))
            bins.include(cell.durations, cell.seconds, cell.exemplars)
        labels = ("cluster", "role", "kind")
        name = f"{prefix}request_duration_seconds"
        return Histogram(name, "Time of requests", labels, self._bounds, sums.items())

    def _steps(self, prefix: str, cells: list[_Cell]) -> Numbers:
        rows = summed(((cell.key[0], step), getattr(cell, step)) for cell in cells for step in _STEPS)
        text = "Time of requests by step"
        return Numbers(f"{prefix}request_step_seconds", text, "counter", ("cluster", "step"), rows)

    def _acquires(self, prefix: str, cells: list[_Cell]) -> Histogram:
        sums: dict[Values, Bins] = {}
        for cell in cells:
            bins = sums.setdefault(cell.key[:2], Bins(len(self._bounds)))
            waited = cell.waited
            if waited is not None:
                bins.include(waited.counts, waited.total, None)
            bins.counts[0] += max(cell.count - sum(waited.counts if waited is not None else ()), 0)
        name = f"{prefix}pool_acquire_duration_seconds"
        text = "Time until a connection was had"
        return Histogram(name, text, ("cluster", "role"), self._bounds, sums.items())


def summed(rows: Iterable[tuple[Values, float]]) -> Iterable[tuple[Values, float]]:
    """Return the sums by labels."""
    sums: dict[Values, float] = {}
    for values, number in rows:
        sums[values] = sums.get(values, 0) + number
    return sums.items()
