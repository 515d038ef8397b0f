"""Reading where the session's own writes and reads are seen, on real servers with replicas held back."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from router import Router
from router.config import Secret
from router.consistency import Bounded
from router.errors import StaleReadError
from router.events import TokenIgnored
from router.tokens import Point, Tokens
from tests.engines import Engine, Recorder, only
from tests.faults.cluster import Proxied
from tests.holding import ask, ask_until_current, holding, routes
from tests.lateness import taking

pytestmark = only("sqlite", "postgresql", "mariadb")
SERVED, POSTGRESQL, SQLITE = only("postgresql", "mariadb"), only("postgresql"), only("sqlite")
KEY = "canary-key-of-the-present"
QUICK = {"checks": {"interval": "1h", "timeout": "1s"}}


@pytest.fixture(autouse=True)
async def settled(engine: Engine, items: str) -> None:
    """Begin with replicas that have the table."""
    await engine.settle()


@pytest.fixture
async def watched(engine: Engine) -> AsyncIterator[Router]:
    """Open a router that signs tokens, and has asked each server once."""
    async with engine.open(keys=(KEY,), connections=8) as router:
        await router.ready()
        yield router


async def insert(router: Any, items: str, name: str, **given: Any) -> Any:
    """Return a session that has written a row."""
    session = router.session("acme", **given)
    await session.execute(f"INSERT INTO {items} (name, amount) VALUES (:name, 1)", {"name": name})
    return session


# --- all forms of a read ---------------------------------------------------------------------------------


async def fetched(session: Any, items: str) -> list[str]:
    return [row.name for row in await session.fetch_all(f"SELECT name FROM {items}")]


async def streamed(session: Any, items: str) -> list[str]:
    return [row.name async for row in session.stream(f"SELECT name FROM {items}")]


async def prepared(session: Any, items: str) -> list[str]:
    return [row.name for row in await (await session.prepare(f"SELECT name FROM {items}")).fetch_all()]


async def core(session: Any, items: str) -> list[str]:
    construct = sa.select(sa.column("name")).select_from(sa.table(items))
    return [row.name for row in await session.fetch_all(construct)]


async def in_transaction(session: Any, items: str) -> list[str]:
    async with session.transaction(readonly=True) as tx:
        return [row.name for row in await tx.fetch_all(f"SELECT name FROM {items}")]


async def orm(session: Any, items: str) -> list[str]:
    async with session.orm(readonly=True) as found:
        return list(await found.scalars(sa.text(f"SELECT name FROM {items}")))


async def lent(session: Any, items: str) -> list[str]:
    async with session.connection(readonly=True) as lease:
        rows = await lease.run("fetch_all", f"SELECT name FROM {items}", (), None, limit=5.0)
    return [row.name for row in rows]


FORMS = (fetched, streamed, prepared, core, in_transaction, orm, lent)


async def test_a_session_sees_its_own_writes_in_every_form(
    engine: Engine, watched: Router, items: str
) -> None:
    """While no replica has them, and when replicas have; and what it has read it never misses again."""
    names = []
    for number, form in enumerate(FORMS):
        session = await insert(watched, items, f"row {number}")
        names.append(f"row {number}")
        assert await form(session, items) == names, form
        if number % 3 == 2:
            await engine.settle()
            await ask(watched)
        for other in FORMS:
            assert await other(session, items) == names, (form, other)


@SERVED
async def test_no_form_reads_a_replica_that_is_held_back(engine: Engine, watched: Router, items: str) -> None:
    """The row is found wherever it is, whatever else was asked or read meanwhile."""
    async with holding(engine) as held:
        session = await insert(watched, items, "one")
        token = await session.token()
        for form in FORMS:
            await ask(watched)
            for after in (session, token):
                assert await form(watched.session("acme", after=after), items) == ["one"], form
            assert await form(session, items) == ["one"], form
        await held.resume()
        await held.settle()
        await ask(watched)
        heard = Recorder(watched)
        for form in FORMS:
            assert await form(session, items) == ["one"], form
            assert all(name != "primary" for name, _ in routes(heard)), form


# --- where, and why --------------------------------------------------------------------------------------


async def test_reads_return_to_the_replicas_when_they_have_caught_up(
    engine: Engine, watched: Router, items: str
) -> None:
    """On the primary for want of news, on a replica that is known to have the write; SQLite stays there."""
    session = await insert(watched, items, "one")
    heard = Recorder(watched)
    assert await fetched(session, items) == ["one"]
    await engine.settle()
    if engine.server is None:
        assert heard.route == ("replica", "read")
        return
    assert heard.route[0] == "primary" or heard.route[1] in ("caught_up", "checked", "waited")
    await ask(watched)
    assert await fetched(session, items) == ["one"]
    assert heard.route == ("replica", "caught_up")


@SERVED
async def test_news_come_by_themselves(engine: Engine, items: str) -> None:
    """A session that goes on reading leaves the primary soon, though servers are probed every hour."""
    async with engine.open(cluster=QUICK) as router:
        await router.ready()
        session, heard = await insert(router, items, "one"), Recorder(router)
        async with asyncio.timeout(3):
            while not heard.requests or heard.last.role != "replica":
                assert await fetched(session, items) == ["one"]
                await asyncio.sleep(0.01)


@POSTGRESQL
async def test_the_replica_that_has_it_is_read(engine: Engine, watched: Router, items: str) -> None:
    """Of two of which one is held back the other serves all reads, with its reason."""
    async with holding(engine, "r1") as held:
        session = await insert(watched, items, "one")
        await held.settle()
        await ask(watched)
        heard = Recorder(watched)
        for _ in range(6):
            assert await fetched(session, items) == ["one"]
            assert await fetched(watched.session("acme", after=session), items) == ["one"]
        assert set(routes(heard)) == {("r2", "caught_up")}


@SERVED
async def test_a_replica_that_gets_there_is_waited_for(engine: Engine, items: str) -> None:
    """The read is answered there as soon as it has the write: one of its own, or a token's."""
    freshness = {"freshness": {"wait": "5s"}}
    async with engine.open(keys=(KEY,), defaults=freshness, cluster=QUICK, connections=8) as router:
        await router.ready()
        async with holding(engine) as held:
            session = await insert(router, items, "one")
            await ask(router, "primary")
            heard = Recorder(router)
            reading = asyncio.create_task(fetched(session, items))
            after = asyncio.create_task(fetched(router.session("acme", after=await session.token()), items))
            async with asyncio.timeout(10):  # each holds a connection to the replica that it waits for
                while sum(pool.in_use for pool in router.status().pools) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.15)  # it was asked by then
            waits = not reading.done() and not after.done()
            await held.resume()
            assert await reading == await after == ["one"]
            assert waits, routes(heard)
            assert {reason for _, reason in routes(heard)} == {"waited"}
            assert all(name != "primary" for name, _ in routes(heard))


