"""One read at a time for each key: who waits for it, who repeats it, and what becomes of its failure."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router import Router, caching
from router.errors import RouterError, RouterTimeout
from router.events import RequestFailed, RequestFinished
from tests.cache.looking import Look, Looking, Stage, alone
from tests.cache.looking import stage as stage
from tests.chaos.cases import until
from tests.engines import POSTGRESQL, SERVED, Engine, only
from tests.holding import holding

pytestmark = only("sqlite", "postgresql", "mariadb")


@asynccontextmanager
async def locked(stage: Stage) -> AsyncIterator[None]:
    """Let reads of the stage's table wait on the server."""
    async with stage.engine.open(cluster=alone(stage.engine)) as another, another.session("acme") as session:
        if stage.engine.dialect == "postgresql":
            async with session.transaction() as tx:
                await tx.execute(f"LOCK TABLE {stage.table} IN ACCESS EXCLUSIVE MODE")
                yield
        else:
            async with session.connection() as lease:
                driver: Any = lease.connection.driver_connection
                async with driver.cursor() as cursor:
                    await cursor.execute(f"LOCK TABLES {stage.table} WRITE")
                yield


def reads(stage: Stage) -> list[Any]:
    """Return the events of requests that have asked a database."""
    return [each for each in stage.look.heard.requests if each.attempts]


async def ready(stage: Stage) -> None:
    """Have the catalog known, and forget what was heard."""
    await stage.look("acme", f"SELECT id FROM {stage.table}")
    stage.look.heard.clear()


def fetch(stage: Stage, **given: Any) -> "asyncio.Task[Any]":
    """Read in a session of its own."""
    return asyncio.create_task(stage.router.fetch_all(stage.sql, tenant="acme", cache=60, **given))


async def under_way(stage: Stage, count: int = 1, followers: int = 0) -> None:
    """Return when so many reads are on the server, and so many wait for them."""
    executor: Any = stage.router._executor
    running = executor.cache.flights._running

    def there() -> bool:
        lent = sum(pool.in_use for pool in stage.router.status().pools)
        return lent >= count and sum(each.followers for each in running.values()) >= followers

    await until(there)


async def test_a_thousand_readers_of_a_cold_key_make_one_read(stage: Stage) -> None:
    """Each gets the rows in a list of its own, and is told of."""
    await ready(stage)
    answers = await asyncio.gather(*(fetch(stage) for _ in range(1000)))
    assert {tuple(tuple(row) for row in rows) for rows in answers} == {((3, 3),)}
    assert len({id(rows) for rows in answers}) == 1000
    assert len(reads(stage)) == 1
    assert len(stage.look.heard.of(RequestFinished)) == 1000


async def test_different_keys_do_not_wait_for_each_other(stage: Stage) -> None:
    """Parameters and verbs make keys."""
    await ready(stage)
    sql = f"SELECT id FROM {stage.table} WHERE id = :id"
    jobs = [stage.router.fetch_value(sql, {"id": n % 3 + 1}, tenant="acme", cache=60) for n in range(30)]
    assert await asyncio.gather(*jobs) == [n % 3 + 1 for n in range(30)]
    assert len(reads(stage)) == 3


@SERVED
async def test_a_leader_that_is_cancelled_leaves_the_read_to_one_of_the_others(stage: Stage) -> None:
    """Nobody else fails, and one further read does for all."""
    await ready(stage)
    async with locked(stage):
        leader = fetch(stage)
        await under_way(stage)
        followers = [fetch(stage) for _ in range(20)]
        await under_way(stage, 1, 20)
        leader.cancel()
        await asyncio.wait((leader,))
        await under_way(stage, 1, 19)
    assert [len(rows) for rows in await asyncio.gather(*followers)] == [1] * 20
    assert leader.cancelled()
    assert len([each for each in reads(stage) if isinstance(each, RequestFinished)]) == 1


