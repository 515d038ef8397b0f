"""The router itself: its life, the one-shot forms, and what it tells about itself."""

import asyncio
import logging
import re
from pathlib import Path

import pytest

from router import Router, errors
from router.config import parse
from router.errors import RouterClosed, UsageError
from router.events import ConnectionClosed, ConnectionOpened
from tests.doubles import Server, config, opened
from tests.engines import Engine, Recorder
from tests.lateness import taking

# --- life ------------------------------------------------------------------------------------------------


async def test_opening_makes_no_connection(server: Server) -> None:
    """A program starts also while its databases are down; connections come with the first request."""
    server.down |= {"primary", "r1", "r2"}
    async with opened() as router:
        assert not server.connections
        server.down.clear()
        await router.fetch_all("SELECT 1", tenant="acme")
        assert len(server.connections) == 1


async def test_connect_and_close_may_be_called_twice(server: Server) -> None:
    """Opening an open router and closing a closed one change nothing; a closed one is not opened again."""
    router = Router(config())
    await router.connect()
    session = router.session("acme")
    await router.connect()
    await session.fetch_all("SELECT 1")
    assert await router.close() == 0
    assert await router.close() == 0
    with pytest.raises(RouterClosed):
        await router.connect()
    assert not server.open


async def test_a_router_that_was_never_opened_can_be_closed(server: Server) -> None:
    """close() without connect() is harmless, and final."""
    router = Router(config())
    assert await router.close() == 0
    with pytest.raises(RouterClosed):
        await router.connect()


async def test_open_refuses_a_bad_folder(tmp_path: Path) -> None:
    """Mistakes in the configuration are found before anything is opened."""
    with pytest.raises(errors.ConfigurationError, match="not a folder"):
        Router.open(tmp_path / "nowhere")


async def test_close_waits_for_running_requests(server: Server) -> None:
    """A request that runs is finished; a new one is refused meanwhile."""
    router = Router(config(replicas=0))
    await router.connect()
    gate = server.block("fetch_all")
    running = asyncio.create_task(router.fetch_all("SELECT 1", tenant="acme"))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(router.close(5))
    await asyncio.sleep(0.01)
    with pytest.raises(RouterClosed):
        await router.fetch_all("SELECT 1", tenant="acme")
    assert not closing.done()
    gate.set()
    assert len(await running) == 1
    assert await closing == 0
    assert not server.open


@pytest.mark.timed
async def test_close_is_bounded(server: Server) -> None:
    """What does not end within the grace is cut, and counted."""
    router = Router(config(replicas=0))
    heard = Recorder(router)
    await router.connect()
    session = router.session("acme")
    transaction = await session.begin()
    async with taking(0.5):
        assert await router.close(0.1) == 1
    assert not server.open
    with pytest.raises(errors.RouterError):
        await transaction.commit()
    assert len(heard.of(ConnectionOpened)) == len(heard.of(ConnectionClosed)) == 1


async def _hold(router: Router, tenant: str, release: asyncio.Event) -> None:
    async with router.session(tenant) as session, session.transaction():
        await release.wait()


async def test_close_reports_who_still_held_a_connection(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """What is cut is counted, and named in the log: tenant, age, task (fault case 43)."""
    router = Router(config(replicas=0))
    await router.connect()
    release = asyncio.Event()
    tasks = [
        asyncio.create_task(_hold(router, tenant, release), name=f"of-{tenant}")
        for tenant in ("acme", "globex")
    ]
    while sum(pool.in_use for pool in router.status().pools) < 2:  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    with caplog.at_level(logging.WARNING, "router.pool"):
        assert await router.close(0.05) == 2
    (line,) = caplog.messages
    assert line.startswith("2 connections to main/primary were cut while in use: ")
    assert re.search(r"acme for \S+ s in task 'of-acme'", line)
    assert re.search(r"globex for \S+ s in task 'of-globex'", line)
    assert not server.open
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, errors.RouterError) for each in results)
    assert await router.close() == 2  # the same, whenever it is asked


