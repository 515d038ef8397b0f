"""The audit in Prometheus metrics: read from its status when rendered, so that writes pay nothing."""

from __future__ import annotations

from collections.abc import Iterator

from router.audit.audit import AuditStatus
from router.metrics.families import Family, Numbers

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
_GAUGES = {
    "queued": "Records that wait to be written",
    "undelivered_bytes": "Bytes of the journal that the listener has not",
    "delivery_lag_seconds": "Time from a write to its delivery, lately",
    "failing": "Whether the journal cannot be written now",
}


def families(status: AuditStatus | None, prefix: str) -> Iterator[Family]:
    """Yield the status of an audit; without one the names only."""
    found: dict[str, float] = {}
    if status is not None:
        found = {name: getattr(status, name) for name in _COUNTERS}
        found["queued"], found["undelivered_bytes"] = status.queued, status.undelivered_bytes
        found["delivery_lag_seconds"], found["failing"] = status.delivery_lag, float(bool(status.failing))
    for kind, names in (("counter", _COUNTERS), ("gauge", _GAUGES)):
        for name, text in names.items():
            rows = [((), found[name])] if found else []
            yield Numbers(f"{prefix}audit_{name}", text, kind, (), rows)