@SERVED
async def test_a_follower_that_is_cancelled_takes_nothing_with_it(stage: Stage) -> None:
    """The read goes on for the others."""
    await ready(stage)
    async with locked(stage):
        tasks = [fetch(stage) for _ in range(10)]
        await under_way(stage, 1, 9)
        for task in tasks[5:]:
            task.cancel()
        await asyncio.wait(tasks[5:])
    assert [len(rows) for rows in await asyncio.gather(*tasks[:5])] == [1] * 5
    assert len(reads(stage)) == 1


@POSTGRESQL
async def test_a_failure_is_shared_by_all_who_waited(stage: Stage) -> None:
    """Each gets an error of its own, and nobody repeats the read; a moment later it is made again."""
    await ready(stage)
    sql = f"SELECT 1 / (amount - 1) FROM {stage.table}"
    async with locked(stage):
        tasks = [asyncio.create_task(stage.router.fetch_all(sql, tenant="acme", cache=60)) for _ in range(20)]
        await under_way(stage, 1, 19)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({id(error) for error in errors}) == 20
    for error in errors:
        assert isinstance(error, RouterError)
        assert (error.code, error.tenant) == ("22012", "acme")
    assert len(stage.look.heard.of(RequestFailed)) == 20
    assert len(reads(stage)) == 1
    await asyncio.sleep(0.06)
    with pytest.raises(RouterError):
        await stage.router.fetch_all(sql, tenant="acme", cache=60)
    assert len(reads(stage)) == 2


@SERVED
async def test_the_leader_s_own_deadline_is_not_the_followers(stage: Stage) -> None:
    """Nor the other way round: who has less time gives up alone."""
    await ready(stage)
    async with locked(stage):
        leader = fetch(stage, timeout=0.4)
        await under_way(stage)
        hasty, patient = fetch(stage, timeout=0.2), [fetch(stage) for _ in range(5)]
        await asyncio.wait((hasty,))
        with pytest.raises(RouterTimeout):
            hasty.result()
        assert not leader.done()
        await asyncio.wait((leader,))
        with pytest.raises(RouterTimeout):
            leader.result()
        await under_way(stage, 1, 4)
    assert [len(rows) for rows in await asyncio.gather(*patient)] == [1] * 5


@SERVED
async def test_what_cannot_be_kept_is_read_by_each(engine: Engine, stage: Stage) -> None:
    """An answer that is too large for memory leaves nobody waiting for ever."""
    async with engine.open(cluster=alone(engine), cache={"largest": "1B"}) as router:
        look = Looking(router)
        jobs = [router.fetch_all(stage.sql, tenant="acme", cache=60) for _ in range(30)]
        assert [len(rows) for rows in await asyncio.gather(*jobs)] == [1] * 30
        assert {event.role.value for event in look.heard.requests} == {"primary"}


@POSTGRESQL  # MariaDB says that a held replica is broken: it is not read from
async def test_an_answer_of_unknown_age_is_shared_and_not_kept(engine: Engine, stage: Stage) -> None:
    """Many who have seen nothing may be shown what a lagging replica shows; who has written may not."""
    await engine.settle()
    async with holding(engine):
        await stage.router.execute(f"UPDATE {stage.table} SET amount = amount + 1", tenant="acme")
        async with engine.open() as router:  # which never sees the replicas where the primary is
            look, writer = Looking(router), router.session("acme")
            await writer.execute(f"UPDATE {stage.table} SET amount = amount + 1000")
            look.heard.clear()
            jobs = [router.fetch_all(stage.sql, tenant="acme", cache=60) for _ in range(200)]
            *others, own = await asyncio.gather(*jobs, writer.fetch_all(stage.sql, cache=60))
            assert own != others[0] and others == [others[0]] * 200
            asked = [event.role.value for event in look.heard.requests if event.attempts]
            assert sorted(asked) == ["primary", "replica"]
            assert (await look("acme", stage.sql)).rows == [tuple(own[0])]  # what is kept is the primary's


# --- reading anew, beside ----------------------------------------------------------------------------------


def grow_old(router: Router, seconds: float) -> None:
    """Let all that is in memory be so much older."""
    executor: Any = router._executor
    for node in executor.cache.memory._nodes.values():
        node.value.born -= seconds


