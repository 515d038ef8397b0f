"""One metric with all its series: what collectors yield, written by us or by prometheus_client.

prometheus_client keeps a named tuple and a dictionary for each sample: 20,000 take it a tenth of a second,
and the garbage collector stops everybody for them. Here a line is one string, made when it is written, in a
third of the time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf, isinf, isnan

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar as PrometheusExemplar
from prometheus_client.samples import Sample

from router.metrics.bins import Bins, Exemplar

Values = tuple[str, ...]
"""What the labels of a series are, in the order of the family's names for them."""


class Family(Metric, ABC):
    """Hold the name, meaning, kind and labels of a metric; ``name`` is without ``_total``."""

    def __init__(self, name: str, text: str, kind: str, labels: Values) -> None:
        super().__init__(name, f"{text}.", kind)
        self.text = text
        self.labels = labels

    @abstractmethod
    def lines(self, exemplars: bool) -> Iterator[str]:
        """Yield each sample as a line of text; with exemplars only in OpenMetrics."""

    @abstractmethod
    def _made(self) -> Iterator[Sample]: ...

    @property
    def samples(self) -> list[Sample]:
        """Return the samples as prometheus_client has them."""
        return list(self._made())

    @samples.setter
    def samples(self, samples: list[Sample]) -> None:
        """Ignore the empty list that the base begins with."""


class Numbers(Family):
    """A counter or a gauge."""

    def __init__(
        self, name: str, text: str, kind: str, labels: Values, rows: Iterable[tuple[Values, float]]
    ) -> None:
        super().__init__(name, text, kind, labels)
        self.rows = list(rows)

    @property
    def _full_name(self) -> str:
        return f"{self.name}_total" if self.type == "counter" else self.name

    def lines(self, exemplars: bool) -> Iterator[str]:
        """Yield each sample as a line of text."""
        name, labels = self._full_name, self.labels
        for values, number in self.rows:
            inner = _labelled(labels, values)
            yield f"{name}{{{inner}}} {_number(number)}\n" if inner else f"{name} {_number(number)}\n"

    def _made(self) -> Iterator[Sample]:
        name = self._full_name
        for values, number in self.rows:
            yield Sample(name, dict(zip(self.labels, values, strict=True)), float(number))


class Histogram(Family):
    """A histogram; ``bounds`` are those of all its series."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Values,
        bounds: Sequence[float],
        rows: Iterable[tuple[Values, Bins]],
    ) -> None:
        super().__init__(name, text, "histogram", labels)
        self.rows = list(rows)
        self.bounds = bounds
        self._bounds = [_number(bound) for bound in (*bounds, inf)]

    def lines(self, exemplars: bool) -> Iterator[str]:
        """Yield each sample as a line of text."""
        name = self.name
        for values, bins in self.rows:
            inner = _labelled(self.labels, values)
            before = f"{name}_bucket{{{inner}," if inner else f"{name}_bucket{{"
            found = (exemplars and bins.exemplars) or {}
            count = 0
            for place, (bound, count) in enumerate(zip(self._bounds, accumulate(bins.counts), strict=True)):
                told = found.get(place)
                yield f'{before}le="{bound}"}} {count}.0{_exemplar(told) if told else ""}\n'
            inner = f"{{{inner}}}" if inner else ""
            yield f"{name}_count{inner} {count}.0\n"
            yield f"{name}_sum{inner} {_number(bins.total)}\n"

    def _made(self) -> Iterator[Sample]:
        for values, bins in self.rows:
            labels = dict(zip(self.labels, values, strict=True))
            found = bins.exemplars or {}
            count = 0
            for place, (bound, count) in enumerate(zip(self._bounds, accumulate(bins.counts), strict=True)):
                told = found.get(place)
                exemplar = told and PrometheusExemplar({"trace_id": told[0]}, told[1], told[2])
                yield Sample(f"{self.name}_bucket", {**labels, "le": bound}, count, None, exemplar)
            yield Sample(f"{self.name}_count", labels, count)
            yield Sample(f"{self.name}_sum", labels, bins.total)


def _exemplar(told: Exemplar) -> str:
    trace, value, at = told
    return f' # {{trace_id="{_escaped(trace)}"}} {_number(value)} {at}'


def _labelled(names: Values, values: Values) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def _number(value: float) -> str:
    value = float(value)
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if isnan(value) else repr(value)
