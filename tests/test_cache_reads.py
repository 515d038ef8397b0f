"""What is answered from memory, what never is, and that nobody gets an answer that is not theirs."""

import asyncio
import dataclasses
import datetime
import json
import zoneinfo
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from router import Router
from router.consistency import Bounded
from router.errors import RouterError, UsageError
from router.events import RequestFailed, RequestFinished
from tests.cache.looking import Look, Looking, Stage, alone
from tests.cache.looking import stage as stage
from tests.engines import POSTGRESQL, SERVED, Engine, Recorder, only
from tests.faults import Blackhole
from tests.faults.cluster import Proxied

pytestmark = only("sqlite", "postgresql", "mariadb")
ONE = "SELECT id, amount FROM {} WHERE id = :id"


@dataclasses.dataclass
class Amount:
    """What a row becomes."""

    id: int
    amount: int


async def spoil(stage: Stage) -> None:
    """Change the table in another process, of which this one cannot know: what is cached is as before."""
    engine = stage.engine
    async with engine.open(cluster=alone(engine)) as another:
        await another.execute(f"UPDATE {stage.table} SET amount = 100", tenant="acme")


async def test_all_ways_to_fetch_are_answered_from_memory(stage: Stage) -> None:
    """fetch_all, fetch_one, fetch_value, of sessions, prepared statements and the router; into= as well."""
    one, router = ONE.format(stage.table), stage.router
    given: dict[str, Any] = {"params": {"id": 1}, "cache": 60}

    def new() -> Any:
        return router.session("acme")

    async def read() -> list[Any]:
        return [
            [tuple(row) for row in await new().fetch_all(one, **given)],
            tuple(await new().fetch_one(one, **given) or ()),
            await new().fetch_value(f"SELECT amount FROM {stage.table} WHERE id = :id", **given),
            [tuple(row) for row in await (await new().prepare(one)).fetch_all(**given)],
            await new().fetch_all(one, into=Amount, **given),
            await new().fetch_one(one, into=Amount, **given),
            tuple(await router.fetch_one(one, tenant="acme", **given) or ()),
            await router.fetch_value(f"SELECT amount FROM {stage.table}", cache=60, tenant="acme"),
            await router.fetch_all(one, tenant="acme", into=Amount, **given),
            await router.fetch_one(one, tenant="acme", into=Amount, **given),
        ]

    row, made = (1, 1), Amount(1, 1)
    expected = [[row], row, 1, [row], [made], made, row, 1, [made], made]
    assert await read() == expected
    await spoil(stage)
    stage.look.heard.clear()
    assert await read() == expected
    assert {event.role.value for event in stage.look.heard.requests} == {"cache"}
    assert await new().fetch_value(f"SELECT amount FROM {stage.table}", cache=False) == 100


async def test_an_answer_from_memory_is_told_as_such(stage: Stage) -> None:
    """One event, of the tenant and the statement, by the node that once gave it; and it counts."""
    session = stage.router.session("acme", context_id="42")
    await stage.look(session, stage.sql)
    (first,) = stage.look.heard.of(RequestFinished)
    await stage.look(session, stage.sql)
    (event,) = stage.look.heard.of(RequestFinished)
    assert (event.role.value, event.reason.value, event.attempts) == ("cache", "cached", 0)
    assert (event.tenant, event.sql, event.rows, event.context_id) == ("acme", stage.sql, 1, "42")
    assert event.node is first.node
    assert event.execute == 0 <= event.total < 0.05
    tally = tallied(stage.router)
    assert (tally.hits, tally.misses, tally.stored, tally.ratio) == (1, 1, 1, 0.5)
    assert tally.saved > 0


def tallied(router: Router, tenant: str = "acme") -> Any:
    """Return what was counted of a tenant's main schema."""
    executor: Any = router._executor
    return executor.scope(executor.target(tenant, None)).tally


@pytest.mark.parametrize("wrong", [True, -1, float("nan"), float("inf"), "60", Decimal(60)])
async def test_a_lifetime_that_is_none_is_refused(stage: Stage, wrong: Any) -> None:
    """Before anything is asked."""
    stage.look.heard.clear()
    with pytest.raises(UsageError, match="number of seconds"):
        await stage.router.session("acme").fetch_all(stage.sql, cache=wrong)
    with pytest.raises(UsageError, match="number of seconds"):
        await stage.router.fetch_one(stage.sql, tenant="acme", cache=wrong)
    assert not stage.look.heard.requests


