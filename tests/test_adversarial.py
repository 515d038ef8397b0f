"""The adversarial list against the classifier: nothing that changes anything is called a read."""

import logging
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from router.errors import StatementError
from router.lexer import Dialect
from router.reasons import Reason
from router.statements import Kind, Statement, parse
from tests.adversarial import CASES, STABLE, Case

# Reads that only the server could tell from calls of an unknown function.
FALSE_PRIMARIES = {
    "SELECT highlight(docs, 0, '<b>', '</b>'), bm25(docs) FROM docs('word') AS d",  # a table, called
}


def statement_of(case: Case) -> Statement | None:
    """Return the statement, or None if it is refused before it goes anywhere."""
    try:
        return parse(case.sql, case.dialect)
    except StatementError:
        return None


def goes_to_replica(case: Case) -> bool:
    statement = statement_of(case)
    return statement is not None and statement.verdict is Reason.READ and statement.unproven <= STABLE


@pytest.mark.parametrize("case", [c for c in CASES if c.expect == "primary"], ids=lambda c: c.sql)
def test_what_must_go_to_the_primary_is_never_a_read(case: Case) -> None:
    """A statement that changes or asks a node's state is not sent to a replica, in no disguise."""
    assert not goes_to_replica(case), case.note


def test_reads_are_proven_but_for_a_named_few() -> None:
    """A classifier that sends all to the primary is safe and useless: plain reads reach replicas."""
    missed = {case.sql for case in CASES if case.expect == "replica" and not goes_to_replica(case)}
    assert missed == FALSE_PRIMARIES


def test_the_list_is_long_enough_for_every_dialect() -> None:
    """The list keeps its promised size and has no statement twice."""
    count = Counter(case.dialect for case in CASES)
    assert count[Dialect.POSTGRESQL] >= 100
    assert count[Dialect.MYSQL] >= 70
    assert count[Dialect.SQLITE] >= 60
    assert len({(case.dialect, case.sql) for case in CASES}) == len(CASES)
    assert {case.expect for case in CASES} == {"primary", "replica", "either"}


def test_no_read_is_dirty_unless_it_calls_the_unknown() -> None:
    """A proven read costs no reset."""
    for case in CASES:
        statement = statement_of(case)
        if statement is not None and case.expect == "replica" and not statement.unproven:
            assert statement.dirt == 0, case.sql
            assert statement.kind is Kind.READ, case.sql


def test_the_parser_behind_us_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """sqlglot warns about what it does not know and quotes it; no statement may get into a log that way."""
    with caplog.at_level(logging.DEBUG):
        for case in CASES:
            statement_of(case)
            statement_of(case._replace(sql=case.sql.replace("1", "'canary-7c1f'")))
    assert "canary" not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


SQLITE_OBJECTS = """
CREATE TABLE t (id, a, b, c, d, data, "update", "delete", "insert");
CREATE INDEX i ON t (b);
CREATE TABLE u (b);
CREATE TABLE a (id);
CREATE TABLE b (id, z);
INSERT INTO t (a, b, data) VALUES (1, 2, '{"x": 1}');
"""


def test_a_read_only_sqlite_takes_what_we_call_reads(tmp_path: Path) -> None:
    """On the real engine no statement that we would send to a reader wants to write."""
    path = tmp_path / "a.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.executescript(SQLITE_OBJECTS)
    before = path.read_bytes()
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    ran = 0
    for case in CASES:
        if case.dialect is not Dialect.SQLITE or not goes_to_replica(case):
            continue
        try:
            reader.execute(case.sql).fetchall()
            ran += 1
        except sqlite3.OperationalError as error:
            assert error.sqlite_errorname == "SQLITE_ERROR", case.sql  # not valid here; never SQLITE_READONLY
        assert not reader.in_transaction, case.sql
    assert reader.total_changes == 0
    assert ran >= 22
    writer.close()
    reader.close()
    assert path.read_bytes() == before
