"""Sessions: the same calls give the same answers on every engine, and each goes where it should."""

import dataclasses
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from router import Router, errors
from router.errors import RouterClosed, UniqueViolation
from tests.engines import POSTGRESQL, SERVED, Engine, Recorder


@dataclasses.dataclass
class Item:
    id: int
    name: str
    amount: int | None


class ItemModel(pydantic.BaseModel):
    id: int
    name: str
    amount: int | None


class ItemStruct(msgspec.Struct):
    id: int
    name: str
    amount: int | None


async def fill(router: Router, items: str, *names: str, tenant: str = "acme") -> None:
    """Insert one row for each name; amounts count from 1."""
    rows = [{"name": name, "amount": number} for number, name in enumerate(names, 1)]
    await router.execute_many(
        f"INSERT INTO {items} (name, amount) VALUES (:name, :amount)", rows, tenant=tenant
    )


# --- results ---------------------------------------------------------------------------------------------


async def test_rows_are_read_by_attribute_key_and_index(router: Router, items: str) -> None:
    """A row answers to attribute, key, index, slice, iteration and mapping alike, on every engine."""
    async with router.session("acme") as session:
        await session.execute(f"INSERT INTO {items} (name, amount) VALUES (:name, 3)", {"name": "pen"})
        row = await session.fetch_one(f"SELECT id, name, amount FROM {items}")
    assert row is not None
    assert (row.name, row["name"], row[1], row[-1]) == ("pen", "pen", "pen", 3)
    assert (len(row), tuple(row), row[1:]) == (3, (row.id, "pen", 3), ("pen", 3))
    assert (list(row.keys()), dict(row.items())["amount"]) == (["id", "name", "amount"], 3)
    assert ("name" in row, "pen" in row, row.get("nope", 7)) == (True, False, 7)
    with pytest.raises(AttributeError, match="nope"):
        _ = row.nope
    with pytest.raises(KeyError):
        _ = row["nope"]


async def test_fetch_forms(router: Router, items: str) -> None:
    """fetch_all gives a list, fetch_one a row or None, fetch_value the first column or None."""
    await fill(router, items, "a", "b", "c")
    async with router.session("acme", consistency="strong") as session:
        rows = await session.fetch_all(f"SELECT name, amount FROM {items} ORDER BY name")
        assert [tuple(row) for row in rows] == [("a", 1), ("b", 2), ("c", 3)]
        assert await session.fetch_all(f"SELECT name FROM {items} WHERE amount > 9") == []
        first = await session.fetch_one(f"SELECT name FROM {items} ORDER BY name DESC")
        assert first is not None
        assert first.name == "c"
        assert await session.fetch_one(f"SELECT name FROM {items} WHERE amount > 9") is None
        assert await session.fetch_value(f"SELECT count(*) FROM {items}") == 3
        assert await session.fetch_value(f"SELECT name FROM {items} WHERE amount > 9") is None
        assert await session.fetch_value("SELECT NULL") is None


@pytest.mark.parametrize("into", [Item, ItemModel, ItemStruct])
async def test_rows_become_objects(router: Router, items: str, into: type[Any]) -> None:
    """into= makes each row a dataclass, a pydantic model or a msgspec Struct."""
    await fill(router, items, "a", "b")
    async with router.session("acme", consistency="strong") as session:
        sql = f"SELECT id, name, amount FROM {items} ORDER BY name"
        first = await session.fetch_one(sql, into=into)
        assert isinstance(first, into)
        assert (first.name, first.amount) == ("a", 1)
        both = await session.fetch_all(sql, into=into)
        assert [type(each) for each in both] == [into, into]
        assert await session.fetch_one(f"SELECT * FROM {items} WHERE amount > 9", into=into) is None


async def test_execute_tells_what_it_did(router: Router, engine: Engine, items: str) -> None:
    """Result has the rows changed, the generated key where the engine tells it, no columns for a write."""
    async with router.session("acme") as session:
        first = await session.execute(f"INSERT INTO {items} (name, amount) VALUES ('a', 1)")
        second = await session.execute(f"INSERT INTO {items} (name, amount) VALUES ('b', 1)")
        updated = await session.execute(f"UPDATE {items} SET amount = :n", {"n": 5})
        same = await session.execute(f"UPDATE {items} SET amount = :n", {"n": 5})
        none = await session.execute(f"UPDATE {items} SET amount = 6 WHERE name = 'nope'")
        removed = await session.execute(f"DELETE FROM {items} WHERE name = 'a'")
    assert (first.rowcount, first.columns, len(first)) == (1, (), 0)
    generated = (None, None) if engine.dialect == "postgresql" else (1, 2)
    assert (first.lastrowid, second.lastrowid) == generated
    assert (updated.rowcount, same.rowcount, none.rowcount, removed.rowcount) == (2, 2, 0, 1)
    assert [result.lastrowid for result in (updated, none, removed)] == [None, None, None]


