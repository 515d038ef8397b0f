"""What sessions and tokens become when another server takes over: nothing that is lost goes unsaid."""

import asyncio
from typing import Any

import pytest

from router import Router
from router.errors import StaleReadError
from router.events import PrimaryChanged, TokenIgnored, WriteLost
from tests.engines import Recorder
from tests.replicating import (
    CACHEABLE,
    FORMS,
    READ,
    WRITE,
    Cluster,
    Form,
    ask,
    fetch,
    in_transaction,
    opened,
    reading,
    reasons,
    streamed,
    wrote,
)
from tests.replicating import cluster as cluster  # a fixture

KEY = "canary-key-of-the-present"
ERROR: dict[str, Any] = {"freshness": {"otherwise": "error"}}


async def fail_over(cluster: Cluster, router: Router, name: str = "r1", *, dies: bool = True) -> None:
    """Let the primary die, or live on unnoticed, and a replica take over; the router has noticed."""
    if dies:
        cluster.crash("primary", back=False)
    cluster.promote(name)
    await ask(router, name, "primary", *(each for each in ("r1", "r2") if each != name))


def lost(heard: Recorder) -> list[bool]:
    return [event.certain for event in heard.of(WriteLost)]


def ignored(heard: Recorder) -> list[str]:
    return [event.refusal for event in heard.of(TokenIgnored)]


@FORMS
async def test_a_lost_write_is_told_to_the_session_that_made_it(cluster: Cluster, form: Form) -> None:
    """Once, with its next read, which goes to the new primary."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session, heard = await wrote(router, 1), Recorder(router)
        await fail_over(cluster, router)
        row = await form(session)
        assert (row.node, row.seen) == ("r1", frozenset())
        assert lost(heard) == [False]
        await form(session)
        assert lost(heard) == [False]


@FORMS
async def test_where_that_is_wanted_a_lost_write_is_an_error(cluster: Cluster, form: Form) -> None:
    """Once; who reads again has been told, and goes on with what there is."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults=ERROR) as router:
        session = await wrote(router, 1)
        await fail_over(cluster, router)
        with pytest.raises(StaleReadError, match="may have been lost when another server became the primary"):
            await form(session)
        cluster.replay("r2")
        await ask(router, "r1", "r2")
        await form(session)


async def test_a_write_that_was_received_is_not_called_lost(cluster: Cluster) -> None:
    """The new primary had it as a replica, as far as was known of both."""
    async with opened(keys=[KEY]) as router:
        session = await wrote(router, 1)
        token = await session.token()
        await ask(router)
        heard = Recorder(router)
        await fail_over(cluster, router)
        assert (await fetch(session)).seen == {1}
        assert (await fetch(router.session("acme", after=token))).seen == {1}
        assert lost(heard) == [] and ignored(heard) == ["old_reign"]
        assert set(reasons(heard)) <= {"old_reign", "caught_up", "checked"}


async def test_what_was_read_and_lost_is_told_too(cluster: Cluster) -> None:
    """A read that the new primary cannot repeat is time that goes back: on a replica or on the primary."""
    cluster.held = {"r1"}
    async with opened() as router:
        await wrote(router, 1)
        on_replica, on_primary = await reading(router, "r2"), router.session("acme")
        await on_primary.fetch_one(READ, primary=True)
        heard = Recorder(router)
        await fail_over(cluster, router)
        for session in (on_replica, on_primary):
            assert (await fetch(session)).seen == frozenset()
        assert lost(heard) == [False, False]


async def test_a_read_under_way_on_the_old_primary_counts_as_one_of_its_time(cluster: Cluster) -> None:
    """Its answer comes after the failover, and what it saw may be lost all the same."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        await wrote(router, 1)
        session, heard = router.session("acme"), Recorder(router)
        gate = cluster.faults.block("fetch_one", node="primary")
        slow = asyncio.create_task(session.fetch_one(READ, primary=True))
        await asyncio.sleep(0.02)
        await fail_over(cluster, router, dies=False)
        gate.set()
        row = (await asyncio.gather(slow, return_exceptions=True))[0]
        if isinstance(row, Exception):
            pytest.skip("the pool has cut the connection, so that nothing was read")
        assert row.seen == {1}
        await fetch(session)
        assert lost(heard) == [False]


@pytest.mark.parametrize(
    ("form", "verb"), [(fetch, "fetch_one"), (in_transaction, "fetch_one"), (streamed, "stream")]
)
async def test_a_read_under_way_on_a_replica_may_have_seen_what_is_lost(
    cluster: Cluster, form: Form, verb: str
) -> None:
    """It was sent before the failover was noticed; what it showed then is told with the next read."""
    cluster.held = {"r1"}
    async with opened() as router:
        await wrote(router, 1)
        session, heard = router.session("acme"), Recorder(router)
        session.replica = (await reading(router, "r2")).replica
        gate = cluster.faults.block(verb, node="r2")
        slow = asyncio.create_task(form(session))
        await asyncio.sleep(0.02)
        await fail_over(cluster, router)
        gate.set()
        assert (await slow).seen == {1}
        assert lost(heard) == []
        assert (await fetch(session)).seen == frozenset()
        assert lost(heard) == [False]


async def test_a_write_under_way_on_the_old_primary_counts_as_one_of_its_time(cluster: Cluster) -> None:
    """Acknowledged by a server that is the primary no more: it is told with the next read."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session, heard = router.session("acme"), Recorder(router)
        gate = cluster.faults.block("execute", node="primary")
        slow = asyncio.create_task(session.execute(WRITE, {"id": 1}))
        await asyncio.sleep(0.02)
        await fail_over(cluster, router, dies=False)
        gate.set()
        await asyncio.gather(slow, return_exceptions=True)
        assert 1 in cluster["primary"].log and 1 not in cluster["r1"].log
        await fetch(session)
        assert lost(heard) == [False]


