"""Tokens, compiled parameters and normalised text of the three dialects."""

import sqlite3
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import StatementError
from router.lexer import (
    EXECUTABLE,
    LITERAL,
    ODD,
    PARAMETER,
    QUOTED,
    VARIABLE,
    WORD,
    Dialect,
    compile_parameters,
    fold,
    lex,
    normalize,
)
from router.scan import FUNCTIONS

PG, MY, LITE = Dialect.POSTGRESQL, Dialect.MYSQL, Dialect.SQLITE


def kinds(text: str, dialect: Dialect) -> list[tuple[str, str]]:
    return [(token.kind, token.value) for token in lex(text, dialect)]


def compiled(text: str, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
    return compile_parameters(text, lex(text, dialect), dialect)


def normalized(text: str, dialect: Dialect = PG) -> str:
    return normalize(lex(text, dialect), FUNCTIONS[dialect].words)


@pytest.mark.parametrize(
    ("dialect", "sql", "names"),
    [
        (PG, "a = $1 AND b = $2 AND c = $1", ("a", "b")),
        (LITE, "a = ?1 AND b = ?2 AND c = ?1", ("a", "b")),
        (MY, "a = %s AND b = %s AND c = %s", ("a", "b", "a")),
    ],
)
def test_each_driver_gets_its_own_placeholders(dialect: Dialect, sql: str, names: tuple[str, ...]) -> None:
    """A repeated name keeps its position where the driver has numbered ones, and is repeated where not."""
    assert compiled("a = :a AND b = :b AND c = :a", dialect) == (sql, names)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (PG, "SELECT ':x', \":x\", $$ :x $$, $q$ :x $$ $q$, E'\\':x', U&':x', N':x', '' ':x'"),
        (PG, "SELECT a::int, '1'::text, a[1:2], a[lo:hi], a[(1):n], a[b[1]:n], f(x := 1) -- :x"),
        (PG, "SELECT 1 /* :x /* :x */ :x */"),
        (PG, "SELECT E'a'\n 'b\\':x', data ? 'k', a ?| b, a @? b, b ?& c"),
        (MY, "SELECT ':x', \":x\", `:x`, 'a\\':x', 'a'':x', @a := 1 -- :x\n # :x"),
        (MY, "SELECT 1 /* :x */, 'it\\\\', ':x'"),
        (LITE, "SELECT ':x', \":x\", `:x`, [:x], x'00' -- :x\n /* :x */"),
    ],
)
def test_what_is_no_parameter_is_left_alone(dialect: Dialect, text: str) -> None:
    """Casts, slices, assignments and colons in literals, quoted names and comments stay as written."""
    assert compiled(text, dialect) == (text, ())


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("SELECT :x::int, (:x), -:x,:x", "SELECT $1::int, ($1), -$1,$1"),
        ("SELECT a[:x], '\\', :x", "SELECT a[$1], '\\', $1"),
        ("SELECT 'it''s', :x", "SELECT 'it''s', $1"),
        ("SELECT $a$b$a$, :x", "SELECT $a$b$a$, $1"),
        ("SELECT a$b$c, :x, d$b$e", "SELECT a$b$c, $1, d$b$e"),
        ("SELECT /* /* */ ' */ :x", "SELECT /* /* */ ' */ $1"),
        ("SELECT 1--'\n,:x", "SELECT 1--'\n,$1"),
        ("SELECT :größe", "SELECT $1"),
        ("SELECT *:x", "SELECT *$1"),
    ],
)
def test_parameters_are_found_next_to_anything(text: str, sql: str) -> None:
    """What ends before a parameter does not swallow it."""
    result, names = compiled(text, PG)
    assert (result, len(names)) == (sql, 1)


def test_percent_signs_are_doubled_only_where_the_driver_formats() -> None:
    """aiomysql formats the text with % if there are arguments; with none it sends it as it is."""
    text = "SELECT '50%', a % 3 FROM t WHERE b LIKE '%s'"
    assert compiled(text, MY) == (text, ())
    sql, names = compiled(text + " AND c = :c", MY)
    assert sql % ("'v'",) == text + " AND c = 'v'"
    assert names == ("c",)
    assert compiled("SELECT a % :b", PG) == ("SELECT a % $1", ("b",))


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (PG, "SELECT $1"),
        (LITE, "SELECT ?"),
        (LITE, "SELECT ?2"),
        (LITE, "SELECT @a"),
        (LITE, "SELECT $a"),
        (MY, "SELECT ?"),
        *[(dialect, "SELECT * FROM t WHERE id =%s") for dialect in Dialect],
        *[(dialect, "SELECT %(id)s") for dialect in Dialect],
    ],
)
def test_placeholders_of_drivers_are_refused_with_the_way_to_write_them(dialect: Dialect, text: str) -> None:
    """A driver's own placeholder would never get a value; the error says :name."""
    with pytest.raises(StatementError, match=":name"):
        lex(text, dialect)