async def test_a_second_close_waits_for_the_first(server: Server) -> None:
    """Two at a time do the work once and return the same; a cancelled second is harmless (fault case 43)."""
    router = Router(config(replicas=0))
    await router.connect()
    release = asyncio.Event()
    holder = asyncio.create_task(_hold(router, "acme", release))
    await asyncio.sleep(0.01)
    first, second, third = (asyncio.create_task(router.close(grace)) for grace in (20, 0, 0))
    await asyncio.sleep(0.05)
    third.cancel()
    await asyncio.wait([third])
    assert third.cancelled()
    assert not first.done() and not second.done() and server.open
    release.set()
    assert await asyncio.gather(first, second) == [0, 0]
    await holder
    assert not server.open


async def test_a_cancelled_close_cuts_everything(server: Server) -> None:
    """Who cancels close() is let go at once; a second later nothing is open, whatever hangs."""
    router = Router(config(replicas=1))
    await router.connect()
    await router.fetch_all("SELECT 1", tenant="acme")  # an idle connection to the replica
    release = asyncio.Event()
    holder = asyncio.create_task(_hold(router, "acme", release))
    await asyncio.sleep(0.01)
    gate = server.block("close")  # whose good-bye hangs
    closing = asyncio.create_task(router.close(20))
    await asyncio.sleep(0.01)
    closing.cancel()
    await asyncio.wait([closing], timeout=0.5)
    assert closing.cancelled()
    assert await router.close() == 1
    async with asyncio.timeout(10):
        while server.open:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)
    gate.set()
    release.set()
    with pytest.raises(errors.RouterError):
        await holder


async def test_close_leaves_no_task_behind(engine: Engine) -> None:
    """After close() nothing of the router's runs on the loop, on any engine."""
    before = asyncio.all_tasks()
    async with engine.open() as router:
        await asyncio.gather(*(router.fetch_all("SELECT 1", tenant="acme") for _ in range(20)))
        await router.execute_raw("SELECT 1", tenant="acme")
    assert asyncio.all_tasks() == before


async def test_two_routers_do_not_know_of_each_other(server: Server) -> None:
    """Pools, listeners and metrics belong to one router."""
    async with opened() as first, opened() as second:
        heard = Recorder(first)
        await second.fetch_all("SELECT 1", tenant="acme")
        assert heard.events == []
        assert first.status().pools == ()


# --- one-shot forms --------------------------------------------------------------------------------------


async def test_the_one_shot_forms_do_what_a_session_does(router: Router, items: str) -> None:
    """Each is one statement in a session of its own, with the same options."""
    assert (await router.execute(f"INSERT INTO {items} (name) VALUES ('a')", tenant="acme")).rowcount == 1
    rows = [{"n": "b"}, {"n": "c"}]
    await router.execute_many(f"INSERT INTO {items} (name) VALUES (:n)", rows, tenant="acme")
    await router.execute_raw(f"INSERT INTO {items} (name) VALUES ('d')", tenant="acme")
    sql = f"SELECT name FROM {items} ORDER BY name"
    assert [row.name for row in await router.fetch_all(sql, tenant="acme", primary=True)] == list("abcd")
    row = await router.fetch_one(f"{sql} LIMIT 1", tenant="acme", primary=True)
    assert row is not None and row.name == "a"
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 4


async def test_the_one_shot_stream(engine: Engine, router: Router, items: str) -> None:
    """stream() iterates with a cursor, and gives its connection back also if the loop ends early."""
    rows = [{"n": f"n{number}"} for number in range(20)]
    await router.execute_many(f"INSERT INTO {items} (name) VALUES (:n)", rows, tenant="acme")
    await engine.settle()
    found = [row.name async for row in router.stream(f"SELECT name FROM {items}", tenant="acme", batch=7)]
    assert len(found) == 20


# --- looking ---------------------------------------------------------------------------------------------


