"""Rows of records beside what they record: chained without a row that every commit would wait for. Pure.

The rows of one transaction are a chain of their own, a batch. Commits end in any order and some never do, so
batches cannot follow one another like the lines of a file. Each names instead, as its parents, the batches of
the same table that were known to be committed and that no committed one has named yet. So every committed
batch is named by a later one or is a head; if it is taken out, the name remains.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from router.audit.chain import Chain, Record, Seal, read
from router.audit.records import Facts
from router.errors import UsageError
from router.statements import Dialect

Key = tuple[str, str, str | None]
"""Where a table is: cluster, database, and what connections are bound to."""

LATEST: Final = 200
"""Rows at the end of a table that a process looks at when it first writes there."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Row(NamedTuple):
    """Hold what is inserted for a record."""

    batch: str
    seq: int
    record: str

    @property
    def parameters(self) -> dict[str, object]:
        """Return the row as parameters of :func:`insert`."""
        return self._asdict()


@dataclass(slots=True)
class Strand:
    """Know the heads of one table, as far as this process has seen them."""

    known: bool = False  # whether the table was looked at
    heads: list[str] = field(default_factory=list)  # hashes


@dataclass(slots=True)
class Batch:
    """Hold the rows of one transaction until it is known what became of it."""

    rows: list[Row]
    strand: Strand
    parents: list[str]
    last: str

    def landed(self) -> None:
        """Take note that the transaction is committed: the next batch names it."""
        self.strand.heads.append(self.last)

    def lost(self) -> None:
        """Take note that it is not, or that nobody knows: what it named is named again."""
        self.strand.heads[:0] = self.parents


class Outbox:
    """Make the rows of records, and know which batches are heads."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self._writer = secrets.token_hex(8)
        self._batches = 0
        self._strands: dict[Key, Strand] = {}
        self._open: dict[int, Batch] = {}

    def strand(self, key: Key) -> Strand:
        """Return what is known of a table."""
        return self._strands.setdefault(key, Strand())

    def look(self, strand: Strand, lines: Iterable[str]) -> None:
        """Take the heads of a table from its last rows, whoever wrote them."""
        strand.heads += heads_of(lines)
        strand.known = True

    def box(self, unit: int, strand: Strand, records: Sequence[Facts]) -> list[Row]:
        """Return the rows for a transaction's records; its number says later what became of them."""
        self._batches += 1
        chain = Chain(self._seal, f"{self._writer}-{self._batches}")
        parents, strand.heads = strand.heads, []
        first: dict[str, Any] = {**records[0], "parents": parents, "length": len(records)}
        lines = [chain.line(facts).decode() for facts in (first, *records[1:])]
        rows = [Row(chain.id, seq, line) for seq, line in enumerate(lines)]
        self._open[unit] = Batch(rows, strand, parents, chain.last)
        return rows

    def batch(self, unit: int) -> str:
        """Return the name of the rows that a transaction has inserted, "" if it has none."""
        found = self._open.get(unit)
        return "" if found is None else found.rows[0].batch

    def ended(self, unit: int, *, committed: bool) -> None:
        """Take note of what became of a transaction."""
        batch = self._open.pop(unit, None)
        if batch is not None:
            batch.landed() if committed else batch.lost()


def heads_of(lines: Iterable[str]) -> list[str]:
    """Return the hashes of those batches among these rows that no other of them names."""
    found = [record for line in lines if (record := read(line.encode())) is not None]
    named = {parent for record in found for parent in parents_of(record)}
    last: dict[str, Record] = {}
    for record in found:
        before = last.setdefault(record.head.chain, record)
        if record.head.seq > before.head.seq:
            last[record.head.chain] = record
    return [record.hash for record in last.values() if record.hash not in named]


def parents_of(record: Record) -> list[str]:
    """Return the hashes that a record names as parents of its batch."""
    given = record.facts.get("parents", [])
    return [each for each in given if isinstance(each, str)] if isinstance(given, list) else []


# --- SQL -------------------------------------------------------------------------------------------------


def insert(table: str) -> str:
    """Return the statement that inserts a row."""
    return f"INSERT INTO {_checked(table)} (batch, seq, record) VALUES (:batch, :seq, :record)"  # noqa: S608


def latest(table: str) -> str:
    """Return the statement that reads the last rows."""
    return f"SELECT record FROM {_checked(table)} ORDER BY id DESC LIMIT {LATEST}"  # noqa: S608


def found(table: str) -> str:
    """Return the statement that says whether a batch is there."""
    return f"SELECT COUNT(*) FROM {_checked(table)} WHERE batch = :batch"  # noqa: S608


def everything(table: str) -> str:
    """Return the statement that reads all rows in the order of their numbers."""
    return f"SELECT id, batch, seq, record FROM {_checked(table)} ORDER BY id"  # noqa: S608


def count(table: str) -> str:
    """Return the statement that counts the rows."""
    return f"SELECT COUNT(*) FROM {_checked(table)}"  # noqa: S608


def ddl(table: str, dialect: Dialect) -> str:
    """Return what creates the table, and keeps the application from changing its rows."""
    return _DDL[dialect].format(table=_checked(table))


def _checked(table: str) -> str:
    if not _NAME.fullmatch(table):
        raise UsageError(f"{table!r} is no name for the table of the audit. Use a-z, 0-9 and _")
    return table


_DDL: Final = {
    Dialect.POSTGRESQL: """\
CREATE TABLE {table} (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch VARCHAR(40) NOT NULL,
    seq INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (batch, seq)
);
-- as the table's owner, for the user that the application connects as:
-- GRANT SELECT, INSERT ON {table} TO app;
""",
    Dialect.MYSQL: """\
CREATE TABLE {table} (
    id BIGINT AUTO_INCREMENT PRIMARY KEY,
    batch VARCHAR(40) CHARACTER SET ascii NOT NULL,
    seq INTEGER NOT NULL,
    record MEDIUMTEXT CHARACTER SET ascii NOT NULL,
    UNIQUE (batch, seq)
) ENGINE=InnoDB;
-- for the user that the application connects as, in place of what it has on the whole database:
-- GRANT SELECT, INSERT ON {table} TO app;
""",
    Dialect.SQLITE: """\
CREATE TABLE {table} (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    batch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (batch, seq)
);
CREATE TRIGGER {table}_stays BEFORE UPDATE ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of the audit are not changed'); END;
CREATE TRIGGER {table}_remains BEFORE DELETE ON {table}
BEGIN SELECT RAISE(ABORT, 'rows of the audit are not deleted'); END;
""",
}
