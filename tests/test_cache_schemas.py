"""Places: each has its own answers, and what its catalog says changes under reads and writes."""

import asyncio
from typing import Any

from tests.cache.forms import trigger_by
from tests.cache.looking import Look, Looking, Stage, alone
from tests.cache.looking import stage as stage
from tests.chaos.cases import until
from tests.engines import POSTGRESQL, SERVED, TENANTS, Engine


async def test_no_tenant_is_answered_with_another_s_rows(engine: Engine, stage: Stage) -> None:
    """Same text, parameters and time: each gets its own, and a write of one leaves the others' alone."""
    places: list[dict[str, Any]] = [
        {"tenant": tenant, "schema": schema} for tenant in TENANTS for schema in (None, "analytics")
    ]
    name, router = f"{stage.table}_own", stage.router
    sql = f"SELECT place FROM {name} WHERE id = :id"
    for number, place in enumerate(places):
        await router.execute(f"CREATE TABLE {name} (id INT PRIMARY KEY, place INT)", **place)
        await router.execute(f"INSERT INTO {name} VALUES (1, {number})", **place)
    for _ in range(3):
        reads = [router.fetch_value(sql, {"id": 1}, cache=60, **place) for place in places for _ in range(5)]
        assert await asyncio.gather(*reads) == [number for number in range(4) for _ in range(5)]
    await router.execute(f"UPDATE {name} SET place = 7", **places[1])
    stage.look.heard.clear()
    assert [await router.fetch_value(sql, {"id": 1}, cache=60, **place) for place in places] == [0, 7, 2, 3]
    assert [event.role.value == "cache" for event in stage.look.heard.requests] == [True, False, True, True]


@SERVED
async def test_a_read_that_waits_while_its_view_changes_is_not_kept(engine: Engine, stage: Stage) -> None:
    """It was sent after the change, and its tables were found before."""
    view = f"v_{stage.table}"
    sql = f"SELECT sum(amount) FROM {view}"
    async with engine.open(cluster=alone(engine), connections=1) as router:
        look = Looking(router)
        session = router.session("acme")
        await session.execute(f"CREATE VIEW {view} AS SELECT amount FROM {stage.table}")
        await look("acme", f"{sql} WHERE amount > 0")
        transaction = await session.begin()
        read = asyncio.create_task(router.fetch_all(sql, tenant="acme", cache=60))
        await until(lambda: any(pool.waiting for pool in router.status().pools))
        await transaction.execute(
            f"CREATE OR REPLACE VIEW {view} AS SELECT 5 * amount AS amount FROM {stage.beside}"
        )
        await transaction.commit()
        assert [tuple(row) for row in await read] == [(15,)]
        await look("acme", f"{sql} WHERE amount > 1")  # by now the catalog is known again
        await router.execute(f"UPDATE {stage.beside} SET amount = 2", tenant="acme")
        assert (await look("acme", sql)).rows == [(30,)]
        assert await look("acme", sql) == Look([(30,)], "cache")


@POSTGRESQL
async def test_what_one_schema_s_sessions_have_changed_others_do_not_go_by(stage: Stage) -> None:
    """A trigger that was made over another schema's name counts for a write in this one."""
    look, router = stage.look, stage.router
    here = (await look("acme", "SELECT current_schema()", cache=False)).rows[0][0]
    other = router.session("acme", schema="analytics")
    view = f"v_{stage.table}"
    await other.execute(f"CREATE VIEW {view} AS SELECT id FROM {here}.{stage.table}")
    await look("acme", stage.sql)
    await other.execute(
        f"CREATE FUNCTION g_{stage.table}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN INSERT INTO {here}.{stage.table} VALUES (NEW.id, 1); RETURN NEW; END$$"
    )
    await other.execute(
        f"CREATE TRIGGER g_{stage.table} AFTER INSERT ON {here}.{stage.beside} "
        f"FOR EACH ROW EXECUTE FUNCTION g_{stage.table}()"
    )
    sql = f"SELECT count(*) FROM {view}"
    for _ in range(2):
        found = await look(router.session("acme", schema="analytics"), sql)
    assert found == Look([(3,)], "cache")
    await router.execute(stage.insert(10, stage.beside), tenant="acme")
    assert (await look(router.session("acme", schema="analytics"), sql)).rows == [(4,)]


@POSTGRESQL
async def test_a_write_that_waits_while_a_trigger_is_made_counts_for_what_that_changes(stage: Stage) -> None:
    """What it changes is known at its end, not when it was sent."""
    look, router = stage.look, stage.router
    await look("acme", stage.sql)
    async with router.session("acme").transaction() as writing:
        async with router.session("acme").transaction() as making:
            await trigger_by(stage, making.execute)
            insert = asyncio.create_task(writing.execute(stage.insert(10, stage.beside)))
            await until(lambda: writing.unit.writing is not None)
            await asyncio.sleep(0.05)
        await insert
        for _ in range(2):
            found = await look("acme", stage.sql)
        assert found == Look([(3, 3)], "cache")
    assert (await look("acme", stage.sql)).rows == [(4, 4)]
