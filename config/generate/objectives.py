"""What counts as good service, and which words of the router tell it."""

from __future__ import annotations

from config.generate.promql import words
from router import errors
from router.reasons import Reason

AVAILABLE = 0.999
"""Share of the requests that must not fail because of the router or its servers."""

QUICK, QUICK_ENOUGH = 0.25, 0.99
"""Seconds, a bound of the histogram, and the share of the requests that must be answered within them."""

BURNS = {
    "fast": ((14.4, "1h", "5m"), (6.0, "6h", "30m")),
    "slow": ((3.0, "1d", "2h"), (1.0, "3d", "6h")),
}
"""How many times too fast the budget of 30 days goes, seen over a long window and still over a short one.

After the SRE workbook, "Alerting on SLOs": 2 % of the budget in an hour or 5 % in six page somebody, 10 % in
one or three days are a ticket.
"""

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")

_CALLERS = (
    errors.UsageError,
    errors.CatalogError,
    errors.NoRow,
    errors.IntegrityError,
    errors.DataError,
    errors.InvalidStatement,
    errors.PermissionDenied,
    errors.ReadOnlyViolation,
    errors.TransactionAborted,
)  # what the caller asked for could not be done, however well everything works


_NAMES = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, _CALLERS)
}
# the caller did not wait; whether that was for too long is what latency is measured for
CALLERS = words({*_NAMES, "CancelledError"})
"""Errors that are the caller's, as a regular expression: they use up no budget."""

WRITES = frozenset(
    {
        Reason.WRITE,
        Reason.DDL,
        Reason.WRITING_CTE,
        Reason.SELECT_INTO,
        Reason.TRANSACTION,
        Reason.TRANSACTION_CONTROL,
        Reason.MULTIPLE_STATEMENTS,
        Reason.NOT_A_QUERY,
        Reason.RAW,
    }
)
"""Reasons for the primary that no read has: nothing can be moved to a replica there."""

WITHOUT_REPLICA = words({Reason.NO_REPLICA, Reason.REPLICAS_LATE, Reason.REPLICA_FAILED})
"""Reasons of reads on the primary that a healthy cluster does not have."""
