"""OpenTelemetry as tests need it: providers of their own, whose spans and metrics can be looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import Span, format_span_id, format_trace_id

from router import Router, events
from router.integrations.opentelemetry import instrument
from router.reasons import Reason
from router.topology import Role
from router.waits import Waits
from tests.telling import PRIMARY


class Telemetry:
    """Keep what was exported."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exported = InMemorySpanExporter()
        self.tracers = TracerProvider(sampler, shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exported))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Return the router's spans, in the order of their ends."""
        found = self._exported.get_finished_spans()
        return [
            span
            for span in found
            if span.instrumentation_scope is not None and span.instrumentation_scope.name == "router"
        ]

    @property
    def span(self) -> ReadableSpan:
        """Return the router's only span."""
        (span,) = self.spans
        return span

    def metrics(self) -> dict[str, Metric]:
        """Return the router's metrics by name."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    @contextmanager
    def app(self, name: str = "GET /plans") -> Iterator[Span]:
        """Run a block in a span of the application's."""
        with self.tracers.get_tracer("app").start_as_current_span(name) as span:
            yield span

    def instrument(self, router: Router, **given: Any) -> Any:
        """Instrument a router with these providers."""
        return instrument(router, tracer_provider=self.tracers, meter_provider=self.meters, **given)


def ids(span: Any) -> tuple[str, str]:
    """Return the ids of a span as headers and events have them."""
    context = span.get_span_context()
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})


def begun(unit: int = 7, at: float = 101.0, duration: float = 1.0) -> events.TransactionBegun:
    """Return the begin of a transaction that waited for half a second in a queue."""
    return events.TransactionBegun(
        at,
        "acme",
        None,
        PRIMARY,
        duration,
        0,
        False,
        unit,
        role=Role.PRIMARY,
        reason=Reason.TRANSACTION,
        waits=Waits(queue=0.5),
    )


def parent(span: ReadableSpan) -> str:
    """Return the id of a span's parent."""
    return "" if span.parent is None else format_span_id(span.parent.span_id)
