"""The metrics of one router: fed by its events, completed by its parts, on a registry of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypedDict

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from router.dispatcher import Dispatcher
from router.errors import UsageError
from router.events import ConfigurationLoaded, ConfigurationRefused, RequestEvent
from router.metrics import audited, catalog, kept, listeners, pooled, standing
from router.metrics.bins import BUCKETS
from router.metrics.cache import CacheMetrics
from router.metrics.exposition import content_type, written
from router.metrics.families import Family, Numbers
from router.metrics.parts import Parts
from router.metrics.process import Process
from router.metrics.requests import STALE_ACTIONS, Requests, summed
from router.metrics.tenants import MOST, Tenants
from router.metrics.told import NAME, Told
from router.pacing import politely

if TYPE_CHECKING:
    from router.metrics.workers import Workers


_FRESH = 1.0  # seconds for which a rendering is given to further scrapes
_SLOWEST = 20  # statements with series of their own


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
    """Count and time what events tell, and show what a router's parts are like, as Prometheus metrics.

    ``namespace`` is the prefix of all names. Durations are in seconds. Labels have few values: names of
    clusters and nodes from the configuration, words of ours, and of tenants the ``tenants`` that ask most and
    those that are ``always`` shown; no SQL. Processes that share a folder ``workers`` show theirs as one.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        namespace: str = "router",
        *,
        tenants: int = MOST,
        always: Iterable[str] = (),
        buckets: Sequence[float] = BUCKETS,
        workers: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._prefix = f"{namespace}_"
        self._clock = clock
        self._source: Dispatcher | None = None
        self._parts: Parts | None = None
        self._tenants = Tenants(clock, tenants, always, alone=workers is None)
        self._requests = Requests(buckets, self._tenants)
        self._told = Told(buckets, self._tenants)
        self._process = Process()
        self._cache: CacheMetrics | None = None
        self._rendering = Lock()  # of threads: two that render at once would only be slower
        self._last: dict[str, tuple[float, bytes]] = {}  # by format: when, and what
        self._scrapes: dict[str, asyncio.Task[bytes]] = {}
        self._workers: Workers | None = None
        if workers is not None:
            from router.metrics.workers import Workers  # locks files, as only POSIX systems do so

            self._workers = Workers(workers, self._prefix, self.families)
        self.registry.register(_Bridge(self._collected))

    def attach(self, dispatcher: Dispatcher) -> None:
        """Listen to ``dispatcher``, and export how its listeners fare; raise UsageError the second time."""
        if self._source is not None:
            raise UsageError("these metrics are attached already; requests would count twice. Make new ones")
        self._source = dispatcher
        dispatcher.subscribe(RequestEvent, self._requests.count, quiet=True, name=NAME)
        dispatcher.subscribe(ConfigurationLoaded, self._process.on_loaded, quiet=True, name=NAME)
        dispatcher.subscribe(ConfigurationRefused, self._process.on_refused, quiet=True, name=NAME)
        self._told.listen(dispatcher)

    def watch(self, parts: Parts) -> None:
        """Export what the parts of a router are like from now on."""
        self._parts = parts
        self._tenants.configured(parts.tenants)
        self._cache = CacheMetrics(parts.cache, parts.clock, self._tenants)
        self._begin(parts)
        if self._workers is not None:
            self._workers.start()

    def renew(self, tenants: Collection[str]) -> None:
        """Go by other tenants, and by the servers that there are by now."""
        if self._parts is None:
            return
        self._parts = replace(self._parts, tenants=tenants)
        self._tenants.configured(tenants)
        self._begin(self._parts)

    def _begin(self, parts: Parts) -> None:
        nodes = (server.node.label for each in parts.backends.values() for server in each.health.servers)
        self._told.begin(parts.backends, nodes)

    async def close(self) -> None:
        """Look at the event loop no more, and leave what was counted to the other workers."""
        self._process.loop.stop()
        if self._workers is not None:
            await self._workers.close()

    def forked(self) -> None:
        """Let go in a forked child of what belongs to the parent process."""
        if self._workers is not None:
            self._workers.leave()

    # --- output --------------------------------------------------------------------------------------

    def render(self, accept: str = "") -> bytes:
        """Return the exposition text in the format that an HTTP ``Accept`` header asks for.

        It takes its time, tens of milliseconds with many tenants: on an event loop await :meth:`scrape`. In a
        thread it gives way to the loop's again and again.
        """
        began = self._clock()
        with self._rendering, nullcontext() if _on_a_loop() else politely():
            body = written(self.registry.collect(), content_type(accept))
        self._process.scrape = self._clock() - began
        return body

    async def scrape(self, accept: str = "") -> bytes:
        """Return what :meth:`render` does, made in a thread that gives way to the event loop.

        Who asks while it is being made, or within a second, is given the same.
        """
        self._process.loop.go_on()
        kind = content_type(accept)
        made, body = self._last.get(kind, (0.0, b""))
        if body and self._clock() - made < _FRESH:
            return body
        task = self._scrapes.get(kind)
        if task is None:
            task = asyncio.create_task(self._scrape(kind), name="router metrics")
            self._scrapes[kind] = task
        return await asyncio.shield(task)  # who goes away does not take it from the others

    async def _scrape(self, kind: str) -> bytes:
        try:
            body = await asyncio.to_thread(self.render, kind)
            self._last[kind] = self._clock(), body
        finally:
            del self._scrapes[kind]
        return body

    def content_type(self, accept: str = "") -> str:
        """Return the Content-Type of what ``render`` returns for the same ``Accept`` header."""
        return content_type(accept)

    def _collected(self) -> Iterator[Family]:
        return self.families() if self._workers is None else self._workers.together(self.families())

    def families(self) -> Iterator[Family]:
        """Yield all metrics of this process as they are now; any thread may ask."""
        prefix, parts = self._prefix, self._parts
        yield from self._requests.families(prefix)
        yield self._stale_avoided()
        yield from self._told.families(prefix)
        yield from self._tenants.families(prefix)
        if self._source is not None:
            yield from listeners.families(self._source.stats(), prefix)
        if parts is not None:
            yield from self._watched(parts)
        if self._cache is not None:
            yield from self._cache.families(prefix)
        yield from self._process.families(prefix)

    def _watched(self, parts: Parts) -> Iterator[Family]:
        prefix = self._prefix
        yield from standing.families(parts.backends, parts.clock(), prefix)
        yield from pooled.families(parts.pools, prefix)
        yield from kept.families(parts.secrets(), prefix)
        yield from catalog.families(parts.finder, prefix)
        yield from audited.families(None if parts.audit is None else parts.audit(), prefix)
        rows: list[tuple[tuple[str, ...], float]] = [((), len(parts.tenants))]
        yield Numbers(f"{prefix}tenants_configured", "Tenants of the configuration", "gauge", (), rows)
        slowest = [((fingerprint,), total) for fingerprint, total in parts.slow(_SLOWEST)]
        text = "Time of all requests, of the statements that cost most"
        yield Numbers(f"{prefix}slow_statement_seconds", text, "counter", ("fingerprint",), slowest)

    def _stale_avoided(self) -> Numbers:
        none = (
            (cluster, action)
            for cluster in (list(self._parts.backends) if self._parts else ())
            for action in STALE_ACTIONS
        )
        refused = (((*values, "refused"), count) for values, count in self._told.stale_refused.rows())
        rows = summed([*((each, 0) for each in none), *self._requests.stale_avoided(), *refused])
        text = "Reads that a late replica would have answered with too little, and what was done instead"
        return Numbers(f"{self._prefix}stale_avoided", text, "counter", ("cluster", "action"), rows)

    def summary(self) -> Summary:
        """Return the totals of this process."""
        return Summary(
            requests=self._requests.totals("role"),
            outcomes=self._requests.totals("outcome"),
            reasons=self._requests.totals("reason"),
            errors=self._told.errors.totals("error"),
            retries=self._told.retries.totals("error"),
            transactions=self._told.transactions.totals("outcome"),
            slow=sum(self._told.slow.totals("cluster").values()),
        )


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Bridge(Collector):
    """Be asked by a registry."""

    def __init__(self, families: Callable[[], Iterator[Family]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return self._families()