@SERVED
async def test_one_that_does_not_get_there_is_not_waited_for_long(engine: Engine, items: str) -> None:
    """After 50 ms the primary answers; the session's next reads do not wait again."""
    async with engine.open(cluster=QUICK) as router:
        await router.ready()
        async with holding(engine):
            await fetched(router.session("acme"), items)  # opens the connection that is waited on
            session = await insert(router, items, "one")
            await ask(router, "primary")
            heard = Recorder(router)
            async with taking(0.35, least=0.05):
                assert await fetched(session, items) == ["one"]
            assert await fetched(session, items) == ["one"]
            assert routes(heard) == [("primary", "wait_timed_out"), ("primary", "own_write")]


@SERVED
async def test_where_that_is_wanted_a_stale_read_is_an_error(engine: Engine, items: str) -> None:
    """In time, and nothing is sent for it; what asks for no freshness is served."""
    freshness = {"freshness": {"otherwise": "error"}}
    async with engine.open(defaults=freshness, cluster=QUICK) as router:
        await router.ready()
        async with holding(engine):
            session, heard = await insert(router, items, "one"), Recorder(router)
            for form in (fetched, in_transaction, streamed, core, orm):
                async with taking(1.0):
                    with pytest.raises(StaleReadError):
                        await form(session, items)
            assert [event.node for event in heard.requests] == [None] * len(heard.requests)
            assert await session.fetch_all(f"SELECT name FROM {items}", primary=True)
            assert await session.fetch_all(f"SELECT name FROM {items}", consistency="eventual") == []


@SERVED
async def test_bounds_hold_on_real_replicas(engine: Engine, watched: Router, items: str) -> None:
    """Rows may be as old as the bound says, and are then read on the replica."""
    await ask_until_current(watched)  # one never seen to have what the primary had is within no bound
    async with holding(engine):
        await insert(watched, items, "one")
        await asyncio.sleep(0.25)
        await ask(watched)
        sql, heard = f"SELECT name FROM {items}", Recorder(watched)
        old = await watched.fetch_all(sql, tenant="acme", consistency=Bounded(seconds=30))
        young = await watched.fetch_all(sql, tenant="acme", consistency=Bounded(seconds=0.2))
        assert (len(old), len(young)) == (0, 1)
        assert routes(heard)[0][0] != "primary" and routes(heard)[1][0] == "primary"
        if engine.id == "postgresql":
            assert await watched.fetch_all(sql, tenant="acme", consistency=Bounded(size=8)) != []
            assert await watched.fetch_all(sql, tenant="acme", consistency=Bounded(size=1 << 30)) == []


@POSTGRESQL
async def test_reads_do_not_go_back_when_the_session_s_replica_is_lost(
    engine: Engine, proxied: Proxied, items: str
) -> None:
    """The other replica is held back, and lacks what the session has read: the primary has it."""
    async with proxied.engine.open(cluster=QUICK) as router, holding(engine, "r2") as held:
        await router.ready()
        await insert(router, items, "one")
        await held.settle()
        while True:  # until one reads on r1
            session, heard = router.session("acme"), Recorder(router)
            found = await fetched(session, items)
            if routes(heard)[-1][0] == "r1":
                break
        assert found == ["one"]
        proxied.replicas[0].refuse()
        proxied.replicas[0].reset()
        for _ in range(4):
            assert await fetched(session, items) == ["one"]
            assert routes(heard)[-1][0] == "primary"
        await held.resume()
        await held.settle()
        await ask(router, "primary", "r2")
        assert await fetched(session, items) == ["one"]
        assert routes(heard)[-1] == ("r2", "caught_up")


