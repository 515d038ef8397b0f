"""What the catalogs say of tables: a write names all that it changes, a read all that it depends on."""

import contextlib
import sqlite3
from collections.abc import Mapping
from typing import Any

import pymysql
import pytest

from router import Router
from router.cache.catalogs import QUERIES
from router.cache.refusal import Refusal
from router.cache.relations import Relations
from router.cache.shapes import relations_of
from router.statements import Dialect
from tests.engines import POSTGRESQL, Engine, Sqlite, only

MARIADB, SQLITE = only("mariadb"), only("sqlite")


async def ask(
    router: Router,
    engine: Engine,
    declared: Mapping[str, tuple[str, ...]] | None = None,
    tenant: str = "acme",
) -> Relations:
    """Return what the catalog of a tenant says."""
    dialect = Dialect(engine.dialect)
    rows = await router.fetch_all(QUERIES[dialect], tenant=tenant, primary=True)
    return relations_of(rows, dialect, declared or {})


async def run(router: Router, *texts: str, tenant: str = "acme") -> None:
    for text in texts:
        await router.execute(text, tenant=tenant)


def own(relations: Relations, *names: str) -> frozenset[str]:
    return frozenset(f"{relations.schema}.{name}" for name in names)


def one(name: str) -> frozenset[str]:
    return frozenset((name,))


async def test_a_table_is_itself_and_a_view_its_tables(router: Router, engine: Engine) -> None:
    """A read of views of views depends on every table below; a write through one changes them."""
    a, b, c = engine.name(), engine.name(), engine.name()
    await run(
        router,
        f"CREATE TABLE {a} (id INT PRIMARY KEY, n INT)",
        f"CREATE TABLE {b} (id INT PRIMARY KEY, n INT)",
        f"CREATE TABLE {c} (id INT PRIMARY KEY, n INT)",
        f"CREATE VIEW {a}_v AS SELECT x.id, y.n FROM {a} x JOIN {b} y ON x.id = y.id WHERE x.n > 1",
        f"CREATE VIEW {a}_w AS SELECT v.id FROM {a}_v v WHERE v.n IN (SELECT n FROM {c})",
    )
    relations = await ask(router, engine)
    assert relations.read(one(a)) == own(relations, a) == relations.written(one(a))
    assert relations.read(one(f"{a}_w")) == own(relations, a, b, c)
    assert relations.written(one(f"{a}_v")) == own(relations, a, b)
    assert relations.read(one(f"{relations.schema}.{a}")) == own(relations, a)
    assert relations.read(one("never_made")) is Refusal.UNKNOWN_TABLE
    assert relations.read(frozenset((a, "never_made"))) is Refusal.UNKNOWN_TABLE
    assert relations.written(frozenset((a, "never_made"))) is None
    assert relations.written(frozenset()) is None
    assert relations.read(one(f"nowhere.{a}")) is Refusal.UNKNOWN_TABLE
    assert relations.schemas(frozenset((a, "other.t"))) == {relations.schema, "other"}


async def test_cascades_are_followed_to_the_end(router: Router, engine: Engine) -> None:
    """A foreign key that acts takes a write on; one that only forbids does not."""
    a, b, c, d = (engine.name() for _ in range(4))
    await run(
        router,
        f"CREATE TABLE {a} (id INT PRIMARY KEY)",
        f"CREATE TABLE {b} (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES {a} (id) ON DELETE CASCADE)",
        f"CREATE TABLE {c} (id INT PRIMARY KEY, b INT, "
        f"FOREIGN KEY (b) REFERENCES {b} (id) ON UPDATE CASCADE ON DELETE SET NULL)",
        f"CREATE TABLE {d} (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES {c} (id))",
    )
    relations = await ask(router, engine)
    assert relations.written(one(a)) == own(relations, a, b, c)
    assert relations.written(one(c)) == own(relations, c)
    assert relations.read(one(b)) == own(relations, b)


