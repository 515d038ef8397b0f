"""The metrics of several processes as one. Pure: what each has counted comes in.

Counters and histograms are added up, those of processes that are gone as well. A gauge is what the rule of
its name says of those that live: how many there are is a sum, what is to be worried about the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from router.metrics.bins import Bins
from router.metrics.families import Family, Histogram, Numbers, Values

GAUGES: Final[dict[str, Callable[[Iterable[float]], float]]] = {
    "node_up": min,
    "node_usable": min,
    "node_in_flight": sum,
    "node_latency_seconds": max,
    "replica_lag_seconds": max,
    "replica_lag_bytes": max,
    "replica_lag_limit_seconds": max,
    "breaker_open": max,
    "primary": max,
    "retry_budget_ratio": min,
    "pool_connections": sum,
    "pool_waiters": sum,
    "pool_limit": sum,
    "pool_used_ratio": max,
    "pools": sum,
    "tenants_configured": max,
    "tenants_folded": max,
    "catalog_tenants": max,
    "catalog_usable": min,
    "audit_queued": sum,
    "audit_undelivered_bytes": sum,
    "audit_delivery_lag_seconds": max,
    "audit_failing": max,
    "listener_queue": sum,
    "listener_muted": sum,
    "cache_entries": sum,
    "cache_bytes": sum,
    "cache_tier_up": min,
    "cache_broadcast_up": min,
    "cache_broadcast_age_seconds": max,
    "configuration_generation": min,
    "configuration_last_load_success": min,
    "configuration_loaded_timestamp_seconds": min,
    "secret_age_seconds": max,
    "secret_failing": max,
    "scrape_duration_seconds": max,
    "loop_lag_seconds": max,
    "build_info": max,
    "workers": sum,
}
"""How the gauges of processes become one, by name without the prefix."""

APART: Final = "slow_statement_seconds"
"""What each process begins and ends series of as it likes: a sum of them would go back."""


def merged(prefix: str, mine: Family, living: Sequence[Family], gone: Sequence[Family]) -> Family:
    """Return one metric of several processes; what does not fit ``mine`` is left out: another version's."""
    living = [mine, *(each for each in living if _fits(mine, each))]
    gone = [each for each in gone if _fits(mine, each)]
    if isinstance(mine, Histogram):
        return _histogram(mine, [*living, *gone])
    if mine.type == "counter":
        rows = _together(sum, [*living, *gone])
    else:
        rows = _together(GAUGES[mine.name.removeprefix(prefix)], living)
    return Numbers(mine.name, mine.text, mine.type, mine.labels, rows)


def _fits(mine: Family, other: Family) -> bool:
    if (mine.type, mine.labels) != (other.type, other.labels):
        return False
    return not isinstance(mine, Histogram) or (
        isinstance(other, Histogram) and tuple(mine.bounds) == tuple(other.bounds)
    )


def _together(
    rule: Callable[[Iterable[float]], float], families: Iterable[Family]
) -> list[tuple[Values, float]]:
    found: dict[Values, list[float]] = {}
    for family in families:
        if isinstance(family, Numbers):
            for values, number in family.rows:
                found.setdefault(values, []).append(number)
    return [(values, rule(numbers)) for values, numbers in found.items()]


def _histogram(mine: Histogram, families: Iterable[Family]) -> Histogram:
    sums: dict[Values, Bins] = {}
    for family in families:
        if isinstance(family, Histogram):
            for values, bins in family.rows:
                whole = sums.setdefault(values, Bins(len(mine.bounds)))
                whole.include(bins.counts, bins.total, bins.exemplars)
    return Histogram(mine.name, mine.text, mine.labels, mine.bounds, sums.items())


def apart(mine: Family, named: Iterable[tuple[str, Family]]) -> Numbers:
    """Return one metric of several processes whose series are told apart by a label ``worker``."""
    rows = [
        ((*values, worker), number)
        for worker, family in named
        if isinstance(family, Numbers) and family.labels == mine.labels
        for values, number in family.rows
    ]
    return Numbers(mine.name, mine.text, mine.type, (*mine.labels, "worker"), rows)