async def test_execute_gives_rows_with_column_types(router: Router, engine: Engine, items: str) -> None:
    """A Result names its columns and the server's types."""
    await fill(router, items, "a", "b")
    sql = f"SELECT id, name FROM {items} ORDER BY name"
    result = await router.execute(sql, tenant="acme", primary=True)
    assert [column.name for column in result.columns] == ["id", "name"]
    types = {"postgresql": ["int4", "varchar"], "mysql": ["long", "var_string"], "sqlite": ["int", "str"]}
    assert [column.type_name for column in result.columns] == types[engine.dialect]
    assert (result.rowcount, [row.name for row in result]) == (2, ["a", "b"])
    first = result.first()
    assert first is not None
    assert first.name == "a"
    empty = await router.execute(f"SELECT id FROM {items} WHERE amount > 9", tenant="acme", primary=True)
    assert ([column.name for column in empty.columns], len(empty)) == (["id"], 0)


async def test_returning(router: Router, heard: Recorder, items: str) -> None:
    """INSERT ... RETURNING is a write that gives rows, by execute and by fetch."""
    sql = f"INSERT INTO {items} (name, amount) VALUES (:a, 1), (:b, 2) RETURNING id, name"
    async with router.session("acme") as session:
        result = await session.execute(sql, {"a": "x", "b": "y"})
        assert (result.rowcount, [row.name for row in result]) == (2, ["x", "y"])
        assert heard.route == ("primary", "write")
        row = await session.fetch_one(
            f"INSERT INTO {items} (name) VALUES (:name) RETURNING id", {"name": "z"}
        )
        assert row is not None
        assert row.id == result.rows[-1].id + 1
        assert await session.fetch_value(f"SELECT count(*) FROM {items}") == 3


async def test_values_survive_the_round_trip(router: Router, engine: Engine) -> None:
    """Text of any script, bytes, big numbers, floats and NULL come back as they went in."""
    name = engine.name()
    big, blob, text = 2**62, bytes(range(256)), "naïve 'quote' \"q\" \\ % :name ? $1 ☃ 𝄞"
    async with router.session("acme") as session:
        await session.execute(
            f"CREATE TABLE {name} (n BIGINT, t VARCHAR(200), b {engine.blob}, f DOUBLE PRECISION, e INT)"
        )
        await session.execute(
            f"INSERT INTO {name} VALUES (:n, :t, :b, :f, :e)",
            {"n": big, "t": text, "b": blob, "f": 0.1, "e": None},
        )
        row = await session.fetch_one(f"SELECT * FROM {name} WHERE t = :t", {"t": text})
        assert row is not None
        assert tuple(row) == (big, text, blob, 0.1, None)


async def test_parameters_are_not_confused_with_what_looks_like_them(router: Router, heard: Recorder) -> None:
    """Colons in strings, percent signs and a parameter used twice all mean what SQL says."""
    row = await router.fetch_one(
        "SELECT ':a' AS s, '100%' AS p, '%s ? $1' AS m, :a AS x, :a AS y /* :b */ -- :c",
        {"a": "v"},
        tenant="acme",
    )
    assert row is not None
    assert tuple(row) == (":a", "100%", "%s ? $1", "v", "v")
    assert heard.last.parameters  # by name, never by value
    assert "v" not in heard.last.parameters


async def test_decimal_is_exact(router: Router, engine: Engine) -> None:
    """A NUMERIC keeps its digits; SQLite, which has no such type, keeps the value."""
    name = engine.name()
    async with router.session("acme") as session:
        await session.execute(f"CREATE TABLE {name} (d NUMERIC(12, 2))")
        await session.execute(f"INSERT INTO {name} VALUES (:d)", {"d": Decimal("1234567.89")})
        value = await session.fetch_value(f"SELECT d FROM {name}")
    assert str(value) == "1234567.89"


# --- many, raw, prepared ---------------------------------------------------------------------------------


async def test_execute_many_changes_all(router: Router, engine: Engine, items: str) -> None:
    """A batch runs for every mapping and tells the rows changed where the protocol does."""
    rows = [{"name": f"n{i}", "amount": i} for i in range(1000)]
    async with router.session("acme") as session:
        changed = await session.execute_many(
            f"INSERT INTO {items} (name, amount) VALUES (:name, :amount)", rows
        )
        assert changed == (-1 if engine.dialect == "postgresql" else 1000)
        assert await session.fetch_value(f"SELECT sum(amount) FROM {items}") == sum(range(1000))


