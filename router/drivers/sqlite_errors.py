"""sqlite3's exceptions, as ours."""

from __future__ import annotations

import re
import sqlite3

from router import errors
from router.errors import RouterError, Sent

# sqlite.org/rescode.html; extended codes first, then the primary code in the low byte
_CODES: dict[int, type[RouterError]] = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: errors.UniqueViolation,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: errors.UniqueViolation,
    sqlite3.SQLITE_CONSTRAINT_ROWID: errors.UniqueViolation,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: errors.ForeignKeyViolation,
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: errors.NotNullViolation,
    sqlite3.SQLITE_CONSTRAINT_CHECK: errors.CheckViolation,
    sqlite3.SQLITE_CONSTRAINT: errors.IntegrityError,
    sqlite3.SQLITE_BUSY_SNAPSHOT: errors.SerializationFailure,
    sqlite3.SQLITE_BUSY: errors.LockTimeout,
    sqlite3.SQLITE_LOCKED: errors.LockTimeout,
    sqlite3.SQLITE_PROTOCOL: errors.LockTimeout,
    sqlite3.SQLITE_READONLY: errors.ReadOnlyViolation,
    sqlite3.SQLITE_INTERRUPT: errors.StatementCancelled,
    sqlite3.SQLITE_MISMATCH: errors.DataError,
    sqlite3.SQLITE_TOOBIG: errors.DataError,
    sqlite3.SQLITE_RANGE: errors.ParameterError,
    sqlite3.SQLITE_CANTOPEN: errors.DatabaseNotFound,  # a reader may need the writer to make the WAL first
    sqlite3.SQLITE_NOTADB: errors.DatabaseNotFound,
    sqlite3.SQLITE_IOERR: errors.ServerError,
    sqlite3.SQLITE_FULL: errors.ServerError,
    sqlite3.SQLITE_CORRUPT: errors.ServerError,
    sqlite3.SQLITE_NOMEM: errors.ServerError,
    sqlite3.SQLITE_PERM: errors.PermissionDenied,
    sqlite3.SQLITE_AUTH: errors.PermissionDenied,
}
# texts that name tables, columns and constraints only
_SPEAKING = re.compile(
    r"^(no such (table|column|function|index|savepoint|collation sequence|module)\b"
    r"|(UNIQUE|NOT NULL|CHECK|FOREIGN KEY) constraint failed|table .* (already exists|has \d+ columns)"
    r"|ambiguous column name|attempt to write|database is locked|unable to open"
    r'|near "\w+": syntax error|incomplete input)'
)


def translate(exc: BaseException) -> RouterError:
    """Return our error for one of sqlite3's or aiosqlite's."""
    if isinstance(exc, RouterError):
        return exc
    if isinstance(exc, TimeoutError):
        return errors.StatementTimeout("the statement did not finish in time and was interrupted", cause=exc)
    if isinstance(exc, ValueError) and "closed" in str(exc):
        return errors.ConnectionLost("the connection is closed", sent=Sent.NO, cause=exc)
    if isinstance(exc, TypeError | ValueError | OverflowError | UnicodeError):
        return errors.ParameterError("a parameter is of a type that SQLite cannot store", cause=exc)
    if isinstance(exc, sqlite3.Error):
        return _answered(exc)
    if isinstance(exc, OSError):  # of the folder: SQLite reports its own trouble with files by itself
        return errors.ConnectError(f"the folder cannot be used: {exc.strerror}", cause=exc)
    return errors.ServerError(f"unexpected {type(exc).__name__} from aiosqlite", sent=Sent.UNKNOWN, cause=exc)


def _class_of(exc: sqlite3.Error, code: int) -> type[RouterError]:
    found = _CODES.get(code) or _CODES.get(code & 0xFF)
    if found is not None:
        return found
    if isinstance(exc, sqlite3.InterfaceError | sqlite3.ProgrammingError) and code == 0:
        # raised by the Python module itself: an unsupported type, a wrong number of arguments
        return errors.ParameterError if "bind" in str(exc) or "type" in str(exc) else errors.StatementError
    return errors.InvalidStatement if code == sqlite3.SQLITE_ERROR else errors.DatabaseError


def _answered(exc: sqlite3.Error) -> RouterError:
    code = getattr(exc, "sqlite_errorcode", 0)
    name = getattr(exc, "sqlite_errorname", None)
    kind = _class_of(exc, code)
    text = str(exc)
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
    if kind is errors.ParameterError:
        words = "a parameter is of a type that SQLite cannot store"
    error = kind(text if _SPEAKING.match(text) else words, code=name, cause=exc)
    if isinstance(error, errors.IntegrityError) and ": " in text:
        named = text.partition(": ")[2]
        is_column = isinstance(error, errors.UniqueViolation | errors.NotNullViolation)
        error.column = named.rpartition(".")[2] if is_column else None
        error.constraint = None if is_column else named
    return error