async def test_only_what_fetches_takes_a_lifetime(stage: Stage) -> None:
    """Elsewhere it is refused with the reason, rather than forgotten."""
    session = stage.router.session("acme")
    refused = pytest.raises(UsageError, match=r"cache= is for what fetches rows")
    with refused:
        await session.execute(stage.insert(10), cache=60)
    with refused:
        await session.execute_many(stage.insert(10), [], cache=60)
    with pytest.raises(TypeError):
        session.stream(stage.sql, cache=60)  # type: ignore[call-arg]
    await session.execute(stage.insert(10), cache=False)


async def test_an_answer_gets_as_old_as_each_call_says(stage: Stage) -> None:
    """The lifetime is the reader's, not the entry's; what is too old is read anew."""
    await stage.look("acme", stage.sql, cache=0.001)
    await spoil(stage)
    await asyncio.sleep(0.05)
    assert await stage.look("acme", stage.sql) == Look([(3, 3)], "cache")
    assert (await stage.look("acme", stage.sql, cache=0.04)).rows == [(3, 300)]
    assert await stage.look("acme", stage.sql) == Look([(3, 300)], "cache")
    assert not (await stage.look("acme", stage.sql, cache=0)).cached


async def test_nothing_and_no_rows_are_answers(stage: Stage) -> None:
    """None and an empty list are kept like all else."""
    router, sql = stage.router, ONE.format(stage.table)
    given: dict[str, Any] = {"params": {"id": 99}, "cache": 60, "tenant": "acme"}
    assert await router.fetch_all(sql, **given) == []
    assert await router.fetch_one(sql, **given) is None
    stage.look.heard.clear()
    assert await router.fetch_all(sql, **given) == []
    assert await router.fetch_one(sql, **given) is None
    assert await router.fetch_value(sql, **given) is None
    assert [event.role.value for event in stage.look.heard.requests] == ["cache"] * 3


async def test_what_a_reader_does_with_its_rows_is_its_own_affair(stage: Stage) -> None:
    """The list is the reader's, the rows cannot be changed."""
    session = stage.router.session("acme")
    for _ in range(3):
        rows: Any = await session.fetch_all(f"SELECT id FROM {stage.table} ORDER BY id", cache=60)
        assert [row.id for row in rows] == [1, 2, 3]
        rows.clear()
        row: Any = await session.fetch_one(f"SELECT id FROM {stage.table} WHERE id = 1", cache=60)
        with pytest.raises((AttributeError, TypeError)):
            row.id = 5
        with pytest.raises(TypeError):
            row[0] = 5


@POSTGRESQL
async def test_arrays_and_documents_cannot_be_changed_in_memory(stage: Stage) -> None:
    """Each reader has its own, the first one and the followers as well."""
    await stage.run(
        f"CREATE TABLE {stage.table}_x (a INT[], j JSONB)",
        f"INSERT INTO {stage.table}_x VALUES ('{{1,2}}', '{{\"k\": [1]}}')",
    )

    async def read() -> Any:
        return await stage.router.fetch_one(f"SELECT a, j FROM {stage.table}_x", tenant="acme", cache=60)

    for row in [*await asyncio.gather(read(), read(), read()), await read(), await read()]:
        assert row.a == [1, 2]
        row.a.append(3)
        document = json.loads(row.j) if isinstance(row.j, str) else row.j
        assert document == {"k": [1]}
        document["k"].append(2)


# --- never -----------------------------------------------------------------------------------------------

