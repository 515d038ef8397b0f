"""Rows of real servers with a column of every type of the engine: they come back as they were read."""

from typing import Any

import asyncpg

from router import Router
from router.cache.packing import pack, unpack
from router.cache.values import freeze
from router.rows import row_class
from tests.engines import Engine, Mariadb, Postgresql, only
from tests.exact import same
from tests.test_cache_values import spoil

#: Of each type some values as the server reads them; the first of them is also put into an array.
POSTGRESQL: dict[str, tuple[str, ...]] = {
    "bool": ("true", "false"),
    "int2": ("-32768",),
    "int4": ("2147483647",),
    "int8": ("-9223372036854775808", "9223372036854775807"),
    "oid": ("4294967295",),
    "xid": ("7",),
    "xid8": ("18446744073709551615",),
    "cid": ("7",),
    "tid": ("(1,2)",),
    "float4": ("1.5", "NaN", "-Infinity", "-0"),
    "float8": ("0.1", "NaN", "Infinity", "-0"),
    "numeric": ("1.500", "NaN", "1e30", "0.00000000000000000000001", "-0.00", "9" * 100),
    "money": ("12.34",),
    "text": ("grüße 日本 😀", "", "{1,2}"),
    "varchar": ("x",),
    "bpchar": ("x ",),
    "char": ("x",),
    "name": ("x",),
    "bytea": (r"\x00ff", r"\x"),
    "date": ("2026-02-28", "infinity", "-infinity", "0001-01-01"),
    "time": ("23:59:59.999999",),
    "timetz": ("10:00:00+02", "10:00:00-03:30", "10:00:00+00", "10:00:00+01:02:03"),
    "timestamp": ("2026-02-28 12:00:00.000001", "infinity"),
    "timestamptz": ("2026-02-28 12:00:00+02", "0001-01-02 00:00:00+00", "infinity"),
    "interval": ("1 year 2 mons 3 days 04:05:06.7", "-1 day"),
    "uuid": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",),
    "json": ('{"a": [1, 2.50, null]}',),
    "jsonb": ('{"a": {"b": "c"}}', "null"),
    "jsonpath": ("$.a[*]",),
    "xml": ("<a>b</a>",),
    "bit": ("1",),
    "varbit": ("1010101010", ""),
    "inet": ("10.0.0.1", "10.0.0.1/8", "fe80::1", "fe80::1/64"),
    "cidr": ("10.0.0.0/8", "fe80::/64"),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "point": ("(1,2.5)", "(NaN,-0)"),
    "line": ("{1,2,3}",),
    "lseg": ("[(1,2),(3,4)]",),
    "box": ("(3,4),(1,2)",),
    "path": ("[(1,2),(3,4)]", "((1,2),(3,4))"),
    "polygon": ("((1,2),(3,4),(5,6))",),
    "circle": ("<(1,2),3>",),
    "tsvector": ("a:1 b:2",),
    "tsquery": ("a & b",),
    "pg_lsn": ("16/B374D848",),
    "int4range": ("[1,5)", "empty", "(,)", "[1,)"),
    "int8range": ("[1,5)",),
    "numrange": ("[1.50,2.0]",),
    "daterange": ("[2026-01-01,2026-02-01)",),
    "tsrange": ("[2026-01-01 00:00,2026-02-01 00:00]",),
    "tstzrange": ("[2026-01-01 00:00+00,)",),
    "int4multirange": ("{[1,5),[7,9)}", "{}"),
    "int8multirange": ("{[1,5)}",),
    "nummultirange": ("{[1.5,2]}",),
    "datemultirange": ("{[2026-01-01,2026-02-01)}",),
    "tsmultirange": ("{[2026-01-01 00:00,2026-02-01 00:00]}",),
    "tstzmultirange": ("{[2026-01-01 00:00+00,)}",),
    "pg_snapshot": ("10:20:10,14",),
    "txid_snapshot": ("10:20:10,14",),
    "refcursor": ("x",),
    "int2vector": ("1 2",),
    "oidvector": ("1 2",),
    "regclass": ("pg_class",),
    "regtype": ("int4",),
    "regproc": ("now",),
    "regprocedure": ("now()",),
    "regoper": ("pg_catalog.||/",),
    "regoperator": ("+(int4,int4)",),
    "regconfig": ("english",),
    "regdictionary": ("simple",),
    "regnamespace": ("pg_catalog",),
    "regrole": ("pg_monitor",),
    "regcollation": ('"C"',),
}
#: Types that no table of a user's has: written by the server only, for its own catalogs.
_INTERNAL = {"aclitem", "gtsvector", "pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"} | {
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
}

