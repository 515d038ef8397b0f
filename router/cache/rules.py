"""Judge by its text alone whether a statement's result may ever be cached, and what it may change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from router.cache.refusal import Refusal
from router.lexer import LITERAL, PUNCTUATION, WORD, Dialect, Token, lex
from router.reasons import Reason
from router.statements import Kind, Statement

_SCHEMAS: Final = {
    Dialect.POSTGRESQL: frozenset(("pg_catalog", "information_schema", "pg_toast")),
    Dialect.MYSQL: frozenset(("information_schema", "mysql", "performance_schema", "sys")),
    Dialect.SQLITE: frozenset(("sqlite_master", "sqlite_schema", "dbstat")),
}
_PREFIXES: Final[Mapping[Dialect, tuple[str, ...]]] = {
    Dialect.POSTGRESQL: ("pg_",),
    Dialect.MYSQL: (),
    Dialect.SQLITE: ("sqlite_", "pragma_"),
}
_DUAL: Final = frozenset(("dual",))  # MySQL's table for where a table has to be named
# PostgreSQL reads them as moments, wherever in a date they stand (manual, "Special Values").
_MOMENTS: Final = re.compile(r"(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])", re.IGNORECASE)
# Locks and vacuums write them without a statement that changes the table.
_ROW_STATE: Final = frozenset(("xmin", "xmax", "cmin", "cmax", "ctid"))
# The servers' own functions that are no reads and yet change no table.
_CHANGING_NO_TABLE: Final = frozenset(
    (
        *("nextval", "currval", "lastval", "setval", "uuid_short", "pg_notify", "set_config", "txid_current"),
        *("last_insert_id", "last_insert_rowid", "row_count", "found_rows", "changes", "total_changes"),
        *("connection_id", "pg_backend_pid", "pg_current_xact_id", "get_lock", "release_lock"),
        *("pg_advisory_lock", "pg_try_advisory_lock", "pg_advisory_unlock", "pg_advisory_xact_lock"),
    )
)
_UNCLEAR: Final = frozenset(
    (Reason.MULTIPLE_STATEMENTS, Reason.UNPARSED, Reason.SELECT_INTO, Reason.NOT_A_QUERY)
)
_WORD: Final = 64  # letters; a longer parameter is no date and time
_EXECUTABLE: Final = re.compile(r"/\*M?!")  # a comment that the server runs, and nobody has read
_HARMLESS_VERBS: Final = frozenset(("set", "reset", "show", "listen", "unlisten", "notify", "use", "get"))


def never(statement: Statement) -> Refusal | None:
    """Return why the result of a statement must never be cached, ``None`` if its text allows it.

    It looks at every token, so ask once for each statement.
    """
    if statement.verdict is not Reason.READ:
        return Refusal.NOT_A_READ
    if statement.unproven:
        return Refusal.USER_FUNCTION
    if not statement.repeatable():
        return Refusal.NOT_REPEATABLE
    refusal = _tokens(statement.text, statement.dialect)
    if refusal is not None:
        return refusal
    tables = statement.tables
    if not tables or (statement.dialect is Dialect.MYSQL and tables == _DUAL):
        return Refusal.NO_TABLES
    for name in tables:
        refusal = system(name, statement.dialect)
        if refusal is not None:
            return refusal
    return None


def moment_in(args: Iterable[object], dialect: Dialect) -> bool:
    """Tell whether a parameter is a word that PostgreSQL may read as a moment, as it does in a literal."""
    if dialect is not Dialect.POSTGRESQL:
        return False
    return any(isinstance(each, str) and len(each) < _WORD and _MOMENTS.search(each) for each in args)


def system(name: str, dialect: Dialect) -> Refusal | None:
    """Return why no read of the table ``name`` is cached: a table of the server's own or of one session's."""
    first, _, rest = name.partition(".")
    if (rest and first.startswith("pg_temp")) or (dialect is Dialect.SQLITE and first == "temp" and rest):
        return Refusal.TEMPORARY_TABLE
    if first in _SCHEMAS[dialect] or name.rpartition(".")[2].startswith(_PREFIXES[dialect]):
        return Refusal.SYSTEM_TABLE
    return None


def _tokens(text: str, dialect: Dialect) -> Refusal | None:
    tokens = lex(text, dialect)
    for index, token in enumerate(tokens):
        refusal: Refusal | None = None
        if dialect is Dialect.POSTGRESQL:
            refusal = _postgresql(text, token)
        elif dialect is Dialect.SQLITE and token.value == "in" and token.kind == WORD:
            # its IN takes the bare name of a table, which the syntax tree does not count as one
            following = tokens[index + 1] if index + 1 < len(tokens) else token
            if following.kind != PUNCTUATION or following.value != "(":
                refusal = Refusal.UNCLEAR_TABLES
        if refusal is not None:
            return refusal
    return None


def _postgresql(text: str, token: Token) -> Refusal | None:
    if token.kind == LITERAL and _MOMENTS.search(text, token.start, token.end):
        return Refusal.TIME_LITERAL
    if token.kind == WORD and token.value == "tablesample":
        return Refusal.SAMPLE
    return Refusal.NOT_REPEATABLE if token.kind == WORD and token.value in _ROW_STATE else None


def changes(statement: Statement) -> frozenset[str] | None:
    """Return the names of the tables that a statement may write to; ``None``: it may write to any.

    Empty for what writes to none. Tables that a write only reads are among them.
    """
    kind, words = statement.kind, statement.normalized.split(maxsplit=1)
    if statement.verdict in _UNCLEAR or not _knows_functions(statement):
        return None
    if statement.dialect is Dialect.MYSQL and _EXECUTABLE.search(statement.text):
        return None
    if kind is Kind.READ:
        return frozenset()
    if kind is Kind.WRITE:
        return statement.tables or None
    if kind is Kind.TRANSACTION and words[0] != "xa" and "prepared" not in words[-1]:
        return frozenset()
    return frozenset() if words[0] in _HARMLESS_VERBS else None


def _knows_functions(statement: Statement) -> bool:
    """Tell whether no function called may write to a table out of sight."""
    unproven = statement.unproven
    if not unproven:
        return True
    if not unproven <= _CHANGING_NO_TABLE:
        return False
    # a name with a schema in front of it is a user's function, whatever it is called
    owned = re.compile(rf"\.\"?(?:{'|'.join(map(re.escape, unproven))})\"?\s*\(")
    return owned.search(statement.normalized.replace("pg_catalog.", "")) is None
