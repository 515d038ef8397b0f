"""The slow-query log: one line for each slow request, and the table of the statements that cost most."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from router.digests import Digest, Plan
from router.events import RequestFailed, RequestFinished, SlowRequest
from router.ledger import Entry, Ledger
from router.logs import log_of, of

SQL_LIMIT = 2_000
"""Characters of a statement that are logged."""

_log = log_of("slow")
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Source(Protocol):
    """Describe where requests are heard of; ``router.dispatcher.Dispatcher`` is one."""

    clock: Callable[[], float]

    def subscribe(
        self, event_type: type[Any], listener: Callable[[Any], object], /, *, quiet: bool = False
    ) -> object:
        """Call ``listener`` with every event of the type; ``quiet``: no events come of it."""
        ...


class SlowLog:
    """Log every slow request of ``dispatcher``; keep digests of the ``capacity`` statements that cost most.

    The thresholds are the tenant's and are applied by who emits ``SlowRequest``; a digest counts all requests
    of its statement, slow or not.
    """

    def __init__(self, dispatcher: Source, capacity: int = 500) -> None:
        self._clock = dispatcher.clock
        self._ledger = Ledger(capacity)
        dispatcher.subscribe(RequestFinished, self._ledger.finished, quiet=True)
        dispatcher.subscribe(RequestFailed, self._ledger.failed, quiet=True)
        dispatcher.subscribe(SlowRequest, self._on_slow)

    def digests(self, most: int | None = None) -> list[Digest]:
        """Return what each statement has cost, the largest total first; at most ``most`` of them."""
        return self._ledger.digests(self._clock(), most)

    def seconds(self, most: int = 20) -> list[tuple[str, float]]:
        """Return the ``most`` fingerprints of largest total time, and their totals; any thread may ask."""
        held = list(self._ledger.held.values())
        found = sorted(((entry.total, entry.key) for entry in held), reverse=True)
        return [(fingerprint, total) for total, fingerprint in found[:most]]

    def costliest(self) -> list[Entry]:
        """Return what is counted of each statement as it is now, what cost most lately first."""
        return sorted(self._ledger.held.values(), key=lambda entry: entry.weight, reverse=True)

    def keep(self, fingerprint: str, plan: Plan) -> None:
        """Keep the plan of a statement with its digest."""
        self._ledger.keep(fingerprint, plan)

    def _on_slow(self, event: SlowRequest) -> None:
        self._ledger.slow(event.request.fingerprint)
        _write(event)


def _write(event: SlowRequest) -> None:
    """Write one log line; a line break in the statement must not start another, forged one."""
    request = event.request
    node = "none" if request.node is None else request.node.label
    _log.warning(
        "slow request: %.1f ms (threshold %.1f ms) tenant=%s node=%s reason=%s outcome=%s: %s",
        request.total * 1e3,
        event.threshold * 1e3,
        request.tenant,
        node,
        request.reason,
        request.outcome,
        _UNPRINTABLE.sub(" ", request.normalized[:SQL_LIMIT]),
        extra=of(
            request.context,
            tenant=request.tenant,
            schema=request.schema,
            node=node,
            role=request.role.value,
            reason=request.reason.value,
            kind=request.kind,
            outcome=request.outcome,
            error=getattr(request, "error", None),
            fingerprint=request.fingerprint,
            sql=request.normalized[:SQL_LIMIT],
            attempts=request.attempts,
            unit=request.unit,
            cache=request.cache,
            token=request.token,
            rows=getattr(request, "rows", None),
            lookup_seconds=request.lookup,
            queue_seconds=request.waits.queue,
            connect_seconds=request.waits.connect,
            bind_seconds=request.waits.bind,
            catch_up_seconds=request.waits.catch_up,
            execute_seconds=request.execute,
            fetch_seconds=request.fetch,
            total_seconds=request.total,
            threshold_seconds=event.threshold,
            tags=dict(request.tags),
        ),
    )