MARIADB: dict[str, tuple[str, ...]] = {
    "TINYINT": ("-128", "0"),
    "BOOLEAN": ("TRUE",),
    "SMALLINT": ("-32768",),
    "MEDIUMINT": ("8388607",),
    "INT": ("1",),
    "BIGINT": ("-9223372036854775808",),
    "BIGINT UNSIGNED": ("18446744073709551615",),
    "DECIMAL(65,10)": ("1.5000000000", "-" + "9" * 50),
    "FLOAT": ("1.5",),
    "DOUBLE": ("0.1", "-0e0", "1e300"),
    "BIT(10)": ("b'1010101010'",),
    "BIT(1)": ("b'1'",),
    "DATE": ("'2026-02-28'",),
    "TIME": ("'-838:59:59'", "'10:11:12'"),
    "TIME(6)": ("'10:11:12.000013'",),
    "DATETIME": ("'2026-02-28 12:00:00'",),
    "DATETIME(6)": ("'2026-02-28 12:00:00.000001'",),
    "TIMESTAMP NULL": ("'2026-02-28 12:00:00'",),
    "YEAR": ("2026",),
    "CHAR(10)": ("'grüße'",),
    "VARCHAR(10)": ("''", "'日本😀'"),
    "BINARY(4)": ("X'00FF'",),
    "VARBINARY(4)": ("X'00FF'",),
    "TINYBLOB": ("X'00'",),
    "BLOB": ("X'00FF'",),
    "MEDIUMBLOB": ("X''",),
    "LONGBLOB": ("X'00FF'",),
    "TINYTEXT": ("'x'",),
    "TEXT": ("'x'",),
    "MEDIUMTEXT": ("'x'",),
    "LONGTEXT": ("'x'",),
    "ENUM('a','b')": ("'b'",),
    "SET('a','b','c')": ("'a,c'", "''"),
    "JSON": ("'{\"a\": [1, 2.50, null]}'",),
    "UUID": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",),
    "INET4": ("'10.0.0.1'",),
    "INET6": ("'fe80::1'",),
    "POINT": ("ST_PointFromText('POINT(1 2)')",),
    "LINESTRING": ("ST_LineFromText('LINESTRING(1 2,3 4)')",),
    "POLYGON": ("ST_PolyFromText('POLYGON((0 0,1 1,1 0,0 0))')",),
    "GEOMETRYCOLLECTION": ("ST_GeomCollFromText('GEOMETRYCOLLECTION(POINT(1 2))')",),
}

SQLITE: dict[str, tuple[str, ...]] = {
    "INTEGER": ("1", "-9223372036854775808", "'not a number'", "1.5", "X'00'"),
    "REAL": ("0.5", "1e999", "-1e999", "-0.0"),
    "TEXT": ("'grüße 日本 😀'", "''", "7"),
    "BLOB": ("X'00FF'", "X''", "1", "'x'"),
    "NUMERIC": ("1.50", "1e30", "'x'"),
    "DATE": ("'2026-02-28'",),
    "TIMESTAMP": ("'2026-02-28 12:00:00'",),
    "BOOLEAN": ("TRUE",),
    "ANY": ("1", "'1'", "1.0", "X'31'"),
}


async def read(router: Router, engine: Engine, types: dict[str, tuple[str, ...]], quoted: bool) -> list[Any]:
    """Return rows of a table with a column of each type: the values, and one row of NULLs."""
    table = engine.name()
    columns = ", ".join(f"c{index} {of}" for index, of in enumerate(types))
    await router.execute(f"CREATE TABLE {table} ({columns})", tenant="acme")
    mark = "'" if quoted else ""
    for turn in range(max(map(len, types.values()))):
        values = ", ".join(f"{mark}{some[turn % len(some)]}{mark}" for some in types.values())
        await router.execute(f"INSERT INTO {table} VALUES ({values})", tenant="acme")
    nulls = ", ".join(["NULL"] * len(types))
    await router.execute(f"INSERT INTO {table} VALUES ({nulls})", tenant="acme")
    return await router.fetch_all(f"SELECT * FROM {table}", tenant="acme", consistency="strong")


def check(rows: list[Any], names: list[str]) -> None:
    """Assert that rows are kept and packed, together and each alone, and come back as they were."""
    for row in rows:
        wrong = {name: value for name, value in zip(names, row, strict=True) if not same(value, alone(value))}
        assert not wrong
    for result in (rows, *rows):
        kept, packed = freeze(result), pack(result)
        assert kept is not None
        assert packed is not None
        spoil(kept.thaw())
        assert same(kept.thaw(), result)
        assert same(unpack(packed), result)


def alone(value: Any) -> Any:
    """Return the value as it comes back in a row of its own, to name the type that does not."""
    packed = pack(row_class(("c",))([value]))
    assert packed is not None, type(value)
    returned: Any = unpack(packed)
    return returned[0]


