"""What an application asks of the audit: a listener for its records, how it fares, and its head."""

from __future__ import annotations

from router.audit.audit import Audit, AuditStatus
from router.audit.chain import Head
from router.audit.delivery import Sink
from router.errors import UsageError


class AuditHandle:
    """Stand for the audit of a router, also where none is configured."""

    def __init__(self, audit: Audit | None) -> None:
        self._audit = audit

    @property
    def on(self) -> bool:
        """Tell whether writes are recorded."""
        return self._audit is not None

    def deliver(self, sink: Sink) -> None:
        """Hand every record of the journal to ``sink``, an async callable that takes a list of them.

        In order, each at least once, beginning after the last that was taken before a restart. A record
        counts as taken when ``sink`` has returned; if it raises, or needs 30 seconds, it gets the same again.

        Raises:
            UsageError: there is no journal, or it is delivered already.
        """
        self._running().deliver(sink)

    def status(self) -> AuditStatus:
        """Return how the audit fares."""
        return self._running().status()

    def head(self) -> Head | None:
        """Return the name of the journal's last record, ``None`` without a journal.

        Kept elsewhere, it shows with ``router audit verify --head`` if the end of the journal was cut off.
        """
        return self._running().status().head

    def _running(self) -> Audit:
        if self._audit is None:
            raise UsageError(
                "writes are not recorded. Set observability.audit.trail or observability.audit.outbox"
            )
        return self._audit
