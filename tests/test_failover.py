"""Failover on real servers: who died, hung, fell behind or was promoted, and what requests saw of it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from router import CommitOutcomeUnknown, Router
from router.errors import ConnectionLost, NoPrimary
from router.events import PrimaryChanged, ReplicaChanged, RequestFinished
from tests.chaos.cases import (
    frozen_all,
    frozen_replica,
    killed_primary,
    killed_replica,
    off_loop,
    until,
    usable,
)
from tests.chaos.load import CREATE, TABLE, Load
from tests.engines import Engine, Mariadb, Postgresql, Recorder
from tests.figures import Figure

SERVED = pytest.mark.parametrize("kind", [Postgresql, Mariadb], ids=["postgresql", "mariadb"])
QUICK = {"checks": {"interval": "200ms", "timeout": "500ms"}}
READ = f"SELECT count(*) FROM {TABLE}"


@pytest.fixture
def clusters(
    postgresql_factory: Callable[..., Any], mariadb_factory: Callable[..., Any], tmp_path: Path
) -> Callable[..., Any]:
    """Start a cluster of one's own, to be broken, and return its engine."""

    def start(kind: type[Engine], **given: int) -> Any:
        server = postgresql_factory(**given) if kind is Postgresql else mariadb_factory()
        engine: Any = kind(tmp_path, server)  # type: ignore[call-arg]
        engine.create("acme")
        return engine

    return start


@contextlib.asynccontextmanager
async def opened(engine: Any, **cluster: Any) -> AsyncIterator[Router]:
    """Open a router on an engine, with a table on every node."""
    async with engine.open(tenants=("acme",), cluster=cluster, connections=10) as router:
        await router.execute(CREATE, tenant="acme")
        await engine.settle()
        yield router


def rows_on(engine: Any) -> Callable[[Any], list[int]]:
    """Return a way to read the account's numbers from a server itself."""
    database = engine.tenant("acme")["database"]
    return lambda server: [int(n) for n in server.run(f"SELECT number FROM {TABLE}", database).split()]


def status(router: Router, name: str) -> Any:
    """Return what the router says of a node."""
    return next(node for node in router.status().nodes if node.name == name)


async def role(router: Router, name: str, wanted: str) -> None:
    """Return when the router uses a node in a role."""
    await until(lambda: status(router, name).role == wanted and status(router, name).usable)


def met(figures: list[Figure]) -> None:
    """Fail if a figure misses its limit."""
    assert figures and [figure for figure in figures if not figure.ok] == []


@SERVED
async def test_replicas_and_then_the_primary_die(kind: type[Engine], clusters: Callable[..., Any]) -> None:
    """No read fails, no acknowledged write is lost or doubled, and writes go on soon after a promotion.

    (fault cases 1, 4, 10, 15, 19, 23)
    """
    engine = clusters(kind)
    server = engine.server
    async with opened(engine) as router, Load(router) as load:
        first, last = server.replicas[0], server.replicas[-1]
        figures = [each async for each in frozen_replica("freeze", router, load, first, 2.5)]
        figures += [each async for each in killed_replica("kill", router, load, last, 1.0)]
        promotion = killed_primary(
            "promote", router, load, server.primary, first, first.promote, rows_on(engine)
        )
        figures += [each async for each in promotion]
    met(figures)


@pytest.mark.timed
@SERVED
async def test_everything_is_frozen(kind: type[Engine], clusters: Callable[..., Any]) -> None:
    """Requests end within their own timeout, and all is well again after a thaw (fault cases 23, 24)."""
    engine = clusters(kind)
    async with opened(engine) as router:
        met([each async for each in frozen_all("frozen", router, engine.server.servers)])
        await router.execute(f"INSERT INTO {TABLE} VALUES (1, 1)", tenant="acme", timeout=20)
        await until(lambda: all(node.usable for node in router.status().nodes))


async def test_a_frozen_primary_is_left_when_another_is_promoted(clusters: Callable[..., Any]) -> None:
    """Who waits for the frozen one is told that the outcome is unknown, and new writes go to the new one.

    When it thaws it still takes writes, on its old timeline: it gets none (fault case 9).
    """
    engine = clusters(Postgresql)
    old, new = engine.server.primary, engine.server.replicas[0]
    insert = f"INSERT INTO {TABLE} VALUES (:n, 0)"
    async with opened(engine, **QUICK) as router:
        heard = Recorder(router)
        # prepared before: a connection that is lost while it prepares has sent nothing, and is tried again
        await asyncio.gather(*(router.execute(insert, {"n": 0}, tenant="acme") for _ in range(3)))
        await off_loop(old.freeze)
        stuck = asyncio.create_task(router.execute(insert, {"n": 1}, tenant="acme", timeout=20))
        await asyncio.sleep(0.1)
        await off_loop(new.promote)
        began = time.monotonic()
        with pytest.raises(CommitOutcomeUnknown):
            await stuck
        assert time.monotonic() - began < 5
        await router.execute(insert, {"n": 2}, tenant="acme")
        assert heard.requests[-1].node.name == "r1"
        await off_loop(old.thaw)
        await until(lambda: status(router, "primary").reason == "obsolete")
        for n in range(3, 10):
            await router.execute(insert, {"n": n}, tenant="acme")
        assert {n for n in rows_on(engine)(new) if n > 1} == set(range(2, 10))


