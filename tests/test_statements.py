"""What is known of a statement, the values bound to it, and the cache of statements."""

import time
import traceback
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ParameterError, StatementError
from router.functions import MYSQL, POSTGRESQL, SQLITE
from router.reasons import Reason
from router.statements import Dialect, Dirt, Kind, Statements, parse
from router.verbs import VERBS

PG, MY, LITE = Dialect.POSTGRESQL, Dialect.MYSQL, Dialect.SQLITE


@pytest.mark.parametrize(
    ("dialect", "text", "reason", "kind"),
    [
        (PG, "SELECT 1", Reason.READ, Kind.READ),
        (PG, "INSERT INTO t VALUES (1)", Reason.WRITE, Kind.WRITE),
        (PG, "CREATE TABLE x (a int)", Reason.DDL, Kind.DDL),
        (PG, "SELECT * FROM t FOR UPDATE", Reason.LOCKING, Kind.READ),
        (PG, "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", Reason.WRITING_CTE, Kind.WRITE),
        (PG, "SELECT * INTO x FROM t", Reason.SELECT_INTO, Kind.WRITE),
        (PG, "SELECT nextval('s')", Reason.VOLATILE_FUNCTION, Kind.READ),
        (MY, "SELECT mine(1)", Reason.UNKNOWN_FUNCTION, Kind.READ),
        (PG, "SET work_mem = '8MB'", Reason.SESSION_STATE, Kind.SESSION),
        (PG, "COMMIT", Reason.TRANSACTION_CONTROL, Kind.TRANSACTION),
        (PG, "SELECT 1; SELECT 2", Reason.MULTIPLE_STATEMENTS, Kind.READ),
        (PG, "SELECT 1; DELETE FROM t", Reason.MULTIPLE_STATEMENTS, Kind.OTHER),
        (PG, "EXPLAIN SELECT 1", Reason.NOT_A_QUERY, Kind.OTHER),
        (PG, "SELECT FROM WHERE GROUP", Reason.UNPARSED, Kind.READ),
        (PG, "FROBNICATE t", Reason.UNPARSED, Kind.OTHER),
    ],
)
def test_each_reason_is_given_for_what_it_names(
    dialect: Dialect, text: str, reason: Reason, kind: Kind
) -> None:
    """A statement that is no read says why in one of the bounded words."""
    statement = parse(text, dialect)
    assert (statement.verdict, statement.kind) == (reason, kind)


def test_postgresql_leaves_unknown_functions_to_the_catalog() -> None:
    """The verdict stays READ, and what has to be asked is named."""
    statement = parse('SELECT lower(a), mine(1), app.upper(b), "Lower"(c), d <=> e FROM t', PG)
    assert statement.verdict is Reason.READ
    assert statement.unproven == {"mine", "upper", "Lower", "<=>"}
    assert statement.functions == {"lower", "mine", "upper", "Lower", "<=>"}


def test_functions_only_the_syntax_tree_shows_are_not_lost() -> None:
    """Where the tokens see an alias, the tree's word for a call counts."""
    assert parse("WITH RECURSIVE x(a) AS (SELECT x(1)) SELECT * FROM x", PG).unproven == {"x"}


@pytest.mark.parametrize(
    ("dialect", "text", "tables"),
    [
        (PG, 'SELECT * FROM Users u JOIN app."Orders" o USING (id)', {"users", "app.Orders"}),
        (PG, "WITH t AS (SELECT * FROM t) SELECT * FROM t", {"t"}),
        (PG, "WITH RECURSIVE t AS (SELECT 1 UNION SELECT * FROM t) SELECT * FROM t", set()),
        (PG, "WITH a AS (SELECT * FROM b), b AS (SELECT * FROM c) SELECT * FROM a, b", {"b", "c"}),
        (PG, "WITH a AS (SELECT 1) SELECT * FROM (SELECT * FROM a) x, s.a", {"s.a"}),
        (PG, "SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) x, a", {"a"}),
        (PG, "SELECT * FROM generate_series(1, 2) g", set()),
        (PG, "INSERT INTO a SELECT * FROM b RETURNING *", {"a", "b"}),
        (PG, "UPDATE a SET x = (SELECT y FROM b) FROM c WHERE c.id = a.id", {"a", "b", "c"}),
        (PG, "DELETE FROM a USING b WHERE EXISTS (SELECT 1 FROM c)", {"a", "b", "c"}),
        (PG, "MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE", {"a", "b"}),
        (PG, "WITH d AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM d", {"a", "b"}),
        (PG, "WITH a AS (SELECT 1) UPDATE a SET x = 1", {"a"}),
        (PG, "WITH a AS (SELECT 1), b AS (INSERT INTO a (x) SELECT * FROM a) SELECT * FROM b", {"a"}),
        (LITE, "WITH a AS (SELECT 1) DELETE FROM a", {"a"}),
        (PG, "WITH a AS (SELECT 1) INSERT INTO a (x) SELECT * FROM b", {"a", "b"}),
        (PG, "WITH a AS (SELECT * FROM b), d AS (DELETE FROM a RETURNING *) SELECT * FROM d", {"a", "b"}),
        (LITE, "WITH a AS (SELECT * FROM b) UPDATE a SET x = (SELECT max(y) FROM a)", {"a", "b"}),
        (PG, "TABLE t", {"t"}),
        (MY, "REPLACE INTO `Log` VALUES (1)", {"log"}),
        (MY, "UPDATE a JOIN b USING (id) SET a.x = 1", {"a", "b"}),
        (LITE, "INSERT OR REPLACE INTO [My Table] SELECT * FROM main.u", {"my table", "main.u"}),
        (LITE, "WITH x AS (SELECT 1) REPLACE INTO t SELECT * FROM x", {"t"}),
    ],
)
def test_tables_are_those_the_statement_touches(dialect: Dialect, text: str, tables: set[str]) -> None:
    """Names of common table expressions are left out where they are in force, and only there."""
    assert parse(text, dialect).tables == tables


