"""Schemas that share prepared statements: each reads and writes as if every statement were its own."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from router import Router, Session, errors
from router.drivers.postgresql_shapes import Shapes, Signature
from tests.similar import TENANTS, A, B, C, Place
from tests.similar import place as place
from tests.similar import router as router

FAR = datetime(2026, 3, 1, 17, 30, tzinfo=UTC)


async def prepared(router: Router, text: str) -> int:
    """Return how many statements of a text the only connection has prepared."""
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement = :text"
    found: int = await router.fetch_value(count, {"text": text}, tenant=A)
    return found


# --- what is shared --------------------------------------------------------------------------------------


async def test_schemas_that_are_the_same_share_one_statement(place: Place, router: Router) -> None:
    """One prepared statement serves all schemas whose types are the same; each sees its own rows."""
    place.fresh("CREATE TABLE items (id INT, who TEXT); INSERT INTO items VALUES (1, '{s}')")
    sql = "SELECT who FROM items WHERE id = :id"
    for _ in range(3):
        for tenant in TENANTS:
            assert await router.fetch_value(sql, {"id": 1}, tenant=tenant) == tenant
            result = await router.execute(
                "UPDATE items SET who = who WHERE id = :id", {"id": 1}, tenant=tenant
            )
            assert result.rowcount == 1
    assert await prepared(router, sql.replace(":id", "$1")) == 1
    assert await prepared(router, "UPDATE items SET who = who WHERE id = $1") == 1


async def test_what_a_transaction_meets_first_is_shared_too(place: Place, router: Router) -> None:
    """A schema that meets a text inside of a transaction learns there that it may share it."""
    place.fresh("CREATE TABLE items (id INT, who TEXT); INSERT INTO items VALUES (1, '{s}')")
    sql = "SELECT who FROM items"
    for _ in range(2):
        for tenant in TENANTS:
            async with router.session(tenant) as session, session.transaction() as tx:
                await tx.execute("INSERT INTO items VALUES (2, 'new')")
                assert [row.who for row in await tx.fetch_all(sql)] == [tenant, "new"]
                await tx.rollback()
    assert await prepared(router, sql) == 1


class Odd(NamedTuple):
    """Say how the schema beta differs from the two others, and what each must give back."""

    usual: str
    odd: str
    sql: str
    given: tuple[Any, Any]
    found: tuple[Any, Any]
    statements: int = 2


ODD = {
    "own enums": Odd(
        "CREATE TYPE mood AS ENUM ('{s}', 'x'); CREATE TABLE t (v mood); INSERT INTO t VALUES ('{s}')",
        "CREATE TYPE mood AS ENUM ('b', 'x'); CREATE TABLE t (v mood); INSERT INTO t VALUES ('x')",
        "SELECT v FROM t WHERE v <> :v",
        ("x", "b"),
        (None, "x"),
        3,
    ),
    "own domains": Odd(
        "CREATE DOMAIN amount AS INT; CREATE TABLE t (v amount); INSERT INTO t VALUES (1)",
        "CREATE DOMAIN amount AS INT CHECK (VALUE > 1); CREATE TABLE t (v amount); INSERT INTO t VALUES (2)",
        "SELECT v FROM t WHERE v > :v",
        (0, 0),
        (1, 2),
        3,
    ),
    "a larger integer": Odd(
        "CREATE TABLE t (k INT, v INT); INSERT INTO t VALUES (7, 1)",
        f"CREATE TABLE t (k BIGINT, v INT); INSERT INTO t VALUES ({2**40}, 2)",
        "SELECT v FROM t WHERE k = :k",
        (7, 2**40),
        (1, 2),
    ),
    "a larger result": Odd(
        "CREATE TABLE t (v INT); INSERT INTO t VALUES (1)",
        f"CREATE TABLE t (v BIGINT); INSERT INTO t VALUES ({2**40})",
        "SELECT v FROM t WHERE :one = 1",
        (1, 1),
        (1, 2**40),
    ),
    "json for text": Odd(
        "CREATE TABLE t (v TEXT); INSERT INTO t VALUES ('[1]')",
        "CREATE TABLE t (v JSONB); INSERT INTO t VALUES ('[1]')",
        "INSERT INTO t VALUES (:v) RETURNING v",
        ("[1]  ", "[1]  "),
        ("[1]  ", "[1]"),
    ),
    "a time for a day": Odd(  # a day would be taken from the time without a word
        "CREATE TABLE t (d DATE, v INT); INSERT INTO t VALUES ('2026-03-01', 1)",
        "CREATE TABLE t (d TIMESTAMPTZ, v INT); INSERT INTO t VALUES ('2026-03-01 17:30+00', 2)",
        "SELECT v FROM t WHERE d = :d",
        (FAR.date(), FAR),
        (1, 2),
    ),
    "a longer text": Odd(
        "CREATE TABLE t (v VARCHAR(5)); INSERT INTO t VALUES ('short')",
        "CREATE TABLE t (v VARCHAR(9)); INSERT INTO t VALUES ('long')",
        "SELECT v FROM t WHERE v <> :v",
        ("", ""),
        ("short", "long"),
    ),
    "another collation": Odd(
        "CREATE TABLE t (v TEXT); INSERT INTO t VALUES ('x')",
        "CREATE TABLE t (v TEXT COLLATE \"C\"); INSERT INTO t VALUES ('y')",
        "SELECT v FROM t WHERE v <> :v",
        ("", ""),
        ("x", "y"),
    ),
    "a view for a table": Odd(
        "CREATE TABLE t (v INT); INSERT INTO t VALUES (1)",
        "CREATE TABLE s (v INT); INSERT INTO s VALUES (2); CREATE VIEW t AS SELECT v FROM s",
        "SELECT v FROM t WHERE v > :v",
        (0, 0),
        (1, 2),
        1,
    ),
    "another function": Odd(
        "CREATE FUNCTION f(INT) RETURNS INT IMMUTABLE LANGUAGE SQL AS 'SELECT 1'",
        "CREATE FUNCTION f(INT) RETURNS INT IMMUTABLE LANGUAGE SQL AS 'SELECT 2'",
        "SELECT f(1) AS v WHERE :one = 1",
        (1, 1),
        (1, 2),
        1,
    ),
    "another operator": Odd(
        "CREATE TABLE t (v POINT); INSERT INTO t VALUES ('(1,1)');"
        "CREATE FUNCTION n(POINT) RETURNS INT IMMUTABLE LANGUAGE SQL AS 'SELECT 1';"
        "CREATE OPERATOR !!! (RIGHTARG = POINT, FUNCTION = n)",
        "CREATE TABLE t (v POINT); INSERT INTO t VALUES ('(1,1)');"
        "CREATE FUNCTION n(POINT) RETURNS INT IMMUTABLE LANGUAGE SQL AS 'SELECT 2';"
        "CREATE OPERATOR !!! (RIGHTARG = POINT, FUNCTION = n)",
        "SELECT !!! v AS v FROM t WHERE :one = 1",
        (1, 1),
        (1, 2),
        1,
    ),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("name", ODD)
async def test_a_schema_that_differs_is_served_as_if_it_were_alone(
    place: Place, router: Router, name: str, inside: bool
) -> None:
    """Whatever differs behind the same names, each schema gets its own, and nobody meets an error."""
    odd = ODD[name]
    place.fresh(odd.usual, odd.odd)
    parameter = odd.sql.partition(":")[2].partition(" ")[0].rstrip(")")
    for tenant in (A, B, C, A, C, B, B, A):
        own = tenant == B
        params = {parameter: odd.given[own]}
        async with AsyncExitStack() as stack:
            session: Session = await stack.enter_async_context(router.session(tenant))
            where: Any = await stack.enter_async_context(session.transaction()) if inside else session
            found = await where.fetch_value(odd.sql, params)
            assert found == (odd.found[own] or tenant)
    assert await prepared(router, odd.sql.replace(f":{parameter}", "$1")) <= odd.statements


# --- what changes ----------------------------------------------------------------------------------------


async def once_more(router: Router, sql: str, tenant: str, params: dict[str, Any] | None = None) -> Any:
    """Read a value; a schema change may fail one request, since here nothing is tried twice."""
    try:
        return await router.fetch_value(sql, params, tenant=tenant)
    except (errors.StaleStatement, errors.InvalidStatement, errors.ParameterError):
        return await router.fetch_value(sql, params, tenant=tenant)


async def test_a_migration_of_one_schema_leaves_the_others_alone(place: Place, router: Router) -> None:
    """A column more is seen in the schema that has it, and there only; no other schema's request fails."""
    place.fresh("CREATE TABLE items (who TEXT); INSERT INTO items VALUES ('{s}')")
    sql = "SELECT * FROM items"
    for _ in range(2):
        for tenant in TENANTS:
            assert await router.fetch_value(sql, tenant=tenant) == tenant
    place.alter(B, "ALTER TABLE items ADD COLUMN n INT DEFAULT 7")
    for _ in range(2):
        for tenant in (A, B, C, B, A):
            if tenant == B:
                await once_more(router, sql, B)
            row = await router.fetch_one(sql, tenant=tenant)
            assert row is not None
            assert dict(row.items()) == ({"who": B, "n": 7} if tenant == B else {"who": tenant})