async def test_who_follows_a_session_is_told_what_it_lost(cluster: Cluster) -> None:
    """It must see the same; once told, a session hands on only what it has since."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session, heard = await wrote(router, 1), Recorder(router)
        await fail_over(cluster, router)
        follower = router.session("acme", after=session)
        await fetch(follower)
        assert lost(heard) == [False]
        await fetch(router.session("acme", after=follower))
        assert lost(heard) == [False]


async def test_an_early_past_does_not_hide_a_later_one_that_was_lost(cluster: Cluster) -> None:
    """Of two sessions before and one after a failover, the second has seen what the first had not."""
    async with opened() as router:
        first = await wrote(router, 1)
        await ask(router)
        cluster.held = {"r1", "r2"}
        second = router.session("acme", after=first)
        await second.execute(WRITE, {"id": 2})
        await ask(router)
        await fail_over(cluster, router)
        third = router.session("acme")
        await third.fetch_one(READ, primary=True)
        heard = Recorder(router)
        await fetch(router.session("acme", after=[second, third]))
        assert lost(heard) == [False]


async def cached(session: Any) -> str:
    rows = await session.fetch_all(CACHEABLE, cache=60)
    text: str = rows[0].text
    return text


async def test_an_answer_from_memory_tells_of_a_lost_write_too(cluster: Cluster) -> None:
    """It is the new primary's, and the session had seen the one before."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session, heard = await wrote(router, 1), Recorder(router)
        await fail_over(cluster, router)
        await cached(router.session("acme"))
        assert lost(heard) == []
        assert await cached(session) == ""
        assert (reasons(heard)[-1], lost(heard)) == ("cached", [False])


async def test_who_shares_a_read_that_waited_for_a_primary_is_told_as_well(cluster: Cluster) -> None:
    """Another server takes over while both wait, the one who reads and the one who gets the same answer."""
    async with opened() as router:
        await cached(router.session("acme"))
        cluster.held = {"r1", "r2"}
        reader, other = await wrote(router, 1), await wrote(router, 2)
        heard = Recorder(router)
        cluster.crash("primary", back=False)
        await ask(router, "primary")
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(cached(each)) for each in (reader, other)]
            await asyncio.sleep(0.02)
            cluster.promote("r1")
            await ask(router, "r1", "r2")
        assert [each.result() for each in answers] == ["", ""]
        assert lost(heard) == [False, False]
        assert reasons(heard).count("cached") == 1


async def test_who_has_seen_nothing_has_lost_nothing(cluster: Cluster) -> None:
    """A new session is not alarmed by a failover before its time; nor is an eventual read."""
    async with opened() as router:
        await wrote(router, 1)
        old = router.session("acme")
        heard = Recorder(router)
        await fail_over(cluster, router)
        await fetch(old)
        await fetch(router.session("acme"))
        await router.session("acme", after=await wrote(router, 2)).fetch_one(READ)
        assert lost(heard) == []


