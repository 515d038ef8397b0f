"""aiomysql's exceptions, as ours. Server texts that may carry a row's values are not passed on."""

from __future__ import annotations

import re

from pymysql import err

from router import errors
from router.drivers import sockets
from router.errors import RouterError, Sent

# MySQL 8.4 and MariaDB 11.4 error references.
_CODES: dict[int, type[RouterError]] = {
    1020: errors.SerializationFailure,
    1022: errors.UniqueViolation,
    1062: errors.UniqueViolation,
    1169: errors.UniqueViolation,
    1586: errors.UniqueViolation,
    1216: errors.ForeignKeyViolation,
    1217: errors.ForeignKeyViolation,
    1451: errors.ForeignKeyViolation,
    1452: errors.ForeignKeyViolation,
    1048: errors.NotNullViolation,
    1364: errors.NotNullViolation,
    3819: errors.CheckViolation,
    4025: errors.CheckViolation,
    1205: errors.LockTimeout,
    3572: errors.LockTimeout,
    1213: errors.Deadlock,
    3101: errors.SerializationFailure,
    1290: errors.ReadOnlyViolation,
    1792: errors.ReadOnlyViolation,
    1836: errors.ReadOnlyViolation,
    3100: errors.ReadOnlyViolation,
    1317: errors.StatementCancelled,
    1969: errors.StatementTimeout,
    3024: errors.StatementTimeout,
    1044: errors.PermissionDenied,
    1142: errors.PermissionDenied,
    1143: errors.PermissionDenied,
    1227: errors.PermissionDenied,
    1370: errors.PermissionDenied,
    1045: errors.AuthenticationFailed,
    1698: errors.AuthenticationFailed,
    1049: errors.DatabaseNotFound,
    1040: errors.TooManyConnections,
    1203: errors.TooManyConnections,
    1226: errors.TooManyConnections,
    1129: errors.ConnectError,
    1130: errors.ConnectError,
    2002: errors.ConnectError,
    2003: errors.ConnectError,
    2005: errors.ConnectError,
    2026: errors.ConnectError,
    1047: errors.ConnectError,
    1051: errors.InvalidStatement,
    1054: errors.InvalidStatement,
    1146: errors.InvalidStatement,
    1305: errors.InvalidStatement,
    1021: errors.ServerError,
    1037: errors.ServerError,
    1041: errors.ServerError,
    1114: errors.ServerError,
}
_OPTION = 1290
_READ_ONLY = re.compile("read.only", re.IGNORECASE)
_LOST = frozenset({1053, 1158, 1159, 1160, 1161, 1180, 1181, 1927, 2006, 2013, 2014, 2027, 2055, 4031})
_DATA = frozenset({1230, 1264, 1265, 1292, 1366, 1406, 1411, 1441, 1690, 3140, 3141, 4038})
# Texts of these name tables, columns, users and settings only.
_SPEAKING = frozenset(
    {1040, 1044, 1045, 1049, 1051, 1054, 1142, 1146, 1290, 1305, 1792, 1836, 2003, 2005, 2026}
)
_UNREACHABLE = 2003


def _class_of(exc: err.MySQLError, code: int) -> type[RouterError]:
    if code == _OPTION and not _READ_ONLY.search(str(exc.args[-1])):
        return errors.DatabaseError  # another option of the server forbids it, on every node
    if code in _CODES:
        return _CODES[code]
    if code in _LOST:
        return errors.ConnectionLost
    if code in _DATA or isinstance(exc, err.DataError):
        return errors.DataError
    if isinstance(exc, err.IntegrityError):
        return errors.IntegrityError
    if isinstance(exc, err.ProgrammingError):
        return errors.InvalidStatement
    if isinstance(exc, err.InternalError) and code == 0:
        return errors.ConnectionLost  # packets out of sequence
    return errors.DatabaseError


def _message(kind: type[RouterError], code: int, text: str) -> str:
    if code == 1064:
        line = re.search(r"at line (\d+)$", text)
        return f"syntax error at line {line.group(1) if line else 'unknown'}"
    if code in _SPEAKING:
        return text
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
    found = _name(text)
    return f"{words} ({found})" if found else words


def _name(text: str) -> str:
    """Return the constraint, key or column that a message names; never a value."""
    for pattern, label in (
        (r"for key '([^']+)'$", "key"),
        (r"CONSTRAINT `([^`]+)`", "constraint"),
        (r"[Cc]onstraint '?`?([\w.`]+?)'? (?:is violated|failed)", "constraint"),
        (r"^(?:Column|Field) '([^']+)'", "column"),
        (r"for column [`'](.+?)['`] at row", "column"),
    ):
        if found := re.search(pattern, text):
            return f"{label} {found.group(1).replace('`', '')}"
    return ""


def translate(exc: BaseException) -> RouterError:
    """Return our error for one of aiomysql's or of the socket's."""
    if isinstance(exc, RouterError):
        return exc
    if isinstance(exc, TimeoutError):
        return errors.StatementTimeout("the statement did not finish in time and was given up", cause=exc)
    if isinstance(exc, err.InterfaceError):
        # pymysql raises it before it writes: the connection is already closed
        return errors.ConnectionLost("the connection is closed", sent=Sent.NO, cause=exc)
    if isinstance(exc, err.MySQLError):
        return _answered(exc)
    if isinstance(exc, AttributeError) and exc.obj is None:
        # closed by somebody else between two packets: aiomysql has dropped its reader by then
        return errors.ConnectionLost("the connection was closed meanwhile", cause=exc)
    if isinstance(exc, TypeError | ValueError | OverflowError | KeyError | AttributeError):
        return errors.ParameterError("a parameter is of a type that the driver cannot send", cause=exc)
    if isinstance(exc, OSError | EOFError | RuntimeError):
        return errors.ConnectionLost(sockets.words(exc), cause=exc)
    return errors.ServerError(f"unexpected {type(exc).__name__} from aiomysql", sent=Sent.UNKNOWN, cause=exc)


def _answered(exc: err.MySQLError) -> RouterError:
    code = exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0
    if isinstance(exc, err.ProgrammingError) and not code:
        # PyMySQL's own: it could not write a value, such as NaN, as SQL text
        return errors.ParameterError("a parameter has a value that MySQL does not have", cause=exc)
    text = str(exc.args[1]) if len(exc.args) > 1 else ""
    kind = _class_of(exc, code)
    sent = Sent.ANSWERED if kind is errors.StatementTimeout else None
    broke = exc.__cause__ if code == _UNREACHABLE else None  # says more than aiomysql, which names the host
    message = sockets.words(broke) if isinstance(broke, OSError) else _message(kind, code, text)
    error = kind(message, code=str(code) if code else None, sent=sent, cause=exc)
    if isinstance(error, errors.IntegrityError):
        label, _, name = _name(text).partition(" ")
        error.constraint = name if label in ("key", "constraint") else None
        error.column = name if label == "column" else None
    return error