async def test_the_old_primary_is_read_again_once_it_follows(clusters: Callable[..., Any]) -> None:
    """A switchover in order: roles change places, and no request fails (fault case 10)."""
    engine = clusters(Mariadb)
    old, new = engine.server.primary, engine.server.replicas[0]
    async with opened(engine, **QUICK) as router:
        async with Load(router) as load:
            await asyncio.sleep(0.3)
            await off_loop(old.run, "FLUSH TABLES WITH READ LOCK; SET GLOBAL read_only = ON; UNLOCK TABLES")
            await engine.settle()
            await off_loop(new.promote)
            await role(router, "r1", "primary")
            account = "MASTER_USER='router_replication', MASTER_PASSWORD='{}', MASTER_USE_GTID=slave_pos"
            await off_loop(
                old.run,
                f"SET GLOBAL gtid_slave_pos = @@gtid_binlog_pos; CHANGE MASTER TO MASTER_HOST='{new.host}', "
                f"MASTER_PORT={new.port}, {account.format(new.password('router_replication'))}; START SLAVE",
            )
            await role(router, "primary", "replica")
            await load.for_a_while(0.5)
        # a transaction that had begun on the old primary meets its refusal; the next one waits
        errors = [each.error for each in load.samples if each.error]
        assert len(errors) <= 8 and all("ReadOnlyViolation" in error for error in errors)
        there = rows_on(engine)(new)
        assert set(there) == load.account.acknowledged and len(there) == len(set(there))


async def test_two_that_take_writes_stop_all_writes(clusters: Callable[..., Any]) -> None:
    """MariaDB numbers no promotions: nobody can tell which one to believe (fault case 9)."""
    engine = clusters(Mariadb)
    server = engine.server
    async with opened(engine, **QUICK, failover={"hold": "0s"}) as router:
        await off_loop(server.replicas[0].promote)
        await until(lambda: not status(router, "primary").usable)
        with pytest.raises(NoPrimary, match="primary and r1 both take writes"):
            await router.execute(f"INSERT INTO {TABLE} VALUES (1, 0)", tenant="acme")
        await off_loop(server.replicas[0].run, "SET GLOBAL read_only = ON")
        await role(router, "primary", "primary")
        await router.execute(f"INSERT INTO {TABLE} VALUES (1, 0)", tenant="acme")


async def test_a_promotion_is_not_followed_where_that_is_switched_off(clusters: Callable[..., Any]) -> None:
    """Only the configured primary ever gets writes, also while it is gone (fault case 15)."""
    engine = clusters(Postgresql, replicas=1)
    async with opened(engine, **QUICK, failover={"follow": False, "hold": "500ms"}) as router:
        await off_loop(engine.server.primary.kill)
        await off_loop(engine.server.replicas[0].promote)
        await until(lambda: status(router, "r1").reason == "rival")
        with pytest.raises(NoPrimary, match=r"waited 0\.5.* but only primary may"):
            await router.execute(f"INSERT INTO {TABLE} VALUES (1, 0)", tenant="acme")
        await off_loop(engine.server.primary.start)
        await router.execute(f"INSERT INTO {TABLE} VALUES (1, 0)", tenant="acme", timeout=20)
        assert rows_on(engine)(engine.server.primary) == [1]


async def test_writes_wait_in_their_own_time_and_in_bounded_number(clusters: Callable[..., Any]) -> None:
    """A restart costs a pause and no error; a short timeout is kept; past the bound a write fails at once."""
    engine = clusters(Postgresql, replicas=0)
    primary, insert = engine.server.primary, f"INSERT INTO {TABLE} VALUES (:n, 0)"
    async with opened(engine, **QUICK, failover={"waiting": 5}) as router:
        await off_loop(primary.kill)
        with pytest.raises((NoPrimary, ConnectionLost, CommitOutcomeUnknown)):
            await router.execute(insert, {"n": 0}, tenant="acme", timeout=0.5)
        await until(lambda: not status(router, "primary").usable)
        held = [
            asyncio.create_task(router.execute(insert, {"n": n}, tenant="acme", timeout=30))
            for n in range(1, 6)
        ]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(NoPrimary, match="5 requests wait for one already"):
            await router.execute(insert, {"n": 6}, tenant="acme")
        assert time.monotonic() - began < 1
        await off_loop(primary.start)
        await asyncio.gather(*held)
        assert sorted(rows_on(engine)(primary)) == [1, 2, 3, 4, 5]


