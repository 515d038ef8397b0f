"""Replicas that are asked first, waited for, or waited for in vain; and what then, on a scripted cluster."""

import asyncio
import time
from typing import Any

import pytest

from router.errors import (
    ConnectionLost,
    ReadOnlyViolation,
    StaleReadError,
)
from tests.engines import Recorder
from tests.lateness import taking
from tests.replicating import (
    FORMS,
    READ,
    WRITE,
    Cluster,
    Form,
    ReplicatingConnection,
    ask,
    fetch,
    opened,
    reading,
    reasons,
    wrote,
)
from tests.replicating import cluster as cluster  # a fixture

ERROR: dict[str, Any] = {"freshness": {"otherwise": "error"}}

# --- asking and waiting -------------------------------------------------------------------------------------


async def test_a_replica_is_asked_when_only_news_are_missing(cluster: Cluster) -> None:
    """The primary was asked since the write, the replica was not: it has it, as one question shows."""
    async with opened() as router:
        session = await wrote(router, 1)
        await ask(router, "primary")
        heard, before = Recorder(router), cluster.count("probe")
        assert (await fetch(session)).seen == {1}
        assert reasons(heard) == ["checked"]
        assert cluster.count("probe", "primary", "r1", "r2") == before + 1
        await fetch(session)
        assert reasons(heard)[1] == "caught_up" and cluster.count("probe") == before + 1


@FORMS
async def test_a_replica_that_gets_there_in_time_is_waited_for(cluster: Cluster, form: Form) -> None:
    """The read is answered by it, soon after it has what the read must see."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults={"freshness": {"wait": "2s"}}) as router:
        session = await wrote(router, 1)
        await ask(router, "primary")
        reading = asyncio.create_task(form(session))
        await asyncio.sleep(0.05)
        assert not reading.done()
        cluster.replay()
        async with taking(1.0):
            row = await reading
            assert row.node in ("r1", "r2") and row.seen == {1}


async def test_the_reason_tells_of_the_wait(cluster: Cluster) -> None:
    """Whether a replica was waited for, or waited for in vain; then it is not waited for again soon."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults={"freshness": {"wait": "100ms"}}) as router:
        heard, session = Recorder(router), await wrote(router, 1)
        await ask(router, "primary")
        heard.clear()
        reading = asyncio.create_task(fetch(session))
        await asyncio.sleep(0.02)
        cluster.replay()
        await reading
        await session.execute(WRITE, {"id": 2})
        await ask(router, "primary")
        async with taking(0.6, least=0.1):
            assert (await fetch(session)).seen == {1, 2}
        assert (await fetch(session)).seen == {1, 2}
        found = reasons(heard)
        assert found[0] == "waited" and found[2:] == ["wait_timed_out", "own_write"]


async def test_a_wait_lasts_no_longer_than_it_may_where_each_question_takes_long(cluster: Cluster) -> None:
    """The time of the questions counts, not only the pauses between them."""

    async def slow(self: Any) -> Any:
        await asyncio.sleep(0.03)
        return await probe(self)

    cluster.held = {"r1", "r2"}
    async with opened(defaults={"freshness": {"wait": "60ms"}}) as router:
        session = await wrote(router, 1)
        await ask(router, "primary")
        probe = ReplicatingConnection.probe
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ReplicatingConnection, "probe", slow)
            async with taking(0.06 + 2 * 0.03 + 0.06):  # the wait, its first question and its last
                assert (await fetch(session)).seen == {1}


async def test_few_reads_at_a_time_hold_a_connection_to_wait(cluster: Cluster) -> None:
    """A quarter of a replica's connections; the others go to the primary at once."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults={"freshness": {"wait": "300ms"}}, connections={"max": 8}) as router:
        sessions = [await wrote(router, number) for number in range(8)]
        await ask(router, "primary")
        cluster.held = {"r1", "r2"}
        heard, began = Recorder(router), time.monotonic()

        async def timed(session: Any) -> float:
            await fetch(session)
            return time.monotonic() - began

        took = sorted(await asyncio.gather(*map(timed, sessions)))
        assert sum(each >= 0.3 for each in took) <= 2  # a quarter of the 8 of the one that is asked
        assert took[5] < 0.25
        assert set(reasons(heard)) == {"wait_timed_out"}


async def test_reads_at_the_same_time_share_a_question(cluster: Cluster) -> None:
    """What the primary has is asked once for all who want to know it now, and once for who comes then."""
    async with opened() as router:
        sessions = [router.session("acme") for _ in range(20)]
        for session in sessions:
            await session.fetch_one(READ, primary=True)
        before = cluster.count("probe", "primary")
        await asyncio.gather(*map(fetch, sessions))
        assert cluster.count("probe", "primary") <= before + 2


# --- when the primary is not to be read instead -------------------------------------------------------------


@FORMS
async def test_a_stale_read_is_an_error_where_that_is_wanted(cluster: Cluster, form: Form) -> None:
    """At once, or after the wait; nothing is sent to the primary or read on a replica for it."""
    cluster.held = {"r1", "r2"}
    async with opened(defaults=ERROR) as router:
        session = await wrote(router, 1)
        for asked in ((), ("primary",)):
            await asyncio.sleep(0.02)
            if asked:
                await ask(router, *asked)
            before = [cluster.count(verb) for verb in ("fetch_one", "stream")]
            async with taking(0.5):
                with pytest.raises(StaleReadError, match=r"freshness\.otherwise is error") as caught:
                    await form(session)
            assert caught.value.tenant == "acme"
            assert [cluster.count(verb) for verb in ("fetch_one", "stream")] == before
        cluster.replay()
        await ask(router)
        assert (await form(session)).seen == {1}


async def test_no_such_error_comes_of_a_replica_that_fails(cluster: Cluster) -> None:
    """It is about news of the replicas; when they are all gone the primary answers, whoever asks."""
    async with opened(defaults=ERROR) as router:
        session = await reading(router, "r1")
        cluster.crash("primary")
        await ask(router, "primary")  # so that no connection to it is older than the session's read
        heard = Recorder(router)
        cluster.faults.fail("fetch_one", ConnectionLost("gone"), node="r1", breaks=True, times=2)
        cluster.faults.fail("fetch_one", ConnectionLost("gone"), node="r2", breaks=True, times=2)
        assert (await fetch(session)).node == "primary"
        assert reasons(heard) == ["replica_failed"]


async def test_a_write_that_a_replica_refuses_goes_to_the_primary_as_it_is(cluster: Cluster) -> None:
    """The primary is not asked how far it is first, and no write fails as a stale read."""
    async with opened(defaults=ERROR) as router:
        session = await reading(router, "r1")
        cluster.crash("primary")
        await ask(router, "primary")
        heard, before = Recorder(router), cluster.count("probe", "primary")
        cluster.faults.fail("execute", ReadOnlyViolation("refused", code="25006"))
        await session.execute("SELECT surprise(:id)", {"id": 1}, readonly=True)
        assert cluster.primary.log == [1]
        assert reasons(heard) == ["refused_by_replica"]
        assert cluster.count("probe", "primary") == before