@pytest.mark.parametrize(
    ("change", "key"),
    [("ALTER TABLE items ALTER k TYPE TEXT", "7"), ("ALTER TABLE items ALTER k TYPE BIGINT", 2**40)],
    ids=["text", "bigint"],
)
async def test_a_parameter_of_another_type_after_a_migration(
    place: Place, router: Router, change: str, key: object
) -> None:
    """A column's new type is learned at its first failure, also where the result is as before."""
    place.fresh("CREATE TABLE items (k INT, who TEXT); INSERT INTO items VALUES (7, '{s}')")
    sql = "SELECT count(*) FROM items WHERE k = :k"
    for tenant in (A, B, C, A, B):
        assert await router.fetch_value(sql, {"k": 7}, tenant=tenant) == 1
    place.alter(B, change)
    expected = 1 if key == "7" else 0
    assert await once_more(router, sql, B, {"k": key}) == expected
    for tenant in (C, B, A, B):
        given, found = (key, expected) if tenant == B else (7, 1)
        assert await router.fetch_value(sql, {"k": given}, tenant=tenant) == found


async def test_a_table_that_one_schema_lacks(place: Place, router: Router) -> None:
    """It is missing there, found nowhere else, and found there once it is made, of whatever types."""
    place.fresh("CREATE TABLE items (who TEXT); INSERT INTO items VALUES ('{s}')")
    sql = "SELECT who FROM items"
    assert await router.fetch_value(sql, tenant=A) == A
    place.alter(B, "DROP TABLE items")
    for _ in range(2):
        with pytest.raises(errors.InvalidStatement):
            await router.fetch_value(sql, tenant=B)
        assert await router.fetch_value(sql, tenant=C) == C
    place.alter(B, "CREATE TABLE items (who INT); INSERT INTO items VALUES (5)")
    assert await router.fetch_value(sql, tenant=B) == 5
    place.alter(C, "DROP TABLE items; CREATE TABLE items (who INT); INSERT INTO items VALUES (6)")
    assert await once_more(router, sql, C) == 6
    assert [await router.fetch_value(sql, tenant=each) for each in TENANTS] == [A, 5, 6]