@pytest.mark.parametrize(
    "sql", ["INSERT INTO {} (name) VALUES (:name)", "UPDATE {} SET name = :name WHERE amount = 1"]
)
async def test_execute_many_is_all_or_none(router: Router, items: str, sql: str) -> None:
    """An error in the middle of a batch undoes the rows before it."""
    await router.execute(
        f"INSERT INTO {items} (name, amount) VALUES ('taken', 0), ('mine', 1)", tenant="acme"
    )
    names = [{"name": name} for name in ("a", "b", "taken", "c")]
    async with router.session("acme") as session:
        with pytest.raises(UniqueViolation):
            await session.execute_many(sql.format(items), names)
        rows = await session.fetch_all(f"SELECT name FROM {items} ORDER BY name", primary=True)
        assert [row.name for row in rows] == ["mine", "taken"]
        assert await session.execute(f"INSERT INTO {items} (name) VALUES ('after')")


async def test_execute_many_joins_a_transaction(router: Router, items: str) -> None:
    """In a transaction the batch is undone with it."""
    async with router.session("acme") as session:
        async with session.transaction() as tx:
            await tx.execute_many(f"INSERT INTO {items} (name) VALUES (:n)", [{"n": "a"}, {"n": "b"}])
            assert await tx.fetch_value(f"SELECT count(*) FROM {items}") == 2
            await tx.rollback()
        assert await session.fetch_value(f"SELECT count(*) FROM {items}", primary=True) == 0


async def test_execute_raw_runs_a_script(router: Router, engine: Engine, heard: Recorder) -> None:
    """Several statements run as they are, on the primary; the connection is not used again."""
    name = engine.name()
    async with router.session("acme") as session:
        await session.execute_raw(
            f"CREATE TABLE {name} (a INT, b VARCHAR(20)); INSERT INTO {name} VALUES (1, 'x; :y %s');"
            f"INSERT INTO {name} VALUES (2, NULL)"
        )
        assert heard.route == ("primary", "raw")
        row = await session.fetch_one(f"SELECT * FROM {name} WHERE a = 1")
        assert row is not None
        assert tuple(row) == (1, "x; :y %s")


async def test_prepared_statement_runs_many_times(router: Router, items: str) -> None:
    """prepare() gives a statement to run with changing parameters, in and outside of a transaction."""
    async with router.session("acme") as session:
        insert = await session.prepare(f"INSERT INTO {items} (name, amount) VALUES (:name, :amount)")
        for number in range(3):
            result = await insert.execute({"name": f"n{number}", "amount": number})
            assert result.rowcount == 1
        async with session.transaction() as tx:
            again = await tx.prepare(f"SELECT amount FROM {items} WHERE name = :name")
            assert [await again.fetch_value({"name": f"n{n}"}) for n in range(3)] == [0, 1, 2]
            row = await again.fetch_one({"name": "n2"})
            assert row is not None
            assert row.amount == 2
            inside = await tx.prepare(f"INSERT INTO {items} (name) VALUES (:name)")
            await inside.execute({"name": "undone"})
            await tx.rollback()
        count = await session.prepare(f"SELECT name FROM {items}")
        assert len(await count.fetch_all(primary=True)) == 3
        assert items in repr(count)


# --- routes ----------------------------------------------------------------------------------------------


