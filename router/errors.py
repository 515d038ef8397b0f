"""The tree of errors: what failed, where, whether the server may have acted on it, and what to do next.

Driver exceptions become these at one border (``router.drivers``). An error names tenant, node, code and
statement fingerprint; it never holds a password or a bound value. The driver's own exception stays on
:attr:`RouterError.cause` for a debugger; it is not chained, because its text may carry row values and the
frames of its traceback may carry the password.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Self

from router.frames import drop_frames
from router.problem import Problem as Problem


class Sent(Enum):
    """Say how far a statement got; retries ask this before they look at any code."""

    NO = "no"  # provably not sent: nothing can have happened
    ANSWERED = "answered"  # the server answered with an error: it did not apply the statement
    UNKNOWN = "unknown"  # sent, no answer: a write may or may not have been applied


_CONTEXT = ("tenant", "schema", "cluster", "node", "code", "fingerprint")


class RouterError(Exception):
    """Base of everything that the router raises.

    ``tenant``, ``schema``, ``cluster`` and ``node`` say where; ``code`` is the server's SQLSTATE, errno or
    SQLite name; ``fingerprint`` names the statement; ``sent`` says whether it can have had an effect;
    ``attempts`` lists all tries of the same request, if there were several; ``retryable`` says that running
    the whole transaction again is safe and may succeed.
    """

    sent: Sent = Sent.NO
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        sent: Sent | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.tenant: str | None = None
        self.schema: str | None = None
        self.cluster: str | None = None
        self.node: str | None = None
        self.fingerprint: str | None = None
        self.attempts: tuple[str, ...] = ()
        self.cause = cause
        drop_frames(cause)
        if sent is not None:
            self.sent = sent

    def at(
        self,
        *,
        tenant: str | None = None,
        schema: str | None = None,
        cluster: str | None = None,
        node: str | None = None,
        fingerprint: str | None = None,
    ) -> Self:
        """Add where it happened; what is already known stays."""
        self.tenant = self.tenant or tenant
        self.schema = self.schema or schema
        self.cluster = self.cluster or cluster
        self.node = self.node or node
        self.fingerprint = self.fingerprint or fingerprint
        return self

    def context(self) -> dict[str, str]:
        """Return the known context as a mapping, for logs and problem details."""
        return {name: value for name in _CONTEXT if (value := getattr(self, name))}

    def __str__(self) -> str:
        facts = [f"{name}={value}" for name, value in self.context().items()]
        text = f"{self.message} [{' '.join(facts)}]" if facts else self.message
        if self.attempts:
            text += f" ({len(self.attempts)} attempts: {'; '.join(self.attempts)})"
        return "; ".join([text, *getattr(self, "__notes__", ())])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


# --- configuration and catalog ---------------------------------------------------------------------------


class ConfigurationError(RouterError):
    """Refuse a configuration; ``problems`` lists every mistake found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = f"{len(problems)} mistake{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([f"configuration refused, {count}:", *map(str, problems)]))
        self.problems = tuple(problems)


class MissingExtra(RouterError, ImportError):
    """Report an optional package that is not installed, and the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'tenant-router[{extra}]'")
        self.extra = extra


class CatalogError(RouterError):
    """Base of refusals by the catalog: the request names something that is not configured."""


class UnknownTenant(CatalogError):
    """Refuse a tenant that the catalog does not have; there is no default tenant."""


class UnknownSchema(CatalogError):
    """Refuse a schema that the tenant does not have; there is no default for a named schema."""


class TenantSuspended(CatalogError):
    """Refuse a tenant that is suspended: it is known, and its requests are not served for now."""


class CatalogUnavailable(RouterError):
    """Report that nobody knows whether there is such a tenant: where it is looked up did not answer."""

    retryable = True


# --- misuse of the API -----------------------------------------------------------------------------------


class UsageError(RouterError):
    """Base of errors in how the API is used; retrying cannot help."""


class TenantNotAsked(UsageError):
    """Refuse to name at once a tenant that must be looked up first: enter its session with ``async with``."""


class RouterClosed(UsageError):
    """Refuse work on a router, session or pool that is closed or not yet open."""


class WrongEventLoop(UsageError):
    """Refuse use from another event loop than the one that the router was opened on."""


class WrongProcess(UsageError):
    """Refuse use in a process that was forked from the one that opened the router: the sockets are its."""


class TransactionStateError(UsageError):
    """Refuse a verb that does not fit the transaction's state, such as commit without begin."""


class ConcurrentUse(UsageError):
    """Refuse a second task on a transaction while a statement of it is running."""


class StatementError(UsageError):
    """Refuse a statement that the router cannot run as asked."""


class ParameterError(StatementError, ValueError):
    """Report parameters that do not match the statement: missing, extra, or of a type the server refuses.

    ``position`` counts from 1 where a driver names one parameter.
    """

    position: int | None = None


class NoRow(RouterError, LookupError):
    """Report that a statement that must return a row returned none."""


# --- time ------------------------------------------------------------------------------------------------


