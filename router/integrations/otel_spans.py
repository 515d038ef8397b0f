"""Spans of requests and transactions, made after the fact from their events, as of when it happened."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context as Surroundings
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from router import events
from router.context import NOBODY, Context
from router.integrations.otel_places import Places
from router.integrations.otel_texts import Shown
from router.topology import Role

OPEN: Final = 10_000
"""Transactions whose spans may be open at once; of more, the oldest ends without an outcome."""

_BILLION = 1_000_000_000
_STEPS = ("queue", "connect", "bind", "catch_up")
_CACHE = Role.CACHE


@dataclass(frozen=True, slots=True)
class Choices:
    """Say what becomes a span, and what it shows."""

    text: bool = True  # the statement, without literals
    cached: bool = False  # answers from memory, too
    transactions: bool = True


class Spans:
    """Make the spans of one router's events."""

    def __init__(self, tracer: Tracer, places: Places, choices: Choices) -> None:
        self._tracer = tracer
        self._places = places
        self._choices = choices
        self._open: OrderedDict[int, Span] = OrderedDict()  # of transactions, by their number

    # --- requests ----------------------------------------------------------------------------------------

    def request(self, event: events.RequestEvent, shown: Shown) -> Surroundings | None:
        """Make the span of a request and put its ids on the event; return it as surroundings of metrics."""
        cached = event.role is _CACHE
        if cached and not self._choices.cached:
            return None
        span = self._tracer.start_span(
            _name(event, shown, cached=cached),
            self._parent(event.unit),
            SpanKind.INTERNAL if cached else SpanKind.CLIENT,
            self._known(event, shown),
            start_time=_nanoseconds(event.at - event.total),
        )
        event.context = traced(event.context, span)
        if span.is_recording():
            span.set_attributes(_told(event))
            for retry in event.retries:
                span.add_event("router.retry", _retry(retry), _nanoseconds(retry.at))
            if isinstance(event, events.RequestFailed):
                span.set_status(Status(StatusCode.ERROR, event.message or event.error))
        span.end(_nanoseconds(event.at))
        return trace.set_span_in_context(span)

    def _parent(self, unit: int) -> Surroundings | None:
        """Return the span of the transaction; without one, ``None`` for the present span."""
        span = self._open.get(unit) if unit else None
        return None if span is None else trace.set_span_in_context(span)

    def _known(self, event: events.RequestEvent, shown: Shown) -> dict[str, Any]:
        """Return what samplers may want to decide by."""
        known: dict[str, Any] = {**self._places.of(event.tenant, event.schema), "router.tenant": event.tenant}
        if event.node is not None and event.role is not _CACHE:
            known |= self._places.server(event.node)
        if shown.operation is not None:
            known["db.operation.name"] = shown.operation
            known["db.query.summary"] = shown.summary
        if shown.collection is not None:
            known["db.collection.name"] = shown.collection
        if shown.text is not None and self._choices.text:
            known["db.query.text"] = shown.text
        return known

    # --- transactions ------------------------------------------------------------------------------------

    def begun(self, event: events.TransactionBegun) -> None:
        """Begin the span of a transaction, as of when it was asked for."""
        if not self._choices.transactions:
            event.context = present(event.context)
            return
        name = f"transaction {event.node.cluster}"
        known = {
            **self._places.of(event.tenant, event.schema),
            **self._places.server(event.node),
            **_facts(event.tenant, event.schema, event.role, event.reason),
            "router.node": event.node.label,
            "router.readonly": event.readonly,
        }
        span = self._tracer.start_span(
            name, None, attributes=known, start_time=_nanoseconds(event.at - event.duration)
        )
        for step in _STEPS:
            if seconds := getattr(event.waits, step):
                span.set_attribute(f"router.{step}_seconds", seconds)
        if len(self._open) >= OPEN:
            self._open.popitem(last=False)[1].end()
        self._open[event.unit] = span
        event.context = traced(event.context, span)

    def ended(self, event: events.TransactionEvent) -> None:
        """End the span of a transaction."""
        span = self._open.pop(event.unit, None)
        if span is None:
            event.context = present(event.context)
            return
        event.context = traced(event.context, span)
        span.set_attribute("router.statements", event.statements)
        if isinstance(event, events.TransactionCommitted):
            span.set_attribute("router.outcome", "committed")
        elif isinstance(event, events.CommitUnknown):
            span.set_attributes({"router.outcome": "unknown", "error.type": "CommitOutcomeUnknown"})
            span.set_status(Status(StatusCode.ERROR, "the commit got no answer"))
        else:
            span.set_attribute("router.outcome", "rolled_back")
            error = event.error if isinstance(event, events.TransactionRolledBack) else None
            if error:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, f"rolled back because of {error}"))
        span.end(_nanoseconds(event.at))

    def close(self) -> None:
        """End what is still open."""
        while self._open:
            self._open.popitem()[1].end()


