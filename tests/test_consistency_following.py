"""Sessions that go on where others have been, in one process, on a scripted cluster."""

from typing import Any

import pytest

from router.errors import (
    UsageError,
)
from tests.engines import Recorder
from tests.replicating import (
    READ,
    WRITE,
    Cluster,
    backend,
    fetch,
    opened,
    reading,
    reasons,
    wrote,
)
from tests.replicating import cluster as cluster  # a fixture

# --- sessions after sessions --------------------------------------------------------------------------------


async def test_a_session_after_another_sees_what_that_has_seen(cluster: Cluster) -> None:
    """Its writes and its reads; several can be followed, in any nesting; it costs no question."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        one, two = await wrote(router, 1), await wrote(router, 2)
        cluster.replay("r1", most=1)
        before = cluster.count("probe")
        for after in (one, [one], [two, None, [one]], (each for each in (one, two))):
            row = await fetch(router.session("acme", after=after))
            assert row.seen == {1, 2}
        assert cluster.count("probe") == before or cluster.count("probe") > before  # poked, not awaited


async def test_what_a_session_reads_after_it_was_followed_is_its_own(cluster: Cluster) -> None:
    """Sessions share what was seen until then, and nothing afterwards."""
    async with opened() as router:
        one = router.session("acme")
        two = router.session("acme", after=one)
        await one.execute(WRITE, {"id": 1})
        assert not two.wrote and two.moment < one.moment


@pytest.mark.parametrize("after", [5, b"token", object(), [1], {1: 2}, 1.5, True, [["", [None, 7]]]])
async def test_what_is_no_token_and_no_session_is_a_mistake(cluster: Cluster, after: Any) -> None:
    """Of whoever wrote the call; no request is made of it."""
    async with opened() as router:
        with pytest.raises(UsageError, match="after is a token, a session or several of them"):
            router.session("acme", after=after)


@pytest.mark.parametrize("after", [None, "", [], [None, ""], ()])
async def test_nothing_is_nothing(cluster: Cluster, after: Any) -> None:
    """As it comes out of a request that carries no token."""
    async with opened() as router:
        heard = Recorder(router)
        await fetch(router.session("acme", after=after))
        assert reasons(heard) == ["read"]


async def test_another_tenant_s_session_cannot_be_followed(cluster: Cluster) -> None:
    """Its writes are in another database; to say so is better than to wait for them."""
    async with opened() as router:
        other = router.session("globex")
        with pytest.raises(UsageError, match="another tenant"):
            router.session("acme", after=other)
        with pytest.raises(UsageError, match="another tenant"):
            router.session("acme", after=[None, [other]])


async def test_one_shot_forms_can_follow_too(cluster: Cluster) -> None:
    """All of them, with whatever a session takes."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        session = await wrote(router, 1)
        given: dict[str, Any] = {"tenant": "acme", "after": session}
        assert (await router.fetch_one(READ, **given)).seen == {1}
        assert (await router.fetch_all(READ, **given))[0].seen == {1}
        assert await router.fetch_value(READ, **given) == "primary"
        assert [row.seen async for row in router.stream(READ, **given)] == [{1}]


async def test_a_session_of_another_router_can_be_followed(cluster: Cluster) -> None:
    """In one process they share the clock: their nodes differ, the cluster does not."""
    cluster.held = {"r2"}
    async with opened() as first, opened() as second:
        await wrote(first, 1)
        session = await reading(first, "r1")
        assert (await fetch(session)).seen == {1}
        for _ in range(5):
            assert (await fetch(second.session("acme", after=session))).seen == {1}


# --- explain ------------------------------------------------------------------------------------------------


async def test_explain_follows_the_session_s_replica(cluster: Cluster) -> None:
    """It names the node that the session would read from, and which others lack what it has read there."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        await wrote(router, 1)
        cluster.replay("r1")
        session = await reading(router, "r1")
        assert {router.explain(READ, tenant="acme", after=session).node for _ in range(8)} == {"r1"}
        standings = {each.name: each for each in router.explain(READ, tenant="acme", after=session).nodes}
        assert standings["r1"].caught_up
        assert not standings["r2"].caught_up
        asked = cluster.count("fetch_one")
        assert backend(router).requests and cluster.count("fetch_one") == asked
