"""Write metrics as text, in the two formats that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from router.metrics.families import Family
from router.pacing import paced

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_END = b"# EOF\n"
_CHUNK = 500  # lines that are put together at once


def content_type(accept: str) -> str:
    """Return which of the formats an HTTP ``Accept`` header asks for; OpenMetrics only if it says so."""
    asked = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return OPENMETRICS if "application/openmetrics-text" in asked else TEXT


def written(metrics: Iterable[Metric], kind: str) -> bytes:
    """Return the text of all metrics; ``kind`` is one of the formats."""
    chunks: list[bytes] = []
    for metric in paced(metrics):
        if isinstance(metric, Family):
            chunks += _family(metric, kind)
        else:  # somebody else's, on the same registry
            chunks.append(_other(metric, kind))
    if kind == OPENMETRICS:
        chunks.append(_END)
    return b"".join(chunks)


def _family(family: Family, kind: str) -> Iterator[bytes]:
    exemplars = kind == OPENMETRICS
    name = family.name
    if family.type == "counter" and not exemplars:
        name += "_total"
    lines = [f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"]
    for line in paced(family.lines(exemplars)):
        lines.append(line)
        if len(lines) >= _CHUNK:
            yield "".join(lines).encode()
            lines.clear()
    yield "".join(lines).encode()


class _One(Collector):
    """Be a registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


def _other(metric: Metric, kind: str) -> bytes:
    if kind == OPENMETRICS:
        return generate_openmetrics(_One(metric)).removesuffix(_END)  # type: ignore[no-untyped-call, no-any-return]
    return generate_latest(_One(metric))
