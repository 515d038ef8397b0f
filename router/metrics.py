"""Prometheus metrics, fed by events; on a registry of their own, so that two routers can share a process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple, Protocol, TypedDict, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from router.errors import UsageError
from router.events import (
    CacheNotWorthIt,
    CommitResolved,
    CommitUnknown,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionHeld,
    ConnectionOpened,
    Event,
    PrimaryChanged,
    ReplicaChanged,
    RequestEvent,
    RequestFailed,
    RetryDenied,
    RetryScheduled,
    SlowRequest,
    StatementsLeft,
    TokenIgnored,
    TransactionCommitted,
    TransactionEvent,
    TransactionRolledBack,
    WriteLost,
)

E = TypeVar("E", bound=Event)

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histograms, in seconds: from a cached read on loopback to a client that gave up."""

_OUTCOMES: dict[type[TransactionEvent], str] = {
    TransactionCommitted: "committed",
    TransactionRolledBack: "rolled_back",
    CommitUnknown: "unknown",
}


class ListenerCounts(Protocol):
    """Describe what is exported of a listener; ``router.dispatcher.ListenerStats`` is one."""

    @property
    def name(self) -> str:
        """Return the name of the listener's code."""
        ...

    @property
    def failed(self) -> int:
        """Return how often it failed."""
        ...

    @property
    def dropped(self) -> int:
        """Return how many events it did not get."""
        ...


class Source(Protocol):
    """Describe where events come from; ``router.dispatcher.Dispatcher`` is one."""

    def subscribe(self, event_type: type[E], listener: Callable[[E], object]) -> object:
        """Call ``listener`` with every event of the type."""
        ...

    def stats(self) -> Iterable[ListenerCounts]:
        """Return the counts of every listener."""
        ...


class Summary(TypedDict):
    """Hold totals since the start, for people; each mapping goes from a label's value to a count."""

    requests: dict[str, int]  # by role
    outcomes: dict[str, int]
    reasons: dict[str, int]
    errors: dict[str, int]
    retries: dict[str, int]  # by the error that caused them
    transactions: dict[str, int]  # by outcome
    slow: int


