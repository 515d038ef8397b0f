"""The cache over replicas that lag, crash and take over: chance decides, and no session ever goes back."""

import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from router import Router
from tests.replicating import WRITE, Cluster, ask, opened
from tests.replicating import cluster as cluster  # a fixture

KEY = "canary-key-of-the-present"
TEXTS = ("SELECT id FROM t", "SELECT id FROM t WHERE id > 0", "SELECT id FROM t WHERE id > -1")


async def cached(session: Any, text: str = TEXTS[0]) -> Any:
    return await session.fetch_one(text, cache=60)


def tally(router: Router) -> Any:
    executor: Any = router._executor
    return executor.scope(executor.target("acme", None)).tally


async def begin(router: Router) -> None:
    """Have the cache at work, and all servers asked since."""
    await cached(router.session("acme"))
    await ask(router)


async def test_a_failover_drops_what_was_read_before(cluster: Cluster) -> None:
    """It may hold what the new primary has never had."""
    cluster.held = {"r1", "r2"}
    async with opened() as router:
        await begin(router)
        session = router.session("acme")
        await session.execute(WRITE, {"id": 1})
        assert (await cached(session)).seen == {1}
        assert (await cached(router.session("acme"))).seen == {1}
        hits = tally(router).hits
        assert hits
        cluster.crash("primary", back=False)
        cluster.promote("r1")
        await ask(router, "r1", "primary", "r2")
        assert (await cached(router.session("acme"))).seen == set()
        assert (await cached(router.session("acme", consistency="eventual"))).seen == set()
        assert tally(router).refused.get("failover")


async def test_a_replica_that_has_restarted_fills_with_what_it_shows(cluster: Cluster) -> None:
    """Not with what it had said before: it may show less for a while."""
    async with opened() as router:
        await begin(router)
        writer = router.session("acme")
        await writer.execute(WRITE, {"id": 1})
        await ask(router)
        cluster.follows = False
        for name in ("r1", "r2"):
            cluster.crash(name, loses=1)
        assert (await cached(router.session("acme"))).seen == set()  # who has seen nothing may see less
        assert (await cached(writer)).seen == {1}


async def hit(session: Any) -> None:
    """Be shown from memory what another session has read."""
    assert (await cached(session, TEXTS[1])).seen == {1}


async def uncached(session: Any) -> None:
    assert (await session.fetch_one(TEXTS[1])).seen == {1}


async def in_transaction(session: Any) -> None:
    async with session.transaction(readonly=True) as tx:
        assert (await tx.fetch_one(TEXTS[1])).seen == {1}


@pytest.mark.parametrize("shown", [hit, uncached, in_transaction])
@pytest.mark.parametrize("how", ["itself", "follower", "early"])
async def test_who_has_seen_another_process_s_write_is_not_shown_less(
    cluster: Cluster, shown: Any, how: str
) -> None:
    """However it has seen it, and whoever follows it: what was kept before the write does not do."""
    async with opened() as router, opened() as another:
        early = router.session("acme")  # since before the cache was used at all
        await begin(router)
        assert (await cached(router.session("acme"))).seen == set()
        await another.execute(WRITE, {"id": 1}, tenant="acme")
        await ask(router)
        assert (await cached(router.session("acme"), TEXTS[1])).seen == {1}
        session = early if how == "early" else router.session("acme")
        await shown(session)
        before = tally(router).hits
        assert (await cached(router.session("acme"))).seen == set()
        assert tally(router).hits == before + 1
        reader = session if how == "itself" else router.session("acme", after=session)
        assert (await cached(reader)).seen == {1}


class World:
    """Let sessions of several processes write and read on one cluster, and keep what each must see."""

    def __init__(self, cluster: Cluster, routers: list[Router], rng: random.Random) -> None:
        self.cluster = cluster
        self.routers = routers
        self.rng = rng
        self.sessions: list[tuple[Any, set[int]]] = []
        self.number = 0

    async def step(self) -> None:
        """Do something."""
        rng = self.rng
        if not self.sessions or rng.random() < 0.1:
            await self.open()
            return
        session, must = rng.choice(self.sessions)
        chance = rng.random()
        if chance < 0.15:
            self.number += 1
            await session.execute(WRITE, {"id": self.number})
            must.add(self.number)
        elif chance < 0.75:
            text = rng.choice(TEXTS)
            row = await (cached(session, text) if rng.random() < 0.8 else session.fetch_one(text))
            assert must <= row.seen, (sorted(must - row.seen), row.node)
            must |= row.seen
        elif chance < 0.85:
            self.cluster.held = set(rng.sample(["r1", "r2"], rng.randrange(3)))
        elif chance < 0.9:
            self.cluster.replay(rng.choice(["r1", "r2"]), most=rng.randrange(1, 3))
        elif chance < 0.92:
            self.cluster.crash(rng.choice(["r1", "r2"]), loses=rng.randrange(3))
        else:
            names = rng.sample(["primary", "r1", "r2"], rng.randrange(1, 4))
            await ask(rng.choice(self.routers), *names)

    async def open(self) -> None:
        """Begin a session, after others of its process or of another one."""
        router = self.rng.choice(self.routers)
        must: set[int] = set()
        after: Any = None
        if self.sessions and self.rng.random() < 0.7:
            other, known = self.rng.choice(self.sessions)
            must = set(known)
            same = other._executor is router._executor
            after = other if same and self.rng.random() < 0.5 else await other.token()
        self.sessions.append((router.session("acme", after=after), must))
        del self.sessions[: max(len(self.sessions) - 8, 0)]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("attempt", range(6))
async def test_no_session_goes_back_whatever_replicas_do(
    cluster: Cluster, processes: int, attempt: int
) -> None:
    """Its own writes and all that it was shown, or its tokens stand for, are in every answer."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    broadcast = "alone" if processes == 1 and attempt % 2 else "none"
    async with AsyncExitStack() as stack:
        given: dict[str, Any] = {"keys": (KEY,), "cache": {"broadcast": broadcast}}
        routers = [await stack.enter_async_context(opened(**given)) for _ in range(processes)]
        world = World(cluster, routers, random.Random(seed))
        for router in routers:
            await begin(router)
        for _ in range(400):
            await world.step()
        assert sum(tally(router).hits for router in routers), "nothing came from memory"
