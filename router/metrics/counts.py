"""What listeners count in: plain numbers by labels, changed by the event loop's thread alone.

prometheus_client takes a lock for each change, and looks labels up under another: ten times the cost. A
thread that renders reads copies.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.metrics.bins import Bins
from router.metrics.families import Histogram, Numbers, Values


class Counts:
    """A counter; ``name`` is without prefix and ``_total``."""

    __slots__ = ("_labels", "_name", "_text", "_values")

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._values: dict[Values, float] = {}

    def add(self, *values: str, by: float = 1) -> None:
        """Count ``by`` more under these values of the labels."""
        self._values[values] = self._values.get(values, 0) + by

    def begin(self, *values: str) -> None:
        """Have a series begin at 0: what first appears at 1 is no increase to Prometheus."""
        self._values.setdefault(values, 0)

    def rows(self) -> list[tuple[Values, float]]:
        """Return what is counted so far, by the values of the labels."""
        return list(self._values.items())

    def family(self, prefix: str) -> Numbers:
        """Return the metric."""
        return Numbers(f"{prefix}{self._name}", self._text, "counter", self._labels, self.rows())

    def totals(self, label: str) -> dict[str, int]:
        """Return what was counted by one of the labels, as far as it is more than nothing."""
        place = self._labels.index(label)
        totals: dict[str, int] = {}
        for values, count in self.rows():
            if count:
                totals[values[place]] = totals.get(values[place], 0) + int(count)
        return totals


class Times:
    """A histogram of seconds; ``name`` is without prefix and ``_seconds``."""

    __slots__ = ("_bins", "_bounds", "_labels", "_name", "_text")

    def __init__(self, bounds: Sequence[float], name: str, text: str, *labels: str) -> None:
        self._bounds = bounds
        self._name = name
        self._text = text
        self._labels = labels
        self._bins: dict[Values, Bins] = {}

    def add(self, *values: str, seconds: float) -> None:
        """Count a duration."""
        bins = self._bins.get(values)
        if bins is None:
            bins = self._bins[values] = Bins(len(self._bounds))
        bins.add(self._bounds, seconds)

    def family(self, prefix: str) -> Histogram:
        """Return what is counted so far."""
        rows = self._bins.copy().items()
        return Histogram(f"{prefix}{self._name}_seconds", self._text, self._labels, self._bounds, rows)
