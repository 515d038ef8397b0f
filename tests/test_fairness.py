"""Fairness: tenants share a node by weight, and what one has too much of is its own to wait for."""

import asyncio
import random
from collections import Counter
from itertools import cycle
from typing import Any

import pytest

from router.config import TenantLimits
from router.drivers.driver import Endpoint, Login
from router.errors import PoolFull, PoolTimeout, RouterError, TenantBusy
from router.events import ConnectionClosed, Event
from router.pools.admission import Admission
from router.pools.bounds import Limits
from router.pools.fairness import Flow, VirtualTime
from router.pools.holders import Holder
from router.pools.pool import Pool
from router.pools.registry import Pools
from router.pools.waiting import Queue
from router.rates import Rate
from router.topology import Node, Role
from tests.doubles import PASSWORD, ScriptedDriver, Server

NODE = Node("primary", "main", Role.PRIMARY, "127.0.0.1", 1)


async def _password() -> str:
    return PASSWORD


class Crowd:
    """Tenants over the pools of one node."""

    def __init__(self, server: Server, *, pools: int = 1, **limits: Any) -> None:
        self.events: list[Event] = []
        self.loop = asyncio.get_running_loop()
        self.registry = Pools(
            emit=self.events.append, clock=self.loop.time, wall=self.loop.time, rng=random.Random(7)
        )
        self.limits = Limits(**limits)
        driver = ScriptedDriver(server)
        self.pools = [
            self.registry.pool(
                Endpoint(NODE, f"db{number}", Login("app", _password), readonly=False), driver, self.limits
            )
            for number in range(pools)
        ]
        self.admission: Admission = self.registry.admission(NODE, self.limits)

    def holder(self, tenant: str, *, alone: bool = False, **limits: Any) -> Holder:
        return Holder(tenant, flow=self.admission.flow(tenant, TenantLimits(**limits), alone=alone))

    async def get(self, holder: Holder, pool: Pool | None = None, timeout: float = 5.0) -> Any:
        pool, now = pool or self.pools[0], self.loop.time()
        taken = pool.take(None, now, holder)
        return taken or await pool.acquire(None, now + timeout, timeout, 5.0, holder)

    async def use(self, holder: Holder, pool: Pool | None = None, turns: int = 1) -> None:
        """Hold a connection for some turns of the loop."""
        connection = await self.get(holder, pool)
        for _ in range(turns):
            await asyncio.sleep(0)
        (pool or self.pools[0]).give(connection)

    async def waiting(self, number: int) -> None:
        while self.admission.waiting < number:  # noqa: ASYNC110 - it has no event to tell it
            await asyncio.sleep(0)

    @property
    def reasons(self) -> Counter[str]:
        return Counter(event.reason for event in self.events if isinstance(event, ConnectionClosed))


# --- the order -------------------------------------------------------------------------------------------


async def shares(
    held: dict[str, float], weights: dict[str, float], seconds: float, *, bound: bool = False
) -> dict[str, float]:
    """Return the share of grants of flows that always want more, for how long each holds what it gets.

    If what they hold is ``bound`` to them, they may have it again before another one's turn.
    """
    time, flows = VirtualTime(), {name: Flow(name, weight=weight) for name, weight in weights.items()}
    queue, served, now, ends = Queue(time), Counter[str](), 0.0, list[tuple[float, str, float]]()
    places = [queue.join(Holder(name, flow=flow), first=False) for name, flow in flows.items() for _ in "abc"]
    last: Flow | None = None
    while now < seconds:
        while len(ends) < 10 and (handed := queue.hand(last=last, soon=4)) is not None:
            name = handed[0].tenant
            served[name] += 1
            places.append(queue.join(handed[0], first=False))
            ends.append((now + held[name], name, handed[1]))
        ends.sort()
        now, name, charged = ends.pop(0)
        time.returned(flows[name], held[name], charged)
        flows[name].returned()
        last = flows[name] if bound else None
    for place in places:
        place.cancel()
    return {name: count / served.total() for name, count in served.items()}


