"""The cache in Prometheus metrics: read from its tallies when scraped, so that a hit costs nothing more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from math import isfinite

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.cache.broadcast import Broadcast
from router.cache.cache import Cache
from router.cache.counts import RemoteCounts
from router.cache.status import summed, tallies
from router.cache.tally import Tally

OTHER = "_other"
"""The tenant under which all are counted that have no series of their own; no id begins so."""

_MOST = 100  # tenants with series of their own
_SIZES = ("bytes_read", "bytes_written")  # of RemoteCounts: what are no calls
_CALLS = tuple(each.name for each in fields(RemoteCounts) if each.name not in _SIZES)

Rows = Iterable[tuple[tuple[str, ...], float]]


class Chosen:
    """Choose the tenants that have series of their own: those with most look-ups, while there is room.

    Who was chosen stays, and who was not is counted with the others for good, so that no sum ever goes back.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._names: set[str] = set()

    def split(self, counted: Collection[tuple[str, Tally]]) -> dict[str, Tally]:
        """Return the sums of the chosen by name, and that of all others under ``OTHER``."""
        names = self._names
        if len(names) < self._most:
            self._choose(counted)
        return summed((name if name in names else OTHER, tally) for name, tally in counted)

    def _choose(self, counted: Iterable[tuple[str, Tally]]) -> None:
        lookups: dict[str, int] = {}
        for name, tally in counted:
            if name not in self._names:
                lookups[name] = lookups.get(name, 0) + tally.lookups
        fresh = sorted(lookups, key=lambda name: -lookups[name])
        self._names.update(fresh[: self._most - len(self._names)])


class CacheMetrics(Collector):
    """Export a cache; ``namespace`` begins all names, ``most`` tenants have series of their own."""

    def __init__(
        self, cache: Cache, clock: Callable[[], float], *, namespace: str = "router", most: int = _MOST
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._prefix = f"{namespace}_cache_"
        self._chosen = Chosen(most)

    def collect(self) -> Iterator[Metric]:
        """Yield all families; those of what is not configured have no samples."""
        tenants = self._chosen.split(tallies(self._cache))
        yield from self._lookups(tenants)
        yield from self._memory()
        yield from self._tier(tenants)
        yield from self._broadcasts()

    def _lookups(self, tenants: Mapping[str, Tally]) -> Iterator[Metric]:
        yield self._counter(
            "requests",
            "Reads that the cache was to answer, and by whom they were",
            ("tenant", "result"),
            (
                ((tenant, result), count)
                for tenant, tally in tenants.items()
                for result, count in tally.results().items()
            ),
        )
        for name, text, reasons in (
            ("bypasses", "Reads that were not looked up", "bypasses"),
            ("refusals", "Answers that were there and could not be given", "refused"),
            ("unstored", "Answers of the database that were not kept", "unstored"),
        ):
            rows = (
                ((tenant, str(reason)), count)
                for tenant, tally in tenants.items()
                for reason, count in dict(getattr(tally, reasons)).items()
            )
            yield self._counter(name, f"{text}, by why", ("tenant", "reason"), rows)
        yield self._counter(
            "saved_seconds",
            "Database time that answers from the cache took when they were read",
            ("tenant",),
            (((tenant,), tally.saved) for tenant, tally in tenants.items()),
        )

    def _memory(self) -> Iterator[Metric]:
        memory = self._cache.memory
        yield self._gauge("entries", "Answers in memory", (), [((), len(memory))])
        yield self._gauge(
            "bytes", "Memory that they take, as bounded by cache.size", (), [((), memory.bytes)]
        )
        yield self._counter("evictions", "Answers that went for want of room", (), [((), memory.evictions)])
        yield self._counter("flushes", "Times that all answers went at once", (), [((), self._cache.flushes)])

    def _tier(self, tenants: Mapping[str, Tally]) -> Iterator[Metric]:
        tier = self._cache.tier
        remote = None if tier is None else tier.remote
        up = [] if remote is None else [((), float(remote.up))]
        yield self._gauge("remote_up", "Whether the shared tier is in use; 0 while it is left alone", (), up)
        calls: Rows = []
        sizes: Rows = []
        if remote is not None:
            calls = [((name,), getattr(remote.counts, name)) for name in _CALLS]
            sizes = [((name.removeprefix("bytes_"),), getattr(remote.counts, name)) for name in _SIZES]
        yield self._counter("remote_calls", "What became of calls of the shared tier", ("outcome",), calls)
        yield self._counter("remote_bytes", "Bytes of answers in the shared tier", ("direction",), sizes)
        waits = [((tenant,), tally.waited) for tenant, tally in tenants.items()] if tier is not None else []
        yield self._counter(
            "remote_wait_seconds", "Time that reads waited for the shared tier", ("tenant",), waits
        )

    def _broadcasts(self) -> Iterator[Metric]:
        named = list(_speakers(self._cache.broadcasts))
        yield self._gauge(
            "broadcast_up",
            "Whether other processes are heard",
            ("kind", "cluster"),
            (((each.kind, name), float(each.healthy())) for name, each in named),
        )
        now = self._clock()
        yield self._gauge(
            "broadcast_age_seconds",
            "How long ago all writes of others were known",
            ("kind", "cluster"),
            (((each.kind, name), each.age(now)) for name, each in named if isfinite(each.age(now))),
        )
        yield self._counter(
            "broadcast_notices",
            "Notices of writes, and what became of them",
            ("kind", "cluster", "event"),
            (
                ((each.kind, name, field.name), getattr(each.counts, field.name))
                for name, each in named
                for field in fields(each.counts)
            ),
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
        family = CounterMetricFamily(f"{self._prefix}{name}", f"{text}.", labels=labels)
        for values, count in rows:
            family.add_metric(values, count)
        return family

    def _gauge(self, name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
        family = GaugeMetricFamily(f"{self._prefix}{name}", f"{text}.", labels=labels)
        for values, value in rows:
            family.add_metric(values, value)
        return family


def _speakers(broadcasts: Mapping[str, Broadcast]) -> Iterator[tuple[str, Broadcast]]:
    """Yield each broadcast that speaks once, with its cluster, or ``*`` where several share it."""
    names: dict[int, list[str]] = {}
    for cluster, each in broadcasts.items():
        names.setdefault(id(each), []).append(cluster)
    for clusters in names.values():
        each = broadcasts[clusters[0]]
        if each.speaks:
            yield (clusters[0] if len(clusters) == 1 else "*"), each
