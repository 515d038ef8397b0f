"""Tokens between processes, on a scripted cluster: what they stand for, cost, and never do.

Two routers stand for two processes: they share nothing but the token's text and the key.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router import Router
from router.config import Secret
from router.errors import (
    ConnectError,
    ConnectionLost,
    NoPrimary,
    RouterClosed,
    RouterError,
    StaleReadError,
    TransactionStateError,
    UsageError,
)
from router.events import TokenIgnored, WriteLost
from router.positions import Lsn, MariadbGtid, Position
from router.tokens import Point, Tokens
from tests.engines import Recorder
from tests.lateness import taking
from tests.replicating import (
    FORMS,
    READ,
    WRITE,
    Cluster,
    Form,
    ask,
    backend,
    fetch,
    opened,
    reading,
    reasons,
    wrote,
)
from tests.replicating import cluster as cluster  # a fixture

KEY = "canary-key-of-the-present"
ERROR: dict[str, Any] = {"freshness": {"otherwise": "error"}}


@asynccontextmanager
async def two(**given: Any) -> AsyncIterator[tuple[Router, Router]]:
    """Open the routers of two processes that share a key."""
    async with opened(keys=[KEY], **given) as one, opened(keys=[KEY], **given) as other:
        yield one, other


def signed(*points: Point, tenant: str = "acme", key: str = KEY, at: float | None = None) -> str:
    """Return a token that says this."""
    return Tokens([Secret(key)], 600.0, lambda: time.time() if at is None else at).sign(tenant, points)


def point(
    position: Position | None, *, cluster: str = "main", identity: str | None = "id", reign: str = "1"
) -> Point:
    return Point(cluster, identity, reign, position)


def ignored(heard: Recorder) -> list[str]:
    return [event.refusal for event in heard.of(TokenIgnored)]


# --- what a token stands for -----------------------------------------------------------------------------


@FORMS
async def test_a_write_is_seen_in_another_process(cluster: Cluster, form: Form) -> None:
    """On the primary until a replica has it, then on the replica; whatever form the read takes."""
    cluster.held = {"r1", "r2"}
    async with two() as (one, other):
        token = await (await wrote(one, 1)).token()
        heard = Recorder(other)
        assert (await form(other.session("acme", after=token))).seen == {1}
        cluster.replay("r2")
        await ask(other)
        row = await form(other.session("acme", after=token))
        assert (row.node, row.seen) == ("r2", {1})
        assert ignored(heard) == []


async def test_a_token_follows_a_token(cluster: Cluster) -> None:
    """From process to process, though one in the middle did nothing but pass it on."""
    cluster.held = {"r1", "r2"}
    async with two() as (one, other):
        token = await (await wrote(one, 1)).token()
        middle = other.session("acme", after=token)
        passed = await middle.token()
        assert (await fetch(one.session("acme", after=passed))).seen == {1}
        follower = other.session("acme", after=middle)  # which has not looked at its token yet
        assert (await fetch(follower)).seen == {1}
        assert (await fetch(one.session("acme", after=await follower.token()))).seen == {1}


async def test_several_tokens_stand_for_all_that_each_does(cluster: Cluster) -> None:
    """As a sequence, nested, beside sessions and nothing, or merged into one."""
    cluster.held = {"r1", "r2"}
    async with two() as (one, other):
        first, second = await wrote(one, 1), await wrote(one, 2)
        tokens = [await first.token(), await second.token()]
        cluster.replay(most=1)
        await ask(other)
        own = await wrote(other, 3)
        for after in (tokens, [None, [tokens[1]], ""], [own, tokens[0]], one.merge_tokens(*tokens)):
            assert {1, 2} <= (await fetch(other.session("acme", after=after))).seen
        with pytest.raises(UsageError, match="forged"):
            one.merge_tokens(tokens[0], signed(key="canary-key-of-somebody"))


@pytest.mark.parametrize("restart", [False, True], ids=["", "after a crash"])
async def test_what_was_read_on_a_replica_is_not_missed_elsewhere(cluster: Cluster, restart: bool) -> None:
    """The token stands for what the replica has shown, also if it shows less since it has crashed."""
    cluster.held = {"r1", "r2"}
    async with two() as (one, other):
        await wrote(one, 1)
        await wrote(one, 2)
        cluster.replay("r1")
        session = await reading(one, "r1")
        assert (await fetch(session)).seen == {1, 2}
        if restart:
            cluster.crash("r1", loses=1)
        await ask(one, "r1")
        token = await session.token()
        await ask(other, "primary", "r1", "r2")
        for _ in range(4):
            assert (await fetch(other.session("acme", after=token))).seen == {1, 2}


async def test_a_read_on_a_replica_does_not_ask_for_more_than_that(cluster: Cluster) -> None:
    """Who has only read there needs not what the primary has had since."""
    cluster.held = {"r1", "r2"}
    async with two() as (one, other):
        session = await reading(one, "r1")
        await wrote(one, 1)
        token = await session.token()
        await ask(other)
        assert (await fetch(other.session("acme", after=token))).node in ("r1", "r2")


async def test_who_has_seen_nothing_has_a_token_of_nothing(cluster: Cluster) -> None:
    """It is good, and asks for nothing."""
    async with two() as (one, other):
        token = await one.session("acme").token()
        heard = Recorder(other)
        await fetch(other.session("acme", after=token))
        assert reasons(heard) == ["read"] and ignored(heard) == []


async def test_writes_of_an_open_transaction_have_no_position(cluster: Cluster) -> None:
    """To take a token there is a mistake; in one that only reads it is none."""
    async with two() as (one, _):
        session = one.session("acme")
        async with session.transaction():
            with pytest.raises(TransactionStateError, match="Take the token after its commit"):
                await session.token()
        async with session.transaction(readonly=True):
            await session.token()
        await session.close()
        with pytest.raises(RouterClosed):
            await session.token()


# --- what it costs ---------------------------------------------------------------------------------------


async def questions(cluster: Cluster, session: Any) -> int:
    """Return how many questions a token costs that reach any server."""
    before = len(cluster.asked)
    await session.token()
    return len(cluster.asked) - before


async def test_a_token_costs_one_question_or_none(cluster: Cluster) -> None:
    """None if a probe since then knows; a session's further tokens cost nothing until it goes on."""
    async with two() as (one, _):
        await asyncio.sleep(0.15)  # until the probes of the start are over
        session = one.session("acme")
        assert await questions(cluster, session) == 0
        await session.execute(WRITE, {"id": 1})
        assert await questions(cluster, session) <= 1
        assert await questions(cluster, session) == 0
        await session.execute(WRITE, {"id": 2})
        await ask(one, "primary")
        assert await questions(cluster, session) == 0
        reader = await reading(one, "r1")
        assert await questions(cluster, reader) <= 1
        await ask(one, "r1")
        assert await questions(cluster, reader) == 0