class Metrics:
    """Count and time what the events of a dispatcher tell, as Prometheus metrics on ``registry``.

    ``namespace`` is the prefix of all names. Durations are in seconds. Labels have few values: names of
    clusters and nodes from the configuration and words of ours; no tenant, no SQL.
    """

    def __init__(self, registry: CollectorRegistry | None = None, namespace: str = "router") -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._namespace = namespace
        self._attached = False
        counter, histogram = self._counter, self._histogram
        self._requests = _Requests(namespace)
        self.registry.register(self._requests)
        self._errors = counter("errors", "Requests that failed", "cluster", "error")
        self._retries = counter("retries", "Attempts that were followed by another", "error")
        self._denied = counter("retries_denied", "Retries not made for want of retry budget", "cluster")
        self._opened = counter("connections_opened", "Connections established", "node")
        self._failed = counter("connections_failed", "Connections that could not be made", "node", "error")
        self._closed = counter("connections_closed", "Connections closed", "node", "reason")
        self._held = counter("connections_held", "Units of work that held one for too long", "node")
        self._connects = histogram("connect_duration", "Time to establish a connection", "node")
        self._left = counter("statements_left", "Given-up statements that may run on", "node", "error")
        self._transactions = counter("transactions", "Transactions that ended", "cluster", "outcome")
        # labels() costs as much as all the rest of counting, and there are few of these
        self._ended: dict[tuple[str, type[TransactionEvent]], Counter] = {}
        self._resolved = counter("commits_resolved", "Commits found out about", "cluster", "outcome")
        self._primaries = counter(
            "primary_changes", "Times that another server became the primary", "cluster"
        )
        self._replicas = counter(
            "replica_changes", "Times that a replica was left out, or used again", "node", "reason"
        )
        self._ignored = counter("tokens_ignored", "Tokens that could not be used", "cluster", "refusal")
        self._lost = counter("writes_lost", "Writes to be seen that a failover lost", "cluster", "certain")
        self._warned = counter("cache_not_worth_it", "Tellings that the cache does little", "reason")
        self._slow = counter("slow_requests", "Requests over their tenant's threshold", "cluster")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, f"{text}.", labels, namespace=self._namespace, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(
            f"{name}_seconds",
            f"{text}.",
            labels,
            namespace=self._namespace,
            registry=self.registry,
            buckets=BUCKETS,
        )

    def attach(self, dispatcher: Source) -> None:
        """Listen to ``dispatcher``, and export how its listeners fare; raise UsageError the second time."""
        if self._attached:
            raise UsageError("these metrics are attached already; requests would count twice. Make new ones")
        self._attached = True
        dispatcher.subscribe(RequestEvent, self._requests.count)
        dispatcher.subscribe(RequestFailed, self._on_failure)
        dispatcher.subscribe(RetryScheduled, self._on_retry)
        dispatcher.subscribe(RetryDenied, self._on_retry_denied)
        dispatcher.subscribe(CommitResolved, self._on_resolved)
        dispatcher.subscribe(SlowRequest, self._on_slow)
        dispatcher.subscribe(TokenIgnored, self._on_ignored)
        dispatcher.subscribe(WriteLost, self._on_lost)
        dispatcher.subscribe(ConnectionOpened, self._on_opened)
        dispatcher.subscribe(ConnectionFailed, self._on_connection_failed)
        dispatcher.subscribe(ConnectionClosed, self._on_closed)
        dispatcher.subscribe(ConnectionHeld, self._on_held)
        dispatcher.subscribe(StatementsLeft, self._on_left)
        dispatcher.subscribe(TransactionEvent, self._on_transaction)
        dispatcher.subscribe(PrimaryChanged, self._on_primary)
        dispatcher.subscribe(CacheNotWorthIt, lambda event: self._warned.labels(event.reason).inc())
        dispatcher.subscribe(ReplicaChanged, self._on_replica)
        self.registry.register(_Listeners(dispatcher, self._namespace))

    # --- listeners -----------------------------------------------------------------------------------

    def _on_failure(self, event: RequestFailed) -> None:
        self._errors.labels(_cluster(event), event.error).inc()

    def _on_retry(self, event: RetryScheduled) -> None:
        self._retries.labels(event.error).inc()

    def _on_retry_denied(self, event: RetryDenied) -> None:
        self._denied.labels(event.cluster).inc()

    def _on_resolved(self, event: CommitResolved) -> None:
        self._resolved.labels(event.node.cluster, "committed" if event.committed else "rolled_back").inc()

    def _on_ignored(self, event: TokenIgnored) -> None:
        self._ignored.labels(event.cluster, event.refusal).inc()

    def _on_lost(self, event: WriteLost) -> None:
        self._lost.labels(event.cluster, "yes" if event.certain else "no").inc()

    def _on_slow(self, event: SlowRequest) -> None:
        self._slow.labels(_cluster(event.request)).inc()

    def _on_opened(self, event: ConnectionOpened) -> None:
        self._opened.labels(event.node.label).inc()
        self._connects.labels(event.node.label).observe(event.duration)

    def _on_connection_failed(self, event: ConnectionFailed) -> None:
        self._failed.labels(event.node.label, event.error).inc()

    def _on_closed(self, event: ConnectionClosed) -> None:
        self._closed.labels(event.node.label, event.reason).inc()

    def _on_held(self, event: ConnectionHeld) -> None:
        self._held.labels(event.node.label).inc()

    def _on_left(self, event: StatementsLeft) -> None:
        self._left.labels(event.node.label, event.error).inc(event.count)

    def _on_transaction(self, event: TransactionEvent) -> None:
        key = event.node.cluster, type(event)
        ended = self._ended.get(key)
        if ended is None:
            ended = self._ended[key] = self._transactions.labels(key[0], _OUTCOMES[key[1]])
        ended.inc()

    def _on_primary(self, event: PrimaryChanged) -> None:
        if event.node is not None:
            self._primaries.labels(event.cluster).inc()

    def _on_replica(self, event: ReplicaChanged) -> None:
        self._replicas.labels(event.node.label, event.reason or "usable").inc()

    # --- output --------------------------------------------------------------------------------------

    def render(self, accept: str = "") -> bytes:
        """Return the exposition text in the format that an HTTP ``Accept`` header asks for."""
        encode, _ = choose_encoder(accept)
        return encode(self.registry)

    def content_type(self, accept: str = "") -> str:
        """Return the Content-Type of what ``render`` returns for the same ``Accept`` header."""
        return choose_encoder(accept)[1]

    def summary(self) -> Summary:
        """Return the totals of this process."""
        return Summary(
            requests=self._requests.totals(lambda key: key.role),
            outcomes=self._requests.totals(lambda key: key.outcome),
            reasons=self._requests.totals(lambda key: key.reason),
            errors=_totals(self._errors, "error"),
            retries=_totals(self._retries, "error"),
            transactions=_totals(self._transactions, "outcome"),
            slow=sum(_totals(self._slow, "cluster").values()),
        )


class _Key(NamedTuple):
    """Name one kind of request."""

    cluster: str
    role: str
    kind: str
    outcome: str
    reason: str


