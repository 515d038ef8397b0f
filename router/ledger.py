"""Count what each statement costs: a table of those that cost most, over all requests, in bounded memory.

Who is held is decided by time that fades: half of it counts after an hour. So a statement that has begun to
cost much comes in within seconds, however long the process has run. What is shown of a statement is counted
since it came in; ``missed`` bounds what that may lack of the last hours.
"""

from __future__ import annotations

from math import exp2, log, log2
from typing import Final, NamedTuple

from router.context import Context
from router.digests import ORIGIN, OTHERS, STEPS, TENANTS, TEXT_LIMIT, Digest, Plan, ranked
from router.events import RequestEvent, RequestFailed, RequestFinished
from router.heavy import HeavyHitters, Held
from router.topology import Role
from router.waits import NO_WAITS

_SAMPLE_LIMIT: Final = 20_000  # characters; a longer text is not kept to ask for its plan
_HELD_FOR: Final = 3600.0  # seconds after which time spent counts half for being held
_LATELY: Final = 60.0  # seconds after which time spent counts half for the load
_MEAN: Final = _LATELY / log(2)  # seconds that the load is a mean over
_HIGHEST: Final = 2.0**500  # of a factor; then all weights are divided by it
_LEAP: Final = 64.0  # half-lives at once; more is forgotten all the same
_RECENT: Final = 4096  # durations after which earlier ones count half
_NODES: Final = 16  # of a statement that are counted by name
_CACHE: Final = Role.CACHE


class Sample(NamedTuple):
    """Hold a request of a statement, to ask for its plan; as written, so never shown."""

    tenant: str
    schema: str | None
    sql: str


