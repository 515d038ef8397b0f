"""Random schemas and writes on real servers: whatever changed had been foretold by what the catalog says."""

import random
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from router import Router
from router.cache.catalogs import QUERIES
from router.cache.refusal import Refusal
from router.cache.relations import Relations
from router.cache.rules import changes, never
from router.cache.shapes import relations_of
from router.errors import RouterError
from router.statements import Dialect, parse
from tests.engines import Engine, only

ACTIONS = {
    "postgresql": ("CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION"),
    "mysql": ("CASCADE", "SET NULL", "RESTRICT"),
    "sqlite": ("CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION"),
}
SCHEMAS, TABLES, WRITES = 6, 7, 60
Contents = dict[str, list[tuple[object, ...]]]


class Graph(NamedTuple):
    """Hold a random schema: tables that refer to each other, views of tables and of views."""

    ddl: list[str]
    tables: list[str]
    views: list[str]
    simple: list[str]  # of the views: of one table, so that they can be written


def draw(rng: random.Random, engine: Engine) -> Graph:
    """Return a random schema; every relation in it has the columns id and a, tables also r and q."""
    graph = Graph([], [], [], [])
    for number in range(TABLES):
        name = engine.name()
        shape = rng.choice(("plain", "partitioned", "parent")) if engine.dialect == "postgresql" else "plain"
        columns = ["id INT PRIMARY KEY", "a INT DEFAULT 1", "r INT DEFAULT 1", "q INT DEFAULT 1"]
        for column in rng.sample(("r", "q"), k=min(number, rng.randint(0, 2))):
            parent = rng.choice(graph.tables)
            acts = [f"ON {event} {rng.choice(ACTIONS[engine.dialect])}" for event in ("DELETE", "UPDATE")]
            columns.append(f"FOREIGN KEY ({column}) REFERENCES {parent} (id) {' '.join(acts)}")
        partition = " PARTITION BY RANGE (id)" if shape == "partitioned" else ""
        graph.ddl.append(f"CREATE TABLE {name} ({', '.join(columns)}){partition}")
        if shape == "partitioned":
            graph.ddl.append(f"CREATE TABLE {name}_x PARTITION OF {name} FOR VALUES FROM (MINVALUE) TO (3)")
            graph.ddl.append(f"CREATE TABLE {name}_y PARTITION OF {name} FOR VALUES FROM (3) TO (MAXVALUE)")
            graph.views.extend((f"{name}_x", f"{name}_y"))
        elif shape == "parent":
            graph.ddl.append(f"CREATE TABLE {name}_c () INHERITS ({name})")
            graph.ddl.append(f"CREATE TABLE {name}_d () INHERITS ({name}_c)")
            graph.views.extend((f"{name}_c", f"{name}_d"))
        graph.tables.append(name)
    for _ in range(TABLES):
        name, one = engine.name(), rng.choice(graph.tables)
        two = rng.choice(graph.tables + graph.views)
        common = two if engine.id != "sqlite" else f"{two}_"  # which calls the same name a circle
        text, simple = rng.choice(
            (
                (f"SELECT id, a FROM {one} WHERE a > 0", True),
                (f"SELECT x.id, y.a FROM {one} x JOIN {two} y ON x.id = y.id", False),
                (f"SELECT id, a FROM {one} WHERE id IN (SELECT a FROM {two})", False),
                (f"WITH {common} AS (SELECT id, a FROM {two}) SELECT id, a FROM {common}", False),
                (f"SELECT id, a FROM {one} UNION ALL SELECT a, id FROM {two}", False),
            )
        )
        graph.ddl.append(f"CREATE VIEW {name} (id, a) AS {text}")
        graph.views.append(name)
        if simple:
            graph.simple.append(name)
    return graph