async def test_a_temporary_table_hides_only_for_its_session(place: Place, router: Router) -> None:
    """What a temporary table of the same name looks like is not taken for what the schema has."""
    place.fresh("CREATE TABLE items (who TEXT); INSERT INTO items VALUES ('{s}')")
    sql = "SELECT who FROM items"
    async with router.session(B) as session, session.transaction() as tx:
        await tx.execute("CREATE TEMP TABLE items AS SELECT 5 AS who")
        assert await tx.fetch_value(sql) == 5
    for tenant in (A, B, C, B):
        assert await router.fetch_value(sql, tenant=tenant) == tenant


# --- the parts -------------------------------------------------------------------------------------------


def test_what_is_remembered_of_schemas_has_a_bound() -> None:
    """Of schemas that are not used for long nothing is remembered."""
    shapes = Shapes(most=10)
    one, other = Signature((23,), (("a", 23),)), Signature((), ())
    first = shapes.place("s0")
    shape = shapes.learn(first, "x", one)
    for number in range(1, 100):
        place = shapes.place(f"s{number}")
        assert shapes.learn(place, "x", one) is shape
        assert place.unproven == {"x"}
        shapes.learn(place, "y", other)
        assert "y" not in place.unproven  # without a result nothing can differ that is not told
        assert shapes.place("s0") is first  # is in use
    assert shapes.place("s99") is place
    assert shapes.place("s1").shapes == {}


def test_a_text_whose_types_are_others_now_has_another_shape() -> None:
    """What a schema was known for gives way to what it was found to be."""
    shapes = Shapes()
    place = shapes.place("s")
    old = shapes.learn(place, "x", Signature((23,), ()))
    assert shapes.learn(place, "x", Signature((23,), ())) is old
    assert shapes.learn(place, "x", Signature((20,), ())) is not old
    place.forget("x")
    assert place.shapes == {}


def test_schemas_that_differ_where_the_server_does_not_tell_are_told_apart() -> None:
    """A few shapes of the same types are shared; who has none of them keeps its own."""
    shapes, signature = Shapes(), Signature((), (("a", 25),))
    found = []
    for number in range(5):
        place = shapes.place(f"s{number}")
        shape = shapes.learn(place, "x", signature)
        while "x" in place.unproven:
            shapes.differ(place, "x", shape)
            shape = place.shapes["x"]
        found.append(shape)
    assert len(set(found)) == 5
    last = shapes.place("last")
    tried = [shapes.learn(last, "x", signature)]
    while "x" in last.unproven:
        shapes.differ(last, "x", tried[-1])
        tried.append(last.shapes["x"])
    assert tried[:-1] == found[:3]
