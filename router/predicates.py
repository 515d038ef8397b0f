"""Questions about an exception, the same on every engine, wherever in it our own error is."""

from __future__ import annotations

from collections.abc import Iterator

from router.errors import (
    CheckViolation,
    CommitOutcomeUnknown,
    ConnectError,
    ConnectionLost,
    Deadlock,
    ForeignKeyViolation,
    LockTimeout,
    NotNullViolation,
    ReadOnlyViolation,
    RouterError,
    RouterTimeout,
    SerializationFailure,
    UniqueViolation,
)


def _errors_in(exc: BaseException | None) -> Iterator[RouterError]:
    """Yield the router errors inside ``exc``: itself, one attached by the SQLAlchemy bridge, its causes."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        if isinstance(exc, RouterError):
            yield exc
            if isinstance(exc.cause, RouterError):
                yield exc.cause
        attached = getattr(exc, "router_error", None)
        if isinstance(attached, RouterError):
            yield attached
        exc = exc.__cause__ or exc.__context__


def router_error(exc: BaseException) -> RouterError | None:
    """Return our error in ``exc``: itself, or the one behind an error of SQLAlchemy's."""
    return next(_errors_in(exc), None)


def _is(exc: BaseException, kinds: type[RouterError] | tuple[type[RouterError], ...]) -> bool:
    return any(isinstance(error, kinds) for error in _errors_in(exc))


def is_unique_violation(exc: BaseException) -> bool:
    """Tell whether a duplicate key caused ``exc``, on any engine, also inside a SQLAlchemy error."""
    return _is(exc, UniqueViolation)


def is_foreign_key_violation(exc: BaseException) -> bool:
    """Tell whether a foreign key caused ``exc``."""
    return _is(exc, ForeignKeyViolation)


def is_not_null_violation(exc: BaseException) -> bool:
    """Tell whether a NULL in a NOT NULL column caused ``exc``."""
    return _is(exc, NotNullViolation)


def is_check_violation(exc: BaseException) -> bool:
    """Tell whether a CHECK constraint caused ``exc``."""
    return _is(exc, CheckViolation)


def is_deadlock(exc: BaseException) -> bool:
    """Tell whether a deadlock caused ``exc``."""
    return _is(exc, Deadlock)


def is_serialization_failure(exc: BaseException) -> bool:
    """Tell whether a serialization conflict caused ``exc``."""
    return _is(exc, SerializationFailure)


def is_timeout(exc: BaseException) -> bool:
    """Tell whether ``exc`` means that time ran out: for a connection, a lock or a statement."""
    return _is(exc, (RouterTimeout, LockTimeout))


def is_connection_lost(exc: BaseException) -> bool:
    """Tell whether the connection could not be made or broke."""
    return _is(exc, (ConnectError, ConnectionLost, CommitOutcomeUnknown))


def is_read_only(exc: BaseException) -> bool:
    """Tell whether a write was refused because the node or transaction is read-only."""
    return _is(exc, ReadOnlyViolation)


def is_retryable(exc: BaseException) -> bool:
    """Tell whether running the whole transaction again is safe and may succeed; not if it may be applied."""
    return any(error.retryable for error in _errors_in(exc)) and not _is(exc, CommitOutcomeUnknown)
