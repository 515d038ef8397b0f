"""No cached answer takes anybody back in time: slow reads, lagging replicas, lost answers, tokens, DDL."""

import asyncio
from typing import Any

import pytest

from router import Router
from router.errors import CommitOutcomeUnknown
from tests.cache.looking import Look, Looking, Stage, alone
from tests.cache.looking import stage as stage
from tests.engines import POSTGRESQL, Engine, only
from tests.faults import Break, Cut, Direction, Stall
from tests.faults.cluster import Proxied
from tests.holding import ask_until_current, holding

KEY = "canary-key-of-the-present"
QUIET = {"checks": {"interval": "1h", "timeout": "1s"}}  # probed by the test alone
pytestmark = only("sqlite", "postgresql", "mariadb")
SERVERS = only("postgresql", "mariadb")


@pytest.fixture
async def table(engine: Engine, items: str) -> str:
    """Have a table on all servers, with one row of amount 1."""
    async with engine.open() as router:
        await router.execute(f"INSERT INTO {items} (name, amount) VALUES ('a', 1)", tenant="acme")
    await engine.settle()
    return items


async def begin(look: Looking) -> None:
    """Have the cache at work, and all replicas known to have what there was since it is."""
    await look.router.ready()
    await look.router.fetch_value("SELECT 1", tenant="acme", cache=60)
    await ask_until_current(look.router)


def slow(stage: Stage) -> str:
    """Return a read of the stage's table that goes on for a while after it has begun."""
    if stage.engine.dialect == "postgresql":
        return f"SELECT count(*), min(amount) FROM {stage.table}, generate_series(1, 1500000) WHERE id = 1"
    return (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500000) "
        f"SELECT count(*), min(amount) FROM {stage.table}, n WHERE id = 1"
    )


# --- who may store ---------------------------------------------------------------------------------------


@only("sqlite", "postgresql")
async def test_a_read_that_began_before_a_write_is_not_kept(stage: Stage) -> None:
    """Whoever asked gets what it found; the next one finds the write."""
    await stage.look("acme", stage.sql)
    sql = slow(stage)
    read = asyncio.create_task(stage.router.fetch_all(sql, tenant="acme", cache=60))
    await asyncio.sleep(0.05)
    follower = asyncio.create_task(stage.router.fetch_all(sql, tenant="acme", cache=60))
    await stage.router.execute(f"UPDATE {stage.table} SET amount = 100", tenant="acme")
    assert not read.done()
    after = asyncio.create_task(stage.router.fetch_all(sql, tenant="acme", cache=60))
    found = [(await task)[0][1] for task in (read, follower, after)]
    assert (found[0], found[2]) == (1, 100)
    look = await stage.look("acme", sql)
    assert (look.rows[0][1], look.cached) == (100, True)


@SERVERS
async def test_an_answer_of_a_replica_that_is_held_up_is_not_kept(
    engine: Engine, table: str, proxied: Proxied
) -> None:
    """Though the replica had all that there was when it was asked."""
    sql = f"SELECT amount FROM {table}"
    async with proxied.engine.open(cluster=QUIET, connections=1) as router:
        look = Looking(router)
        await begin(look)
        for _ in range(10):
            await look("acme", sql, cache=False)  # prepares it on each
        stalls = [Stall(direction=Direction.TO_CLIENT) for _ in proxied.replicas]
        for node, stall in zip(proxied.replicas, stalls, strict=True):
            node.add(stall)
        read = asyncio.create_task(router.fetch_value(sql, tenant="acme", cache=60))
        await asyncio.sleep(0.1)
        await router.execute(f"UPDATE {table} SET amount = 2", tenant="acme")
        assert not read.done()
        proxied.heal()
        assert await read == 1
        await engine.settle()
        assert (await look("acme", sql)).rows == [(2,)]


@SERVERS
async def test_a_replica_that_lacks_a_write_fills_nothing(engine: Engine, table: str) -> None:
    """What it answers is for who asked; once it has caught up and was asked, it may."""
    sql = f"SELECT amount FROM {table}"
    async with engine.open(cluster=QUIET) as router:
        look = Looking(router)
        await begin(look)
        assert (await look("acme", sql)).rows == [(1,)]
        assert await look("acme", sql) == Look([(1,)], "cache")
        async with holding(engine):
            await router.execute(f"UPDATE {table} SET amount = 2", tenant="acme")
            for _ in range(3):
                assert await look("acme", sql) == Look([(1,)], "replica")
                assert (await look("acme", sql, consistency="eventual")).rows == [(1,)]
            await ask_all(router)
            assert await look("acme", sql) == Look([(1,)], "replica")
        await engine.settle()
        await ask_until_current(router)
        assert await look("acme", sql) == Look([(2,)], "replica")
        assert await look("acme", sql) == Look([(2,)], "cache")


async def ask_all(router: Router) -> None:
    backend = router._backends["main"]
    for server in backend.health.servers:
        await backend._prober.ask(server.node.name)


