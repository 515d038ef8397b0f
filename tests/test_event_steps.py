"""What a request's event says of its steps, its context, the cache and its token."""

import asyncio
import time

import pytest

from router import acting, errors
from router.context import NOBODY, Context, current
from router.events import (
    RequestEvent,
    RequestFailed,
    RequestFinished,
    RequestStarted,
    RetryScheduled,
    TransactionCommitted,
)
from tests.cache.looking import Stage
from tests.cache.looking import stage as stage
from tests.doubles import Server, opened
from tests.engines import Engine, Recorder, only
from tests.replicating import READ as REPLICATED
from tests.replicating import Cluster, ask, fetch, wrote
from tests.replicating import cluster as cluster
from tests.replicating import opened as replicated

READ = "SELECT a FROM t WHERE id = :id"
ONE = {"id": 1}
WAIT = 0.05

# --- steps -----------------------------------------------------------------------------------------------


@pytest.mark.timed
async def test_the_wait_for_a_busy_connection_is_queue(server: Server) -> None:
    """Who stands in the queue sees how long in ``queue``, and nothing of it in the other waits."""
    async with opened(replicas=0, connections={"max": 1}) as router:
        heard = Recorder(router)
        server.delay("fetch_all", WAIT)
        await asyncio.gather(*(router.fetch_all(READ, ONE, tenant="acme") for _ in range(2)))
        first, second = heard.of(RequestFinished)
        assert first.waits.queue == 0.0 < first.waits.connect
        assert second.waits.queue > WAIT * 0.9
        assert second.waits.connect == second.waits.catch_up == 0.0
        assert second.lookup + second.acquire + second.execute <= second.total


@pytest.mark.timed
async def test_a_transaction_has_waited_and_its_statements_have_not(server: Server) -> None:
    """The waits of a transaction's begin are its own; a statement in it knows its transaction by number."""
    async with opened(replicas=0, connections={"max": 1}) as router:
        heard = Recorder(router)
        async with router.session("acme") as session:
            async with session.transaction() as first:
                await first.fetch_all(READ, ONE)
            async with session.transaction() as second:
                await second.fetch_all(READ, ONE)
        requests, ended = heard.of(RequestFinished), heard.of(TransactionCommitted)
        assert [event.acquire for event in requests] == [0.0, 0.0]
        assert [event.unit for event in requests] == [event.unit for event in ended]
        assert 0 < requests[0].unit < requests[1].unit
        await router.fetch_all(READ, ONE, tenant="acme")
        assert heard.of(RequestFinished)[-1].unit == 0


async def test_parsing_a_new_text_is_part_of_lookup(server: Server) -> None:
    """A text that is seen for the first time takes its time before it is sent, and the event shows it."""
    async with opened() as router:
        heard = Recorder(router)
        text = "SELECT " + ", ".join(f"a{n} + {n} AS b{n}" for n in range(500)) + " FROM t"
        for _ in range(3):
            await router.fetch_all(text, tenant="acme")
        new, *known = [event.lookup for event in heard.of(RequestFinished)]
        assert new > 5 * max(known)


@pytest.mark.timed
async def test_the_wait_for_a_late_replica_is_catch_up(cluster: Cluster) -> None:
    """A read that waits until a replica has what the session wrote says so by the step and the reason."""
    cluster.held = {"r1", "r2"}
    async with replicated(defaults={"freshness": {"wait": "2s"}}) as router:
        session = await wrote(router, 1)
        await ask(router, "primary")
        heard = Recorder(router)
        reading = asyncio.create_task(fetch(session))
        await asyncio.sleep(WAIT)
        cluster.replay()
        await reading
        (event,) = heard.of(RequestFinished)
        assert event.sql == REPLICATED and event.reason == "waited"
        assert 0 < event.waits.catch_up <= event.acquire <= event.total
        rest = event.total - event.execute - event.lookup
        assert event.total > WAIT * 0.9 and event.acquire > rest * 0.9  # nothing else has waited


@only("sqlite")
async def test_a_stream_tells_the_first_rows_from_the_rest(engine: Engine) -> None:
    """What the consumer takes between rows is ``fetch``; until the first rows came it is ``execute``."""
    async with engine.open() as router:
        heard = Recorder(router)
        numbers = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT * FROM n"
        )
        async for _ in router.stream(numbers, tenant="acme", batch=2):
            await asyncio.sleep(0.01)
        event = heard.of(RequestFinished)[-1]
        assert event.rows == 4 and event.fetch > 0.03 > event.execute > 0


async def test_the_attempts_that_failed_are_in_the_event(server: Server) -> None:
    """Each has its node, error and number; they are the same that were told as they happened."""
    async with opened() as router:
        heard = Recorder(router)
        for _ in range(2):
            server.fail("fetch_all", errors.ConnectionLost("cut"), breaks=True)
        await router.fetch_all(READ, ONE, tenant="acme")
        (event,) = heard.of(RequestFinished)
        assert event.retries == tuple(heard.of(RetryScheduled))
        assert [(each.attempt, each.error) for each in event.retries] == [
            (1, "ConnectionLost"),
            (2, "ConnectionLost"),
        ]
        assert event.attempts == 3


# --- context ---------------------------------------------------------------------------------------------