@pytest.mark.parametrize("bound", [False, True])
async def test_weights_are_shares_of_a_node(bound: bool) -> None:
    """Who asks for the same and has twice the weight gets twice as much, whatever is bound to whom."""
    found = await shares(dict.fromkeys("abc", 0.005), {"a": 1, "b": 2, "c": 4}, 20.0, bound=bound)
    assert found == pytest.approx({"a": 1 / 7, "b": 2 / 7, "c": 4 / 7}, rel=0.02)


async def test_what_is_shared_is_time() -> None:
    """Who holds connections ten times as long gets them a tenth as often."""
    found = await shares({"slow": 0.05, "quick": 0.005}, {"slow": 1, "quick": 1}, 20.0)
    assert found["quick"] / found["slow"] == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("count", [1, 3])
async def test_what_is_bound_to_a_tenant_is_its_again_for_a_few_turns(count: int) -> None:
    """However many there are that have theirs again, who is first waits for a few grants only."""
    time = VirtualTime()
    quiet, loud = Flow("quiet"), [Flow(f"loud {number}") for number in range(count)]
    queue, served = Queue(time), []
    places = [
        queue.join(Holder(flow.tenant, flow=flow), first=False) for flow in (quiet, *loud) for _ in range(12)
    ]
    last = cycle(loud)
    while (handed := queue.hand(last=next(last), soon=4)) is not None:
        served.append(handed[0].tenant)
        flow = handed[0].flow
        time.returned(flow, handed[1], handed[1])
        flow.returned()
    assert served.index("quiet") == 4 and "quiet" in served[5:10]
    for flow in loud:
        ahead = [served[:n].count(flow.tenant) - served[:n].count("quiet") for n in range(len(served))]
        assert max(ahead) <= 5
    assert set(Counter(served).values()) == {12}
    assert all(place.done() for place in places)


def test_nobody_waits_longer_for_others_than_it_is_worth() -> None:
    """The more connections there are, and the shorter they are held, the more grants are in a moment."""
    time = VirtualTime()
    time.usual = 0.002
    assert [time.soon(connections) for connections in (1, 2, 4, 8, 100)] == [0, 1, 2, 4, 4]
    time.usual = 0.05
    assert time.soon(10) == 0


def test_no_debt_is_endless() -> None:
    """A unit of work that took an hour puts its tenant a second behind the others, not an hour."""
    time, flow = VirtualTime(), Flow("a")
    time.returned(flow, 3600.0, 0.0)
    assert 0.9 < flow.finish - time.now <= 1.1


def test_what_was_before_a_time_of_want_does_not_count() -> None:
    """Nobody pays for connections that nobody else wanted."""
    time, flow = VirtualTime(), Flow("a")
    for _ in range(100):
        time.returned(flow, 0.5, 0.0)
    time.begin()
    assert flow.finish <= time.now


async def test_each_tenant_is_served_in_its_own_order(server: Server) -> None:
    """A flood of one tenant goes behind the single request of another; each keeps its order."""
    crowd, order = Crowd(server, max=1), list[str]()
    flood, quiet = crowd.holder("flood"), crowd.holder("quiet")
    held = await crowd.get(crowd.holder("other"))

    async def visit(holder: Holder, name: str) -> None:
        connection = await crowd.get(holder)
        order.append(name)
        crowd.pools[0].give(connection)

    tasks = [asyncio.ensure_future(visit(flood, f"flood {number}")) for number in range(20)]
    await crowd.waiting(20)
    tasks.append(asyncio.ensure_future(visit(quiet, "quiet")))
    await crowd.waiting(21)
    crowd.pools[0].give(held)
    await asyncio.gather(*tasks)
    assert order.index("quiet") <= 2
    assert [name for name in order if name != "quiet"] == [f"flood {number}" for number in range(20)]


# --- limits of one tenant --------------------------------------------------------------------------------