@pytest.mark.parametrize(
    ("dialect", "text", "dirt"),
    [
        (PG, "SELECT * FROM t WHERE lower(a) = :a", Dirt.NONE),
        (
            PG,
            "INSERT INTO t (a, b) VALUES (:a, now()) ON CONFLICT (a) DO UPDATE SET (a, b) = (1, 2)",
            Dirt.NONE,
        ),
        (PG, "INSERT INTO t VALUES (nextval('s')) RETURNING id", Dirt.NONE),
        (PG, "SELECT * FROM t FOR UPDATE", Dirt.NONE),
        (PG, "SELECT pg_advisory_xact_lock(1)", Dirt.NONE),
        (PG, "SHOW search_path", Dirt.NONE),
        (PG, "SELECT pg_advisory_lock(1)", Dirt.RESET),
        (PG, "SELECT set_config('app.tenant', :t, true)", Dirt.RESET),
        (PG, "SELECT mine()", Dirt.RESET),
        (PG, "UPDATE t SET a = mine()", Dirt.RESET),
        (PG, "SET search_path = x", Dirt.RESET),
        (PG, "CREATE TEMP TABLE x (a int)", Dirt.RESET),
        (PG, "SELECT 1 INTO TEMP x", Dirt.RESET),
        (PG, "LISTEN c", Dirt.RESET),
        (PG, "DO $$ BEGIN END $$", Dirt.RESET),
        (PG, "FROBNICATE", Dirt.RESET),
        (PG, "SELECT 1; SELECT 2", Dirt.RESET),
        (PG, "SELECT 1; SET ROLE x", Dirt.DISCARD),
        (PG, "SET ROLE x", Dirt.DISCARD),
        (PG, 'SET LOCAL "role" = x', Dirt.DISCARD),
        (PG, "SET SESSION AUTHORIZATION x", Dirt.DISCARD),
        (PG, "RESET session_authorization", Dirt.DISCARD),
        (PG, "SELECT set_config('role', 'x', false)", Dirt.DISCARD),
        (PG, "SELECT set_config(:name, 'x', false)", Dirt.DISCARD),
        (PG, "SELECT \"set_config\"(E'ro\\x6ce', 'x', false)", Dirt.DISCARD),
        (PG, "UPDATE pg_settings SET setting = 'x' WHERE name = 'role'", Dirt.DISCARD),
        (PG, "PREPARE p AS SELECT 1", Dirt.DISCARD),
        (PG, "BEGIN", Dirt.DISCARD),
        (PG, "SELECT dblink_connect('x', 'y')", Dirt.DISCARD),
        (MY, "INSERT INTO t (a) VALUES (1)", Dirt.NONE),
        (MY, "SELECT LAST_INSERT_ID()", Dirt.RESET),
        (MY, "SELECT GET_LOCK('x', 1)", Dirt.RESET),
        (MY, "SELECT @a := 1", Dirt.RESET),
        (MY, "INSERT INTO t VALUES (@a := 1)", Dirt.RESET),
        (MY, "SELECT @@version", Dirt.NONE),
        (MY, "USE x", Dirt.DISCARD),
        (MY, "LOCK TABLES t READ", Dirt.DISCARD),
        (MY, "XA START 'x'", Dirt.DISCARD),
        (MY, "SELECT 1 /*! , @a := 1 */", Dirt.DISCARD),
        (LITE, "INSERT INTO t (a) VALUES (1)", Dirt.NONE),
        (LITE, "CREATE TABLE t (a)", Dirt.NONE),
        (LITE, "CREATE TEMP TABLE t (a)", Dirt.DISCARD),
        (LITE, "PRAGMA foreign_keys = 0", Dirt.DISCARD),
        (LITE, "ATTACH 'x' AS x", Dirt.DISCARD),
    ],
)
def test_dirt_is_none_only_for_what_is_proven_clean(dialect: Dialect, text: str, dirt: Dirt) -> None:
    """A connection goes back unreset only after what cannot have changed its session."""
    assert parse(text, dialect).dirt is dirt