async def test_many_tokens_at_the_same_time_cost_one_question(cluster: Cluster) -> None:
    """As soon as there is one under way whose answer may be too old, one more."""
    async with two() as (one, _):
        sessions = [await wrote(one, number) for number in range(30)]
        before = cluster.count("probe", "primary")
        await asyncio.gather(*(session.token() for session in sessions))
        assert cluster.count("probe", "primary") <= before + 2


async def test_following_a_token_costs_nothing_by_itself(cluster: Cluster) -> None:
    """It is looked at in memory; what is asked is asked by its reads."""
    async with two() as (one, other):
        token = await (await wrote(one, 1)).token()
        before = len(cluster.asked)
        for _ in range(100):
            other.session("acme", after=token)
        assert len(cluster.asked) == before


# --- tokens that cannot be used --------------------------------------------------------------------------

UNUSABLE = {
    "malformed": lambda: "r1.junk",
    "forged": lambda: signed(point(Lsn(110)), key="canary-key-of-somebody"),
    "foreign": lambda: signed(point(Lsn(110)), tenant="globex"),
    "expired": lambda: signed(point(Lsn(110)), at=time.time() - 700),
    "no_position": lambda: signed(point(None)),
    "other_cluster": lambda: signed(point(Lsn(110), identity="another")),
    "future": lambda: signed(point(Lsn(1 << 60))),
    "old_reign": lambda: signed(point(Lsn(100), reign="0")),
}


