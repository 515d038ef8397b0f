"""asyncpg's exceptions, as ours. Server texts that may carry a row's values are not passed on."""

from __future__ import annotations

import re
import ssl

import asyncpg

from router import errors
from router.drivers import sockets
from router.errors import RouterError, Sent

# PostgreSQL manual, appendix A "Error Codes". The longest matching prefix wins.
_CLASSES: dict[str, type[RouterError]] = {
    "08": errors.ConnectionLost,
    "08001": errors.ConnectError,
    "08004": errors.ConnectError,
    "22": errors.DataError,
    "23": errors.IntegrityError,
    "23502": errors.NotNullViolation,
    "23503": errors.ForeignKeyViolation,
    "23505": errors.UniqueViolation,
    "23514": errors.CheckViolation,
    "25006": errors.ReadOnlyViolation,
    "25P02": errors.TransactionAborted,
    "25P03": errors.ConnectionLost,
    "25P04": errors.ConnectionLost,
    "26": errors.StaleStatement,
    "28": errors.AuthenticationFailed,
    "3D": errors.DatabaseNotFound,
    "40": errors.SerializationFailure,
    "40003": errors.ConnectionLost,
    "40P01": errors.Deadlock,
    "42": errors.InvalidStatement,
    "42501": errors.PermissionDenied,
    "3F": errors.InvalidStatement,
    "53": errors.ServerError,
    "53300": errors.TooManyConnections,
    "55": errors.DatabaseError,
    "55006": errors.LockTimeout,
    "55P03": errors.LockTimeout,
    "57014": errors.StatementCancelled,
    "57P01": errors.ConnectionLost,
    "57P02": errors.ConnectionLost,
    "57P03": errors.ConnectError,
    "57P04": errors.ConnectionLost,
    "57P05": errors.ConnectionLost,
    "58": errors.ServerError,
    "XX": errors.ServerError,
}
# Classes whose texts speak of names and settings, never of a row's values.
_SPEAKING = ("0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "55", "57", "58")


# The caller held its transaction open for too long: with the same work it would again.
_TOO_SLOW = frozenset({"25P03", "25P04"})


def class_of(code: str) -> type[RouterError]:
    """Return the error class of a SQLSTATE."""
    return _CLASSES.get(code) or _CLASSES.get(code[:2]) or errors.DatabaseError


def _words(name: str) -> str:
    """Turn ``NumericValueOutOfRangeError`` into ``numeric value out of range``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name.removesuffix("Error")).lower()


def _message(exc: asyncpg.PostgresError, code: str) -> str:
    if code == "42601":
        # the server's text quotes the offending token, which may be a literal
        return f"syntax error at character {getattr(exc, 'position', None) or 'unknown'}"
    if code.startswith(_SPEAKING):
        return str(exc.args[0])
    names = [
        f"{label} {value}"
        for label, field in (
            ("constraint", "constraint_name"),
            ("table", "table_name"),
            ("column", "column_name"),
        )
        if (value := getattr(exc, field, None))
    ]
    return f"{_words(type(exc).__name__)}{' (' + ', '.join(names) + ')' if names else ''}"


def translate(exc: BaseException) -> RouterError:
    """Return our error for one of asyncpg's or of the socket's."""
    if isinstance(exc, RouterError):
        return exc
    if isinstance(exc, ssl.SSLError):  # before the rest: a refused certificate is a ValueError too
        return errors.ConnectionLost(sockets.words(exc), cause=exc)
    # asyncpg raises the server's DataError class also for arguments that it could not encode itself
    found = re.match(r"invalid input for query argument \$(\d+)", str(exc))
    if isinstance(exc, asyncpg.PostgresError) and found is None:
        return _answered(exc)
    if found is not None or isinstance(exc, TypeError | ValueError | OverflowError):
        error = errors.ParameterError("a parameter is of a type that the server does not take", cause=exc)
        error.position = int(found.group(1)) if found else None
        return error
    if isinstance(exc, TimeoutError):
        return errors.StatementTimeout("the statement did not finish in time and was cancelled", cause=exc)
    if isinstance(exc, asyncpg.OutdatedSchemaCacheError):
        # found while the rows were read: the statement itself has run
        text = "a schema change made the known types invalid"
        return errors.StaleStatement(text, sent=Sent.UNKNOWN, cause=exc)
    if isinstance(exc, asyncpg.InterfaceError):
        # asyncpg says "connection is closed" before it writes anything
        sent = Sent.NO if "is closed" in str(exc) else Sent.UNKNOWN
        return errors.ConnectionLost("the connection is closed or in use", sent=sent, cause=exc)
    if isinstance(exc, asyncpg.InternalClientError):
        # answers that do not fit its state, seen when the server ends the session in mid-statement
        return errors.ConnectionLost("the connection is out of step with the server", cause=exc)
    if isinstance(exc, OSError):
        no_tls = "rejected SSL upgrade" in str(exc)  # asyncpg's own words
        return errors.ConnectionLost(sockets.NO_TLS if no_tls else sockets.words(exc), cause=exc)
    return errors.ServerError(f"unexpected {type(exc).__name__} from asyncpg", sent=Sent.UNKNOWN, cause=exc)


def _answered(exc: asyncpg.PostgresError) -> RouterError:
    code = str(getattr(exc, "sqlstate", None) or "")
    if isinstance(exc, asyncpg.InvalidCachedStatementError):
        return errors.StaleStatement(
            "a schema change made the prepared statement invalid", code=code, cause=exc
        )
    if code == "08P01" and "startup parameter" in str(exc):
        # PgBouncer's words, which name the setting
        return errors.ConnectError(
            f"{exc.args[0]}. Set pooler: pgbouncer-transaction on the cluster if this is PgBouncer",
            code=code,
            cause=exc,
        )
    kind = class_of(code)
    # asyncpg reports a connection that dies mid-statement as 08003 although the statement was sent
    sent = Sent.UNKNOWN if issubclass(kind, errors.ConnectionLost) else None
    error = kind(_message(exc, code), code=code, sent=sent, cause=exc)
    error.retryable = error.retryable and code not in _TOO_SLOW
    if isinstance(error, errors.IntegrityError):
        error.constraint = getattr(exc, "constraint_name", None)
        error.column = getattr(exc, "column_name", None)
    return error
