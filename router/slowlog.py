"""The slow-query log: one line per slow request, and a bounded table of the statements that cost most."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from router.events import SlowRequest
from router.reasons import Reason

SQL_LIMIT = 2_000
"""Characters of a statement that are logged and kept."""

_log = logging.getLogger("router.slow")
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Source(Protocol):
    """Describe where slow requests are heard of; ``router.dispatcher.Dispatcher`` is one."""

    def subscribe(
        self, event_type: type[SlowRequest], listener: Callable[[SlowRequest], object], /
    ) -> object:
        """Call ``listener`` with every event of the type."""
        ...


@dataclass(slots=True)
class SlowEntry:
    """Sum up the slow requests of one fingerprint; times in seconds, ``last_*`` of the latest one."""

    fingerprint: str
    sql: str  # as first seen, parameterised, at most SQL_LIMIT characters
    count: int
    total: float
    maximum: float
    last_tenant: str
    last_node: str  # "cluster/name"; "none" if no node was contacted
    last_reason: Reason


class SlowLog:
    """Log every slow request of ``dispatcher`` and keep the ``capacity`` statements of largest total time.

    The threshold is the tenant's and is applied by who emits ``SlowRequest``.
    """

    def __init__(self, dispatcher: Source, capacity: int = 256) -> None:
        self._capacity = capacity
        self._entries: dict[str, SlowEntry] = {}
        dispatcher.subscribe(SlowRequest, self._on_slow)

    def entries(self) -> list[SlowEntry]:
        """Return the statements by total time, largest first."""
        return sorted(self._entries.values(), key=lambda entry: entry.total, reverse=True)

    def _on_slow(self, event: SlowRequest) -> None:
        self._count(event)
        _write(event)

    def _count(self, event: SlowRequest) -> None:
        request = event.request
        entry = self._entries.get(request.fingerprint)
        if entry is None:
            if len(self._entries) >= self._capacity:
                smallest = min(self._entries.values(), key=lambda entry: entry.total)
                del self._entries[smallest.fingerprint]
            entry = SlowEntry(
                request.fingerprint, request.sql[:SQL_LIMIT], 0, 0.0, 0.0, "", "", request.reason
            )
            self._entries[request.fingerprint] = entry
        entry.count += 1
        entry.total += request.total
        entry.maximum = max(entry.maximum, request.total)
        entry.last_tenant = request.tenant
        entry.last_node = "none" if request.node is None else request.node.label
        entry.last_reason = request.reason


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
        _UNPRINTABLE.sub(" ", request.sql[:SQL_LIMIT]),
        extra={
            "tenant": request.tenant,
            "schema": request.schema,
            "node": node,
            "role": request.role.value,
            "reason": request.reason.value,
            "kind": request.kind,
            "outcome": request.outcome,
            "fingerprint": request.fingerprint,
            "sql": request.sql[:SQL_LIMIT],
            "attempts": request.attempts,
            "acquire_seconds": request.acquire,
            "execute_seconds": request.execute,
            "total_seconds": request.total,
            "threshold_seconds": event.threshold,
            "context_id": request.context_id,
        },
    )
