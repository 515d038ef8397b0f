"""Plans of the statements that cost most: asked for on replicas, without literals, never felt by anybody."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import column, select, table

from router import Router
from router.config.observability import ExplainConfig
from router.drivers.mysql_plans import question
from router.errors import ConnectionLost, DatabaseError, LockTimeout, StatementTimeout
from router.events import RequestFinished, StatementExplained
from router.ledger import Entry
from router.placeholders import parameters_of
from router.planner import Planner
from router.plans import PLAN_LIMIT, kept, shape, without_literals
from tests.doubles import Server, config, opened
from tests.doubles import server as server
from tests.engines import POSTGRESQL, Engine, Recorder, only
from tests.engines import engine as engine
from tests.engines import heard as heard
from tests.engines import items as items
from tests.engines import router as router
from tests.lateness import taking

RULES = ExplainConfig(every="60s", timeout="2s", again="1h")
CANARY = "canary-4711"

# --- text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("Filter: ((name)::text = 'o''hara'::text)", "Filter: ((name)::text = ?::text)"),
        ("Filter: (name = E'a\\\\b''c')", "Filter: (name = E?)"),
        ("Index Cond: (id = ANY ('{1,2}'::integer[]))", "Index Cond: (id = ANY (?::integer[]))"),
        ("Filter: (seats > 10 AND price < -2.5e3)", "Filter: (seats > ? AND price < -?)"),
        ("Filter: (note = 'two\nlines')", "Filter: (note = ?)"),
        ("Filter: (id = $1)", "Filter: (id = $1)"),
        (
            "Seq Scan on items_2024 i2  (cost=0.00..35.50 rows=10 width=4)",
            "Seq Scan on items_2024 i2  (cost=0.00..35.50 rows=10 width=4)",
        ),
        ('Filter: ("o\'hara 7" = 7)', 'Filter: ("o\'hara 7" = ?)'),
        ("Filter: (SubPlan 1)\n  InitPlan 2", "Filter: (SubPlan 1)\n  InitPlan 2"),
        ("Workers Planned: 2", "Workers Planned: 2"),
        ("Filter: (a = 'cut off", "Filter: (a = ?"),
        ("SIMPLE  t  ref  key=k_2  ref=const  (rows=12)", "SIMPLE  t  ref  key=k_2  ref=const  (rows=12)"),
    ],
)
def test_literals_are_stripped(told: str, shown: str) -> None:
    """Strings and numbers go; names, parameters and estimates stay."""
    assert without_literals(told) == shown


def test_a_plan_is_bounded_and_harmless_to_print() -> None:
    """A thousand partitions do not fill the memory, and a name cannot command a terminal."""
    assert len(kept("Seq Scan on partition\n" * 10_000)) < PLAN_LIMIT + 10
    assert kept('Seq Scan on "\x1b[31mred"\n  Filter') == 'Seq Scan on " [31mred"\n  Filter'


def test_estimates_are_no_change_of_a_plan() -> None:
    """Tables grow every day; another index is news."""
    before = "Seq Scan on t  (cost=0.00..35.50 rows=10 width=4)"
    assert shape(before) == shape("Seq Scan on t  (cost=0.00..99.50 rows=990 width=4)")
    assert shape(before) != shape("Index Scan using k on t  (cost=0.00..35.50 rows=10 width=4)")


def test_the_parameters_of_a_text_are_counted_as_its_driver_does() -> None:
    """A numbered one is the same wherever it stands."""
    assert parameters_of("a = $1 AND b = $2 AND c = $1::VARCHAR") == 2
    assert parameters_of("a = %s AND b = %s") == parameters_of("a = ? AND b = ?") == 2


def test_mysql_is_asked_about_a_value_that_fits_any_column() -> None:
    """NULL finds nothing, whatever indexes there are; after LIMIT only a number will do."""
    asked = question("SELECT a FROM t WHERE b = %s AND c LIKE '%%x' LIMIT %s OFFSET %s", 3)
    assert asked == "EXPLAIN SELECT a FROM t WHERE b = '2000-01-01' AND c LIKE '%x' LIMIT 1 OFFSET 1"
    assert question("SELECT a FROM t LIMIT %s , %s", 2) == "EXPLAIN SELECT a FROM t LIMIT 1 , 1"
    assert question("SELECT a FROM t limit 5, %s", 1) == "EXPLAIN SELECT a FROM t limit 5, 1"
    assert question("SELECT '%s'", 0) == "EXPLAIN SELECT '%s'"


# --- on servers ------------------------------------------------------------------------------------------


def planner(router: Router, rules: ExplainConfig = RULES) -> Planner:
    executor = router._executor
    assert executor is not None
    return Planner(rules, executor, router.slowlog, random.Random(1))


async def look(router: Router, rules: ExplainConfig = RULES) -> None:
    await planner(router, rules).look()


@pytest.fixture
async def rows(engine: Engine, router: Router, items: str) -> AsyncIterator[str]:
    """Give the table with an index and rows that make it worth while."""
    await router.execute(f"CREATE INDEX {items}_amount ON {items} (amount)", tenant="acme")
    given = [{"name": f"n{n}", "amount": n} for n in range(2000)]
    insert = f"INSERT INTO {items} (name, amount) VALUES (:name, :amount)"
    await router.execute_many(insert, given, tenant="acme")
    if engine.dialect == "postgresql":
        await router.execute_raw(f"ANALYZE {items}", tenant="acme")
    await engine.settle()
    await router.ready()
    yield items


async def explained(router: Router, heard: Recorder, sql: Any, params: Any = None, **given: Any) -> Any:
    """Make one statement the costliest, have it explained, and return the event."""
    router.slowlog._ledger.held.clear()
    await router.fetch_all(sql, params, tenant="acme", **given)
    await look(router)
    (event,) = heard.of(StatementExplained)
    return event


async def test_the_plan_of_the_costliest_statement_is_kept(
    rows: str, router: Router, heard: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """With parameters that are not known, it shows the index that serves them; told as event and log line."""
    caplog.set_level(logging.INFO, "router.slow")
    sql = f"SELECT name FROM {rows} WHERE amount = :amount AND name <> '{CANARY}'"
    event = await explained(router, heard, sql, {"amount": 7}, consistency="eventual")
    assert f"{rows}_amount" in event.plan
    (digest,) = router.slowlog.digests()
    assert digest.plan is not None
    assert (digest.plan.text, digest.plan.node) == (event.plan, event.node.label)
    assert (event.fingerprint, event.tenant, event.changed) == (digest.fingerprint, "acme", False)
    assert event.node.role == "replica"
    (record,) = [each for each in caplog.records if each.name == "router.slow" and "plan" in vars(each)]
    assert record.levelno == logging.INFO
    assert CANARY not in repr((event, digest, vars(record)))


async def test_nothing_is_run_and_nothing_left_behind(
    engine: Engine, rows: str, router: Router, heard: Recorder
) -> None:
    """No request is told, connections stay usable, and a statement can be explained again and again."""
    sql = f"SELECT count(*) FROM {rows} WHERE amount > :least LIMIT :most"
    await explained(router, heard, sql, {"least": 7, "most": 5}, consistency="eventual")
    requests = len(heard.of(RequestFinished))
    for _ in range(3):
        await look(router)
    assert len(heard.of(StatementExplained)) == 4
    assert len(heard.of(RequestFinished)) == requests
    read = router.fetch_value(f"SELECT count(*) FROM {rows}", tenant="acme", consistency="eventual")
    assert await read == 2000


async def test_a_change_of_plan_is_a_warning(
    engine: Engine, rows: str, router: Router, heard: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its index the same statement is planned otherwise: the line that explains the night."""
    sql = f"SELECT name FROM {rows} WHERE amount = :amount"
    await explained(router, heard, sql, {"amount": 7}, consistency="eventual")
    ddl = f"DROP INDEX {rows}_amount" + (f" ON {rows}" if engine.dialect == "mysql" else "")
    await router.execute(ddl, tenant="acme")
    await engine.settle()
    await look(router)
    first, second = heard.of(StatementExplained)
    assert (first.changed, second.changed) == (False, True)
    assert f"{rows}_amount" not in second.plan
    assert "has changed" in caplog.text