class Entry(Held):
    """Hold what is counted of one statement."""

    __slots__ = (
        "buckets",
        "cached",
        "count",
        "error_name",
        "errors",
        "filled",
        "floor",
        "kind",
        "last",
        "lately",
        "maximum",
        "nodes",
        "pending",
        "plan",
        "rows",
        "sample",
        "since",
        "slow",
        "tables",
        "tenants",
        "text",
        "total",
        "traced",
        "waited",
    )  # fmt: skip

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.count = self.cached = self.slow = self.errors = self.rows = 0
        self.total = self.waited = self.maximum = self.lately = 0.0
        self.buckets: dict[int, int] = {}
        self.filled = 0  # in all buckets
        self.tenants: dict[str, float] = {}
        self.pending = 0.0  # spent by tenants that are not among these
        self.floor = 0.0  # the least that one of these has spent, or less
        self.nodes: dict[str, int] = {}
        self.since = self.last = 0.0
        self.traced: Context | None = None
        self.error_name: str | None = None
        self.text = self.kind = ""
        self.tables: frozenset[str] = frozenset()
        self.sample: Sample | None = None
        self.plan: Plan | None = None

    def describe(self, event: RequestEvent) -> None:
        """Take from its first request what the statement is."""
        self.text, self.kind, self.tables = event.normalized[:TEXT_LIMIT], event.kind, event.tables
        self.since = event.at
        if len(event.sql) <= _SAMPLE_LIMIT:
            self.sample = Sample(event.tenant, event.schema, event.sql)

    def spent_by(self, tenant: str, seconds: float) -> None:
        """Add to what a tenant has spent.

        Where there are too many, time of the others is saved up until it outweighs the least of these; who
        comes then takes that place. The more a tenant spends, the likelier it is the one, and the longer it
        stays.
        """
        tenants = self.tenants
        if len(tenants) < TENANTS:
            tenants[tenant] = seconds
            return
        self.pending += seconds
        if self.pending <= self.floor:
            return
        least = min(tenants, key=tenants.__getitem__)
        if self.pending > tenants[least]:
            del tenants[least]
            tenants[tenant], self.pending = self.pending, 0.0
        self.floor = min(tenants.values())

    def fade(self) -> None:
        """Let what was longer ago count half."""
        self.buckets = {bucket: count // 2 for bucket, count in self.buckets.items() if count > 1}
        self.filled = sum(self.buckets.values())


class Ledger:
    """Count every request of the statements that cost most; at most ``capacity`` of them."""

    def __init__(self, capacity: int = 500) -> None:
        self._sketch: HeavyHitters[Entry] = HeavyHitters(capacity, Entry)
        self.held = self._sketch.held
        self._now = 0.0  # wall clock, as of the last change of the factors; 0: no request was seen
        # What is spent later weighs more, rather than what was spent before less: both factors grow.
        self._factor = self._lately = 1.0

    def finished(self, event: RequestFinished) -> None:
        """Count a request that succeeded."""
        if event.role is _CACHE:
            entry = self.held.get(event.fingerprint)
            if entry is not None:
                entry.cached += 1
            return
        entry = self._count(event)
        if entry is not None and event.rows > 0:
            entry.rows += event.rows

    def failed(self, event: RequestFailed) -> None:
        """Count a request that failed."""
        entry = self._count(event)
        if entry is not None:
            entry.errors += 1
            entry.error_name = event.error

    def _count(self, event: RequestEvent) -> Entry | None:
        """Count a request and return its entry; every request passes here."""
        total, at, key = event.total, event.at, event.fingerprint
        if not 0.0 <= at - self._now < 1.0:
            self._advance(at)
        entry = self.held.get(key)
        if entry is None:
            entry = self._sketch.admit(key, total * self._factor)
            if entry is None:
                return None
            entry.describe(event)
        else:
            entry.weight += total * self._factor
        entry.count += 1
        entry.total += total
        entry.lately += total * self._lately
        entry.last = at
        if total > entry.maximum:
            entry.maximum = total
        bucket = int(log2(total + 1e-9) * STEPS + ORIGIN)
        buckets = entry.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        entry.filled += 1
        if entry.filled > _RECENT:
            entry.fade()
        waits = event.waits
        if waits is not NO_WAITS:
            entry.waited += waits.total
        tenants = entry.tenants
        if event.tenant in tenants:
            tenants[event.tenant] += total
        else:
            entry.spent_by(event.tenant, total)
        node = event.node
        if node is not None:
            nodes, label = entry.nodes, node.label
            if label in nodes:
                nodes[label] += 1
            else:
                if len(nodes) >= _NODES:
                    label = OTHERS
                nodes[label] = nodes.get(label, 0) + 1
        context = event.context
        if context is not None and context.trace_id is not None and context.sampled:
            entry.traced = context
        return entry

    def _advance(self, now: float) -> None:
        """Let time pass: from now on, what is spent weighs more."""
        passed = max(now - self._now, 0.0) if self._now else 0.0
        self._now = now
        self._factor *= exp2(min(passed / _HELD_FOR, _LEAP))
        self._lately *= exp2(min(passed / _LATELY, _LEAP))
        if self._factor > _HIGHEST:
            self._sketch.scale(1 / self._factor)
            self._factor = 1.0
        if self._lately > _HIGHEST:
            for entry in self._sketch:
                entry.lately /= self._lately
            self._lately = 1.0

    def slow(self, fingerprint: str) -> None:
        """Count a request as slow that was counted before."""
        entry = self.held.get(fingerprint)
        if entry is not None:
            entry.slow += 1

    def keep(self, fingerprint: str, plan: Plan) -> bool:
        """Keep the plan of a statement; tell whether it is held still."""
        entry = self.held.get(fingerprint)
        if entry is not None:
            entry.plan = plan
        return entry is not None

    def digests(self, now: float, most: int | None = None) -> list[Digest]:
        """Return what is known by the wall clock's ``now``, what cost most in sum first; at most so many.

        Any thread may ask: copies of dictionaries are made in one step each.
        """
        # nothing is counted between two requests: until then, what was lately fades all the same
        fade = self._lately * exp2(min(max(now - self._now, 0.0) / _LATELY, _LEAP)) * _MEAN
        entries = list(self.held.values())
        entries.sort(key=lambda entry: entry.total, reverse=True)
        return [_digest(entry, fade, self._factor) for entry in entries[:most]]


def _digest(entry: Entry, fade: float, factor: float) -> Digest:
    tenants = ranked(entry.tenants.copy())
    rest = entry.total - sum(tenants.values())
    if len(tenants) == TENANTS and rest > 0:
        tenants[OTHERS] = rest
    return Digest(
        fingerprint=entry.key,
        text=entry.text,
        kind=entry.kind,
        tables=tuple(sorted(entry.tables)),
        count=entry.count,
        cached=entry.cached,
        slow=entry.slow,
        errors=entry.errors,
        rows=entry.rows,
        total=entry.total,
        waited=entry.waited,
        maximum=entry.maximum,
        load=entry.lately / fade,
        missed=entry.error / factor,
        tenants=tenants,
        nodes=ranked(entry.nodes.copy()),
        since=entry.since,
        last=entry.last,
        trace_id=None if entry.traced is None else entry.traced.trace_id,
        error=entry.error_name,
        durations=entry.buckets.copy(),
        plan=entry.plan,
    )