@pytest.mark.parametrize("consistency", ["session", "error"])
@pytest.mark.parametrize("refusal", UNUSABLE)
async def test_an_unusable_token_never_fails_blocks_or_weakens_a_read(
    cluster: Cluster, refusal: str, consistency: str
) -> None:
    """It sends reads where all is that the primary has now, and is counted by its reason."""
    cluster.held = {"r1", "r2"}
    async with opened(keys=[KEY]) as router:
        await wrote(router, 1)
        heard = Recorder(router)
        session = router.session("acme", after=UNUSABLE[refusal]())
        await ask(router, "primary")
        async with taking(0.5):
            assert (await fetch(session)).seen == {1}
            assert (await fetch(session)).seen == {1}
        if refusal == "future":  # known only once the primary was asked since
            await ask(router, "primary")
            assert (await fetch(session)).seen == {1}
        assert ignored(heard) == [refusal]
        cluster.replay()
        await ask(router)
        assert (await fetch(session)).node in ("r1", "r2")


@pytest.mark.parametrize(
    "token",
    [
        lambda: signed(point(Lsn(110), cluster="renamed")),
        lambda: signed(point(MariadbGtid({0: 5}))),
        lambda: signed(point(MariadbGtid({}))),
    ],
    ids=["of a cluster that has another name now", "of another engine", "of an engine that counted nothing"],
)
async def test_a_token_of_another_history_is_unusable_too(cluster: Cluster, token: Any) -> None:
    """Nothing in it can be compared with what the replicas have: the primary has what it stood for."""
    cluster.held = {"r1", "r2"}
    async with opened(keys=[KEY]) as router:
        await wrote(router, 1)
        heard = Recorder(router)
        session = router.session("acme", after=token())
        assert (await fetch(session)).seen == {1}
        assert ignored(heard)[0] in ("other_cluster", "no_position")
        passed = await session.token()  # which is of this history alone
        assert (await fetch(router.session("acme", after=passed))).seen == {1}
        assert len(ignored(heard)) == 1