async def spoil(stage: Stage, text: str) -> None:
    """Do something in another process, of which this one cannot know."""
    async with stage.engine.open(cluster=alone(stage.engine)) as another:
        await another.execute(text, tenant="acme")


async def beside(router: Router) -> None:
    """Return when nothing runs beside requests."""
    executor: Any = router._executor
    await until(lambda: not executor.cache._tasks)


async def test_what_is_about_to_get_too_old_is_read_anew_once(stage: Stage) -> None:
    """By one, beside those who still get the old answer."""
    await stage.look("acme", stage.sql)
    await spoil(stage, f"UPDATE {stage.table} SET amount = 100")
    grow_old(stage.router, 40)
    assert await stage.look("acme", stage.sql) == Look([(3, 3)], "cache")
    await beside(stage.router)
    assert not reads(stage)
    grow_old(stage.router, 10)
    stage.look.heard.clear()
    assert [len(rows) for rows in await asyncio.gather(*(fetch(stage) for _ in range(50)))] == [1] * 50
    await beside(stage.router)
    assert len(reads(stage)) == 1
    assert await stage.look("acme", stage.sql) == Look([(3, 300)], "cache")


async def test_an_answer_that_cannot_be_read_anew_serves_until_it_is_too_old(stage: Stage) -> None:
    """The failure is told, is nobody's else, and is not made again at once."""
    await stage.look("acme", stage.sql)
    await spoil(stage, f"DROP TABLE {stage.table}")
    grow_old(stage.router, 50)
    failed = []
    for _ in range(3):
        assert await stage.look("acme", stage.sql) == Look([(3, 3)], "cache")
        await beside(stage.router)
        failed += stage.look.heard.of(RequestFailed)
    assert len(failed) == 1
    grow_old(stage.router, 20)
    with pytest.raises(RouterError):
        await stage.look("acme", stage.sql)


async def test_reading_anew_is_no_read_of_the_session_s(stage: Stage) -> None:
    """Who was given the old answer has not seen the new one."""
    session = stage.router.session("acme")
    await stage.look(session, stage.sql)
    grow_old(stage.router, 50)
    await stage.look(session, stage.sql)
    seen = (session.moment, session.read_at)
    await beside(stage.router)
    assert (session.moment, session.read_at) == seen


@POSTGRESQL
async def test_closing_the_router_leaves_nothing_behind(engine: Engine, stage: Stage) -> None:
    """Neither a read that runs beside, nor one that others wait for."""
    before = asyncio.all_tasks()
    async with locked(stage):
        held = asyncio.all_tasks()
        async with engine.open(cluster=alone(engine)) as router:
            await router.fetch_all(f"SELECT id FROM {stage.beside}", tenant="acme", cache=60)
            await spoil(stage, f"ALTER TABLE {stage.beside} ADD COLUMN more INT")
            grow_old(router, 50)
            running = Stage(router, engine, Looking(router), stage.table, stage.beside)
            tasks = [fetch(running) for _ in range(5)]
            await under_way(running, 1, 4)
            await router.fetch_all(f"SELECT id FROM {stage.beside}", tenant="acme", cache=60)
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert asyncio.all_tasks() <= held
    assert asyncio.all_tasks() <= before


async def test_a_catalog_that_does_not_answer_makes_no_herd(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept then, but of those who ask at the same time one reads for all."""

    async def silent(*_: object) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(caching, "learn", silent)
    stage.look.heard.clear()
    assert [len(rows) for rows in await asyncio.gather(*(fetch(stage) for _ in range(200)))] == [1] * 200
    assert len(reads(stage)) <= 10  # as often as those who have waited for the catalog come in turns
    assert not stage.router.cache.stats().entries
    await stage.look.router.execute(f"UPDATE {stage.table} SET amount = 100", tenant="acme")
    found = await stage.look("acme", stage.sql)
    assert not found.cached and (found.role == "replica" or found.rows == [(3, 300)])