class RouterTimeout(RouterError, TimeoutError):
    """Base of everything that ran out of time."""


class PoolTimeout(RouterTimeout):
    """Report that no connection came free within the acquire timeout; nothing was sent."""


class PoolFull(PoolTimeout):
    """Refuse to wait for a connection at all: as many wait already as ``connections.waiting`` allows."""


class TenantBusy(PoolTimeout):
    """Refuse more of one tenant's requests than its limits allow; other tenants are served meanwhile.

    ``retry_after`` is the number of seconds after which it makes sense to try again.
    """

    retry_after: float = 1.0


class PoolDeadlock(PoolTimeout):
    """Refuse to wait for a connection that could never come free: all are held by tasks that wait as well."""


class StatementTimeout(RouterTimeout):
    """Report that a statement did not finish in time and was cancelled.

    ``sent`` is ``UNKNOWN`` when the router gave up first, ``ANSWERED`` when the server cancelled it.
    """

    sent = Sent.UNKNOWN


# --- connections -----------------------------------------------------------------------------------------


class ConnectError(RouterError, ConnectionError):
    """Report that a connection could not be established; nothing was sent."""

    retryable = True


class ServerRemoved(ConnectError):
    """Refuse what is asked of a server that a reload has taken out of the configuration."""

    retryable = False  # by the same session


class AuthenticationFailed(ConnectError):
    """Report that the server refused the user name or password."""

    retryable = False


class SecretUnavailable(ConnectError):
    """Report that a login's secret could not be had from its store, and that none is kept from before."""


class DatabaseNotFound(ConnectError):
    """Report that the server does not have the database."""

    retryable = False


class TooManyConnections(ConnectError):
    """Report that the server is at its connection limit."""


class NoPrimary(ConnectError):
    """Report that no server of the cluster takes writes; the request was held for one in vain."""


class ConnectionLost(RouterError, ConnectionError):
    """Report that an established connection broke; ``sent`` says whether a statement was on its way."""

    sent = Sent.UNKNOWN
    retryable = True


class CommitOutcomeUnknown(RouterError):
    """Report that a commit or autocommit write got no answer: it may have been applied, or not.

    It is never repeated by the router. Find out by reading (a unique request key helps), then decide.
    ``transaction_id`` is the server's number of the transaction (PostgreSQL: xid), where it is known.
    """

    sent = Sent.UNKNOWN
    transaction_id: str | None = None


class AuditUnavailable(RouterError):
    """Refuse a write whose audit record could not be kept; ``sent`` says if that showed only afterwards."""


# --- consistency -----------------------------------------------------------------------------------------


class StaleReadError(RouterError):
    """Report that no server that may be read has what the read must see; nothing was sent."""


# --- answers of the server -------------------------------------------------------------------------------


class DatabaseError(RouterError):
    """Base of errors that the server answered with; the statement was not applied."""

    sent = Sent.ANSWERED


class IntegrityError(DatabaseError):
    """Base of constraint violations; ``constraint`` and ``column`` are set where the server names them."""

    constraint: str | None = None
    column: str | None = None


class UniqueViolation(IntegrityError):
    """Report a duplicate key."""


class ForeignKeyViolation(IntegrityError):
    """Report a missing or still referenced parent row."""


class NotNullViolation(IntegrityError):
    """Report NULL in a column that forbids it."""


class CheckViolation(IntegrityError):
    """Report a row that a CHECK constraint refuses."""


class DataError(DatabaseError):
    """Report a value that the server cannot take: out of range, wrong format, too long."""


class InvalidStatement(DatabaseError):
    """Report a statement that the server cannot understand: syntax, unknown table, column or function."""


class PermissionDenied(DatabaseError):
    """Report that the database user may not do this."""


class ReadOnlyViolation(DatabaseError):
    """Report that a write reached a read-only node or transaction and was refused; nothing was applied."""


class TransactionAborted(DatabaseError):
    """Report a statement in a transaction that an earlier error has already ended."""


class TransactionLost(DatabaseError):
    """Report that a commit got no answer, and that the server has rolled the transaction back."""

    retryable = True
    transaction_id: str | None = None


class TransactionConflict(DatabaseError):
    """Base of conflicts between transactions; running the whole transaction again may succeed."""

    retryable = True


class Deadlock(TransactionConflict):
    """Report that this transaction was chosen as the victim of a deadlock."""


class SerializationFailure(TransactionConflict):
    """Report a conflict under snapshot or serializable isolation, or with recovery on a standby."""


class LockTimeout(TransactionConflict):
    """Report that a lock did not come free in time (NOWAIT, lock timeout, SQLite busy)."""


class StatementCancelled(DatabaseError):
    """Report that somebody else cancelled the statement on the server."""

    retryable = True


class StaleStatement(DatabaseError):
    """Report a prepared statement that a schema change made invalid; preparing it again helps."""

    retryable = True


class ServerError(DatabaseError):
    """Report trouble of the server itself: out of disk or memory, an internal error."""
