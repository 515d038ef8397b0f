"""A standby that must go on replaying cancels the queries in its way: no fault of the node's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router import Router, errors, predicates
from router.events import RetryScheduled
from tests.engines import Postgresql, Recorder
from tests.servers import PostgresqlCluster, PostgresqlServer


@pytest.fixture
async def place(
    postgresql_factory: Callable[..., PostgresqlCluster], tmp_path: Path
) -> AsyncIterator[tuple[Router, Postgresql]]:
    """Open a router on a cluster whose standbys wait for nobody."""
    cluster = await asyncio.to_thread(postgresql_factory, 2)
    for standby in cluster.replicas:
        standby.run("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        standby.run("SELECT pg_reload_conf()")
    engine = Postgresql(tmp_path, cluster)
    engine.create("acme")
    # a probe that a busy machine keeps waiting must not end the reads that this is about
    async with engine.open(("acme",), cluster={"checks": {"timeout": "10s"}}) as router:
        yield router, engine


async def fill(router: Router) -> None:
    """Fill the table anew."""
    await router.execute("CREATE TABLE IF NOT EXISTS rows (a INT)", tenant="acme")
    await router.execute("INSERT INTO rows SELECT generate_series(1, 1000)", tenant="acme")


async def clean(engine: Postgresql) -> None:
    """Remove rows for good on the primary: whoever still sees them on a standby is in the way."""
    database = engine.database("acme")
    await asyncio.to_thread(engine.server.run, "DELETE FROM rows", database)
    await asyncio.to_thread(engine.server.run, "VACUUM rows", database)


async def running(engine: Postgresql, number: int, read: asyncio.Task[int]) -> None:
    """Wait until a standby runs the slow read, or has been passed over."""
    # asleep, not only active: who is cancelled between the messages that start a statement loses the session
    seen = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    standby = engine.server.replicas[number - 1]
    async with asyncio.timeout(30):
        while not read.done() and await asyncio.to_thread(standby.run, seen) == "0":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def held(standby: PostgresqlServer) -> AsyncIterator[None]:
    """Let a standby replay nothing until the end of the block."""
    paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
    await asyncio.to_thread(standby.pause)
    async with asyncio.timeout(30):
        while await asyncio.to_thread(standby.run, paused) != "t":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    yield
    await asyncio.to_thread(standby.resume)


def read(router: Router, slow: str) -> asyncio.Task[int]:
    """Start a read on the first standby; it takes for ever on servers with such a name, elsewhere no time."""
    session = router.session("acme")
    session.replica = session._target.backend.cluster.replicas[0]
    sleep = f"pg_sleep(CASE WHEN current_setting('cluster_name') LIKE '{slow}' THEN 60 ELSE 0 END)"
    sql = f"SELECT count(b.a) FROM (SELECT 1 FROM {sleep}) AS s(x), rows AS b WHERE x = 1"
    return asyncio.create_task(session.fetch_value(sql))


def cancelled(heard: Recorder, engine: Postgresql, *names: str) -> None:
    """See that the conflict, and nothing else, made the read be repeated after each of these standbys.

    A standby repeats its signal every 5 ms. If the session takes longer to end the statement, which happens
    on a busy machine, the second signal ends the session too, and asyncpg tells of the lost connection only;
    then the standby's log must say so.
    """
    retries = heard.of(RetryScheduled)
    assert [each.node and each.node.name for each in retries] == [*names]
    assert retries[0].delay == 0.0  # elsewhere there is nothing to wait for
    for retry in retries:
        if retry.error == "ConnectionLost":
            log = (engine.server.replicas[int(names[retries.index(retry)][1:]) - 1].home / "log").read_text()
            assert "FATAL:  terminating connection due to conflict with recovery" in log
        else:
            assert (retry.code, retry.error) == ("40001", "SerializationFailure")


async def test_a_read_in_the_way_of_replay_is_made_elsewhere(place: tuple[Router, Postgresql]) -> None:
    """Cancelled on one standby it succeeds on the other, on both on the primary; no node is left out.

    In a transaction nothing is repeated, but running it all again is safe (fault case 17).
    """
    router, engine = place
    heard = Recorder(router)
    health = router.session("acme")._target.backend.health
    await fill(router)
    await engine.settle()

    one = read(router, "replica-1")
    await running(engine, 1, one)
    await clean(engine)
    await one
    cancelled(heard, engine, "r1")
    assert len(health.snapshot().replicas) == 2

    heard.clear()
    both = read(router, "replica-%")
    await running(engine, 1, both)
    await fill(router)
    async with held(engine.server.replicas[1]):  # else it may be cleaned just when the read arrives there
        await clean(engine)
        await running(engine, 2, both)
    await both
    cancelled(heard, engine, "r1", "r2")
    (told,) = (each for each in heard.requests if "pg_sleep" in each.sql)
    assert (told.role, told.reason, told.attempts) == ("primary", "replica_failed", 3)
    assert len(health.snapshot().replicas) == 2

    await fill(router)
    await engine.settle()
    with pytest.raises(errors.RouterError) as caught:
        async with router.session("acme").transaction(readonly=True, isolation="repeatable read") as tx:
            assert await tx.fetch_value("SELECT count(*) FROM rows") == 1000
            await clean(engine)
            await engine.settle()
            await tx.fetch_value("SELECT count(*) FROM rows")
    assert isinstance(caught.value, errors.ConnectionLost | errors.SerializationFailure)
    assert predicates.is_retryable(caught.value)
    assert len(health.snapshot().replicas) == 2
