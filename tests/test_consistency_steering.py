"""Where a session's reads go, on a scripted cluster: each rule where it is the only one that helps."""

import asyncio

import pytest

from router.consistency import Bounded
from router.errors import (
    CommitOutcomeUnknown,
    ConnectionLost,
    NoPrimary,
)
from tests.engines import Recorder
from tests.replicating import (
    FORMS,
    READ,
    WRITE,
    Cluster,
    Form,
    ask,
    fetch,
    opened,
    reading,
    reasons,
    wrote,
)
from tests.replicating import cluster as cluster  # a fixture

# --- where the session's reads go ---------------------------------------------------------------------------


@FORMS
async def test_own_writes_are_read_on_the_primary_until_a_replica_has_them(
    cluster: Cluster, form: Form
) -> None:
    """Whatever form the read takes; then on that replica, and only there."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session = await wrote(router, 1)
        row = await form(session)
        assert (row.node, row.seen) == ("primary", {1})
        cluster.replay("r2")
        await ask(router)
        for _ in range(4):
            row = await form(session)
            assert (row.node, row.seen) == ("r2", {1})


@FORMS
async def test_what_was_read_on_the_primary_is_not_missed_later(cluster: Cluster, form: Form) -> None:
    """A read there sees what replicas may not have yet; so does one in a transaction that is rolled back."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        await wrote(router, 1)
        session, other = router.session("acme"), router.session("acme")
        assert (await session.fetch_one(READ, primary=True)).seen == {1}
        await other.begin()
        assert (await fetch(other)).seen == {1}
        await other.rollback()
        assert (await form(session)).seen == (await form(other)).seen == {1}


@FORMS
async def test_reads_never_go_back_in_time(cluster: Cluster, form: Form) -> None:
    """A session whose replica is lost goes on where all is that it has read there."""
    cluster.held = {"r2"}
    async with opened() as router:
        await wrote(router, 1)
        session = await reading(router, "r1")
        assert (await form(session)).seen == {1}
        cluster.crash("r1", back=False)
        row = await form(session)
        assert (row.node, row.seen) == ("primary", {1})
        cluster.replay("r2")
        await ask(router, "primary", "r2")
        row = await form(session)
        assert (row.node, row.seen) == ("r2", {1})


async def test_reads_at_the_same_time_are_all_remembered(cluster: Cluster) -> None:
    """A session's reads may be answered in any order and by several replicas."""
    cluster.held = {"r2"}
    async with opened() as router:
        await wrote(router, 1)
        session = await reading(router, "r1")
        gate = cluster.faults.block("fetch_one", node="r1")
        slow = asyncio.create_task(fetch(session))
        await asyncio.sleep(0.01)
        cluster.faults.fail("fetch_one", ConnectionLost("gone"), node="r1", breaks=True)
        assert (await fetch(session)).seen == {1}  # it has left r1, for the primary
        gate.set()
        assert (await slow).seen == {1}
        assert (await fetch(session)).seen == {1}


@pytest.mark.parametrize("how", ["cancelled", "unknown"])
async def test_a_write_that_may_have_been_applied_is_awaited_as_one_that_was(
    cluster: Cluster, how: str
) -> None:
    """Who was cancelled, or got no answer, must not find its write and then lose it again."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session = router.session("acme")
        await fetch(session)
        if how == "unknown":
            cluster.faults.fail("execute", ConnectionLost("gone"), breaks=True)
            with pytest.raises(CommitOutcomeUnknown):
                await session.execute(WRITE, {"id": 1})
        else:
            cluster.faults.block("execute")
            writing = asyncio.create_task(session.execute(WRITE, {"id": 1}))
            await asyncio.sleep(0.01)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        cluster.primary.log.append(1)
        assert (await fetch(session)).seen == {1}


async def test_levels_that_do_not_look_at_the_session(cluster: Cluster) -> None:
    """Eventual reads may be old, strong ones never are; each may be chosen for one call."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session = await wrote(router, 1)
        assert (await session.fetch_one(READ, consistency="eventual")).seen == frozenset()
        assert (await fetch(session)).seen == {1}
        eventual = router.session("acme", consistency="eventual", after=session)
        assert (await fetch(eventual)).seen == frozenset()
        assert (await eventual.fetch_one(READ, consistency="session")).seen == {1}
        assert (await router.session("acme", consistency="strong").fetch_one(READ)).seen == {1}


