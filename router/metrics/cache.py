"""The cache in Prometheus metrics: read from its tallies when scraped, so that a hit costs nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from math import isfinite

from router.cache.broadcast import Broadcast
from router.cache.cache import Cache
from router.cache.counts import RemoteCounts
from router.cache.tally import Tally
from router.metrics.families import Family, Numbers, Values
from router.metrics.ledger import Ledger
from router.metrics.tenants import Tenants

_SIZES = ("bytes_read", "bytes_written")  # of RemoteCounts: what are no calls
_CALLS = tuple(each.name for each in fields(RemoteCounts) if each.name not in _SIZES)

Rows = Iterable[tuple[tuple[str, ...], float]]


class CacheMetrics:
    """Export a cache; the same tenants as for requests have series of their own."""

    def __init__(self, cache: Cache, clock: Callable[[], float], tenants: Tenants) -> None:
        self._cache = cache
        self._clock = clock
        self._tenants = tenants
        self._ledger = Ledger(Tally)

    def families(self, prefix: str) -> Iterator[Family]:
        """Yield all families; those of what is not configured have no samples."""
        rows = self._ledger.fold(self._cache.tallies, self._tenants.choose())
        prefix += "cache_"
        yield from self._lookups(rows, prefix)
        yield from self._memory(prefix)
        yield from self._tier(rows, prefix)
        yield from self._broadcasts(prefix)

    def _lookups(self, tenants: Mapping[str, Tally], prefix: str) -> Iterator[Family]:
        yield counter(
            prefix,
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
            yield counter(prefix, name, f"{text}, by why", ("tenant", "reason"), rows)
        yield counter(
            prefix,
            "saved_seconds",
            "Database time that answers from the cache took when they were read",
            ("tenant",),
            (((tenant,), tally.saved) for tenant, tally in tenants.items()),
        )

    def _memory(self, prefix: str) -> Iterator[Family]:
        memory = self._cache.memory
        yield gauge(prefix, "entries", "Cached answers in memory", (), [((), len(memory))])
        yield gauge(
            prefix,
            "bytes",
            "Memory that cached answers take, as bounded by cache.size",
            (),
            [((), memory.bytes)],
        )
        yield counter(
            prefix, "evictions", "Cached answers that went for want of room", (), [((), memory.evictions)]
        )

    def _tier(self, tenants: Mapping[str, Tally], prefix: str) -> Iterator[Family]:
        tier = self._cache.tier
        remote = None if tier is None else tier.remote
        up = [] if remote is None else [((), float(remote.up))]
        yield gauge(prefix, "tier_up", "Whether the shared tier is in use; 0 while it is left alone", (), up)
        calls: Rows = []
        sizes: Rows = []
        if remote is not None:
            calls = [((name,), getattr(remote.counts, name)) for name in _CALLS]
            sizes = [((name.removeprefix("bytes_"),), getattr(remote.counts, name)) for name in _SIZES]
        yield counter(prefix, "remote_calls", "What became of calls of the shared tier", ("outcome",), calls)
        yield counter(prefix, "remote_bytes", "Bytes of answers in the shared tier", ("direction",), sizes)
        waits = [((tenant,), tally.waited) for tenant, tally in tenants.items()] if tier is not None else []
        yield counter(
            prefix, "remote_wait_seconds", "Time that reads waited for the shared tier", ("tenant",), waits
        )

    def _broadcasts(self, prefix: str) -> Iterator[Family]:
        named = list(_speakers(self._cache.broadcasts))
        yield gauge(
            prefix,
            "broadcast_up",
            "Whether other processes are heard",
            ("kind", "cluster"),
            (((each.kind, name), float(each.healthy())) for name, each in named),
        )
        now = self._clock()
        yield gauge(
            prefix,
            "broadcast_age_seconds",
            "How long ago all writes of others were known",
            ("kind", "cluster"),
            (((each.kind, name), each.age(now)) for name, each in named if isfinite(each.age(now))),
        )
        yield counter(
            prefix,
            "broadcast_notices",
            "Notices of writes, and what became of them",
            ("kind", "cluster", "event"),
            (
                ((each.kind, name, field.name), getattr(each.counts, field.name))
                for name, each in named
                for field in fields(each.counts)
            ),
        )


def counter(prefix: str, name: str, text: str, labels: Values, rows: Rows) -> Family:
    """Return a counter."""
    return Numbers(f"{prefix}{name}", text, "counter", labels, rows)


def gauge(prefix: str, name: str, text: str, labels: Values, rows: Rows) -> Family:
    """Return a gauge."""
    return Numbers(f"{prefix}{name}", text, "gauge", labels, rows)


def _speakers(broadcasts: Mapping[str, Broadcast]) -> Iterator[tuple[str, Broadcast]]:
    """Yield each broadcast that speaks once, with its cluster, or ``*`` where several share it."""
    names: dict[int, list[str]] = {}
    for cluster, each in broadcasts.items():
        names.setdefault(id(each), []).append(cluster)
    for clusters in names.values():
        each = broadcasts[clusters[0]]
        if each.speaks:
            yield (clusters[0] if len(clusters) == 1 else "*"), each