async def test_a_fifth_is_left_to_others(server: Server) -> None:
    """Without limits of its own a tenant holds four fifths at most; the rest is there for whoever comes."""
    crowd = Crowd(server, max=10)
    greedy, other = crowd.holder("greedy"), crowd.holder("other")
    held = [await crowd.get(greedy) for _ in range(8)]
    with pytest.raises(TenantBusy, match="holds all 8 connections to main/primary that it may") as caught:
        await crowd.get(greedy, timeout=0.01)
    assert caught.value.retry_after > 0
    held += [await crowd.get(other) for _ in range(2)]
    assert len(server.open) == 10
    for connection in held:
        crowd.pools[0].give(connection)
    assert greedy.flow.held == other.flow.held == 0


@pytest.mark.parametrize(
    ("most", "alone", "given", "expected"), [(10, True, None, 10), (4, False, None, 4), (10, False, 3, 3)]
)
async def test_who_may_hold_how_many(
    server: Server, most: int, alone: bool, given: int | None, expected: int
) -> None:
    """All where nobody else is, or a fifth is less than one; else what its limits say."""
    crowd = Crowd(server, max=most)
    holder = crowd.holder("a", alone=alone, connections=given)
    assert holder.flow.limit == expected


async def test_who_is_held_up_by_its_limit_goes_on_when_it_gives_back(server: Server) -> None:
    """Its own return serves it at once, with an idle connection if its own one is lost."""
    crowd = Crowd(server, max=3)
    holder, other = crowd.holder("a", connections=1), crowd.holder("b")
    spare = await crowd.get(other)
    held = await crowd.get(holder)
    crowd.pools[0].give(spare)
    waiting = asyncio.ensure_future(crowd.get(holder))
    await crowd.waiting(1)
    assert crowd.pools[0].count() == (1, 1)
    crowd.pools[0].discard(held, "broken")
    assert await waiting is spare
    assert holder.flow.held == 1


