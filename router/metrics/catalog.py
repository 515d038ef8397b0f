"""Tenants that are looked up, in Prometheus metrics: read when scraped, so that looking up pays nothing."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.finding import Finder


class CatalogMetrics(Collector):
    """Export what a finder did; ``namespace`` begins all names."""

    def __init__(self, finder: Finder, namespace: str = "router") -> None:
        self._finder = finder
        self._prefix = f"{namespace}_catalog_"

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        finder = self._finder
        lookups = CounterMetricFamily(
            f"{self._prefix}lookups", "Questions for a tenant, by what came of them.", labels=("outcome",)
        )
        for outcome, count in finder.counts.items():
            lookups.add_metric((outcome,), count)
        yield lookups
        for name, text, value in (
            ("tenants", "Tenants in memory that were looked up", len(finder.found)),
            ("usable", "Whether the last question was answered", finder.usable),
        ):
            gauge = GaugeMetricFamily(f"{self._prefix}{name}", f"{text}.")
            gauge.add_metric((), float(value))
            yield gauge