def present(given: Context | None) -> Context | None:
    """Return a context with the ids of the application's present span."""
    return traced(given, trace.get_current_span())


def traced(given: Context | None, span: Span) -> Context | None:
    """Return a context with the ids of a span; as it was where the span has none."""
    ids = span.get_span_context()
    if not ids.is_valid:
        return given
    said = given or NOBODY
    return Context(
        said.context_id,
        f"{ids.trace_id:032x}",
        f"{ids.span_id:016x}",
        said.actor,
        said.tags,
        ids.trace_flags.sampled,
    )


def _name(event: events.RequestEvent, shown: Shown, *, cached: bool) -> str:
    name = shown.summary or event.kind
    return f"cache {name}" if cached else str(name)


def _told(event: events.RequestEvent) -> dict[str, Any]:
    """Return what is known only after the request."""
    told = _facts(event.tenant, event.schema, event.role, event.reason)
    told["router.kind"] = str(event.kind)
    told["router.fingerprint"] = event.fingerprint
    told["router.attempts"] = event.attempts
    if event.node is not None:
        told["router.node"] = event.node.label
    if event.cache:
        told["router.cache"] = event.cache
    if event.token:
        told["router.token"] = event.token
    told |= _times(event)
    context = event.context or NOBODY
    if context.context_id is not None:
        told["router.context_id"] = context.context_id
    for name, value in context.tags.items():
        told[f"router.tag.{name}"] = value
    if isinstance(event, events.RequestFailed):
        told["error.type"] = event.error
        if event.code is not None:
            told["db.response.status_code"] = event.code
    elif isinstance(event, events.RequestFinished) and event.rows >= 0 and event.kind == "read":
        told["db.response.returned_rows"] = event.rows
    return told


def _times(event: events.RequestEvent) -> dict[str, float]:
    """Return the steps that took time, in seconds."""
    waits = event.waits
    steps = {
        "router.lookup_seconds": event.lookup,
        "router.queue_seconds": waits.queue,
        "router.connect_seconds": waits.connect,
        "router.bind_seconds": waits.bind,
        "router.catch_up_seconds": waits.catch_up,
        "router.execute_seconds": event.execute,
        "router.fetch_seconds": event.fetch,
    }
    return {name: seconds for name, seconds in steps.items() if seconds}


def _facts(tenant: str, schema: str | None, role: str, reason: str) -> dict[str, Any]:
    facts = {"router.tenant": tenant, "router.role": str(role), "router.reason": str(reason)}
    return facts if schema is None else facts | {"router.schema": schema}


def _retry(retry: events.RetryScheduled) -> dict[str, Any]:
    told: dict[str, Any] = {
        "error.type": retry.error,
        "router.attempt": retry.attempt,
        "router.delay_seconds": retry.delay,
    }
    if retry.code is not None:
        told["db.response.status_code"] = retry.code
    if retry.node is not None:
        told["router.node"] = retry.node.label
    return told


def _nanoseconds(at: float) -> int:
    return int(at * _BILLION)