async def test_a_request_that_waited_for_the_new_primary_is_told_as_well(cluster: Cluster) -> None:
    """Its session had written on the old one, before the request was held."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session, heard = await wrote(router, 1), Recorder(router)
        cluster.crash("primary", back=False)
        await ask(router, "primary")
        held = asyncio.create_task(session.fetch_one(READ, primary=True))
        await asyncio.sleep(0.02)
        assert not held.done()
        cluster.promote("r1")
        await ask(router, "r1", "r2")
        assert (await held).seen == frozenset()
        assert lost(heard) == [False]


@pytest.mark.parametrize("certain", [True, False])
async def test_a_token_of_the_old_reign_goes_to_the_primary(cluster: Cluster, certain: bool) -> None:
    """What it stood for is lost for certain if the new primary began below it, else it may be."""
    cluster.held = {"r1", "r2"}
    async with opened(keys=[KEY]) as router, opened(keys=[KEY]) as other:
        token = await (await wrote(router, 1)).token()
        if not certain:
            cluster["r1"].more = 20  # it has written something itself before it was asked
        await fail_over(cluster, other)
        heard = Recorder(other)
        row = await fetch(other.session("acme", after=token))
        assert row.node == "r1"
        assert ignored(heard) == ["old_reign"]
        assert lost(heard) == [certain]


@FORMS
async def test_a_token_tells_of_a_failover_that_is_news_here(cluster: Cluster, form: Form) -> None:
    """Its reign has not been heard of: who leads is asked first, else a former primary would answer."""
    cluster.held = {"primary", "r1", "r2"}
    async with opened(keys=[KEY]) as router, opened(keys=[KEY]) as other:
        await wrote(router, 1)
        cluster.replay()
        cluster["primary"].writable = False  # a switchover: it follows the new one, and lags
        await fail_over(cluster, router, dies=False)
        token = await (await wrote(router, 2)).token()
        heard, before = Recorder(other), cluster.count("probe")
        assert other.status().nodes[0].role == "primary"
        session = other.session("acme", after=token)
        assert (await form(session)).seen == {1, 2}
        assert ignored(heard) == lost(heard) == []
        assert cluster.count("probe") >= before + 3


async def test_servers_are_asked_once_about_a_reign_that_nobody_knows(cluster: Cluster) -> None:
    """It is of a time before this router's; each further token of it is old without a question."""
    async with opened(keys=[KEY]) as one:
        token = await (await wrote(one, 1)).token()
        cluster["primary"].timeline = 2
        async with opened(keys=[KEY]) as other:
            await asyncio.sleep(0.3)  # until the probes of the start are over
            heard, before = Recorder(other), cluster.count("probe")
            for _ in range(5):
                await other.session("acme", after=token).fetch_one(READ, primary=True)
            assert cluster.count("probe") == before + 3
            assert ignored(heard) == ["old_reign"] * 5


async def test_a_token_of_two_failovers_ago_is_old_as_well(cluster: Cluster) -> None:
    """Nobody knows what became of it; the reads go to the primary."""
    async with opened(keys=[KEY]) as router:
        token = await (await wrote(router, 1)).token()
        await ask(router)
        await fail_over(cluster, router, "r1")
        await ask(router, "r2", "r1")
        cluster["r1"].writable = False
        cluster.crash("r1", back=False)
        cluster.promote("r2")
        await ask(router, "r1", "r2")
        heard = Recorder(router)
        row = await fetch(router.session("acme", after=token))
        assert row.node == "r2"
        assert ignored(heard) == ["old_reign"]


async def test_a_session_that_goes_by_a_token_meets_the_failover_too(cluster: Cluster) -> None:
    """It has looked at the token before; afterwards its position means nothing any more."""
    cluster.held = {"r1", "r2"}
    async with opened(keys=[KEY]) as router:
        token = await (await wrote(router, 1)).token()
        session, heard = router.session("acme", after=token), Recorder(router)
        assert (await fetch(session)).seen == {1}
        await fail_over(cluster, router)
        assert (await fetch(session)).node == "r1"
        assert ignored(heard) == ["old_reign"]
        assert lost(heard)
        passed = await session.token()
        assert (await fetch(router.session("acme", after=passed))).node == "r1"
        assert ignored(heard) == ["old_reign"]  # the new token is of the new reign


async def test_a_failover_behind_one_address_is_noticed(cluster: Cluster) -> None:
    """No server changes its role in the router's eyes, and yet writes are lost: the reign tells."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session, heard = await wrote(router, 1), Recorder(router)
        await ask(router)
        cluster.crash("primary", loses=1)
        cluster["primary"].timeline = 2
        await ask(router, "primary")
        assert (await fetch(session)).seen == frozenset()
        assert lost(heard) == [False]
        assert heard.of(PrimaryChanged) == []


@FORMS
async def test_a_replica_that_stayed_behind_is_not_compared_by_its_numbers(
    cluster: Cluster, form: Form
) -> None:
    """Left on the old branch of history it counts further than the new primary, by other bytes."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults={"freshness": {"wait": "5ms"}}) as router:
        for number in range(3):
            await wrote(router, number)
        cluster.replay("r2")
        await fail_over(cluster, router)
        session = await wrote(router, 10)
        for number in range(20, 25):  # until the new one's log is the longer one
            await wrote(router, number)
            await ask(router, "r1", "r2")
            assert 10 in (await form(session)).seen
        follower = router.session("acme", after=session)
        assert 10 in (await form(follower)).seen