async def test_what_the_application_says_is_on_every_event(server: Server) -> None:
    """Also on those of connections that are opened meanwhile; and it ends with the block."""
    async with opened() as router:
        heard = Recorder(router)
        with acting(actor="ann", context_id="req-1", tags={"route": "/plans"}) as said:
            with acting(trace_id="a" * 32, tags={"step": "2"}):
                await router.fetch_all(READ, ONE, tenant="acme")
            assert current() is said
        inside = list(heard.events)
        await router.fetch_all(READ, ONE, tenant="acme")
        assert current() is NOBODY
        outside = heard.events[len(inside) :]
        assert {"RequestStarted", "PoolOpened", "ConnectionOpened", "RequestFinished"} == {
            type(event).__name__ for event in inside
        }
        for event in inside:
            assert event.context == Context(
                "req-1", "a" * 32, None, "ann", {"route": "/plans", "step": "2"}
            ), event
            assert (event.context_id, event.trace_id) == ("req-1", "a" * 32)
        assert len(outside) >= 2 and all(event.context is NOBODY for event in outside)


async def test_a_session_may_have_an_id_of_its_own(server: Server) -> None:
    """It replaces the one of the surroundings and leaves the rest, in statements and transactions."""
    async with opened() as router:
        heard = Recorder(router)
        with acting(actor="ann", context_id="outer"):
            session = router.session("acme", context_id="inner")
        async with session, session.transaction() as tx:
            await tx.execute("UPDATE t SET a = 1")
        for event in (*heard.of(RequestFinished), *heard.of(TransactionCommitted)):
            assert event.context == Context("inner", actor="ann")


async def test_a_listener_may_add_to_a_request_before_it_runs(server: Server) -> None:
    """What it adds is in the later events of that request only, and never replaces what was there."""
    async with opened() as router:
        heard = Recorder(router)

        def tag(event: RequestStarted) -> None:
            event.add("table", ",".join(sorted(event.tables)))
            event.add("route", "changed")

        listening = router.dispatcher.subscribe(RequestStarted, tag)
        server.fail("fetch_all", errors.ConnectionLost("cut"), breaks=True)
        with acting(tags={"route": "/plans"}):
            await router.fetch_all(READ, ONE, tenant="acme")
        listening.cancel()
        await router.fetch_all(READ, ONE, tenant="acme")
        tagged, plain = heard.of(RequestFinished)
        assert tagged.tags == {"route": "/plans", "table": "t"} and not plain.tags
        (retry,) = heard.of(RetryScheduled)
        assert retry.context == tagged.context


async def test_nobody_hears_that_nothing_is_announced(server: Server) -> None:
    """Without a listener for it RequestStarted is not built; with one for all events it is."""
    async with opened() as router:
        assert not router.dispatcher.announces
        listening = router.dispatcher.subscribe(RequestEvent, lambda event: None)
        assert not router.dispatcher.announces
        listening.cancel()
        listening = router.dispatcher.subscribe(RequestStarted, lambda event: None)
        assert router.dispatcher.announces
        listening.cancel()
        assert not router.dispatcher.announces


# --- cache and token -------------------------------------------------------------------------------------


@only("sqlite")
async def test_the_event_says_what_the_cache_did(stage: Stage) -> None:
    """Nothing where it was not asked; else that it missed, was passed by, or answered, and how much."""
    one = f"SELECT amount FROM {stage.table} WHERE id = 1"
    await stage.router.fetch_all(one, tenant="acme")
    for given in ({"cache": 60}, {"cache": 60}, {"cache": 60, "primary": True}):
        await stage.router.fetch_all(one, tenant="acme", **given)
    events = stage.look.heard.requests[-4:]
    assert [event.cache for event in events] == ["", "miss", "hit", "bypass"]
    hit = events[2]
    assert isinstance(hit, RequestFinished) and hit.size > 0
    assert hit.attempts == 0 and hit.lookup == hit.total and not hit.execute
    assert {event.tables for event in events} == {frozenset({stage.table})}


async def test_the_event_says_what_became_of_the_token(cluster: Cluster) -> None:
    """A replica that has it meets it; where none is known to, the primary answers; without one: nothing."""
    cluster.held = {"r1", "r2"}
    async with replicated(keys=["canary-key-of-the-tests-0123456789"]) as router:
        session = await wrote(router, 1)
        token = await session.token()
        heard = Recorder(router)
        await fetch(router.session("acme", after=token))
        cluster.replay()
        for node in ("primary", "r1", "r2"):
            await ask(router, node)
        await fetch(router.session("acme", after=token))
        await fetch(router.session("acme"))
        assert [event.token for event in heard.of(RequestFinished)] == ["primary", "met", ""]


async def test_a_failed_request_has_its_steps_too(server: Server) -> None:
    """The time that was lost in vain is found where it was lost."""
    async with opened(replicas=0) as router:
        heard = Recorder(router)
        await router.fetch_all(READ, ONE, tenant="acme")  # the connection is open, the text is known
        server.delay("fetch_all", 60)
        began = time.monotonic()
        with pytest.raises(errors.StatementTimeout):
            await router.fetch_all(READ, ONE, tenant="acme", timeout=0.3)
        took = time.monotonic() - began
        (event,) = heard.of(RequestFailed)
        assert 0.15 < event.execute <= event.total <= took