async def test_explain_says_where_and_why_and_runs_nothing(server: Server) -> None:
    """Node, role, reason, kind, tables and place, without a connection."""
    async with opened() as router:
        read = router.explain("SELECT a FROM t", tenant="acme")
        assert (read.role, read.reason, read.kind, read.tables) == ("replica", "read", "read", ("t",))
        assert read.node in read.candidates == ("r1", "r2")
        write = router.explain("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", tenant="acme")
        assert (write.role, write.reason, write.node) == ("primary", "writing_cte", "primary")
        assert router.explain("SELECT 1", tenant="acme", primary=True).reason == "declared_primary"
        assert router.explain("SELECT f()", tenant="acme", readonly=True).reason == "declared_read"
        assert router.explain("SELECT f()", tenant="acme").reason == "unknown_function"
        assert router.explain("SELECT 1", tenant="acme", consistency="strong").reason == "strong"
        with pytest.raises(UsageError, match="eventual"):
            router.explain("SELECT 1", tenant="acme", consistency="exact")
        with pytest.raises(UsageError, match="contradict"):
            router.explain("SELECT 1", tenant="acme", readonly=True, primary=True)
        with pytest.raises(errors.StatementError):
            router.explain("", tenant="acme")
        assert not server.connections


async def test_explain_agrees_with_what_then_happens(engine: Engine, router: Router, heard: Recorder) -> None:
    """The route that explain() shows is the one that the statement takes."""
    for sql in ("SELECT 1", "SELECT 1 FOR UPDATE" if engine.dialect != "sqlite" else "PRAGMA user_version"):
        said = router.explain(sql, tenant="acme")
        await router.fetch_all(sql, tenant="acme")
        assert heard.route == (said.role, said.reason)


async def test_the_status_shows_nodes_and_pools(server: Server) -> None:
    """Which nodes are usable, how many connections there are, and who listens; also once closed."""
    server.down.add("r1")
    async with opened(replicas=1) as router:
        await router.fetch_all("SELECT 1", tenant="acme")
        status = router.status()
        assert [(node.name, node.role, node.usable) for node in status.nodes] == [
            ("primary", "primary", True),
            ("r1", "replica", False),
        ]
        busy = {pool.node: (pool.size, pool.idle, pool.in_use, pool.max) for pool in status.pools}
        assert busy == {"main/primary": (1, 1, 0, 4), "main/r1": (0, 0, 0, 4)}
        assert status.tenants == 2
        assert status.nodes[0].latency > 0
    assert all(pool.size == 0 for pool in router.status().pools)


async def test_ping_asks_every_node(engine: Engine, router: Router) -> None:
    """Each node answers, and the connections are given back."""
    if engine.dialect == "sqlite":
        await router.execute("CREATE TABLE IF NOT EXISTS here (a INT)", tenant="acme")
    pings = await router.ping()
    assert [ping.node for ping in pings] == ["primary", *engine.replicas]
    assert all(ping.ok and ping.error is None and 0 < ping.seconds < 5 for ping in pings)


@pytest.mark.timed
async def test_ping_says_what_is_wrong_and_in_time(server: Server) -> None:
    """A node that is down or silent is told as such within the limit; the others are not held up."""
    async with opened() as router:
        server.down.add("r1")
        gate = server.block("connect", node="r2")
        async with taking(0.2):
            primary, down, silent = await router.ping(timeout=0.1)
        assert (primary.ok, down.ok, silent.ok) == (True, False, False)
        assert "cannot connect to main/r1" in (down.error or "")
        assert "no answer within 0.1 s" in (silent.error or "")
        gate.set()


async def test_a_cluster_without_tenants_can_be_pinged(tmp_path: Path) -> None:
    """ping() needs a database to connect to, and takes the cluster's own where no tenant names one."""
    section = {"engine": "sqlite", "primary": {"path": str(tmp_path)}, "readers": 0, "database": "own"}
    async with Router(parse({"version": 1, "clusters": {"main": section}})) as router:
        assert [ping.ok for ping in await router.ping()] == [True]