async def test_a_transaction_cut_before_its_commit_runs_again(clusters: Callable[..., Any]) -> None:
    """session.run() repeats the whole function once there is a primary; the first half left nothing.

    (fault case 2)
    """
    engine = clusters(Postgresql, replicas=0)
    primary, runs = engine.server.primary, []
    async with opened(engine, **QUICK) as router:

        async def work(tx: Any) -> None:
            runs.append(len(runs))
            await tx.execute(f"INSERT INTO {TABLE} VALUES (:n, 0)", {"n": len(runs)})
            if len(runs) == 1:
                await off_loop(primary.kill)
                starting = asyncio.get_running_loop().run_in_executor(None, primary.start)
                starting.add_done_callback(lambda done: done.exception())
            await tx.execute(f"INSERT INTO {TABLE} VALUES (:n, 0)", {"n": 10 + len(runs)})

        await router.session("acme", timeout=40).run(work)
        assert len(runs) > 1
        assert sorted(rows_on(engine)(primary)) == [len(runs), 10 + len(runs)]


async def test_a_lagging_replica_leaves_and_returns(clusters: Callable[..., Any]) -> None:
    """It leaves within a probe of its limit, and comes back by itself when it has caught up.

    An idle primary makes nobody late (fault cases 11, 21).
    """
    engine = clusters(Postgresql, replicas=1)
    replica = engine.server.replicas[0]
    async with opened(engine, **QUICK, lag={"max_time": "1s"}) as router:
        heard = Recorder(router)
        await off_loop(replica.run, "SELECT pg_wal_replay_pause()")
        await asyncio.sleep(1.5)
        assert usable(router, "r1")  # it lacks nothing
        await router.execute(f"INSERT INTO {TABLE} VALUES (1, 0)", tenant="acme")
        began = time.monotonic()
        await until(lambda: not usable(router, "r1"))
        assert time.monotonic() - began > 0.7
        assert status(router, "r1").reason == "late"
        assert status(router, "r1").lag_seconds > 1
        assert await router.fetch_value(READ, tenant="acme") == 1
        assert heard.of(RequestFinished)[-1].reason == "replicas_late"
        await off_loop(replica.run, "SELECT pg_wal_replay_resume()")
        await until(lambda: usable(router, "r1"))
        assert status(router, "r1").lag_bytes == 0
        assert [event.reason for event in heard.of(ReplicaChanged)] == ["late", ""]


async def test_mariadb_measures_lag_without_any_privilege(clusters: Callable[..., Any]) -> None:
    """A replica whose applier stands still leaves after its limit, and comes back (fault case 11)."""
    engine = clusters(Mariadb)
    replica = engine.server.replicas[0]
    async with opened(engine, **QUICK, lag={"max_time": "1s"}) as router:
        await off_loop(replica.run, "STOP SLAVE SQL_THREAD")
        await router.execute(f"INSERT INTO {TABLE} VALUES (1, 0)", tenant="acme")
        await until(lambda: status(router, "r1").reason == "late")
        await off_loop(replica.run, "START SLAVE SQL_THREAD")
        await until(lambda: usable(router, "r1"))


async def test_a_replica_of_another_cluster_is_not_read(
    clusters: Callable[..., Any], postgresql: Any, tmp_path: Path
) -> None:
    """A wrong address must not show rows of a cluster that has nothing to do with this one."""
    engine = clusters(Postgresql, replicas=0)
    foreign = postgresql.replicas[0]
    postgresql.create_database(engine.tenant("acme")["database"])
    login = {"username": "router_ro", "password": foreign.password("router_ro")}
    replica = {"name": "r1", "host": foreign.host, "port": foreign.port, **login}
    try:
        async with opened(engine, **QUICK, replicas=[replica]) as router:
            assert await router.fetch_value(READ, tenant="acme") == 0
            await until(lambda: status(router, "r1").reason == "stranger")
    finally:
        postgresql.drop_database(engine.tenant("acme")["database"])


async def test_a_primary_that_became_a_replica_is_noticed_by_its_refusal(
    clusters: Callable[..., Any],
) -> None:
    """A refused write was not applied: it waits for the server's own word, and is made again.

    (fault case 8)
    """
    engine = clusters(Mariadb)
    primary = engine.server.primary
    slow = {"checks": {"interval": "1h", "timeout": "1s"}}
    async with opened(engine, **slow) as router:
        heard = Recorder(router)
        await off_loop(primary.run, "SET GLOBAL read_only = ON")
        held = asyncio.create_task(
            router.execute(f"INSERT INTO {TABLE} VALUES (1, 0)", tenant="acme", timeout=20)
        )
        await until(lambda: bool(heard.of(PrimaryChanged)))
        assert not held.done()
        await off_loop(primary.run, "SET GLOBAL read_only = OFF")
        await held
        assert rows_on(engine)(primary) == [1]


async def test_a_cluster_that_nobody_uses_is_not_probed(clusters: Callable[..., Any]) -> None:
    """No connection before the first request, and one more for each server after it."""
    engine = clusters(Postgresql, replicas=1)
    count = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('router_app', 'router_ro')"
    async with engine.open(tenants=("acme",)) as router:
        await asyncio.sleep(0.2)
        assert await off_loop(engine.server.primary.run, count) == "0"
        await router.execute(CREATE, tenant="acme")
        assert await off_loop(engine.server.primary.run, count) == "2"
    await until(lambda: engine.server.primary.run(count) == "0")