@pytest.mark.parametrize(
    ("dialect", "text", "rows"),
    [
        (PG, "SELECT 1", True),
        (PG, "VALUES (1)", True),
        (PG, "TABLE t", True),
        (PG, "SHOW all", True),
        (PG, "EXPLAIN SELECT 1", True),
        (PG, "INSERT INTO t VALUES (1) RETURNING id", True),
        (PG, "WITH x AS (DELETE FROM t RETURNING id) INSERT INTO u SELECT * FROM x", False),
        (PG, "WITH x AS (DELETE FROM t RETURNING id) SELECT * FROM x", True),
        (PG, "UPDATE t SET a = 1", False),
        (PG, "SELECT 1 INTO x", False),
        (PG, "CREATE TABLE x (a int)", False),
        (LITE, "PRAGMA user_version", True),
        (LITE, "DELETE FROM t RETURNING a", True),
        (MY, "CALL p()", True),
        (MY, "CHECK TABLE t", True),
        (MY, "INSERT INTO t VALUES (JSON_VALUE('{}', '$' RETURNING CHAR))", False),
    ],
)
def test_returns_rows_tells_fetch_from_execute(dialect: Dialect, text: str, rows: bool) -> None:
    """RETURNING counts only for the statement itself, not inside it."""
    assert parse(text, dialect).returns_rows is rows


def test_values_are_bound_by_name_in_the_order_of_the_driver() -> None:
    """Each position gets the value of its name, repeated ones as often as the driver needs."""
    text = "SELECT * FROM t WHERE a = :a AND b = :b OR c = :a"
    assert parse(text, PG).bind({"b": 2, "a": 1}) == (1, 2)
    assert parse(text, MY).bind({"b": 2, "a": 1}) == (1, 2, 1)
    assert parse("SELECT 1", PG).bind(None) == ()
    assert parse("SELECT 1", PG).bind({}) == ()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (None, "takes 2 parameters, 0 given: missing a, user_id"),
        ({"a": 1}, "takes 2 parameters, 1 given: missing user_id"),
        ({"a": 1, "userid": 2}, "missing user_id; unexpected userid. is userid meant as user_id?"),
        ({"a": 1, "user_id": 2, "z": 3}, "unexpected z"),
        ([1, 2], "not a mapping"),
        ("ab", "not a mapping"),
        (7, "not a mapping"),
    ],
)
def test_parameters_that_do_not_fit_are_named(params: Mapping[str, object] | None, message: str) -> None:
    """Missing and unexpected names are listed, near misses suggested."""
    with pytest.raises(ParameterError) as caught:
        parse("SELECT * FROM t WHERE a = :a AND b = :user_id", PG).bind(params)
    assert message in str(caught.value)


def test_no_value_is_in_the_error_or_in_our_frames() -> None:
    """Neither the message nor the locals of the traceback below the caller hold a bound value."""
    try:
        parse("SELECT :a, :b", PG).bind({"a": "s3cret", "c": "s3cret"})
    except ParameterError as error:
        below = traceback.TracebackException.from_exception(error, capture_locals=True)
        frames = [frame for frame in below.stack if "test_statements" not in frame.filename]
        assert frames
        assert "s3cret" not in "".join(str(frame.locals) for frame in frames)
        assert "s3cret" not in str(below)
    else:
        pytest.fail("no error")


def test_the_repr_shows_no_literal() -> None:
    """What is printed for the person on call is the normalised text."""
    statement = parse("SELECT 's3cret' FROM t", PG)
    assert "s3cret" not in repr(statement)
    assert "select ? from t" in repr(statement)


def test_the_fingerprint_is_stable_and_ignores_values() -> None:
    """One fingerprint for one shape, in every process, of 16 hexadecimal digits."""
    one, two = parse("SELECT * FROM t WHERE id = 1", PG), parse("select *  from T where id = :id ;", PG)
    assert one.fingerprint == two.fingerprint == "2074cf2f5ec6514f"
    assert parse("SELECT * FROM u WHERE id = 1", PG).fingerprint != one.fingerprint


@pytest.mark.parametrize("text", ["", "  \n", "-- only a comment", "/* x */", ";", " ; ; "])
def test_nothing_to_run_is_refused(text: str) -> None:
    """An empty text is a mistake of the caller, told before a connection is taken."""
    for dialect in Dialect:
        with pytest.raises(StatementError, match="empty"):
            parse(text, dialect)


