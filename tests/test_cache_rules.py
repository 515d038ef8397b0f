"""What the text of a statement alone says about caching its result and about what it changes."""

import pytest

from router.cache.refusal import Refusal
from router.cache.rules import changes, never
from router.statements import Dialect, parse

PG, MY, LITE = Dialect.POSTGRESQL, Dialect.MYSQL, Dialect.SQLITE


@pytest.mark.parametrize(
    ("dialect", "text", "refusal"),
    [
        (PG, "SELECT * FROM t WHERE id = :id ORDER BY n LIMIT 3", None),
        (PG, "SELECT upper(n), count(*) FROM s.t GROUP BY n", None),
        (PG, "SELECT * FROM t WHERE n = 'knowing todays'", None),
        (MY, "SELECT * FROM t, dual", None),
        (LITE, "SELECT * FROM t WHERE a IN (SELECT b FROM u) AND c NOT IN (1)", None),
        (PG, "UPDATE t SET a = 1 RETURNING a", Refusal.NOT_A_READ),
        (PG, "SELECT * FROM t FOR UPDATE", Refusal.NOT_A_READ),
        (PG, "SELECT nextval('s') FROM t", Refusal.NOT_A_READ),
        (MY, "SELECT @@sql_mode FROM t", Refusal.NOT_A_READ),
        (MY, "SELECT found_rows(), last_insert_id() FROM t", Refusal.NOT_A_READ),
        (LITE, "SELECT changes() FROM t", Refusal.NOT_A_READ),
        (PG, "SELECT mine(a) FROM t", Refusal.USER_FUNCTION),
        (PG, "SELECT app.lower(a) FROM t", Refusal.USER_FUNCTION),
        (PG, "SELECT * FROM t ORDER BY a <=> b", Refusal.USER_FUNCTION),
        *((PG, f"SELECT {call} FROM t", Refusal.NOT_REPEATABLE) for call in (
            "now()", "CURRENT_DATE", "localtime", "current_user", "user", "session_user", "random()",
            "age(a)", "current_setting('x')", "gen_random_uuid()", "clock_timestamp()", "version()", "xmin",
            "t.ctid", "pg_relation_size('t')", "pg_table_size('t')", "has_table_privilege('t', 'select')",
            "current_role", "to_regclass('t')", "obj_description(1)", "pg_get_viewdef(1)",
            "row_security_active('t')",
        )),
        *((MY, f"SELECT {call} FROM t", Refusal.NOT_REPEATABLE) for call in (
            "NOW()", "CURRENT_TIMESTAMP", "rand()", "UUID()", "current_user", "user()", "sysdate()",
            "version()", "unix_timestamp()", "curdate()", "utc_date", "session_user()", "random_bytes(3)",
            "current_role()",
        )),
        *((LITE, f"SELECT {call} FROM t", Refusal.NOT_REPEATABLE) for call in (
            "date('now')", "strftime('%s')", "julianday()", "unixepoch()", "random()", "current_date",
            "randomblob(3)", "time(a)", "timediff(a, 'now')", "datetime('now', 'localtime')",
        )),
        (PG, "SELECT * FROM t WHERE at > 'today'", Refusal.TIME_LITERAL),
        (PG, "SELECT * FROM t WHERE at > '10:00 Yesterday'::timestamp", Refusal.TIME_LITERAL),
        (PG, "SELECT * FROM t WHERE at > date $$ now$$", Refusal.TIME_LITERAL),
        (PG, "SELECT * FROM t TABLESAMPLE system (1)", Refusal.SAMPLE),
        (LITE, "SELECT * FROM t WHERE a IN u", Refusal.UNCLEAR_TABLES),
        (LITE, "SELECT * FROM t WHERE a NOT IN main.u", Refusal.UNCLEAR_TABLES),
        (PG, "SELECT 1", Refusal.NO_TABLES),
        (MY, "SELECT 1 FROM dual", Refusal.NO_TABLES),
        (PG, "SELECT * FROM generate_series(1, 3)", Refusal.NO_TABLES),
        (PG, "SELECT * FROM t, pg_class", Refusal.SYSTEM_TABLE),
        (PG, "SELECT * FROM information_schema.tables", Refusal.SYSTEM_TABLE),
        (PG, "SELECT * FROM pg_temp.t", Refusal.TEMPORARY_TABLE),
        (PG, "SELECT * FROM pg_temp_3.t", Refusal.TEMPORARY_TABLE),
        (MY, "SELECT * FROM Information_Schema.tables", Refusal.SYSTEM_TABLE),
        (MY, "SELECT * FROM sys.x, mysql.user", Refusal.SYSTEM_TABLE),
        (LITE, "SELECT * FROM sqlite_master", Refusal.SYSTEM_TABLE),
        (LITE, "SELECT * FROM main.sqlite_schema", Refusal.SYSTEM_TABLE),
        (LITE, "SELECT * FROM pragma_table_list", Refusal.NOT_REPEATABLE),
        (LITE, "SELECT * FROM temp.t", Refusal.TEMPORARY_TABLE),
    ],
)  # fmt: skip
def test_what_must_never_be_cached_is_known_from_its_text(
    dialect: Dialect, text: str, refusal: Refusal | None
) -> None:
    """Only what the same rows of the same tables always answer the same may be cached."""
    assert never(parse(text, dialect)) is refusal


@pytest.mark.parametrize(
    ("dialect", "text", "names"),
    [
        (PG, "SELECT mine FROM t", set()),
        (PG, "SELECT * FROM t FOR UPDATE", set()),
        (PG, "SELECT nextval('s')", set()),
        (PG, "INSERT INTO t (id, a) VALUES (nextval('s'), lower(:a)) RETURNING id", {"t"}),
        (PG, "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d, u", {"t", "u"}),
        (PG, "BEGIN", set()),
        (PG, "SET search_path = x", set()),
        (MY, "SELECT @a := 1", set()),
        (PG, "SELECT mine(1)", None),
        (PG, "INSERT INTO t SELECT mine(a) FROM u", None),
        (PG, "INSERT INTO t (id) VALUES (app.nextval('s'))", None),
        (PG, 'INSERT INTO t (id) VALUES (app."nextval"(1))', None),
        (PG, "INSERT INTO t (id) VALUES (pg_catalog.nextval('s'))", {"t"}),
        (PG, "SELECT * INTO n FROM t", None),
        (PG, "TRUNCATE t", None),
        (PG, "COPY t FROM stdin", None),
        (PG, "CREATE TABLE t (a INT)", None),
        (PG, "DO $$ BEGIN END $$", None),
        (PG, "CALL p()", None),
        (PG, "EXECUTE plan", None),
        (PG, "COMMIT PREPARED 'x'", None),
        (MY, "XA COMMIT 'x'", None),
        (MY, "LOAD DATA INFILE 'x' INTO TABLE t", None),
        (MY, "INSERT INTO t /*! SELECT * FROM u */", None),
        (MY, "INSERT INTO t VALUES (mine(1))", None),
        (MY, "INSERT INTO t VALUES (last_insert_id())", {"t"}),
        (PG, "INSERT INTO t VALUES (1); DELETE FROM u", None),
        (LITE, "REPLACE INTO t VALUES (1)", {"t"}),
        (LITE, "UPDATE OR IGNORE t SET a = 1", None),
        (LITE, "PRAGMA user_version = 3", None),
    ],
)
def test_what_a_statement_may_change_is_known_or_anything(
    dialect: Dialect, text: str, names: set[str] | None
) -> None:
    """A text whose writes cannot be known may have changed any table."""
    assert changes(parse(text, dialect)) == names
