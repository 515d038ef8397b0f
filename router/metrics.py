"""Prometheus metrics, fed by events; on a registry of their own, so that two routers can share a process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypedDict, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from router.errors import UsageError
from router.events import (
    CommitUnknown,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    Event,
    RequestEvent,
    RequestFailed,
    RetryScheduled,
    SlowRequest,
    TransactionCommitted,
    TransactionEvent,
    TransactionRolledBack,
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
        self._requests = counter("requests", "Requests", "cluster", "role", "kind", "outcome")
        self._durations = histogram("request_duration", "Time of requests", "cluster", "role", "kind")
        self._routes = counter("routes", "Routing decisions", "cluster", "role", "reason")
        self._acquires = histogram(
            "pool_acquire_duration", "Time until a connection was had", "cluster", "role"
        )
        self._errors = counter("errors", "Requests that failed", "cluster", "error")
        self._retries = counter("retries", "Attempts that were followed by another", "error")
        self._opened = counter("connections_opened", "Connections established", "node")
        self._failed = counter("connections_failed", "Connections that could not be made", "node", "error")
        self._closed = counter("connections_closed", "Connections closed", "node", "reason")
        self._connects = histogram("connect_duration", "Time to establish a connection", "node")
        self._transactions = counter("transactions", "Transactions that ended", "cluster", "outcome")
        self._slow = counter("slow_requests", "Requests over their tenant's threshold", "cluster")
        # labels() formats and locks on every call, half the cost of an observation; these keep its results.
        self._request_children: dict[tuple[str, str, str, str], tuple[Counter, Histogram]] = {}
        self._route_children: dict[tuple[str, str, str], Counter] = {}
        self._acquire_children: dict[tuple[str, str], Histogram] = {}

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
        dispatcher.subscribe(RequestEvent, self._on_request)
        dispatcher.subscribe(RequestFailed, self._on_failure)
        dispatcher.subscribe(RetryScheduled, self._on_retry)
        dispatcher.subscribe(SlowRequest, self._on_slow)
        dispatcher.subscribe(ConnectionOpened, self._on_opened)
        dispatcher.subscribe(ConnectionFailed, self._on_connection_failed)
        dispatcher.subscribe(ConnectionClosed, self._on_closed)
        dispatcher.subscribe(TransactionEvent, self._on_transaction)
        self.registry.register(_Listeners(dispatcher, self._namespace))

    # --- listeners -----------------------------------------------------------------------------------

    def _on_request(self, event: RequestEvent) -> None:
        cluster, role, kind, reason = _cluster(event), event.role, event.kind, event.reason
        try:
            requests, durations = self._request_children[cluster, role, kind, event.outcome]
            routes = self._route_children[cluster, role, reason]
            acquires = self._acquire_children[cluster, role]
        except KeyError:
            requests = self._requests.labels(cluster, role, kind, event.outcome)
            durations = self._durations.labels(cluster, role, kind)
            routes = self._routes.labels(cluster, role, reason)
            acquires = self._acquires.labels(cluster, role)
            self._request_children[cluster, role, kind, event.outcome] = requests, durations
            self._route_children[cluster, role, reason] = routes
            self._acquire_children[cluster, role] = acquires
        requests.inc()
        durations.observe(event.total)
        routes.inc()
        acquires.observe(event.acquire)

    def _on_failure(self, event: RequestFailed) -> None:
        self._errors.labels(_cluster(event), event.error).inc()

    def _on_retry(self, event: RetryScheduled) -> None:
        self._retries.labels(event.error).inc()

    def _on_slow(self, event: SlowRequest) -> None:
        self._slow.labels(_cluster(event.request)).inc()

    def _on_opened(self, event: ConnectionOpened) -> None:
        self._opened.labels(event.node.label).inc()
        self._connects.labels(event.node.label).observe(event.duration)

    def _on_connection_failed(self, event: ConnectionFailed) -> None:
        self._failed.labels(event.node.label, event.error).inc()

    def _on_closed(self, event: ConnectionClosed) -> None:
        self._closed.labels(event.node.label, event.reason).inc()

    def _on_transaction(self, event: TransactionEvent) -> None:
        self._transactions.labels(event.node.cluster, _OUTCOMES[type(event)]).inc()

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
            requests=_totals(self._requests, "role"),
            outcomes=_totals(self._requests, "outcome"),
            reasons=_totals(self._routes, "reason"),
            errors=_totals(self._errors, "error"),
            retries=_totals(self._retries, "error"),
            transactions=_totals(self._transactions, "outcome"),
            slow=sum(_totals(self._slow, "cluster").values()),
        )


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
