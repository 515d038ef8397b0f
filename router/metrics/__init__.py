"""Metrics: what the router does, in Prometheus and OpenMetrics, counted in plain numbers."""

from router.metrics.bins import BUCKETS
from router.metrics.ledger import OTHER
from router.metrics.metrics import Metrics, Summary
from router.metrics.parts import Parts

__all__ = ["BUCKETS", "OTHER", "Metrics", "Parts", "Summary"]
