"""Tenants that are looked up, in Prometheus metrics: read when rendered, so that looking up pays nothing."""

from __future__ import annotations

from collections.abc import Iterator

from router.finding import Finder
from router.metrics.families import Family, Numbers, Values


def families(finder: Finder | None, prefix: str) -> Iterator[Family]:
    """Yield what a finder did and has; without one the names only."""
    lookups: list[tuple[Values, float]] = []
    known: list[tuple[Values, float]] = []
    usable: list[tuple[Values, float]] = []
    if finder is not None:
        lookups = [((outcome,), count) for outcome, count in finder.counts.items()]
        known, usable = [((), len(finder.found))], [((), float(finder.usable))]
    text = "Questions for a tenant, by what came of them"
    yield Numbers(f"{prefix}catalog_lookups", text, "counter", ("outcome",), lookups)
    text = "Tenants in memory that were looked up"
    yield Numbers(f"{prefix}catalog_tenants", text, "gauge", (), known)
    text = "Whether the last question for a tenant was answered"
    yield Numbers(f"{prefix}catalog_usable", text, "gauge", (), usable)