@pytest.mark.parametrize(
    ("dialect", "text", "position"),
    [
        (PG, "SELECT 's3cret", 8),
        (PG, 'SELECT "s3cret', 8),
        (PG, "SELECT $a$s3cret$b$", 8),
        (PG, "SELECT /* s3cret /* */", 8),
        (PG, "SELECT E's3cret\\'", 8),
        (MY, "SELECT 's3cret\\'", 8),
        (MY, 'SELECT "s3cret', 8),
        (MY, "SELECT `s3cret", 8),
        (MY, "SELECT /*! s3cret", 8),
        (MY, "SELECT /* s3cret", 8),
        (LITE, "SELECT [s3cret", 8),
        (LITE, "SELECT 's3cret''", 8),
        (LITE, "SELECT /* s3cret", 8),
    ],
)
def test_what_is_not_closed_is_refused_with_its_place_only(
    dialect: Dialect, text: str, position: int
) -> None:
    """The error says where the literal or comment begins and shows nothing of it."""
    with pytest.raises(StatementError, match=f"character {position} ") as caught:
        lex(text, dialect)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["SELECT '\0'", "SELECT '\ud800'"])
def test_text_that_no_server_takes_is_refused(text: str) -> None:
    """NUL and half a surrogate pair are found before a driver fails on them."""
    for dialect in Dialect:
        with pytest.raises(StatementError, match="character 9"):
            lex(text, dialect)


def test_tokens_never_hold_what_a_literal_says() -> None:
    """Values in a text are replaced at once, so that no traceback can show them."""
    for dialect in Dialect:
        tokens = lex("SELECT 's3cret', 424242, x'5ec4' FROM t", dialect)
        assert [token.value for token in tokens if token.kind == LITERAL] == ["?", "?", "?"]
        assert "s3cret" not in repr(tokens)


@pytest.mark.parametrize(
    ("dialect", "text", "expected"),
    [
        (PG, 'Foo "Foo" "a""b"', [(WORD, "foo"), (QUOTED, "Foo"), (QUOTED, 'a"b')]),
        (PG, 'U&"a"', [(ODD, "?")]),
        (PG, "1.5e3 .5 0xFF 1_000", [(LITERAL, "?"), (LITERAL, "?"), (LITERAL, "?"), (LITERAL, "?")]),
        (MY, "`a``b` 2fa @x @@global.y", [(QUOTED, "a`b"), (WORD, "2fa"), (VARIABLE, "@"), (VARIABLE, "@@")]),
        (MY, "/*! x */ /*M!100 y */", [(EXECUTABLE, "?"), (EXECUTABLE, "?")]),
        (MY, "5--1", [(LITERAL, "?"), ("operator", "-"), ("operator", "-"), (LITERAL, "?")]),
        (LITE, "[a b] `c`", [(QUOTED, "a b"), (QUOTED, "c")]),
        (PG, "a=-1", [(WORD, "a"), ("operator", "="), ("operator", "-"), (LITERAL, "?")]),
        (PG, "a@-1", [(WORD, "a"), ("operator", "@-"), (LITERAL, "?")]),
        (PG, "a*--b\n-1", [(WORD, "a"), ("operator", "*"), ("operator", "-"), (LITERAL, "?")]),
        (PG, ":a", [(PARAMETER, "a")]),
    ],
)
def test_tokens_are_those_of_the_server(dialect: Dialect, text: str, expected: list[tuple[str, str]]) -> None:
    """Each dialect's names, numbers, variables and operators are cut as its server cuts them."""
    assert kinds(text, dialect) == expected


def test_only_ascii_letters_are_folded() -> None:
    """A name with the Kelvin sign is another name than one with a K, and must not pass for it."""
    assert fold("RAN\u212a") == "ran\u212a"
    assert kinds("RAN\u212a", PG) == [(WORD, "ran\u212a")]