def test_a_huge_text_runs_but_is_no_proven_read() -> None:
    """Over a MiB no syntax tree is built; parameters still work."""
    statement = parse("SELECT :a, '" + "x" * (1 << 20) + "'", PG)
    assert statement.verdict is Reason.UNPARSED
    assert statement.bind({"a": 1}) == (1,)
    assert len(statement.normalized) < 100


@pytest.mark.timed
def test_many_literals_do_not_hold_up_the_loop() -> None:
    """A list of 20,000 numbers is a read, and understood in far less than a second."""
    text = f"SELECT * FROM t WHERE id IN ({','.join(map(str, range(20_000)))})"
    begin = time.perf_counter()
    statement = parse(text, PG)
    assert time.perf_counter() - begin < 1.0
    assert statement.verdict is Reason.READ
    assert statement.normalized == "select * from t where id in (...)"


def test_deep_nesting_ends_at_the_primary() -> None:
    """Where the parser gives up there is a verdict, not an exception."""
    for dialect in Dialect:
        for text in (f"SELECT {'(' * 3000}1{')' * 3000}", "SELECT " + "NOT " * 5000 + "true"):
            assert parse(text, dialect).verdict is Reason.UNPARSED


def test_whether_an_answer_can_be_repeated_is_known() -> None:
    """A cache must not keep what the clock or chance decides."""
    assert parse("SELECT lower(a) FROM t", PG).repeatable()
    for text in ("SELECT now()", "SELECT current_timestamp", "SELECT random()"):
        assert not parse(text, PG).repeatable()
    assert not parse("SELECT UUID()", MY).repeatable()
    assert not parse("SELECT date('now')", LITE).repeatable()


def test_a_text_is_parsed_once() -> None:
    """The second request for a text gets the same object."""
    statements = Statements(PG)
    assert statements.of("SELECT 1") is statements.of("SELECT 1")
    assert len(statements) == 1


def test_the_cache_keeps_what_is_used_and_never_more_than_its_bound() -> None:
    """Texts in use survive a flood of others, and the flood does not grow the cache."""
    statements = Statements(LITE, bound=20)
    kept = statements.of("SELECT * FROM hot")
    for number in range(200):
        statements.of(f"SELECT {number} FROM cold")
        assert statements.of("SELECT * FROM hot") is kept
        assert len(statements) <= 20


def test_huge_texts_do_not_fill_the_memory() -> None:
    """The cache counts characters too."""
    statements = Statements(LITE, bound=4096)
    for number in range(20):
        statements.of(f"SELECT {number}, '{'x' * 1_000_000}'")
    assert len(statements) <= 10


@pytest.mark.timed
def test_a_hit_costs_one_look_up() -> None:
    """The hot path stays far below the cost of a request (0.2 microseconds on a quiet machine)."""
    statements = Statements(PG)
    text = "SELECT * FROM users WHERE id = :id"
    statements.of(text)
    best = 1.0
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(10_000):
            statements.of(text)
        best = min(best, (time.perf_counter() - begin) / 10_000)
    assert best < 1e-6


def test_what_is_known_of_functions_does_not_contradict_itself() -> None:
    """No function is both harmless and not, and every exception is one of something."""
    for functions in (POSTGRESQL, MYSQL, SQLITE):
        assert not functions.safe & functions.effects
        assert functions.not_repeatable <= functions.safe
        assert functions.bare <= functions.safe
        assert all(functions.has_effects(name) for name in functions.passing)
        assert not functions.effects & functions.words


def test_no_verb_that_changes_is_taken_for_a_read() -> None:
    """Every verb known says why it is no read."""
    for verbs in VERBS.values():
        assert all(verb.reason is not Reason.READ for verb in verbs.values())


_WORDS = """
    select from where insert into update delete with as ( ) ( ) , ; t a b 1 'x' :p for lock in
    share mode values returning * = :: table nextval lower coalesce @v := "q" `q` order by
    limit union all join on recursive
"""
WORDS = st.sampled_from(_WORDS.split())


@given(words=st.lists(WORDS, max_size=12), dialect=st.sampled_from(list(Dialect)))
@settings(max_examples=300, deadline=None)
def test_any_text_gets_a_verdict_or_a_statement_error(words: list[str], dialect: Dialect) -> None:
    """No text makes classification fail, and none that writes at its top is called a read."""
    text = "select " + " ".join(words)
    try:
        statement = parse(text, dialect)
    except StatementError:
        return
    if statement.verdict is Reason.READ:
        assert "into" not in words or words[max(words.index("into") - 1, 0)] in ("as", ".")
        assert ";" not in words[:-1] or set(words[words.index(";") :]) == {";"}
