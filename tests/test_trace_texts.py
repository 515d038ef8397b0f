"""What traces show of statements: few words that group them, and a text in which no literal is left."""

import pytest

from router.integrations.otel_texts import TEXT_LIMIT, Shown, Texts, shown
from router.lexer import Dialect
from tests.telling import finished

POSTGRESQL, MYSQL, SQLITE = Dialect.POSTGRESQL, Dialect.MYSQL, Dialect.SQLITE


def text(sql: str, dialect: Dialect = POSTGRESQL) -> str | None:
    return shown(sql, dialect, "read", frozenset()).text


def test_a_parameterised_text_is_shown_as_written() -> None:
    """Case, line breaks and the names of parameters stay: it is what the developer knows."""
    sql = "SELECT *\n  FROM Plans\n WHERE id = :plan_id"
    assert text(sql) == sql


@pytest.mark.parametrize(
    ("sql", "dialect", "expected"),
    [
        ("SELECT 'canary', 4711, 1.5e3", POSTGRESQL, "SELECT ?, ?, ?"),
        ("SELECT $tag$canary$tag$, E'can\\'ary', B'01', x'ff'", POSTGRESQL, "SELECT ?, ?, ?, ?"),
        ("SELECT 'it''s canary' FROM \"Name\"", POSTGRESQL, 'SELECT ? FROM "Name"'),
        ('SELECT "canary" FROM `Name`', MYSQL, "SELECT ? FROM `Name`"),
        ("SELECT 1 /*!80000 , 'canary' */", MYSQL, "SELECT ? ?"),
        ("CREATE USER app IDENTIFIED BY 'canary'", MYSQL, "CREATE USER app IDENTIFIED BY ?"),
        ("SELECT x'ca4a' -- canary", SQLITE, "SELECT ?"),
        ("/* canary */ SELECT /* canary */ 1", SQLITE, "SELECT ?"),
        (
            "SELECT * FROM t WHERE id = $1 AND n = 'canary'",
            POSTGRESQL,
            "SELECT * FROM t WHERE id = ? AND n = ?",
        ),
        ("SELECT * FROM t WHERE id = %s AND n = 'canary'", MYSQL, "SELECT * FROM t WHERE id = ? AND n = ?"),
        ("SET PASSWORD = 'canary'; SELECT 2", MYSQL, "SET PASSWORD = ?; SELECT ?"),
    ],
)
def test_literals_and_comments_are_not_shown(sql: str, dialect: Dialect, expected: str) -> None:
    """Whatever the dialect calls a literal becomes a question mark; a comment may say anything: it goes."""
    assert text(sql, dialect) == expected


@pytest.mark.parametrize(
    "sql", ["SELECT 'canary", "SELECT 1\0canary", "SELECT /* canary", "SELECT '\ud800canary'"]
)
def test_a_text_that_cannot_be_read_is_not_shown(sql: str) -> None:
    """Nobody knows what of it is a literal."""
    assert shown(sql, POSTGRESQL, "other", frozenset()) == Shown(None, None, None, None)


def test_a_long_text_is_cut_and_neither_kept_nor_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generated statement of megabytes is shown by the beginning of its normalized form."""
    monkeypatch.setattr("router.integrations.otel_texts.lex", None)
    sql = f"SELECT {', '.join(['column_name'] * 10_000)}, 'canary'"
    texts = Texts(SQLITE)
    found = texts.of(finished(sql=sql, normalized=sql.lower().replace("'canary'", "?"), kind="read"))
    assert found.text is not None
    assert len(found.text) == TEXT_LIMIT
    assert (found.operation, found.summary) == ("SELECT", "SELECT")
    assert not texts._young


def test_a_long_text_that_was_not_looked_at_is_not_shown() -> None:
    """Of a script nothing is known but its length."""
    sql = "'canary'" * TEXT_LIMIT
    assert Texts(SQLITE).of(finished(sql=sql, normalized="(raw)")) == Shown(None, None, None, None)


@pytest.mark.parametrize(
    ("sql", "kind", "tables", "operation", "summary"),
    [
        ("select * from plans", "read", {"plans"}, "SELECT", "SELECT plans"),
        ("SELECT 1", "read", set(), "SELECT", "SELECT"),
        ("(SELECT 1) UNION (SELECT 2)", "read", set(), "SELECT", "SELECT"),
        ("SELECT * FROM b JOIN a USING (id)", "read", {"a", "b"}, "SELECT", "SELECT a b"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "read", set(), "SELECT", "SELECT"),
        ("WITH x AS (DELETE FROM a RETURNING 1) SELECT * FROM x", "write", {"a"}, "WITH", "WITH a"),
        ("INSERT INTO a SELECT * FROM b", "write", {"a", "b"}, "INSERT", "INSERT a b"),
        ("frobnicate the 'canary'", "other", set(), None, None),
        ("'canary'", "other", set(), None, None),
    ],
)
def test_operation_and_summary_have_few_values(
    sql: str, kind: str, tables: set[str], operation: str | None, summary: str | None
) -> None:
    """A known verb and the tables, in an order that does not change; words not known are left out."""
    found = shown(sql, POSTGRESQL, kind, frozenset(tables))
    assert (found.operation, found.summary) == (operation, summary)


def test_the_collection_is_named_only_where_there_is_one() -> None:
    """Of a join, neither table is the collection."""
    assert shown("SELECT 1", SQLITE, "read", frozenset({"a"})).collection == "a"
    assert shown("SELECT 1", SQLITE, "read", frozenset({"a", "b"})).collection is None


def test_a_summary_is_of_255_characters_at_most() -> None:
    """It is cut between names."""
    names = frozenset(f"table_with_a_long_name_{number:03}" for number in range(50))
    summary = shown("SELECT 1", SQLITE, "read", names).summary
    assert summary is not None
    assert 200 < len(summary) <= 255
    assert set(summary.split()[1:]) <= names


def test_texts_are_remembered_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at once as long as it is in use; what differs in literals cannot fill the memory."""
    monkeypatch.setattr("router.integrations.otel_texts._BOUND", 4)
    texts = Texts(SQLITE)
    often = texts.of(finished(sql="SELECT often"))
    for number in range(100):
        texts.of(finished(sql=f"SELECT {number}"))
        assert texts.of(finished(sql="SELECT often")) is often
    assert len(texts._young) + len(texts._old) <= 8