@SERVERS
async def test_a_session_that_has_seen_more_is_not_shown_less(engine: Engine, table: str) -> None:
    """Two reads of one table, by replicas that are not equally far: the second is no older than the first."""
    first, second = f"SELECT amount FROM {table}", f"SELECT max(amount) FROM {table}"
    async with engine.open(cluster=QUIET) as router, engine.open(cluster=QUIET) as another:
        look = Looking(router)
        await begin(look)
        assert (await look("acme", second)).rows == [(1,)]
        assert (await look("acme", second)).cached
        await another.execute(f"UPDATE {table} SET amount = 2", tenant="acme")
        await engine.settle()
        session = router.session("acme")
        assert (await look(session, first, cache=False)).rows == [(2,)]
        assert (await look(session, second)).rows == [(2,)]
        # of who has seen nothing, nothing is known to be newer than what was kept a moment ago
        assert (await look("acme", second)).rows == [(2,)]


@POSTGRESQL
@only("postgresql")
async def test_of_two_replicas_the_slower_one_s_answer_is_not_shown_after_the_faster_one_s(
    engine: Engine, table: str
) -> None:
    """Both may fill; a session never goes from the newer to the older."""
    first, second = f"SELECT amount FROM {table}", f"SELECT max(amount) FROM {table}"
    turns = {**QUIET, "balancing": "round_robin"}  # else one that was slow once may never be asked again
    async with engine.open(cluster=turns) as router, engine.open(cluster=QUIET) as another:
        look = Looking(router)
        await begin(look)
        async with holding(engine, "r1") as held:
            await another.execute(f"UPDATE {table} SET amount = 2", tenant="acme")
            await held.settle()
            seen = set()
            for number in range(40):
                session, text = router.session("acme"), f"{second} WHERE id > {-(number // 8)}"
                one = (await look(session, first, cache=False)).rows[0][0]
                other = (await look(session, text)).rows[0][0]
                assert other >= one, number
                seen.add((one, other))
                back = (await look(session, first)).rows[0][0]
                assert back >= other, number
        assert len(seen) > 1, "the replicas never differed: nothing was tested"


# --- lost answers -------------------------------------------------------------------------------------------


@SERVERS
async def test_a_write_without_an_answer_keeps_its_tables_out_for_a_while(
    engine: Engine, table: str, proxied: Proxied
) -> None:
    """Until the server must have given up; other tables stay."""
    sql, other = f"SELECT count(*) FROM {table}", f"SELECT count(*) FROM {table}_other"
    insert = f"INSERT INTO {table} (name, amount) VALUES (:name, 2)"
    given: dict[str, Any] = {
        "cluster": {"replicas": [], "connections": {"max": 1}},
        "defaults": {"timeouts": {"statement": "700ms"}, "retries": {"attempts": 1}},
    }
    async with proxied.engine.open(**given) as router:
        look = Looking(router)
        await router.execute(f"CREATE TABLE {table}_other (id INT PRIMARY KEY)", tenant="acme")
        await router.execute(insert, {"name": "b"}, tenant="acme")  # prepares it
        for text in (sql, sql, other, other):
            before = await look("acme", text)
        assert before.cached
        proxied.primary.add(Cut(0, Break.RESET, direction=Direction.TO_CLIENT))
        with pytest.raises(CommitOutcomeUnknown):
            await router.execute(insert, {"name": "c"}, tenant="acme")
        started = asyncio.get_running_loop().time()
        proxied.heal()
        truth = await look.truth(sql)
        for _ in range(3):
            assert await look("acme", sql) == Look(truth, "primary")
        assert (await look("acme", other)).cached
        await asyncio.sleep(max(0.0, started + 0.75 - asyncio.get_running_loop().time()))
        await look("acme", sql)
        assert await look("acme", sql) == Look(truth, "cache")


# --- tokens -------------------------------------------------------------------------------------------------


async def test_a_token_of_a_newer_write_refuses_what_is_older(engine: Engine, table: str) -> None:
    """Who brings none may get the old answer; what was read because of a token serves others with it."""
    sql = f"SELECT amount FROM {table}"
    async with engine.open(keys=(KEY,)) as router, engine.open(keys=(KEY,)) as another:
        look = Looking(router)
        await begin(look)
        assert (await look("acme", sql)).rows == [(1,)]
        old = await look("acme", sql)
        writer = another.session("acme")
        await writer.execute(f"UPDATE {table} SET amount = 2")
        token = await writer.token()
        assert old.cached
        assert await look("acme", sql) == Look([(1,)], "cache")
        new = await look(router.session("acme", after=token), sql)
        assert (new.rows, new.cached) == ([(2,)], False)
        again = await look(router.session("acme", after=token), sql)
        assert again.rows == [(2,)]
        assert again.cached == (engine.id != "sqlite")  # whose entries have no position


async def test_a_session_s_own_token_does_not_keep_it_from_the_cache(engine: Engine, table: str) -> None:
    """What it has read itself, or what was read after, has all that its token stands for."""
    sql = f"SELECT amount FROM {table}"
    async with engine.open(keys=(KEY,), cluster=alone(engine)) as router:
        look = Looking(router)
        session = router.session("acme")
        await session.execute(f"UPDATE {table} SET amount = 2")
        assert (await look(session, sql)).rows == [(2,)]
        assert await look(session, sql) == Look([(2,)], "cache")
        token = await session.token()
        for _ in range(2):
            found = await look(router.session("acme", after=token), sql)
            assert found.rows == [(2,)]
        assert found.cached == (engine.id != "sqlite")
