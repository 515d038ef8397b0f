"""A histogram in plain numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histograms, in seconds: from a cached read on loopback to a client that gave up."""

Exemplar = tuple[str, float, float]
"""A trace, the value measured in it, and the wall-clock time of that."""


class Bins:
    """Count values between bounds and add them up; ``exemplars`` are the latest ones by bin."""

    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] | None = None

    def add(self, bounds: Sequence[float], value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value

    def include(self, counts: Sequence[int], total: float, exemplars: dict[int, Exemplar] | None) -> None:
        """Add what another one has counted; the newest exemplars stay."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, counts, strict=True)]
        self.total += total
        for place, theirs in list((exemplars or {}).items()):
            mine = self.exemplars = {} if self.exemplars is None else self.exemplars
            if place not in mine or mine[place][2] <= theirs[2]:
                mine[place] = theirs