async def test_reads_go_to_replicas_and_writes_to_the_primary(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A proven read goes to a replica, a write and a definition to the primary; the events say so."""
    await fill(router, items, "a")
    assert heard.route == ("primary", "write")
    await engine.settle()
    assert await router.fetch_value(f"SELECT name FROM {items}", tenant="acme") == "a"
    assert heard.route == ("replica", "read")
    assert heard.last.node is not None
    assert heard.last.node.name in engine.replicas


@SERVED
async def test_a_locking_read_goes_to_the_primary(router: Router, heard: Recorder, items: str) -> None:
    """FOR UPDATE takes locks, so it is no read."""
    assert await router.fetch_all(f"SELECT name FROM {items} FOR UPDATE", tenant="acme") == []
    assert heard.route == ("primary", "locking")


@POSTGRESQL
async def test_functions_are_asked_of_the_catalog(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A volatile function makes a write of a SELECT, a stable one does not; a changed one is noticed."""
    writes = f"INSERT INTO {items} (name) VALUES ('f') RETURNING id"
    for name, kind, body in (("looks", "STABLE", "SELECT 7"), ("writes", "VOLATILE", writes)):
        await router.execute(
            f"CREATE FUNCTION {items}_{name}() RETURNS INT LANGUAGE sql {kind} AS $$ {body} $$", tenant="acme"
        )
    await engine.settle()
    assert await router.fetch_value(f"SELECT {items}_looks()", tenant="acme") == 7
    assert heard.route == ("replica", "read")
    assert await router.fetch_value(f"SELECT {items}_writes()", tenant="acme") == 1
    assert heard.route == ("primary", "volatile_function")
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 1
    await router.execute(f"ALTER FUNCTION {items}_looks() VOLATILE", tenant="acme")
    assert await router.fetch_value(f"SELECT {items}_looks()", tenant="acme") == 7
    assert heard.route == ("primary", "volatile_function")
    await router.execute(f"ALTER FUNCTION {items}_looks() STABLE", tenant="acme")
    await router.fetch_value(f"SELECT {items}_looks()", tenant="acme")
    assert heard.route == ("replica", "read")


@POSTGRESQL
async def test_a_function_changed_behind_our_back_is_refused_by_the_replica(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A function that somebody else made a writing one fails on the replica and runs on the primary, once."""
    create = f"CREATE OR REPLACE FUNCTION {items}_f() RETURNS INT LANGUAGE sql"
    await router.execute(f"{create} STABLE AS $$ SELECT 1 $$", tenant="acme")
    await engine.settle()
    await router.fetch_value(f"SELECT {items}_f()", tenant="acme")
    assert heard.route == ("replica", "read")
    async with engine.open() as other:
        body = f"INSERT INTO {items} (name) VALUES ('f') RETURNING 2"
        await other.execute(f"{create} VOLATILE AS $$ {body} $$", tenant="acme")
    await engine.settle()
    assert await router.fetch_value(f"SELECT {items}_f()", tenant="acme") == 2
    assert (heard.route, heard.last.attempts) == (("primary", "refused_by_replica"), 2)
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 1


async def test_a_session_reads_from_one_replica(router: Router, engine: Engine, heard: Recorder) -> None:
    """All reads of a session go to the same replica; over many sessions every replica is used."""
    for _ in range(40):
        session = router.session("acme")
        start = len(heard.requests)
        for _ in range(3):
            await session.fetch_value("SELECT 1")
        nodes = {event.node for event in heard.requests[start:]}
        assert len(nodes) == 1
    used = {event.node.name for event in heard.requests if event.node}
    assert used == set(engine.replicas)


async def test_a_session_sees_its_own_writes(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """After a write the session reads where that write is seen, at once, without waiting for replicas."""
    for number in range(10):
        async with router.session("acme") as session:
            await session.execute(f"INSERT INTO {items} (name) VALUES (:n)", {"n": f"n{number}"})
            count = await session.fetch_value(f"SELECT count(*) FROM {items}")
            assert count == number + 1
            assert heard.last.reason == engine.own_read_reason


async def test_a_session_sees_the_writes_of_its_transaction(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """A committed transaction and a write of the ORM count as the session's own writes."""
    from sqlalchemy import text

    async with router.session("acme") as session:
        async with session.transaction() as tx:
            await tx.execute(f"INSERT INTO {items} (name) VALUES ('a')")
        assert await session.fetch_value(f"SELECT count(*) FROM {items}") == 1
        assert heard.last.reason == engine.own_read_reason
    async with router.session("acme") as session:
        async with session.orm() as orm:
            await orm.execute(text(f"INSERT INTO {items} (name) VALUES ('b')"))
        assert await session.fetch_value(f"SELECT count(*) FROM {items}") == 2
        assert heard.last.reason == engine.own_read_reason


async def test_declared_intent_wins(router: Router, engine: Engine, heard: Recorder, items: str) -> None:
    """primary=True and readonly=True override what the text says."""
    await engine.settle()
    await router.fetch_all(f"SELECT * FROM {items}", tenant="acme", primary=True)
    assert heard.route == ("primary", "declared_primary")
    unproven = {
        "postgresql": "SELECT lastval_like()",
        "mysql": "SELECT nope_fn()",
        "sqlite": "SELECT nope_fn()",
    }
    for given in ({}, {"readonly": True}):
        with pytest.raises((errors.InvalidStatement, errors.PermissionDenied)):
            await router.fetch_all(unproven[engine.dialect], tenant="acme", **given)
    refused = heard.requests[-2:]
    assert [(event.role.value, event.reason.value) for event in refused] == [
        ("primary", "unknown_function"),
        ("replica", "declared_read"),
    ]


async def test_consistency_levels(router: Router, engine: Engine, heard: Recorder, items: str) -> None:
    """strong reads from the primary, eventual from a replica even after an own write."""
    await engine.settle()
    await router.fetch_all(f"SELECT * FROM {items}", tenant="acme", consistency="strong")
    assert heard.route == ("primary", "strong")
    async with router.session("acme", consistency="eventual") as session:
        await session.execute(f"INSERT INTO {items} (name) VALUES ('a')")
        await session.fetch_all(f"SELECT * FROM {items}")
        assert heard.route == ("replica", "read")
        await session.fetch_all(f"SELECT * FROM {items}", consistency="strong")
        assert heard.route == ("primary", "strong")


async def test_a_write_declared_as_read_is_refused_and_goes_to_the_primary_once(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """The replica's own refusal sends the write to the primary, once; the text is remembered after that."""
    await engine.settle()
    sql = f"INSERT INTO {items} (name) VALUES (:name)"
    await router.execute(sql, {"name": "a"}, tenant="acme", readonly=True)
    assert (heard.route, heard.last.attempts) == (("primary", "refused_by_replica"), 2)
    await router.execute(sql, {"name": "b"}, tenant="acme")
    assert heard.last.role.value == "primary"
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 2


async def test_a_refused_text_is_remembered(
    router: Router, engine: Engine, heard: Recorder, items: str
) -> None:
    """The next time the same text goes straight to the primary although it is declared a read again."""
    await engine.settle()
    sql = f"INSERT INTO {items} (name) VALUES (:name)"
    for name in ("a", "b"):
        await router.execute(sql, {"name": name}, tenant="acme", readonly=True)
    assert (heard.route, heard.last.attempts) == (("primary", "refused_by_replica"), 1)


async def test_tenants_and_schemas_are_apart(router: Router, engine: Engine, heard: Recorder) -> None:
    """The same table name is another table for each tenant and each of its schemas."""
    name = engine.name()
    places = [("acme", None), ("acme", "analytics"), ("globex", None), ("globex", "analytics")]
    for tenant, schema in places:
        async with router.session(tenant, schema) as session:
            await session.execute(f"CREATE TABLE {name} (who VARCHAR(50))")
            await session.execute(f"INSERT INTO {name} VALUES (:w)", {"w": f"{tenant}/{schema}"})
    await engine.settle()
    for given in ({}, {"primary": True}):
        for tenant, schema in places:
            rows = await router.fetch_all(f"SELECT who FROM {name}", tenant=tenant, schema=schema, **given)
            assert [row.who for row in rows] == [f"{tenant}/{schema}"]
            assert (heard.last.tenant, heard.last.schema) == (tenant, schema)


# --- life ------------------------------------------------------------------------------------------------


async def test_a_closed_session_refuses(router: Router) -> None:
    """Use after the block is RouterClosed; closing twice is harmless."""
    async with router.session("acme") as session:
        assert await session.fetch_value("SELECT 1") == 1
    await session.close()
    for call in (
        session.fetch_all("SELECT 1"),
        session.execute("SELECT 1"),
        session.begin(),
        session.commit(),
        session.prepare("SELECT 1"),
        anext(session.stream("SELECT 1")),
    ):
        with pytest.raises(RouterClosed) as caught:
            await call
        assert caught.value.tenant == "acme"


async def test_a_lent_connection_is_the_drivers_own(router: Router, engine: Engine, heard: Recorder) -> None:
    """connection() lends the driver's object, bound to the tenant, and closes it afterwards."""
    from router.events import ConnectionClosed

    async with router.session("acme") as session:
        async with session.connection() as lease:
            raw = lease.connection.driver_connection
            assert type(raw).__module__.split(".")[0] in ("asyncpg", "aiomysql", "aiosqlite")
            assert await lease.run("fetch_one", "SELECT 1", (), 5.0)
        assert heard.of(ConnectionClosed)[-1].reason == "lent"


async def test_every_request_is_told_once(router: Router, heard: Recorder, items: str) -> None:
    """One event ends each request; it has the parameterised text and times that add up."""
    heard.clear()
    async with router.session("acme", context_id="req-1") as session:
        await session.execute(f"INSERT INTO {items} (name) VALUES (:name)", {"name": "secret-value"})
        await session.fetch_all(f"SELECT * FROM {items}")
    assert len(heard.requests) == 2
    written = heard.requests[0]
    assert (written.tenant, written.context_id, written.kind) == ("acme", "req-1", "write")
    assert written.sql == f"INSERT INTO {items} (name) VALUES (:name)"
    assert "secret-value" not in repr(written)
    for event in heard.requests:
        assert 0 <= event.acquire + event.execute <= event.total
