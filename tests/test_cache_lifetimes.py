"""Which reads are cached without being asked for: rules by tables and fingerprints, and what is hot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from router.statements import Dialect, parse
from tests.cache.looking import Looking, Stage, alone
from tests.cache.looking import stage as stage
from tests.engines import TENANTS, Engine, only

pytestmark = only("sqlite", "postgresql")  # what is tested is the same for all


@asynccontextmanager
async def ruled(engine: Engine, **given: Any) -> AsyncIterator[Looking]:
    """Open a router with rules."""
    async with engine.open(cluster=alone(engine), **given) as router:
        yield Looking(router)


async def cached(look: Looking, sql: str, on: Any = "acme", **given: Any) -> bool:
    """Tell whether a read that is made twice is answered from memory the second time."""
    await look(on, sql, cache=None, **given)
    return (await look(on, sql, cache=None, **given)).cached


def rule(*tables: str, ttl: str = "60s", **more: Any) -> dict[str, Any]:
    """Return the cache section of a tenant, of a tier or of all."""
    return {"cache": {"rules": [{"tables": list(tables), "ttl": ttl, **more}]}}


async def test_a_rule_names_tables(engine: Engine, stage: Stage) -> None:
    """Reads of these and of no others; the call's own word counts more."""
    async with ruled(engine, defaults=rule(stage.table)) as look:
        assert await cached(look, stage.sql)
        assert not await cached(look, f"SELECT count(*) FROM {stage.beside}")
        both = f"SELECT count(*) FROM {stage.table} AS a JOIN {stage.beside} AS b ON a.id = b.id"
        assert not await cached(look, both)
        assert not (await look("acme", stage.sql, cache=False)).cached
        assert not (await look("acme", stage.sql, cache=0)).cached
        assert not await cached(look, f"{stage.sql} WHERE id > 0", primary=True)
        assert (await look("acme", f"SELECT count(*) FROM {stage.beside}", cache=60)).role != "cache"
        assert (await look("acme", f"SELECT count(*) FROM {stage.beside}", cache=60)).cached
        await look.router.execute(stage.insert(10), tenant="acme")
        assert (await look("acme", stage.sql, cache=None)).rows == [(4, 13)]
    async with ruled(engine, defaults=rule(stage.table, stage.beside)) as look:
        assert await cached(look, both)


async def test_a_rule_names_fingerprints(engine: Engine, stage: Stage) -> None:
    """As events and the slow log show them: all reads that differ in literals only."""
    sql = f"SELECT amount FROM {stage.table} WHERE id = 1"
    fingerprint = parse(sql, Dialect(engine.dialect)).fingerprint
    section = {"cache": {"rules": [{"fingerprints": [fingerprint], "ttl": "60s"}]}}
    async with ruled(engine, defaults=section) as look:
        assert await cached(look, sql)
        assert look.heard.last.fingerprint == fingerprint
        assert await cached(look, sql.replace("= 1", "= 2"))
        assert not await cached(look, f"SELECT id FROM {stage.table} WHERE id = 1")


async def test_the_first_rule_that_fits_counts(engine: Engine, stage: Stage) -> None:
    """Each has its own lifetime."""
    rules = [{"tables": [stage.table], "ttl": "1ms"}, {"tables": [stage.table, stage.beside], "ttl": "60s"}]
    async with ruled(engine, defaults={"cache": {"rules": rules}}) as look:
        assert await cached(look, f"SELECT count(*) FROM {stage.beside}")
        await look("acme", stage.sql, cache=None)
        executor: Any = look.router._executor
        for node in executor.cache.memory._nodes.values():
            node.value.born -= 1
        assert not (await look("acme", stage.sql, cache=None)).cached
        assert (await look("acme", f"SELECT count(*) FROM {stage.beside}", cache=None)).cached