async def test_statements_of_sqlalchemy_have_plans_too(rows: str, router: Router, heard: Recorder) -> None:
    """Their texts have the placeholders of the driver; the ORM makes most of what is slow."""
    held = table(rows, column("name"), column("amount"))
    router.slowlog._ledger.held.clear()
    async with router.session("acme").orm(readonly=True) as orm:
        await orm.execute(select(held.c.name).where(held.c.amount == 7))
    await look(router)
    (event,) = heard.of(StatementExplained)
    assert f"{rows}_amount" in event.plan


@POSTGRESQL
async def test_a_statement_that_cannot_be_planned_leaves_the_connection_clean(
    engine: Engine, rows: str, router: Router, heard: Recorder
) -> None:
    """After an error in the middle, the next question is answered on the same connection."""
    await explained(
        router, heard, f"SELECT name FROM {rows} WHERE amount = :n", {"n": 1}, consistency="eventual"
    )
    entry: Entry = next(iter(router.slowlog._ledger.held.values()))
    good = entry.sample
    assert good is not None
    for wrong in (f"SELECT nothing FROM {rows}", f"SELECT name FROM {rows} WHERE amount = CAST('x' AS int)"):
        entry.sample = good._replace(sql=wrong)
        with pytest.raises(DatabaseError):
            await look(router)
    entry.sample = good
    await look(router)
    assert len(heard.of(StatementExplained)) == 2