def write(rng: random.Random, engine: Engine, graph: Graph) -> str:
    """Return a random change."""
    one, two = rng.choice(graph.tables), rng.choice(graph.tables + graph.views)
    k, m = rng.randint(1, 6), rng.randint(1, 9)
    target = (
        rng.choice(graph.simple) if graph.simple and rng.random() < 0.3 and engine.id != "sqlite" else one
    )
    texts = [
        f"INSERT INTO {target} (id, a) VALUES ({k}, {m})",
        f"INSERT INTO {one} (id, a, r, q) SELECT id + {k}, a, {m}, NULL FROM {two} WHERE id < 3",
        f"UPDATE {target} SET a = {m} WHERE id <= {k}",
        f"UPDATE {target} SET id = {k + m} WHERE id = {k}",
        f"UPDATE {one} SET a = {m} WHERE id IN (SELECT id FROM {two if two != one else target})",
        f"DELETE FROM {target} WHERE id = {k}",
        f"DELETE FROM {one} WHERE a < {m}",
    ]
    if engine.dialect == "mysql":
        texts.append(f"UPDATE {one} x, {two} y SET x.a = {m} WHERE x.id = y.id")
        texts.append(f"DELETE {one} FROM {one} JOIN {two} USING (id)")
    else:
        texts.append(f"WITH {one} AS (SELECT 1) UPDATE {one} SET a = {m}")
        texts.append(f"WITH {one} AS (SELECT {k} AS id) DELETE FROM {one} WHERE id = {k}")
    if engine.dialect == "postgresql":
        texts.append(
            f"WITH gone AS (DELETE FROM {one} WHERE id = {k} RETURNING id) SELECT count(*) FROM gone"
        )
        texts.append(f"UPDATE ONLY {one} SET a = y.a FROM {two} y WHERE y.id = {one}.id")
        texts.append(f"DELETE FROM {one} USING {two} y WHERE y.id = {one}.id")
    else:
        texts.append(f"REPLACE INTO {one} (id, a) VALUES ({k}, {m})")
    return rng.choice(texts)


async def contents(router: Router, names: Iterable[str]) -> Contents:
    """Return the rows of every relation, by one statement."""
    text = " UNION ALL ".join(f"SELECT '{name}' AS name, id, a FROM {name}" for name in names)
    found: Contents = {}
    for name, *row in await router.fetch_all(text, tenant="acme", primary=True):
        found.setdefault(name, []).append(tuple(row))
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def depends(relations: Relations, text: str, dialect: Dialect) -> frozenset[str]:
    statement = parse(text, dialect)
    assert never(statement) is None, text
    ids = relations.read(statement.tables)
    assert not isinstance(ids, Refusal), (text, ids)
    return ids


@pytest.mark.parametrize("seed", range(SCHEMAS))
@only("sqlite", "postgresql", "mariadb")
async def test_whatever_a_write_changed_was_foretold(router: Router, engine: Engine, seed: int) -> None:
    """Every relation whose rows changed is among what was written, or depends on one that is."""
    dialect, rng = Dialect(engine.dialect), random.Random(seed)
    graph = draw(rng, engine)
    for text in graph.ddl:
        await router.execute(text, tenant="acme")
    for name in graph.tables:
        for key in range(1, 5):
            values = f"{key}, {rng.randint(1, 4)}, {rng.randint(1, 4)}, NULL"
            await router.execute(f"INSERT INTO {name} (id, a, r, q) VALUES ({values})", tenant="acme")
    rows = await router.fetch_all(QUERIES[dialect], tenant="acme", primary=True)
    relations = relations_of(rows, dialect, {})
    names = graph.tables + graph.views
    needs = {name: depends(relations, f"SELECT id, a FROM {name}", dialect) for name in names}
    before, seen, precise = await contents(router, names), 0, 0
    for _ in range(WRITES):
        text = write(rng, engine, graph)
        named = changes(parse(text, dialect))
        assert named is not None, text
        written = relations.written(named)
        assert written is not None, text
        precise += any(written.isdisjoint(need) for need in needs.values())
        try:
            await router.execute(text, tenant="acme")
        except RouterError:
            continue  # refused by a key; then nothing has changed
        after = await contents(router, names)
        changed = [name for name in names if before.get(name) != after.get(name)]
        for name in changed:
            assert not written.isdisjoint(needs[name]), (text, name, written)
        seen += len(changed)
        before = after
    assert seen > WRITES / 2
    assert precise > WRITES / 4  # else all of it would hold by calling everything changed
