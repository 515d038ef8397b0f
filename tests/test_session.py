"""Sessions: the same calls give the same answers on every engine, and each goes where it should."""

import dataclasses
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from router import Router
from router.errors import UniqueViolation
from tests.engines import Engine, Recorder


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