async def test_without_a_key_tokens_are_neither_made_nor_believed(cluster: Cluster) -> None:
    """To make one is an error that says what to configure; one that comes is ignored, and harmless."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session = await wrote(router, 1)
        with pytest.raises(UsageError, match=r"tokens: \{keys:"):
            await session.token()
        heard = Recorder(router)
        assert (await fetch(router.session("acme", after=signed(point(Lsn(1)))))).seen == {1}
        assert ignored(heard) == ["no_key"]


async def test_a_bad_token_beside_a_good_one_weakens_nothing(cluster: Cluster) -> None:
    """What the good one stands for is seen, whatever the other is."""
    cluster.held = {"r1", "r2"}
    async with two() as (one, other):
        token = await (await wrote(one, 1)).token()
        await ask(other)
        for after in (["junk", token], [token, "junk"], [token, signed(point(Lsn(1)), tenant="globex")]):
            assert (await fetch(other.session("acme", after=after))).seen == {1}


async def test_ignored_tokens_and_lost_writes_are_metrics(cluster: Cluster) -> None:
    """By their reason, so that an attack looks different from a key that was rotated too soon."""
    async with opened(keys=[KEY]) as router:
        for after in ("junk", "junk", signed(tenant="globex"), signed(point(Lsn(1 << 50), reign="0"))):
            await fetch(router.session("acme", after=after))
        await asyncio.sleep(0.05)  # events are delivered soon, not at once
        text = router.metrics.render().decode()
        assert 'router_tokens_ignored_total{cluster="main",refusal="malformed"} 2.0' in text
        assert 'router_tokens_ignored_total{cluster="main",refusal="foreign"} 1.0' in text
        assert 'router_writes_lost_total{cluster="main",certain="yes"} 1.0' in text


# --- when servers do not answer --------------------------------------------------------------------------


async def test_a_token_is_late_or_an_error_when_the_primary_cannot_say(cluster: Cluster) -> None:
    """It waits for a primary in its own time, and never stands for less instead."""
    async with two(failover={"hold": "50ms"}) as (one, _):
        session = await wrote(one, 1)
        cluster.crash("primary", back=False)
        with pytest.raises((NoPrimary, ConnectionLost, ConnectError)):
            await session.token()
        async with taking(0.5):
            with pytest.raises(NoPrimary):
                await session.token()


async def test_a_router_that_has_seen_no_primary_yet_cannot_call_a_token_old(cluster: Cluster) -> None:
    """Its reads wait for the primary; nobody is told that a write was lost."""
    cluster.held = {"r1", "r2"}
    async with opened(keys=[KEY]) as one:
        token = await (await wrote(one, 1)).token()
        cluster.crash("primary", back=False)
        async with opened(keys=[KEY], defaults=ERROR, failover={"hold": "2s"}) as other:
            heard = Recorder(other)
            session = other.session("acme", after=token)
            with pytest.raises((NoPrimary, StaleReadError)):
                await fetch(session)
            cluster["primary"].up = True
            await ask(other)
            cluster.replay()
            await ask(other)
            assert (await fetch(session)).seen == {1}
            assert ignored(heard) == [] and heard.of(WriteLost) == []


async def test_closing_the_router_leaves_no_question_behind(cluster: Cluster) -> None:
    """A token that is being asked for is an error, and no connection stays open."""
    async with opened(keys=[KEY]) as router:
        session = await wrote(router, 1)
        gate = cluster.faults.block("probe", node="primary")
        taking = asyncio.create_task(session.token())
        await asyncio.sleep(0.02)
        closing = asyncio.create_task(router.close())
        await asyncio.sleep(0.02)
        gate.set()
        await asyncio.wait((closing, taking), timeout=3)
        assert closing.done() and taking.done()
        with pytest.raises(RouterError):
            await taking
        await asyncio.sleep(0.05)
        assert backend(router) is not None
        assert cluster.opened == 0


# --- explain ---------------------------------------------------------------------------------------------


async def test_explain_says_which_nodes_have_what_a_token_stands_for(cluster: Cluster) -> None:
    """And why a read would go where it would go; nothing is asked for that."""
    cluster.held = {"r1", "r2"}
    async with two() as (one, other):
        token = await (await wrote(one, 1)).token()
        cluster.replay("r2")
        await ask(other)
        before = len(cluster.asked)
        found = other.explain(READ, tenant="acme", after=token)
        nodes = {each.name: each for each in found.nodes}
        assert (found.node, found.role, found.reason) == ("r2", "replica", "caught_up")
        assert [name for name, each in nodes.items() if each.caught_up] == ["primary", "r2"]
        assert "behind the token's position 0/6E by 10 bytes" in nodes["r1"].why
        assert nodes["r1"].position == "0/64"
        await asyncio.sleep(0)
        assert len(cluster.asked) == before


@pytest.mark.parametrize("refusal", UNUSABLE)
async def test_explain_says_what_is_wrong_with_a_token(cluster: Cluster, refusal: str) -> None:
    """In words, and it counts nothing: to explain is no use of the token."""
    async with opened(keys=[KEY]) as router:
        heard = Recorder(router)
        token = UNUSABLE[refusal]()
        found = router.explain(READ, tenant="acme", after=token)
        if refusal != "future":
            assert any(f"({refusal})" in note for note in found.notes)
            assert found.role == "primary"
        assert heard.of(TokenIgnored) == []
        assert token not in str(found) and KEY not in str(found)