_BY_ENGINE = {
    "sqlite": (
        "SELECT random() FROM {}",
        "SELECT id, date('now') FROM {}",
        "SELECT name FROM sqlite_master",
    ),
    "postgresql": (
        "SELECT id, now() FROM {}",
        "SELECT id FROM {} FOR UPDATE",
        "SELECT id, 'now'::timestamptz FROM {}",
        "SELECT id, xmin FROM {}",
        "SELECT current_user FROM {}",
        "SELECT random() FROM {}",
        "SELECT relname FROM pg_class",
        "SELECT table_name FROM information_schema.tables",
        "SELECT id FROM {} TABLESAMPLE SYSTEM (100)",
    ),
    "mysql": (
        "SELECT id, NOW() FROM {}",
        "SELECT id, UUID() FROM {}",
        "SELECT id FROM {} FOR UPDATE",
        "SELECT id FROM {} LOCK IN SHARE MODE",
        "SELECT @a, id FROM {}",
        "SELECT id, CONNECTION_ID() FROM {}",
        "SELECT table_name FROM information_schema.tables",
        "SELECT id FROM {} /*! JOIN (SELECT 1 AS x) AS y */",
    ),
}


async def test_what_depends_on_more_than_tables_is_never_cached(stage: Stage) -> None:
    """Clock, chance, login, locks, variables, catalogs; and what reads no table."""
    for text in (*_BY_ENGINE[stage.engine.dialect], "SELECT 1"):
        for _ in range(2):
            assert not (await stage.look("acme", text.format(stage.table))).cached, text
    assert len(stage.look.router._executor.cache.memory) == 0  # type: ignore[union-attr]
    assert sum(tallied(stage.router).bypasses.values()) >= 2


async def test_what_wants_the_present_is_never_answered_from_memory(stage: Stage) -> None:
    """Strong reads, primary=True, and all in a transaction, also in one that only reads."""
    session = stage.router.session("acme")
    await stage.look(session, stage.sql)
    assert not (await stage.look(session, stage.sql, primary=True)).cached
    assert not (await stage.look(session, stage.sql, consistency="strong")).cached
    strong = stage.router.session("acme", consistency="strong")
    assert not (await stage.look(strong, stage.sql)).cached
    assert not (await stage.look(session, stage.sql, consistency=Bounded(size=1_000_000))).cached
    for readonly in (False, True):
        async with session.transaction(readonly=readonly) as tx:
            assert not (await stage.look(tx, stage.sql)).cached
            assert not (await stage.look(session, stage.sql)).cached
    assert (await stage.look("acme", stage.sql)).cached
    assert (await stage.look("acme", stage.sql, consistency="eventual")).cached


async def test_a_transaction_keeps_what_it_reads_to_itself(stage: Stage) -> None:
    """What it has written and not committed is stored for nobody."""
    async with stage.router.session("acme").transaction() as tx:
        await tx.execute(stage.insert(10))
        assert (await stage.look(tx, stage.sql)).rows == [(4, 13)]
        await tx.rollback()
    for _ in range(2):
        assert (await stage.look("acme", stage.sql)).rows == [(3, 3)]


async def test_a_construct_is_not_answered_from_memory(stage: Stage) -> None:
    """Core constructs are run as always."""
    construct: Any = sa.select(sa.column("id")).select_from(sa.table(stage.table))
    for _ in range(2):
        rows = await stage.router.session("acme").fetch_all(construct, cache=60)
        assert stage.look.heard.route[0] != "cache"
    assert len(rows) == 3


async def test_a_large_answer_is_not_kept(engine: Engine, stage: Stage) -> None:
    """Nor does it push out what is."""
    async with engine.open(cluster=alone(engine), cache={"largest": "2KiB"}) as router:
        look = Looking(router)
        await look("acme", stage.sql)
        columns = ", ".join(f"amount + {number} AS c{number}" for number in range(200))
        for _ in range(2):
            assert not (await look("acme", f"SELECT {columns} FROM {stage.table}")).cached
        assert (await look("acme", stage.sql)).cached
        assert tallied(router).unstored == {"value": 2}


async def test_without_room_there_is_no_cache(engine: Engine, stage: Stage) -> None:
    """With 0B nothing is looked up, nothing is asked of the catalog, and no write is marked."""
    async with engine.open(cluster=alone(engine), cache={"size": "0B"}) as router:
        look, executor = Looking(router), router._executor
        for _ in range(2):
            assert not (await look("acme", stage.sql)).cached
        await router.execute(stage.insert(10), tenant="acme")
        assert executor is not None
        assert not executor.cache.active
        assert not executor.cache.tallies
        assert len(executor.cache.marks) == 0


# --- parameters --------------------------------------------------------------------------------------------

