"""Tell what became of requests: build their events, once each, and emit them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from router import events
from router.backend import Target
from router.cache.advice import ADVICE
from router.cache.worth import Verdict
from router.dispatcher import Dispatcher
from router.errors import RouterError
from router.reasons import Reason
from router.requests import Request
from router.retries import Retry
from router.rows import Result
from router.statements import Statement
from router.topology import Node, Role

_log = logging.getLogger("router.cache")
# Looking a member up on its enum costs 70 ns on CPython 3.11; every cached read passes here.
_CACHE, _CACHED = Role.CACHE, Reason.CACHED
_FINISHED = events.RequestFinished


class Teller:
    """Emit the events of requests; ``clock`` is monotonic, ``wall`` the wall clock, both in seconds."""

    def __init__(self, dispatcher: Dispatcher, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self.emit = dispatcher.emit
        self.wall = wall
        self._wants = dispatcher.wants
        self._clock = clock

    def finished(self, request: Request, value: Any) -> None:
        """Emit RequestFinished, and SlowRequest if it was slow."""
        total = self._clock() - request.started
        placement = request.target.placement
        slow = total >= placement.settings.slow_query
        if not slow and not self._wants(events.RequestFinished):
            return
        statement = request.statement
        event = events.RequestFinished(
            self.wall(),
            placement.tenant,
            placement.schema,
            statement.text,
            statement.fingerprint,
            statement.kind,
            request.node,
            request.role,
            request.reason,
            request.attempts,
            request.acquire,
            request.execute,
            total,
            request.context_id,
            statement.names,
            _rows_in(value),
        )
        self.emit(event)
        if slow:
            self.emit(events.SlowRequest(event.at, event, placement.settings.slow_query))

    def cached(
        self,
        target: Target,
        statement: Statement,
        node: Node,
        began: float,
        value: Any,
        context_id: str | None,
    ) -> None:
        """Emit RequestFinished for a fetch that was answered from memory."""
        if not self._wants(_FINISHED):
            return
        placement = target.placement
        self.emit(
            _FINISHED(
                self.wall(),
                placement.tenant,
                placement.schema,
                statement.text,
                statement.fingerprint,
                statement.kind,
                node,
                _CACHE,
                _CACHED,
                0,
                0.0,
                0.0,
                self._clock() - began,
                context_id,
                statement.names,
                len(value) if value.__class__ is list else 0 if value is None else 1,
            )
        )

    def failed(self, request: Request, error: BaseException) -> None:
        """Emit RequestFailed, and SlowRequest if it was slow."""
        placement, statement = request.target.placement, request.statement
        event = events.RequestFailed(
            self.wall(),
            placement.tenant,
            placement.schema,
            statement.text,
            statement.fingerprint,
            statement.kind,
            request.node,
            request.role,
            request.reason,
            request.attempts,
            request.acquire,
            request.execute,
            self._clock() - request.started,
            request.context_id,
            _typed(request),
            error=type(error).__name__,
            code=error.code if isinstance(error, RouterError) else None,
            message=error.message if isinstance(error, RouterError) else "",
        )
        self.emit(event)
        if event.total >= placement.settings.slow_query:
            self.emit(events.SlowRequest(event.at, event, placement.settings.slow_query))

    def not_worth_it(self, target: Target, verdict: Verdict) -> None:
        """Emit CacheNotWorthIt, and log it."""
        placement, advice = target.placement, ADVICE[verdict.reason]
        event = events.CacheNotWorthIt(
            self.wall(),
            placement.tenant,
            *verdict,
            remedy=f"{advice.fact}. {advice.remedy}",
        )
        _log.warning(
            "the cache answers %.0f %% of %d reads of %s and has saved %.3f s for %.3f s: %s",
            event.ratio * 100,
            event.lookups,
            placement.tenant,
            event.saved,
            event.spent,
            event.remedy,
        )
        self.emit(event)

    def retry(self, request: Request, retry: Retry) -> None:
        """Emit RetryScheduled for a statement."""
        self._retry(request.target, request.statement.fingerprint, request, retry)

    def unit_retry(self, target: Target, retry: Retry) -> None:
        """Emit RetryScheduled for a whole transaction, or its begin."""
        self._retry(target, retry.error.fingerprint or "", None, retry)

    def denied(self, target: Target, error: RouterError) -> None:
        """Emit RetryDenied."""
        placement = target.placement
        name = type(error).__name__
        self.emit(
            events.RetryDenied(
                self.wall(), placement.tenant, placement.cluster.name, error.node, name, error.code
            )
        )

    def _retry(self, target: Target, fingerprint: str, request: Request | None, retry: Retry) -> None:
        error = retry.error
        self.emit(
            events.RetryScheduled(
                self.wall(),
                target.placement.tenant,
                fingerprint,
                None if request is None else request.node,
                type(error).__name__,
                error.code,
                retry.attempt,
                retry.delay,
            )
        )


def _rows_in(value: Any) -> int:
    """Return how many rows a verb's value stands for; -1 where that is not known."""
    if isinstance(value, list):
        return len(value)
    if isinstance(value, Result):
        return value.rowcount
    if isinstance(value, int):
        return value
    return 0 if value is None else 1


def _typed(request: Request) -> tuple[str, ...]:
    """Return the parameters by name and type; never by value."""
    names, args = request.statement.names, request.args
    if not isinstance(args, tuple) or len(args) != len(names):
        return names
    return tuple(f"{name} {type(value).__name__}" for name, value in zip(names, args, strict=True))