# --- tokens ----------------------------------------------------------------------------------------------

READER = """
import asyncio, json, sys
from router import Router
from router.config import parse
from router.events import RequestFinished, TokenIgnored
from pathlib import Path

given = json.load(sys.stdin)

async def main():
    async with Router.open(parse(given["config"], Path(given["folder"]))) as router:
        told = []
        router.dispatcher.subscribe(TokenIgnored, told.append)
        session = router.session("acme", after=given["token"])
        rows = await session.fetch_all(given["sql"])
        print(json.dumps({"names": [row.name for row in rows], "ignored": [e.refusal for e in told],
                          "token": await session.token()}))

asyncio.run(main())
"""


async def test_another_process_sees_what_a_token_stands_for(
    engine: Engine, watched: Router, items: str
) -> None:
    """It shares nothing but the key; and what it saw can be handed back."""
    names = engine.replicas if engine.server is not None else ()
    session = await insert(watched, items, "one")
    given = {
        "config": engine.document(keys=(KEY,)),
        "folder": str(engine.folder),
        "token": await session.token(),
        "sql": f"SELECT name FROM {items}",
    }

    async def other() -> Any:
        root = str(Path(__file__).parents[1])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root,
            env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        out, _ = await process.communicate(json.dumps(given).encode())
        return json.loads(out)

    if names:
        async with holding(engine):
            session = await insert(watched, items, "two")
            given["token"] = await session.token()
            found = await other()
        assert found["names"] == ["one", "two"]
    else:
        found = await other()
        assert found["names"] == ["one"]
    assert found["ignored"] == []
    heard = Recorder(watched)
    assert await fetched(watched.session("acme", after=found["token"]), items) == found["names"]
    assert heard.of(TokenIgnored) == []


async def test_bad_tokens_do_no_harm_on_real_servers(engine: Engine, watched: Router, items: str) -> None:
    """They neither raise nor block, and never weaken a read."""
    wall = Tokens([Secret(KEY)], 600.0, time.time)
    session = await insert(watched, items, "one")
    good = await session.token()
    bad = [
        "", "junk", good[:-1], good + "A", good[:20] + ("A" if good[20] != "A" else "B") + good[21:],
        wall.sign("globex", [Point("main", None, None, None)]),
        wall.sign("acme", [Point("other", None, None, None)]),
        Tokens([Secret(KEY)], 600.0, lambda: time.time() - 1000).sign("acme", []),
    ]  # fmt: skip
    async with holding(engine) if engine.server is not None else asyncio.timeout(30):
        await insert(watched, items, "two")
        for token in bad:
            async with taking(2.0):
                if token:
                    assert await fetched(watched.session("acme", after=token), items) == ["one", "two"], token
                else:
                    await fetched(watched.session("acme", after=token), items)


@SERVED
async def test_a_token_costs_one_round_trip_at_most(engine: Engine, proxied: Proxied, items: str) -> None:
    """Counted on the wire; none if a probe since the write knows."""
    async with proxied.engine.open(keys=(KEY,), cluster=QUICK) as router:
        await router.ready()
        session = await insert(router, items, "one")
        await asyncio.sleep(0.3)  # what is asked at the start, and soon after it
        await ask(router)
        await session.execute(f"UPDATE {items} SET amount = 2")
        before = proxied.traffic.statements
        await session.token()
        assert proxied.traffic.statements - before <= 1
        before = proxied.traffic.statements
        await session.token()
        assert proxied.traffic.statements == before


@SQLITE
async def test_sqlite_needs_no_position(watched: Router, items: str) -> None:
    """Its token is signed and says nothing: every reader sees each commit."""
    session = await insert(watched, items, "one")
    heard = Recorder(watched)
    after = watched.session("acme", after=[await session.token(), session, "junk"])
    assert await fetched(after, items) == ["one"]
    assert heard.route == ("replica", "read")
    found = watched.explain(f"SELECT name FROM {items}", tenant="acme", after="junk")
    assert all(node.caught_up for node in found.nodes)


@SQLITE
async def test_sqlite_caches_nothing_past_a_token(engine: Engine, items: str) -> None:
    """What another process has written is in the file, and not in an answer from before the token."""
    async with engine.open(keys=(KEY,)) as one, engine.open(keys=(KEY,)) as other:
        session = await insert(one, items, "one")
        sql = f"SELECT name FROM {items}"
        assert await one.session("acme").fetch_value(sql, cache=60) == "one"
        writer = other.session("acme")
        await writer.execute(f"UPDATE {items} SET name = 'two'")
        after = one.session("acme", after=[session, await writer.token()])
        assert await after.fetch_value(sql, cache=60) == "two"