@only("postgresql")
async def test_every_type_of_postgresql_comes_back(router: Router, engine: Postgresql) -> None:
    """Each type of the catalog is read, kept and packed; the list here leaves none out."""
    known = await router.fetch_all(
        "SELECT t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
        "WHERE n.nspname = 'pg_catalog' AND t.typtype IN ('b', 'r', 'm') AND t.typname NOT LIKE '\\_%'",
        tenant="acme",
    )
    assert {row.typname for row in known} - _INTERNAL == POSTGRESQL.keys()
    types = {'"char"' if name == "char" else name: some for name, some in POSTGRESQL.items()}
    rows = await read(router, engine, types, quoted=True)
    assert isinstance(rows[0], asyncpg.Record)
    check(rows, list(types))


@only("postgresql")
async def test_arrays_of_every_type_come_back(router: Router, engine: Postgresql) -> None:
    """Arrays with NULLs, of one and two dimensions, are lists that each reader has of their own."""
    types = {'"char"' if name == "char" else name: some[0] for name, some in POSTGRESQL.items()}
    for form in ("ARRAY['{0}', NULL]::{1}[]", "ARRAY[ARRAY['{0}', NULL], ARRAY[NULL, '{0}']]::{1}[]"):
        columns = ", ".join(
            f"{form.format(value, name)} AS c{i}" for i, (name, value) in enumerate(types.items())
        )
        rows = await router.fetch_all(f"SELECT {columns}", tenant="acme")
        assert type(rows[0][0]) is list
        check(rows, list(types))


@only("postgresql")
async def test_types_that_users_make_come_back(router: Router, engine: Postgresql) -> None:
    """Enums, domains and nameless records are packed; composite values only the driver can make."""
    name = engine.name()
    await router.execute(f"CREATE TYPE {name}_e AS ENUM ('a', 'b')", tenant="acme")
    await router.execute(f"CREATE DOMAIN {name}_d AS numeric CHECK (VALUE > 0)", tenant="acme")
    await router.execute(f"CREATE TYPE {name}_c AS (x int, y text)", tenant="acme")
    await router.execute(f"CREATE TYPE {name}_f AS (x int, y int[])", tenant="acme")
    mood = f"'b'::{name}_e AS mood, ARRAY['a']::{name}_e[] AS moods"
    both = f"{mood}, 1.50::{name}_d AS much, ROW(1, 'x', ROW(2.50, NULL)) AS some"
    check(await router.fetch_all(f"SELECT {both}", tenant="acme"), ["mood", "moods", "much", "some"])

    made = await router.fetch_all(f"SELECT ROW(1, 'x')::{name}_c AS one", tenant="acme")
    kept = freeze(made)
    assert kept is not None
    assert kept.thaw() == made
    assert type(kept.thaw()[0].one) is type(made[0].one)
    assert pack(made) is None
    changing = await router.fetch_all(f"SELECT ROW(1, ARRAY[1, 2])::{name}_f AS one", tenant="acme")
    assert freeze(changing) is None


@only("postgresql")
async def test_records_with_a_name_twice_stay_in_the_process(router: Router, engine: Postgresql) -> None:
    """By that name asyncpg gives the last column and our rows the first: a hit would differ from a miss."""
    twice = await router.fetch_all("SELECT 1 AS id, 2 AS id", tenant="acme")
    kept = freeze(twice)
    assert kept is not None
    assert kept.thaw()[0]["id"] == twice[0]["id"]
    assert pack(twice) is None
    changing = await router.fetch_all("SELECT 1 AS id, ARRAY[2] AS id", tenant="acme")
    assert freeze(changing) is None
    assert pack(await router.fetch_all("SELECT", tenant="acme")) is None  # rows without columns


@only("mariadb")
async def test_every_type_of_mariadb_comes_back(router: Router, engine: Mariadb) -> None:
    """Numbers, times longer than a day, bits, sets, geometry and text are packed as the driver gives them."""
    check(await read(router, engine, MARIADB, quoted=False), list(MARIADB))


@only("sqlite")
async def test_every_value_of_sqlite_comes_back(router: Router, engine: Engine) -> None:
    """A column may hold values of all types at once, whatever it was declared as."""
    check(await read(router, engine, SQLITE, quoted=False), list(SQLITE))


async def test_what_is_not_there_comes_back(router: Router) -> None:
    """No row and no rows are answers, on every engine."""
    sql = "SELECT 1 AS a WHERE 1 = 0"
    for value in (
        await router.fetch_one(sql, tenant="acme"),
        await router.fetch_all(sql, tenant="acme"),
    ):
        kept, packed = freeze(value), pack(value)
        assert kept is not None
        assert packed is not None
        assert same(kept.thaw(), value)
        assert same(unpack(packed), value)
