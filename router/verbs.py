"""What the first word of a statement says about it, by dialect."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from router.lexer import Dialect
from router.reasons import Reason


class Kind(StrEnum):
    """Say what a statement does by its verb; a bounded metric label."""

    READ = "read"
    WRITE = "write"
    DDL = "ddl"
    TRANSACTION = "transaction"
    SESSION = "session"
    OTHER = "other"


class Dirt(IntEnum):
    """Say what a statement may leave behind on its connection; the larger includes the smaller."""

    NONE = 0  # the connection is as before
    RESET = 1  # session state may have changed: a reset of the session cures it
    DISCARD = 2  # no reset cures it, or nobody can know: close the connection afterwards


class Verb(NamedTuple):
    """Hold what follows from a statement's verb alone."""

    kind: Kind
    reason: Reason  # why it is not a read
    dirt: Dirt  # the least that it leaves behind
    rows: bool = False  # the server answers with rows


QUERIES: Final = frozenset(("select", "values", "table"))
CHANGES: Final = frozenset(("insert", "update", "delete", "merge", "replace"))
UNKNOWN: Final = Verb(Kind.OTHER, Reason.UNPARSED, Dirt.RESET, True)

_WRITE = Verb(Kind.WRITE, Reason.WRITE, Dirt.NONE)
_DDL = Verb(Kind.DDL, Reason.DDL, Dirt.RESET)
_TRANSACTION = Verb(Kind.TRANSACTION, Reason.TRANSACTION_CONTROL, Dirt.DISCARD)
_SESSION = Verb(Kind.SESSION, Reason.SESSION_STATE, Dirt.RESET)
_SESSION_ROWS = Verb(Kind.SESSION, Reason.SESSION_STATE, Dirt.RESET, True)
_SHOW = Verb(Kind.SESSION, Reason.SESSION_STATE, Dirt.NONE, True)
_SPOILING = Verb(Kind.SESSION, Reason.SESSION_STATE, Dirt.DISCARD)
_SPOILING_ROWS = Verb(Kind.SESSION, Reason.SESSION_STATE, Dirt.DISCARD, True)
_UPKEEP = Verb(Kind.OTHER, Reason.NOT_A_QUERY, Dirt.NONE)
_UPKEEP_ROWS = Verb(Kind.OTHER, Reason.NOT_A_QUERY, Dirt.NONE, True)
_RUNS_CODE = Verb(Kind.OTHER, Reason.NOT_A_QUERY, Dirt.RESET)
_RUNS_CODE_ROWS = Verb(Kind.OTHER, Reason.NOT_A_QUERY, Dirt.RESET, True)


def _table(*rows: tuple[str, Verb]) -> dict[str, Verb]:
    return {word: verb for words, verb in rows for word in words.split()}


# EXPLAIN can run what it explains (ANALYZE, also a verb of its own in MariaDB), except in SQLite. Text-level
# transaction control is discarded because the pool would not know that a transaction is open; a text-level
# PREPARE because dropping it would drop the driver's prepared statements too.
VERBS: Final[Mapping[Dialect, Mapping[str, Verb]]] = {
    Dialect.POSTGRESQL: _table(
        ("insert update delete merge truncate copy", _WRITE),
        ("create alter drop comment grant revoke reindex refresh cluster security import reassign", _DDL),
        ("begin start commit end rollback abort savepoint release", _TRANSACTION),
        ("set reset listen unlisten declare move close", _SESSION),
        ("fetch execute", _SESSION_ROWS),
        ("prepare deallocate discard load", _SPOILING),
        ("show", _SHOW),
        ("vacuum analyze analyse checkpoint notify", _UPKEEP),
        ("lock", Verb(Kind.OTHER, Reason.LOCKING, Dirt.NONE)),
        ("do", _RUNS_CODE),
        ("call explain", _RUNS_CODE_ROWS),
    ),
    Dialect.MYSQL: _table(
        ("insert update delete replace truncate load", _WRITE),
        ("create alter drop rename grant revoke install uninstall import", _DDL),
        ("begin start commit rollback savepoint release xa", _TRANSACTION),
        ("set get signal resignal", _SESSION),
        ("execute", _SESSION_ROWS),
        ("use prepare deallocate flush unlock change stop", _SPOILING),
        ("lock", Verb(Kind.SESSION, Reason.LOCKING, Dirt.DISCARD)),
        ("handler", _SPOILING_ROWS),
        ("show", _SHOW),
        ("kill purge reset cache shutdown restart clone", _UPKEEP),
        ("check checksum optimize repair help", _UPKEEP_ROWS),
        ("do binlog", _RUNS_CODE),
        ("call explain analyze describe desc", _RUNS_CODE_ROWS),
    ),
    Dialect.SQLITE: _table(
        ("insert update delete replace", _WRITE),
        ("create alter drop reindex analyze", Verb(Kind.DDL, Reason.DDL, Dirt.NONE)),
        ("begin commit end rollback savepoint release", _TRANSACTION),
        ("attach detach", _SPOILING),
        ("pragma", _SPOILING_ROWS),
        ("vacuum", _UPKEEP),
        ("explain", _UPKEEP_ROWS),
    ),
}
QUERY: Final = Verb(Kind.READ, Reason.READ, Dirt.NONE, True)