async def test_a_tenant_s_rules_take_the_place_of_its_tier_s_and_those_of_the_defaults(
    engine: Engine, stage: Stage
) -> None:
    """Whoever sets rules sets all of them, none as well."""
    tables = {name: f"{stage.table}_{name}" for name in ("default", "tier", "own")}
    for tenant in TENANTS:
        for name in tables.values():
            await stage.router.execute(f"CREATE TABLE {name} (id INT PRIMARY KEY)", tenant=tenant)

    async def those(own: dict[str, Any]) -> list[set[str]]:
        found = []
        given = {"defaults": rule(tables["default"]), "tiers": {"gold": rule(tables["tier"])}, "own": own}
        async with ruled(engine, **given) as look:
            for tenant in TENANTS:
                names = tables.items()
                found.append(
                    {name for name, table in names if await cached(look, f"SELECT id FROM {table}", tenant)}
                )
        return found

    assert await those({"acme": rule(tables["own"])}) == [{"own"}, {"default"}]
    assert await those({"acme": {"tier": "gold"}}) == [{"tier"}, {"default"}]
    assert await those({"acme": {"tier": "gold", **rule(tables["own"])}}) == [{"own"}, {"default"}]
    assert await those({"globex": {"cache": {"rules": []}}}) == [{"default"}, set()]


async def test_rules_cannot_make_what_must_not_be_cached(engine: Engine, stage: Stage) -> None:
    """Neither reads of the clock nor writes nor transactions."""
    clock = "CURRENT_TIMESTAMP"
    async with ruled(engine, defaults=rule(stage.table)) as look:
        assert not await cached(look, f"SELECT id, {clock} FROM {stage.table}")
        await look("acme", f"{stage.insert(10)} RETURNING id", cache=None)
        await look("acme", f"{stage.insert(11)} RETURNING id", cache=None)
        assert not await cached(look, stage.sql, consistency="strong")
        async with look.router.session("acme").transaction() as tx:
            assert not await cached(look, stage.sql, tx)
        assert (await look("acme", stage.sql, cache=None)).rows == [(5, 24)]


async def test_what_is_hot_is_cached_by_itself(engine: Engine, stage: Stage) -> None:
    """From the n-th read with the same parameters on, and not if a tenant is not meant."""
    sql, auto = (
        f"SELECT amount FROM {stage.table} WHERE id = :id",
        {"ttl": "60s", "reads": 4, "window": "60s"},
    )
    async with ruled(engine, own={"acme": {"cache": {"auto": auto}}}) as look:
        roles = [(await look("acme", sql, {"id": 1}, cache=None)).cached for _ in range(7)]
        assert roles == [False] * 4 + [True] * 3
        roles = [(await look("acme", sql, {"id": 2}, cache=None)).cached for _ in range(5)]
        assert roles == [False] * 4 + [True]
        for _ in range(6):
            assert not (await look("acme", "SELECT 1", cache=None)).cached
        assert not (await look("acme", sql, {"id": 1}, cache=False)).cached
        for _ in range(6):
            assert not (await look("globex", "SELECT 1", cache=None)).cached
        await look.router.execute(f"UPDATE {stage.table} SET amount = 9 WHERE id = 1", tenant="acme")
        assert (await look("acme", sql, {"id": 1}, cache=None)).rows == [(9,)]


async def test_declared_dependencies_take_the_place_of_the_doubt(engine: Engine, stage: Stage) -> None:
    """A table that a trigger changes is named in the configuration: then only that is doubted."""
    third = f"{stage.table}_third"
    await stage.run(
        f"CREATE TABLE {third} (id INT PRIMARY KEY)",
        *(
            (
                f"CREATE FUNCTION f_{third}() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$BEGIN {stage.insert(50)}; RETURN NEW; END$$",
                f"CREATE TRIGGER g_{third} AFTER INSERT ON {third} FOR EACH ROW EXECUTE FUNCTION f_{third}()",
            )
            if engine.dialect == "postgresql"
            else (f"CREATE TRIGGER g_{third} AFTER INSERT ON {third} BEGIN {stage.insert(50)}; END",)
        ),
    )
    other = f"SELECT count(*) FROM {stage.beside}"
    for declared in ({}, {third: [stage.table]}):
        async with ruled(engine, defaults={"cache": {"dependencies": declared}}) as look:
            await look("acme", other)
            await look("acme", stage.sql)
            await look.router.execute(f"DELETE FROM {stage.table} WHERE id = 50", tenant="acme")
            assert (await look("acme", stage.sql)).rows == [(3, 3)]
            assert (await look("acme", other)).cached
            number = await look.truth(f"SELECT count(*) FROM {third}")
            await look.router.execute(f"INSERT INTO {third} (id) VALUES ({number[0][0]})", tenant="acme")
            assert (await look("acme", stage.sql)).rows == [(4, 53)]
            assert (await look("acme", other)).cached == bool(declared)
