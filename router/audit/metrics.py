"""The audit in Prometheus metrics: read from its status when scraped, so that a write pays nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.audit.audit import AuditStatus

_COUNTERS = {
    "records": "Records written to the journal",
    "lost": "Records that are in no file, since the journal could not be written",
    "late": "Writes that were answered before their record was in the journal",
    "refused": "Writes that were refused because the journal could not be written",
    "failures": "Attempts to write the journal that failed",
    "rowless": "Writes outside of a transaction whose outcome is in no row of the outbox",
    "delivered": "Records that the listener has taken",
    "delivery_failures": "Batches that the listener did not take",
}


class AuditMetrics(Collector):
    """Export the status of an audit; ``namespace`` begins all names."""

    def __init__(self, status: Callable[[], AuditStatus], namespace: str = "router") -> None:
        self._status = status
        self._prefix = f"{namespace}_audit_"

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        status = self._status()
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"{self._prefix}{name}", f"{text}.")
            counter.add_metric((), getattr(status, name))
            yield counter
        for name, text, value in (
            ("queued", "Records that wait to be written", status.queued),
            ("undelivered_bytes", "Bytes of the journal that the listener has not", status.undelivered_bytes),
            ("delivery_lag_seconds", "Time from a write to its delivery, lately", status.delivery_lag),
            ("failing", "Whether the journal cannot be written now", bool(status.failing)),
        ):
            gauge = GaugeMetricFamily(f"{self._prefix}{name}", f"{text}.")
            gauge.add_metric((), float(value))
            yield gauge