async def test_requests_that_wait_are_bounded_by_tenant(server: Server) -> None:
    """Past limits.waiting a tenant is refused at once, with a time; others still wait."""
    crowd = Crowd(server, max=1)
    noisy, quiet = crowd.holder("noisy", waiting=2), crowd.holder("quiet")
    held = await crowd.get(quiet)
    tasks = [asyncio.ensure_future(crowd.get(noisy)) for _ in range(2)]
    await crowd.waiting(2)
    with pytest.raises(TenantBusy, match="2 requests of tenant 'noisy' wait") as caught:
        await crowd.get(noisy)
    assert caught.value.retry_after >= 0.05
    tasks.append(asyncio.ensure_future(crowd.get(quiet)))
    await crowd.waiting(3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    crowd.pools[0].give(held)
    assert noisy.flow.waiting == quiet.flow.waiting == 0


async def test_a_full_queue_makes_room_for_who_has_fewer_in_it(server: Server) -> None:
    """The latest request of the tenant that fills the queue gives way; who fills it alone is just refused."""
    crowd = Crowd(server, max=1, waiting=5)
    flood, quiet = crowd.holder("flood"), crowd.holder("quiet")
    held = await crowd.get(quiet)
    tasks = [asyncio.ensure_future(crowd.use(flood)) for _ in range(5)]
    await crowd.waiting(5)
    with pytest.raises(PoolFull):
        await crowd.get(flood)
    tasks.append(asyncio.ensure_future(crowd.use(quiet)))
    with pytest.raises(TenantBusy):
        await tasks[4]
    crowd.pools[0].give(held)
    await asyncio.gather(*tasks[:4], tasks[5])


def test_a_rate_is_kept_and_a_burst_is_free() -> None:
    """A burst is served after a quiet time, then as many as the rate allows; the wait is told."""
    rate = Rate(10.0, 5, 0.0)
    assert [rate.take(0.0) for _ in range(5)] == [0.0] * 5
    assert rate.take(0.0) == pytest.approx(0.1)
    assert rate.take(0.05) == pytest.approx(0.05)
    assert rate.take(0.1) == 0.0
    assert sum(not rate.take(1000.0) for _ in range(50)) == 5


# --- one budget for all pools ----------------------------------------------------------------------------


async def test_the_budget_of_a_node_is_one_over_all_its_pools(server: Server) -> None:
    """Fifty databases over five connections: never a sixth, and what is idle makes room."""
    crowd = Crowd(server, pools=50, max=5)
    holders = [crowd.holder(f"t{number}") for number in range(50)]
    chance = random.Random(1)

    async def work() -> None:
        for _ in range(20):
            number = chance.randrange(50)
            await crowd.use(holders[number], crowd.pools[number], chance.randrange(3))
            assert crowd.admission.size <= 5

    await asyncio.gather(*(work() for _ in range(20)))
    await crowd.registry.reaper.drain(1)
    assert server.most <= 5
    assert set(crowd.reasons) == {"evicted"}
    assert crowd.admission.waiting == 0 and all(not holder.flow.held for holder in holders)
    assert crowd.admission.status("n").size == len(server.open)


async def test_what_is_in_use_is_never_cut_to_make_room(server: Server) -> None:
    """A request of another database waits for a lent connection; the oldest idle one goes first."""
    crowd = Crowd(server, pools=3, max=2)
    first, second, third = crowd.pools
    a, b = crowd.holder("a"), crowd.holder("b")
    lent = await crowd.get(a, first)
    second.give(await crowd.get(b, second))
    moved = await crowd.get(b, third)
    assert [pool.size for pool in crowd.pools] == [1, 0, 1]
    with pytest.raises(PoolTimeout):
        await crowd.get(b, second, timeout=0.01)
    assert not lent.closed and not moved.closed


async def test_a_pool_that_is_empty_disappears(server: Server) -> None:
    """Who had it gets another one, and pools that were used once do not pile up."""
    crowd = Crowd(server, pools=3, max=10, idle=0.001)
    for pool in crowd.pools:
        await crowd.use(crowd.holder("a"), pool)

    class Lessee:
        def forget(self, pool: Pool) -> None:
            forgotten.append(pool)

    forgotten, lessee = list[Pool](), Lessee()
    crowd.pools[0].lessees.add(lessee)
    await asyncio.sleep(0.002)
    crowd.registry.sweep()
    assert not crowd.registry.each() and forgotten == [crowd.pools[0]]


async def test_nothing_is_lost_in_a_storm(server: Server) -> None:
    """Cancelled, broken and dirty in every order, over several pools and limits: all counts go to 0."""
    chance = random.Random(11)
    crowd = Crowd(server, pools=4, max=6, waiting=60)
    holders = [crowd.holder(f"t{number}", connections=number % 4 + 1) for number in range(12)]

    async def work() -> None:
        pool = chance.choice(crowd.pools)
        connection = await crowd.get(chance.choice(holders), pool, timeout=chance.choice((0.0, 0.01, 5)))
        try:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        finally:
            if chance.random() < 0.2:
                pool.discard(connection, "broken")
            else:
                connection.dirt = chance.choice((0, 0, 0, 1, 2))
                pool.give(connection)

    tasks = [asyncio.ensure_future(work()) for _ in range(600)]
    while any(not task.done() for task in tasks):
        for task in chance.sample(tasks, 10):
            task.cancel()
        await asyncio.sleep(0)
    found = [task.exception() for task in tasks if not task.cancelled()]
    assert all(each is None or isinstance(each, RouterError) for each in found)
    assert {type(each) for each in found if each} <= {PoolTimeout, TenantBusy, PoolFull}
    await crowd.registry.reaper.drain(1)
    assert [(holder.flow.held, holder.flow.waiting) for holder in holders] == [(0, 0)] * 12
    assert crowd.admission.size == sum(pool.size for pool in crowd.pools) == len(server.open) <= 6
    assert crowd.admission._opening == crowd.admission._leaving == crowd.admission.waiting == 0
    assert server.most <= 7  # a broken one is closed while its slot is in use again