async def test_rows_are_no_older_than_their_bound(cluster: Cluster) -> None:
    """By time and by bytes; the bare word takes the tenant's own bounds."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults={"freshness": {"max_time": "100ms", "wait": "0ms"}}) as router:
        await wrote(router, 1)
        heard = Recorder(router)
        assert (
            await router.fetch_one(READ, tenant="acme", consistency=Bounded(seconds=60))
        ).seen == frozenset()
        await asyncio.sleep(0.12)
        assert (await router.fetch_one(READ, tenant="acme", consistency="bounded")).seen == {1}
        await ask(router)
        assert (await router.fetch_one(READ, tenant="acme", consistency=Bounded(size=9))).seen == {1}
        assert (await router.fetch_one(READ, tenant="acme", consistency=Bounded(size=10))).seen == frozenset()
        assert reasons(heard) == ["read", "too_stale", "too_stale", "read"]


# --- who must not be read -----------------------------------------------------------------------------------


@FORMS
async def test_a_replica_that_was_back_in_time_after_a_crash_is_asked_first(
    cluster: Cluster, form: Form
) -> None:
    """It shows an older state for a while: the session has read a newer one there before."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults={"freshness": {"wait": "5ms"}}) as router:
        await wrote(router, 1)
        await wrote(router, 2)
        cluster.replay("r1")
        session = await reading(router, "r1")
        assert (await form(session)).seen == {1, 2}
        cluster.crash("r1", loses=1)
        row = await form(session)
        assert row.seen == {1, 2}, row


async def test_what_was_known_of_a_replica_does_not_outlive_its_crash(cluster: Cluster) -> None:
    """A probe has seen the write on it; the connection that the read gets is younger than that."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults={"freshness": {"wait": "5ms"}}) as router:
        session = await wrote(router, 1)
        cluster.replay()
        await ask(router)
        cluster.crash("r1", loses=1)
        cluster.crash("r2", loses=1)
        assert (await fetch(session)).seen == {1}


async def test_a_new_connection_to_a_server_that_did_not_restart_is_not_asked(cluster: Cluster) -> None:
    """The connection of the probes has been open all the while: that is proof enough."""
    async with opened() as router:
        session = await wrote(router, 1)
        cluster.replay()
        await ask(router)
        before, heard = cluster.count("probe"), Recorder(router)
        assert (await fetch(session)).seen == {1}  # on a connection that it is the first to use
        assert reasons(heard) == ["caught_up"]
        assert cluster.count("probe") == before


async def test_the_primary_s_failure_is_not_charged_to_a_replica(cluster: Cluster) -> None:
    """When the primary cannot say how far it is, the replica to be compared with it is still good."""
    async with opened(failover={"hold": "30ms"}) as router:
        session = router.session("acme")
        await session.fetch_one(READ, primary=True)
        cluster.crash("primary", back=False)
        with pytest.raises(NoPrimary):
            await fetch(session)
        usable = {node.name for node in router.status().nodes if node.usable}
        assert usable == {"r1", "r2"}
        assert (await router.fetch_one(READ, tenant="acme")).node in usable


async def test_nothing_is_compared_with_a_primary_that_is_none_any_more(cluster: Cluster) -> None:
    """It answers as a replica: what it says now is no measure of what the session has seen on it."""
    cluster.held = {"r1", "r2"}
    async with opened(failover={"hold": "30ms"}) as router:
        await wrote(router, 1)
        session = router.session("acme")
        assert (await session.fetch_one(READ, primary=True)).seen == {1}
        cluster["primary"].writable = False
        with pytest.raises(NoPrimary):
            await fetch(session)


async def test_a_replica_on_another_timeline_has_not_what_it_seems_to_have(cluster: Cluster) -> None:
    """Left behind on the old branch of history it counts further than the new primary, by other bytes."""
    cluster.follows = False
    async with opened(defaults={"freshness": {"wait": "5ms"}}) as router:
        for number in range(5):
            await wrote(router, number)
        cluster.replay("r2")  # r1 has none of it
        cluster.crash("primary", back=False)
        cluster.promote("r1")
        await ask(router)
        session = await wrote(router, 10)
        await ask(router, "primary", "r1", "r2", "r1")
        await session.execute(WRITE, {"id": 11})
        for number in range(20, 30):  # until the new one's log is the longer one
            await wrote(router, number)
        await ask(router, "r1")
        await ask(router, "r2", "r1")
        assert {10, 11} <= (await fetch(session)).seen