async def test_a_trigger_may_change_anything_unless_it_is_declared(router: Router, engine: Engine) -> None:
    """What is declared replaces the doubt; so does nothing, declared."""
    a, b = engine.name(), engine.name()
    await run(router, f"CREATE TABLE {a} (id INT PRIMARY KEY)", f"CREATE TABLE {b} (id INT PRIMARY KEY)")
    body = f"INSERT INTO {b} VALUES (NEW.id)"
    if engine.dialect == "postgresql":
        await run(
            router,
            f"CREATE FUNCTION f_{a}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body}; RETURN NEW; END$$",
            f"CREATE TRIGGER t_{a} AFTER INSERT ON {a} FOR EACH ROW EXECUTE FUNCTION f_{a}()",
        )
    elif engine.dialect == "mysql":  # with a binary log only the administrator may
        text = f"CREATE TRIGGER t_{a} AFTER INSERT ON {a} FOR EACH ROW {body}"
        engine.server.run(text, (await ask(router, engine)).schema)
    else:
        await run(router, f"CREATE TRIGGER t_{a} AFTER INSERT ON {a} FOR EACH ROW BEGIN {body}; END")
    relations = await ask(router, engine)
    assert relations.written(one(a)) is None
    assert relations.read(one(a)) == own(relations, a)
    declared = await ask(router, engine, {a: (b,)})
    assert declared.written(one(a)) == own(declared, a, b)
    assert (await ask(router, engine, {a: ()})).written(one(a)) == own(declared, a)


async def test_a_view_that_asks_the_clock_is_not_cached(router: Router, engine: Engine) -> None:
    """Nor is a view of such a view."""
    a = engine.name()
    await run(
        router,
        f"CREATE TABLE {a} (id INT PRIMARY KEY)",
        f"CREATE VIEW {a}_v AS SELECT id, CURRENT_TIMESTAMP AS at FROM {a}",
        f"CREATE VIEW {a}_w AS SELECT id FROM {a}_v",
    )
    relations = await ask(router, engine)
    assert relations.read(one(f"{a}_w")) is Refusal.NOT_REPEATABLE or engine.dialect == "postgresql"
    assert isinstance(relations.read(one(f"{a}_w")), Refusal)
    assert relations.written(one(f"{a}_w")) == own(relations, a)


@POSTGRESQL
async def test_postgresql_kinds_that_are_not_cached(router: Router, engine: Engine) -> None:
    """Row security, foreign tables, sequences, catalogs, temporary tables, and views of any of them."""
    a, b, s, m = (engine.name() for _ in range(4))
    text = "CREATE VIEW {0}_{1} AS SELECT {2} FROM {3}"
    views = {
        "sec": ("*", b), "sys": ("relname", "pg_class"), "act": ("pid", "pg_stat_activity"),
        "who": ("id, current_user", a), "uid": ("id, gen_random_uuid()", a),
        "set": ("current_setting('TimeZone')", a), "fun": (f"f_{a}(id)", a),
        "smp": ("id", f"{a} TABLESAMPLE SYSTEM (50)"), "one": ("1 AS id", "(VALUES (1)) v"),
        "exp": ("upper(id::text) || to_char(id, '9') AS x, sum(max(id)) OVER () AS y", f"{a} GROUP BY id"),
    }  # fmt: skip
    await run(
        router,
        f"CREATE TABLE {a} (id INT PRIMARY KEY)",
        f"CREATE TABLE {b} (id INT PRIMARY KEY)",
        f"ALTER TABLE {b} ENABLE ROW LEVEL SECURITY",
        f"CREATE SEQUENCE {s}",
        f"CREATE FUNCTION f_{a}(i INT) RETURNS INT STABLE LANGUAGE sql AS 'SELECT i'",
        f"CREATE MATERIALIZED VIEW {m} AS SELECT id, now() FROM {a}",
        *(text.format(a, name, *parts) for name, parts in views.items()),
    )
    relations = await ask(router, engine)
    found = {name: relations.read(one(f"{a}_{name}")) for name in views}
    assert found == {
        "sec": Refusal.ROW_SECURITY,
        "sys": Refusal.UNKNOWN_TABLE,
        "act": Refusal.SYSTEM_TABLE,
        "who": Refusal.NOT_REPEATABLE,
        "uid": Refusal.NOT_REPEATABLE,
        "set": Refusal.NOT_REPEATABLE,
        "fun": Refusal.USER_FUNCTION,
        "smp": Refusal.NOT_REPEATABLE,
        "one": Refusal.NO_TABLES,
        "exp": own(relations, a),
    }
    assert relations.read(one(b)) is Refusal.ROW_SECURITY
    assert relations.read(one(s)) is Refusal.SEQUENCE
    assert relations.read(one(m)) == own(relations, m)
    assert relations.written(one(a)) == own(relations, a)
    assert relations.read(one("pg_class")) is Refusal.SYSTEM_TABLE
    assert relations.read(one("pg_temp.x")) is Refusal.TEMPORARY_TABLE