class _Cell:
    """Add up the requests of one kind."""

    __slots__ = ("acquire", "acquires", "count", "durations", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.acquire = 0.0
        self.durations = [0] * (len(BUCKETS) + 1)
        self.acquires = [0] * (len(BUCKETS) + 1)


class _Requests(Collector):
    """Count and time requests in plain numbers; they become Prometheus metrics when scraped.

    Every request passes here, and prometheus_client takes a lock for each of the six values that it changes:
    3 microseconds against 0.6. The event loop is the only writer, so there is nothing to lock.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._cells: dict[tuple[str, str, str, str, str], _Cell] = {}

    def count(self, event: RequestEvent) -> None:
        node = event.node
        cluster = "none" if node is None else node.cluster
        cell = self._cells.get((cluster, event.role, event.kind, event.outcome, event.reason))
        if cell is None:
            key = (cluster, str(event.role), str(event.kind), event.outcome, str(event.reason))
            cell = self._cells[key] = _Cell()
        total, acquire = event.total, event.acquire
        cell.count += 1
        cell.seconds += total
        cell.durations[bisect_left(BUCKETS, total)] += 1
        if acquire:
            cell.acquire += acquire
            cell.acquires[bisect_left(BUCKETS, acquire)] += 1
        else:
            cell.acquires[0] += 1

    def totals(self, label: Callable[[_Key], str]) -> dict[str, int]:
        """Return the number of requests by a label."""
        totals: dict[str, int] = {}
        for key, cell in self._cells.items():
            name = label(_Key(*key))
            totals[name] = totals.get(name, 0) + cell.count
        return totals

    def collect(self) -> Iterator[Metric]:
        cells = [(_Key(*key), cell) for key, cell in list(self._cells.items())]
        yield self._counter(
            "requests", "Requests.", ("cluster", "role", "kind", "outcome"), cells, lambda key: key[:4]
        )
        yield self._counter(
            "routes",
            "Routing decisions.",
            ("cluster", "role", "reason"),
            cells,
            lambda key: (*key[:2], key[4]),
        )
        yield self._histogram(
            "request_duration",
            "Time of requests.",
            ("cluster", "role", "kind"),
            [(key[:3], cell.durations, cell.seconds) for key, cell in cells],
        )
        yield self._histogram(
            "pool_acquire_duration",
            "Time until a connection was had.",
            ("cluster", "role"),
            [(key[:2], cell.acquires, cell.acquire) for key, cell in cells],
        )

    def _counter(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        cells: list[tuple[_Key, _Cell]],
        values: Callable[[_Key], tuple[str, ...]],
    ) -> Metric:
        sums: dict[tuple[str, ...], int] = {}
        for key, cell in cells:
            sums[values(key)] = sums.get(values(key), 0) + cell.count
        family = CounterMetricFamily(f"{self._namespace}_{name}", text, labels=labels)
        for label_values, count in sums.items():
            family.add_metric(label_values, count)
        return family

    def _histogram(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        parts: list[tuple[tuple[str, ...], list[int], float]],
    ) -> Metric:
        sums: dict[tuple[str, ...], tuple[list[int], float]] = {}
        for values, counts, seconds in parts:
            before, spent = sums.get(values, ([0] * len(counts), 0.0))
            sums[values] = [one + two for one, two in zip(before, counts, strict=True)], spent + seconds
        family = HistogramMetricFamily(f"{self._namespace}_{name}_seconds", text, labels=labels)
        bounds = [*map(str, BUCKETS), "+Inf"]
        for values, (counts, seconds) in sums.items():
            family.add_metric(values, list(zip(bounds, accumulate(counts), strict=True)), seconds)
        return family


class _Listeners(Collector):
    """Export the dispatcher's own counts when scraped, so that counting them costs an emit nothing."""

    def __init__(self, dispatcher: Source, namespace: str) -> None:
        self._dispatcher = dispatcher
        self._namespace = namespace

    def collect(self) -> Iterator[Metric]:
        failed: dict[str, int] = {}
        dropped: dict[str, int] = {}
        for listener in self._dispatcher.stats():  # two listeners may share their code and so their name
            failed[listener.name] = failed.get(listener.name, 0) + listener.failed
            dropped[listener.name] = dropped.get(listener.name, 0) + listener.dropped
        yield self._family("listener_errors", "Calls of listeners that failed.", failed)
        yield self._family("events_dropped", "Events that listeners did not get.", dropped)

    def _family(self, name: str, text: str, counts: dict[str, int]) -> Metric:
        family = CounterMetricFamily(f"{self._namespace}_{name}", text, labels=["listener"])
        for listener, count in counts.items():
            family.add_metric([listener], count)
        return family


def _cluster(event: RequestEvent) -> str:
    return "none" if event.node is None else event.node.cluster


def _totals(counter: Counter, label: str) -> dict[str, int]:
    totals: dict[str, int] = {}
    for metric in counter.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                value = sample.labels[label]
                totals[value] = totals.get(value, 0) + int(sample.value)
    return totals
