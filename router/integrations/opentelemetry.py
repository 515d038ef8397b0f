"""Spans and metrics by OpenTelemetry's stable conventions for databases, made from the router's events.

``instrument(router)`` uses the application's providers, or the ones given, and changes neither. All is done
when an event is told: that of a request is told after its connection was given back.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from router import __version__, events
from router.errors import MissingExtra, UsageError
from router.integrations.otel_places import Namespace, Places, Where, dialect_of
from router.integrations.otel_texts import Shown, Texts
from router.lexer import Dialect
from router.pools.bounds import PoolStatus
from router.router import Router
from router.tenants import Placement

try:
    from opentelemetry import metrics, trace
except ModuleNotFoundError as exc:
    if (exc.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise MissingExtra("opentelemetry-api", "opentelemetry") from None

from router.integrations.otel_connections import Connections
from router.integrations.otel_meters import Meters
from router.integrations.otel_operations import Operations
from router.integrations.otel_spans import Choices, Spans, present

__all__ = ["Instrumentation", "instrument"]

_BOUND = 10_000  # tenants remembered
_NAME = "opentelemetry"
_OWN = (events.RequestEvent, events.TransactionEvent)
_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_instrumented: weakref.WeakSet[Router] = weakref.WeakSet()


def instrument(
    router: Router,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    text: bool = True,
    cached: bool = False,
    transactions: bool = True,
    namespace: Namespace = "schema",
    metric_namespace: Namespace = "none",
    without: Iterable[str] = (),
) -> Instrumentation:
    """Tell a router's requests as spans and metrics, until ``undo()`` of what is returned.

    ``text`` shows statements, without their literals. ``cached`` makes spans of answers from memory too.
    ``transactions`` puts the requests of a transaction under a span of its own. ``namespace`` says how much
    of a tenant's place spans show, ``metric_namespace`` the same of metrics, where each is a time series.
    ``without`` names metrics that are not wanted: each histogram costs its share of every request.

    Raises UsageError for a router that is instrumented already: all would be told twice; and for a name that
    means nothing.
    """
    if router in _instrumented:
        raise UsageError(
            "this router is instrumented already; requests would be told twice. undo() that first"
        )
    tracer = trace.get_tracer("router", __version__, tracer_provider, _SCHEMA)
    meters = Meters(metrics.get_meter("router", __version__, meter_provider, _SCHEMA), without)
    where = _Where(router)
    made = Instrumentation(
        router,
        _Texts(where),
        Spans(tracer, Places(where, namespace), Choices(text, cached, transactions)),
        Operations(meters, Places(where, metric_namespace)),
        Connections(meters, _Asking(router)),
    )
    _instrumented.add(router)
    return made


class Instrumentation:
    """Stand for the instrumentation of one router; ``undo`` ends it."""

    def __init__(
        self, router: Router, texts: _Texts, spans: Spans, operations: Operations, connections: Connections
    ) -> None:
        self._router = weakref.ref(router)  # the router's listeners know this: it must not hold the router
        self._texts = texts
        self._spans = spans
        self._operations = operations
        self._connections = connections
        subscribe = router.dispatcher.subscribe
        self._subscriptions = [
            subscribe(events.ConnectionOpened, connections.opened, quiet=True, name=_NAME),
            subscribe(events.PoolRefused, connections.refused, quiet=True, name=_NAME),
            # all others hear events that have their trace
            subscribe(events.Event, self._stamp, first=True, wants=False, quiet=True, name=_NAME),
            # not quiet: what processes spans is the application's, and may store them through this router
            subscribe(events.TransactionEvent, self._transaction, first=True, name=_NAME),
            subscribe(events.RequestEvent, self._request, first=True, name=_NAME),
        ]

    def undo(self) -> None:
        """Tell nothing more, and end the spans of transactions under way; a second call does nothing."""
        for subscription in self._subscriptions:
            subscription.cancel()
        self._spans.close()
        router = self._router()
        if router is not None:
            _instrumented.discard(router)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def _request(self, event: events.RequestEvent) -> None:
        shown = self._texts.of(event)
        surroundings = self._spans.request(event, shown)
        if surroundings is None:
            event.context = present(event.context)
        self._operations.request(event, shown, surroundings)
        self._connections.request(event, surroundings)

    def _transaction(self, event: events.TransactionEvent) -> None:
        if isinstance(event, events.TransactionBegun):
            self._spans.begun(event)
            self._connections.begun(event)
        else:
            self._spans.ended(event)
            self._connections.ended(event)

    def _stamp(self, event: events.Event) -> None:
        """Put the ids of the application's present span on what has no span of its own."""
        if not isinstance(event, _OWN):
            event.context = present(event.context)


class _Texts:
    """Look at the texts of each dialect."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._known: dict[Dialect, Texts] = {}

    def of(self, event: events.RequestEvent) -> Shown:
        """Return what may be shown of a request's text."""
        dialect = dialect_of(self._where(event.tenant, event.schema))
        if dialect not in self._known:
            self._known[dialect] = Texts(dialect)
        return self._known[dialect].of(event)


class _Where:
    """Ask a router where a tenant is, as long as there is one."""

    def __init__(self, router: Router) -> None:
        self._router = weakref.ref(router)

    def __call__(self, tenant: str, schema: str | None) -> Placement | None:
        router = self._router()
        return None if router is None else router.where(tenant, schema)


class _Asking:
    """Ask a router for its pools, as long as there is one."""

    def __init__(self, router: Router) -> None:
        self._router = weakref.ref(router)

    def __call__(self) -> Iterable[PoolStatus]:
        router = self._router()
        return () if router is None else router.status().pools