def test_odd_spaces_are_letters_as_for_the_servers() -> None:
    """A no-break space does not separate words in any of the servers."""
    for dialect in Dialect:
        assert kinds("into\u00a0x", dialect) == [(WORD, "into\u00a0x")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT  *\nFROM T -- x\n WHERE Id=1", "select * from t where id = ?"),
        ("select * from t where id = :id", "select * from t where id = ?"),
        ("SELECT /* s3cret */ 's3cret', E'x', $$s3cret$$", "select ?, ?, ?"),
        ("SELECT a FROM t WHERE a IN (1,2, -3,:x)", "select a from t where a in (...)"),
        ("SELECT a FROM t WHERE a IN (1)", "select a from t where a in (...)"),
        ("INSERT INTO t VALUES (1,'a'),(2,NULL)", "insert into t values (?, ?), (?, null)"),
        ("INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c')", "insert into t values (?, ?), ..."),
        ('SELECT "Quoted", COUNT (*) , a . b::int', 'select "Quoted", count(*), a.b::int'),
        ('SELECT "a"" in (?, ?)"', 'select "a"" in (...)"'),
    ],
)
def test_normalized_text_has_the_shape_and_no_value(text: str, expected: str) -> None:
    """Statements that differ in values, comments, spaces or the length of lists get one text."""
    assert normalized(text) == expected


FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            *[
                "SELECT",
                "FROM t",
                "'a'",
                "''",
                "'",
                '"',
                '"x"',
                "`",
                "`y`",
                "[",
                "]",
                "[z]",
                "$$",
                "$q$",
                "$1",
                "?",
            ],
            *[
                "--",
                "-- c\n",
                "/*",
                "*/",
                "/* c */",
                "/*!",
                "/*M!",
                "#",
                "\n",
                " ",
                "\t",
                "::",
                ":",
                ":=",
                ":a",
                ":b",
            ],
            *[
                "E'",
                "\\",
                "\\'",
                "U&",
                "%",
                "%s",
                "@a",
                "@@b",
                "(",
                ")",
                ",",
                ";",
                ".",
                "1",
                ".5",
                "1e9",
                "->>",
                "@>",
            ],
            *["in (1, 2)", "é", "\u00a0", "nextval", "{", "}", "~", "\0"],
        ]
    ),
    st.text(alphabet=string.printable, max_size=6),
)


@given(parts=st.lists(FRAGMENTS, max_size=14), dialect=st.sampled_from(list(Dialect)))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused(parts: list[str], dialect: Dialect) -> None:
    """No text makes the lexer fail in a way of its own; tokens cover the text in order."""
    text = "".join(parts)
    try:
        tokens = lex(text, dialect)
    except StatementError:
        return
    end = 0
    for token in tokens:
        assert end <= token.start < token.end <= len(text)
        end = token.end
    sql, names = compile_parameters(text, tokens, dialect)
    assert len(names) <= sum(token.kind == PARAMETER for token in tokens)
    assert names or sql == text
    normalize(tokens, FUNCTIONS[dialect].words)


INSIDE = st.text(alphabet=string.ascii_letters + " :%?$;-#\n()", max_size=12)


@given(inside=INSIDE, dialect=st.sampled_from(list(Dialect)), before=INSIDE.filter(str.isalpha))
@settings(max_examples=300, deadline=None)
def test_what_is_quoted_reaches_the_server_unchanged(inside: str, dialect: Dialect, before: str) -> None:
    """Strings, quoted names and comments come out as they went in, whatever looks like a parameter there."""
    quoted = [f"'{inside}'", f'"{inside}"', f"/*{inside}*/"]
    if dialect is PG:
        quoted += [f"$q${inside}$q$", f"E'{inside}'"]
    if dialect is not PG:
        quoted += [f"`{inside}`"]
    for piece in quoted:
        text = f"SELECT {before} {piece} , :real"
        sql, names = compiled(text, dialect)
        if dialect is MY:
            sql = sql % (":real",)
        assert names == ("real",)
        assert piece in sql


@given(value=st.text(alphabet=string.printable, max_size=12))
@settings(max_examples=100, deadline=None)
def test_sqlite_agrees_where_a_string_ends(value: str) -> None:
    """The real parser and ours find the same parameter after any string."""
    literal = "'" + value.replace("'", "''").replace("\0", "") + "'"
    sql, names = compiled(f"SELECT {literal}, :p", LITE)
    row = sqlite3.connect(":memory:").execute(sql, ("given",)).fetchone()
    assert row == (value.replace("\0", ""), "given")
    assert names == ("p",)