@POSTGRESQL
async def test_a_foreign_table_is_neither_cached_nor_its_writes_known(router: Router, engine: Engine) -> None:
    """Its rows are elsewhere, perhaps in this database under another name."""
    a = engine.name()
    schema = (await ask(router, engine)).schema
    await run(router, f"CREATE TABLE {a} (id INT)")
    engine.server.run(
        f"CREATE FOREIGN DATA WRAPPER w_{a}; CREATE SERVER s_{a} FOREIGN DATA WRAPPER w_{a};"
        f"CREATE FOREIGN TABLE {schema}.{a}_f (id INT) SERVER s_{a};"
        f"CREATE FOREIGN TABLE {schema}.{a}_g () INHERITS ({schema}.{a}) SERVER s_{a}",
        engine.database("acme"),
    )
    relations = await ask(router, engine)
    assert relations.read(one(f"{a}_f")) is Refusal.FOREIGN_TABLE
    assert relations.read(one(a)) is Refusal.FOREIGN_TABLE
    assert relations.written(one(a)) is None


@POSTGRESQL
async def test_rules_and_defaults_may_change_anything(router: Router, engine: Engine) -> None:
    """A rule, and a default that calls a function of the users'; not a trigger that is switched off."""
    a, b, c = (engine.name() for _ in range(3))
    await run(
        router,
        f"CREATE TABLE {a} (id INT)",
        f"CREATE FUNCTION f_{a}() RETURNS INT LANGUAGE sql AS 'INSERT INTO {a} VALUES (1) RETURNING 1'",
        f"CREATE FUNCTION t_{a}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
        f"CREATE TABLE {b} (id INT DEFAULT f_{a}())",
        f"CREATE TABLE {c} (id INT PRIMARY KEY)",
        f"CREATE TRIGGER t BEFORE INSERT ON {c} FOR EACH ROW EXECUTE FUNCTION t_{a}()",
        f"ALTER TABLE {c} DISABLE TRIGGER t",
    )
    relations = await ask(router, engine)
    assert relations.written(one(b)) is None
    assert relations.written(one(c)) == own(relations, c)
    await run(router, f"CREATE RULE r AS ON INSERT TO {c} DO ALSO DELETE FROM {a}")
    assert (await ask(router, engine)).written(one(c)) is None


@POSTGRESQL
async def test_a_table_with_a_computed_column_is_not_cached(router: Router, engine: Engine) -> None:
    """A function of its rows, called as t.f, may read other tables; one that is immutable does not."""
    a, b = engine.name(), engine.name()
    await run(
        router,
        f"CREATE TABLE {a} (id INT)",
        f"CREATE TABLE {b} (id INT)",
        f"CREATE FUNCTION f(x {a}) RETURNS BIGINT STABLE LANGUAGE sql AS 'SELECT count(*) FROM {b}'",
        f"CREATE FUNCTION f(x {b}) RETURNS INT IMMUTABLE LANGUAGE sql AS 'SELECT x.id'",
    )
    relations = await ask(router, engine)
    assert (await router.fetch_one(f"SELECT count(x.f) FROM {a} x", tenant="acme", primary=True)) is not None
    assert relations.read(one(a)) is Refusal.USER_FUNCTION
    assert relations.written(one(a)) == own(relations, a)
    assert relations.read(one(b)) == own(relations, b)