@only("postgresql")
async def test_a_table_that_is_locked_costs_no_more_than_the_limit(
    engine: Engine, rows: str, router: Router, heard: Recorder
) -> None:
    """A replica holds a table that the primary has locked: it is given up, and asked again later."""
    sql = f"SELECT name FROM {rows} WHERE amount = :n"
    await explained(router, heard, sql, {"n": 1}, consistency="eventual")
    hasty = ExplainConfig(timeout="200ms")
    async with router.session("acme").transaction() as tx:
        await tx.execute(f"LOCK TABLE {rows} IN ACCESS EXCLUSIVE MODE")
        await router.execute("CREATE TABLE flushed (a int)", tenant="globex")  # with it goes the lock
        async with asyncio.timeout(20):
            with pytest.raises((LockTimeout, StatementTimeout)):
                while True:  # until the replica has heard of the lock
                    await asyncio.sleep(0.01)
                    began = asyncio.get_running_loop().time()
                    await look(router, hasty)
        assert asyncio.get_running_loop().time() - began < 2.0
    count = len(heard.of(StatementExplained))
    async with asyncio.timeout(20):
        while len(heard.of(StatementExplained)) == count:
            await asyncio.sleep(0.01)
            with suppress(LockTimeout, StatementTimeout):
                await look(router, hasty)


# --- beside requests -------------------------------------------------------------------------------------

EXPLAIN = {"slow": {"explain": {"every": "20ms", "timeout": "1s", "again": "1h"}}}
READ = "SELECT a FROM t WHERE id = :id"


async def until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - whatever it is about
            await asyncio.sleep(0.005)


async def test_off_unless_configured(server: Server) -> None:
    """Nobody's servers are asked what their operator has not allowed."""
    async with opened(replicas=1) as router:
        await router.fetch_all(READ, {"id": 1}, tenant="acme")
        assert router._pools is not None
        assert not router._pools._beside


async def test_one_statement_at_a_time_the_costliest_first(server: Server) -> None:
    """Each is asked about once, in the order of what it costs; then nothing is asked for a long time."""
    async with opened(replicas=1) as router:
        for n, seconds in enumerate((0.001, 0.04, 0.02)):
            server.delay("fetch_all", seconds)
            await router.fetch_all(f"SELECT a{n} FROM t", tenant="acme")
        asker = planner(router)
        for count in (1, 2, 3, 3, 3):
            await asker.look()
            assert len(server.explained) == count
        assert server.explained == [("r1", f"SELECT a{n} FROM t") for n in (1, 2, 0)]


async def test_a_plan_is_asked_for_again_after_a_while(server: Server) -> None:
    """By then rows and indexes may have changed."""
    async with opened(replicas=1) as router:
        await router.fetch_all(READ, {"id": 1}, tenant="acme")
        asker = planner(router, ExplainConfig(again="20ms"))
        await asker.look()
        await asker.look()
        assert len(server.explained) == 1
        await asyncio.sleep(0.03)
        await asker.look()
        assert len(server.explained) == 2


async def test_only_replicas_are_asked_and_only_about_proven_reads(server: Server) -> None:
    """Without a replica nobody is asked; a write, a script and a volatile function never."""
    async with opened(replicas=0, observability=EXPLAIN) as router:
        await router.fetch_all(READ, {"id": 1}, tenant="acme")
        await asyncio.sleep(0.1)
    async with opened(replicas=1, observability=EXPLAIN) as router:
        await router.execute("UPDATE t SET a = 1", tenant="acme")
        await router.execute_raw("SELECT 1; SELECT 2", tenant="acme")
        await router.fetch_all("SELECT a FROM t FOR UPDATE", tenant="acme")
        await asyncio.sleep(0.1)
    assert server.explained == []


async def test_a_plan_that_cannot_be_had_harms_nobody(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure is a line in the log; requests go on, the next statement has its turn, nodes stay in use."""
    caplog.set_level(logging.INFO, "router.slow")
    async with opened(replicas=1, observability=EXPLAIN) as router:
        heard = Recorder(router)
        server.fail("plan", ConnectionLost("gone"))
        server.delay("fetch_all", 0.02)
        await router.fetch_all(READ, {"id": 1}, tenant="acme")
        await router.fetch_all("SELECT b FROM t", tenant="acme")
        await until(lambda: heard.of(StatementExplained))
        assert heard.of(StatementExplained)[0].fingerprint != router.slowlog.digests()[0].fingerprint
        assert "a plan could not be had" in caplog.text
        assert all(node.usable for node in router.status().nodes)
        await router.fetch_all(READ, {"id": 1}, tenant="acme")
        assert heard.route == ("replica", "read")


async def test_nobody_waits_for_a_connection_that_a_plan_takes(server: Server) -> None:
    """While a request stands in the queue, no plan is asked for."""
    async with opened(replicas=1, connections={"max": 1}, observability=EXPLAIN) as router:
        await router.fetch_all("SELECT b FROM t", tenant="acme")
        await until(lambda: server.explained)
        gate = server.block("fetch_all")
        tasks = [asyncio.create_task(router.fetch_all(READ, {"id": 1}, tenant="acme")) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert len(server.explained) == 1
        gate.set()
        await asyncio.gather(*tasks)


async def test_closing_the_router_ends_a_question_under_way(server: Server) -> None:
    """A server that does not answer it holds up no close, and its connection is not counted as cut in use."""
    server.block("plan")
    async with Router(config(replicas=1, observability=EXPLAIN)) as router:
        await router.fetch_all(READ, {"id": 1}, tenant="acme")
        await until(lambda: server.explained)
        async with taking(0.9):
            assert await router.close() == 0
    assert not server.open
