"""What happened in about a second: how many requests there were, how long they took, and whose they were."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from router.events import RequestEvent
from router.pacing import paced
from router.picture import Pace, Second, TenantRow

BUCKETS: Final = tuple(0.0001 * 1.25**step for step in range(60))
"""Upper bounds of the histogram of durations, in seconds: from 0.1 ms to a minute."""

_PACE: Final = 10.0  # seconds that rates are a mean of


class Spent:
    """Add up what one tenant did."""

    __slots__ = ("errors", "requests", "seconds", "waiting")

    def __init__(self) -> None:
        self.requests = self.errors = 0
        self.seconds = self.waiting = 0.0

    def include(self, other: Spent) -> None:
        """Add what another one has."""
        self.requests += other.requests
        self.errors += other.errors
        self.seconds += other.seconds
        self.waiting += other.waiting

    def row(self, tenant: str, length: float) -> TenantRow:
        """Return what it is for each of ``length`` seconds."""
        sums = (self.requests, self.errors, self.seconds, self.waiting)
        return TenantRow(tenant, *(_per(each, length) for each in sums))


class Window:
    """Add up what happened from ``began``, on the monotonic clock, until it is over."""

    __slots__ = ("at", "began", "durations", "errors", "length", "requests", "seconds", "tenants")

    def __init__(self, began: float, at: float) -> None:
        self.began, self.at = began, at
        self.length = 0.0  # until it is over
        self.requests = self.errors = 0
        self.seconds = 0.0
        self.durations = [0] * (len(BUCKETS) + 1)
        self.tenants: dict[str, Spent] = {}

    def count(self, event: RequestEvent) -> None:
        """Take note of a request; called for each."""
        total = event.total
        spent = self.tenants.get(event.tenant)
        if spent is None:
            spent = self.tenants[event.tenant] = Spent()
        if event.outcome != "ok":
            self.errors += 1
            spent.errors += 1
        self.requests += 1
        self.seconds += total
        self.durations[bisect_left(BUCKETS, total)] += 1
        spent.requests += 1
        spent.seconds += total
        spent.waiting += event.waits.queue


def pace(windows: Sequence[Window]) -> Pace:
    """Return how many requests there were lately, and how long they took, by windows that are over."""
    last = list(_lately(windows))
    length = sum(each.length for each in last)
    requests = sum(each.requests for each in last)
    durations = [sum(counts) for counts in zip(*(each.durations for each in last), strict=True)]
    return Pace(
        _per(requests, length),
        _per(sum(each.errors for each in last), length),
        sum(each.seconds for each in last) / requests if requests else None,
        _quantile(durations, requests, 0.5),
        _quantile(durations, requests, 0.95),
        _quantile(durations, requests, 0.99),
        tuple(
            Second(each.at, _per(each.requests, each.length), _per(each.errors, each.length))
            for each in windows
        ),
    )


def busy(windows: Sequence[Window], most: int) -> tuple[TenantRow, ...]:
    """Return the tenants whose requests took most time lately, by windows that are over."""
    sums: dict[str, Spent] = {}
    last = list(_lately(windows))
    for window in last:
        for tenant, spent in paced(window.tenants.items()):
            sums.setdefault(tenant, Spent()).include(spent)
    length = sum(each.length for each in last)
    first = sorted(sums.items(), key=lambda each: -each[1].seconds)[:most]
    return tuple(spent.row(tenant, length) for tenant, spent in first)


def _lately(windows: Sequence[Window]) -> Iterator[Window]:
    length = 0.0
    for window in reversed(windows):
        yield window
        length += window.length
        if length >= _PACE:
            return


def _per(amount: float, seconds: float) -> float:
    return amount / seconds if seconds else 0.0


def _quantile(counts: Iterable[int], total: int, share: float) -> float | None:
    """Return the upper bound of the bucket that holds this share of all durations; None if there are none."""
    if not total:
        return None
    seen = 0
    for bound, count in zip(BUCKETS, counts, strict=False):
        seen += count
        if seen >= share * total:
            return bound
    return BUCKETS[-1]