@POSTGRESQL
async def test_triggers_of_a_partitioned_table_count_for_its_partitions(
    router: Router, engine: Engine
) -> None:
    """PostgreSQL copies them, and before version 15 called the copies internal."""
    a = engine.name()
    await run(
        router,
        f"CREATE FUNCTION t_{a}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
        f"CREATE TABLE {a} (id INT PRIMARY KEY) PARTITION BY HASH (id)",
        f"CREATE TRIGGER t AFTER INSERT ON {a} FOR EACH ROW EXECUTE FUNCTION t_{a}()",
        f"CREATE TABLE {a}_x PARTITION OF {a} FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    )
    relations = await ask(router, engine)
    assert relations.written(one(f"{a}_x")) is None
    assert relations.read(one(a)) == own(relations, a, f"{a}_x")


@only("postgresql-schema")
async def test_what_leads_to_another_schema_has_the_same_id_there(router: Router, engine: Engine) -> None:
    """A view of another schema's table depends on the id that this schema's own writers change."""
    a = engine.name()
    await run(router, f"CREATE TABLE {a} (id INT PRIMARY KEY)", tenant="globex")
    await run(
        router,
        f"CREATE VIEW {a}_v AS SELECT id FROM globex.{a}",
        f"CREATE TABLE {a} (id INT REFERENCES globex.{a} ON DELETE CASCADE)",
        f'CREATE TABLE "globex.{a}_dot" (id INT)',
    )
    here, there = await ask(router, engine), await ask(router, engine, tenant="globex")
    assert here.read(one(f"{a}_v")) == {f"globex.{a}"} == there.read(one(a))
    assert there.written(one(a)) == {f"globex.{a}", f"acme.{a}"}
    assert here.read(one(f"globex.{a}_dot")) is Refusal.UNKNOWN_TABLE
    assert here.written(one(f"globex.{a}_dot")) is None


@MARIADB
async def test_mariadb_kinds_that_are_not_cached(router: Router, engine: Engine) -> None:
    """Sequences, tables of other engines, views of other databases, and what other databases cascade into."""
    a, b, c, s = (engine.name() for _ in range(4))
    relations = await ask(router, engine)
    other = (await ask(router, engine, tenant="globex")).schema
    await run(router, f"CREATE TABLE {a} (id INT PRIMARY KEY)", tenant="globex")
    await run(
        router,
        f"CREATE TABLE {a} (id INT PRIMARY KEY, "
        f"FOREIGN KEY (id) REFERENCES {other}.{a} (id) ON DELETE CASCADE)",
        f"CREATE TABLE {b} (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES {a} (id) ON DELETE CASCADE)",
        f"CREATE TABLE {c} (id INT PRIMARY KEY)",
        f"CREATE TABLE {c}_m (id INT) ENGINE = MRG_MyISAM",
        f"CREATE SEQUENCE {s}",
        f"CREATE TABLE {c}_CASE (id INT)",
        f"CREATE TABLE {c}_case (id INT)",
        f"CREATE TABLE {c}_h (id INT) WITH SYSTEM VERSIONING",
        f"CREATE TABLE {c}_now (id INT, n INT AS (id + DAYOFYEAR(NOW())) VIRTUAL)",
        f"CREATE TABLE {c}_gen (id INT, n INT AS (id + 1) VIRTUAL, m INT AS (id * 2) STORED)",
        f"CREATE VIEW {c}_v AS SELECT id FROM {other}.{a}",
        f"CREATE VIEW {c}_w AS SELECT x.id, lower(y.id) AS l, 'a`{relations.schema}`.b' AS t FROM {c} x "
        f"LEFT JOIN {c}_h y ON x.id = y.id WHERE x.id IN (1, 2) GROUP BY x.id HAVING count(*) > 0 "
        "ORDER BY x.id LIMIT 3",
    )
    relations = await ask(router, engine)
    assert relations.read(one(a)) is Refusal.CASCADE_FROM_OUTSIDE is relations.read(one(b))
    assert relations.read(one(f"{c}_m")) is Refusal.FOREIGN_TABLE
    assert relations.read(one(s)) is Refusal.SEQUENCE
    assert relations.read(one(f"{c}_case")) is Refusal.UNKNOWN_TABLE
    assert relations.written(one(f"{c}_case")) is None
    assert relations.read(one(f"{c}_now")) is Refusal.NOT_REPEATABLE
    assert relations.read(one(f"{c}_gen")) == own(relations, f"{c}_gen")
    assert relations.read(one(f"{c}_v")) is Refusal.UNKNOWN_TABLE
    assert relations.read(one(f"{c}_w")) == own(relations, c, f"{c}_h")
    assert relations.read(one("mysql.user")) is Refusal.SYSTEM_TABLE


@MARIADB
async def test_mariadb_shows_a_reader_too_little(router: Router, engine: Engine) -> None:
    """A login without the right of triggers cannot know that there are none, nor what a view shows."""
    a, b = engine.name(), engine.name()
    await run(
        router,
        f"CREATE TABLE {a} (id INT PRIMARY KEY)",
        f"CREATE TABLE {b} (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES {a} (id) ON DELETE CASCADE)",
        f"CREATE VIEW {a}_v AS SELECT id FROM {a}",
    )
    await engine.settle()
    rows = await router.fetch_all(QUERIES[Dialect.MYSQL], tenant="acme")  # on a replica, as its reader
    relations = relations_of(rows, Dialect.MYSQL, {})
    assert relations.written(one(a)) is None
    assert relations.read(one(a)) == own(relations, a)
    assert relations.read(one(f"{a}_v")) is Refusal.UNKNOWN_TABLE
    relations = relations_of(rows, Dialect.MYSQL, {f"{a}_v": (a,), a: (b,), b: ()})
    assert relations.read(one(f"{a}_v")) == own(relations, a)
    assert relations.written(one(a)) == own(relations, a, b)


@MARIADB
@pytest.mark.parametrize(
    ("grants", "known"),
    [
        ("SELECT, TRIGGER ON `{0}`.*", True),
        ("SELECT, TRIGGER ON `{1}\\_%`.*", True),
        ("SELECT, TRIGGER ON *.*", True),
        ("SELECT, TRIGGER ON `{1}\\_%`.*; SELECT ON `{0}`.*", False),
        ("SELECT, INSERT, DELETE, UPDATE ON *.*", False),
        ("SELECT, TRIGGER ON `{0}`.`{2}`", False),
    ],
    ids=["schema", "pattern", "all", "nearer", "no triggers", "table"],
)
async def test_the_rights_decide_whether_triggers_are_seen(
    router: Router, engine: Engine, grants: str, known: bool
) -> None:
    """Only the right of triggers on the whole schema shows every trigger and every key."""
    a, b = engine.name(), engine.name()
    schema = (await ask(router, engine)).schema
    await run(
        router,
        f"CREATE TABLE {a} (id INT PRIMARY KEY)",
        f"CREATE TABLE {b} (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES {a} (id) ON DELETE CASCADE)",
    )
    user = f"u@{a}"
    given = [each.format(schema, engine.prefix, a) for each in grants.split("; ")]
    texts = [f"GRANT {each} TO `{user}`@`127.0.0.1`" for each in given]
    engine.server.run(f"CREATE USER `{user}`@`127.0.0.1`; {'; '.join(texts)}", "mysql")
    node = engine.server.primary
    connection: Any = pymysql.connect(host="127.0.0.1", port=node.port, user=user, database=schema)
    with connection, connection.cursor() as cursor:
        cursor.execute(QUERIES[Dialect.MYSQL])
        relations = relations_of(cursor.fetchall(), Dialect.MYSQL, {})
    engine.server.run(f"DROP USER `{user}`@`127.0.0.1`", "mysql")
    assert relations.written(one(a)) == (own(relations, a, b) if known else None)


@SQLITE
async def test_sqlite_kinds_that_are_not_cached(router: Router, engine: Engine) -> None:
    """Virtual tables, temporary names, the catalog; names are found whatever their case."""
    a, b = engine.name(), engine.name()
    await run(
        router,
        f'CREATE TABLE "{a.upper()}" (id INTEGER PRIMARY KEY)',
        f"CREATE VIRTUAL TABLE {b} USING fts5(x)",
        f"CREATE VIEW {a}_v(as_) AS SELECT id FROM main.{a} /* as */ WHERE id IN (SELECT 1)",
        f"CREATE VIEW {a}_w AS SELECT 1 WHERE 1 IN {a}",
        f"CREATE VIEW {a}_x AS SELECT date('now') FROM {a}",
        f"CREATE TABLE {a}_s (s)",
    )
    assert isinstance(engine, Sqlite)
    with contextlib.closing(sqlite3.connect(engine.file("acme"))) as raw:  # the router would refuse the text
        raw.execute(f"CREATE VIEW {a}_y AS SELECT 3 %s FROM {a}_s")
    relations = await ask(router, engine)
    assert relations.read(one(b)) is Refusal.FOREIGN_TABLE
    assert relations.written(one(b)) is None
    assert relations.read(one(f"{a}_v")) == own(relations, a)
    assert relations.read(one(f"{a}_w")) is Refusal.UNKNOWN_TABLE
    assert relations.read(one(f"{a}_x")) is Refusal.NOT_REPEATABLE
    assert relations.read(one(f"{a}_y")) is Refusal.UNKNOWN_TABLE  # to us a driver's placeholder
    assert relations.written(one(f"{a}_y")) is None
    assert relations.read(one("sqlite_master")) is Refusal.SYSTEM_TABLE
    assert relations.read(one("temp.x")) is Refusal.TEMPORARY_TABLE
    assert relations.read(one("json_each")) is Refusal.UNKNOWN_TABLE