VIENNA = zoneinfo.ZoneInfo("Europe/Vienna")
NOON = datetime.datetime(2026, 1, 1, 12)
ALIKE: dict[str, list[Any]] = {
    "sqlite": [1, 1.0, True, "1", 0.0, -0.0, b"1"],
    "mysql": [1, 1.0, "1", Decimal("1.0"), Decimal("1.00"), 0.0, -0.0],
}


@only("sqlite", "mariadb")
async def test_equal_parameters_of_different_types_share_no_answer(stage: Stage) -> None:
    """What a parameter looks like on the server depends on its type, and on how it is written."""
    shown = "typeof(:p) || :p" if stage.engine.dialect == "sqlite" else "CONCAT(:p)"
    sql = f"SELECT {shown} FROM {stage.table} WHERE id = 1"
    given = ALIKE[stage.engine.dialect]

    async def read(value: Any, **more: Any) -> Any:
        return await stage.router.fetch_value(sql, {"p": value}, tenant="acme", **more)

    plain = [await read(value) for value in given]
    assert [await read(value, cache=60) for value in given] == plain
    stage.look.heard.clear()
    assert [await read(value, cache=60) for value in reversed(given)] == plain[::-1]
    assert {event.role.value for event in stage.look.heard.requests} == {"cache"}


@POSTGRESQL
async def test_equal_parameters_of_one_type_are_told_apart_by_how_they_are_written(stage: Stage) -> None:
    """Decimals by their digits, floats by their sign, moments by their zone."""
    families: dict[str, list[Any]] = {
        "numeric": [Decimal("1.0"), Decimal("1.00"), Decimal("1")],
        "float8": [0.0, -0.0],
        "timestamptz": [NOON.replace(tzinfo=datetime.UTC), NOON.replace(hour=13, tzinfo=VIENNA)],
    }
    for kind, given in families.items():
        sql = f"SELECT CAST(CAST(:p AS {kind}) AS text) FROM {stage.table} WHERE id = 1"
        plain = [(await stage.look("acme", sql, {"p": value}, cache=None)).rows for value in given]
        assert [(await stage.look("acme", sql, {"p": value})).rows for value in given] == plain
    assert tallied(stage.router).hits == 0


# --- trouble ----------------------------------------------------------------------------------------------


@SERVED
async def test_a_frozen_primary_delays_a_cached_read_of_a_replica_a_little(
    engine: Engine, items: str, proxied: Proxied
) -> None:
    """The catalog is asked there; without its answer the read goes on, uncached."""
    await engine.settle()
    sql = f"SELECT count(*) FROM {items}"
    async with proxied.engine.open(cluster={"checks": {"interval": "1h", "timeout": "1s"}}) as router:
        await router.ready()
        assert await router.fetch_value(sql, tenant="acme") == 0
        proxied.primary.add(Blackhole())
        started = asyncio.get_running_loop().time()
        assert await router.fetch_value(sql, tenant="acme", cache=60, timeout=8) == 0
        assert asyncio.get_running_loop().time() - started < 4
        proxied.heal()


@SERVED
async def test_a_cached_read_that_reaches_nobody_is_told_like_any_other(proxied: Proxied) -> None:
    """One event, and an error that names the tenant."""
    for node in proxied.nodes:
        node.refuse()
    async with proxied.engine.open() as router:
        heard = Recorder(router)
        with pytest.raises(RouterError) as caught:
            await router.fetch_value("SELECT count(*) FROM t", tenant="acme", cache=60, timeout=0.5)
        assert caught.value.tenant == "acme"
        assert len(heard.requests) == len(heard.of(RequestFailed)) == 1
    for node in proxied.nodes:
        node.accept()


@POSTGRESQL
async def test_a_parameter_that_may_mean_a_moment_is_none_to_keep(stage: Stage) -> None:
    """What a literal must not say a parameter must not either; elsewhere a word is a word."""
    sql = f"SELECT id, CAST(CAST(:at AS text) AS timestamptz) AS at FROM {stage.table}"
    for at, role in (("now", "replica"), ("today 10:00", "replica"), ("2026-01-01", "cache")):
        for _ in range(2):
            look = await stage.look("acme", sql, {"at": at})
        assert (look.role == "cache") is (role == "cache")
