"""Write, think, read in the next request: who gets stale rows, and whose reads stay on the replicas.

Three ways of one application, mixed in one run: tokens; eventual reads; and the usual remedy without tokens,
which is to read on the primary for two seconds after a write.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

from router import Router
from router.config import parse
from router.events import RequestFinished
from router.topology import Role
from tests.consistency.faults import LAG, off_loop
from tests.consistency.plan import Plan
from tests.consistency.run import prepare
from tests.consistency.scenes import Stage
from tests.consistency.table import Entries
from tests.figures import Figure

THINK = (0.0, 0.01, 0.1, 0.3, 1.0, 3.0)  # seconds between a user's write and next read, each as often
STICK = 2.0  # seconds after a write in which the usual remedy reads on the primary
_USERS = 400  # at once


class Pairs:
    """Run pairs of a write and a read, and count what they saw and where they went."""

    def __init__(self, router: Router, plan: Plan) -> None:
        self._router, self._entries = router, Entries(plan.table)
        self._rng = random.Random(plan.seed)
        self._tenants = plan.tenants
        self._numbers = count(1)
        self.stale: Counter[str] = Counter()
        self.pairs: Counter[str] = Counter()
        self.replicas: Counter[str] = Counter()  # reads that went there
        router.dispatcher.subscribe(RequestFinished, self._heard)

    def _heard(self, event: RequestFinished) -> None:
        if event.context_id is not None and event.role is Role.REPLICA:
            self.replicas[event.context_id] += 1

    async def run(self, pairs: int, tell: Callable[[int], None]) -> None:
        """Run so many pairs of each way, mixed."""
        left = [(way, think) for way in WAYS for think in THINK for _ in range(pairs // len(THINK))]
        self._rng.shuffle(left)
        work = iter(left)
        async with asyncio.TaskGroup() as group:
            for _ in range(_USERS):
                group.create_task(self._user(work, tell))

    async def _user(self, work: Iterator[tuple[str, float]], tell: Callable[[int], None]) -> None:
        for way, think in work:
            number = next(self._numbers)
            tenant = self._tenants[number % len(self._tenants)]
            seen = await WAYS[way](self, tenant, number, think)
            self.pairs[way] += 1
            self.stale[way] += not seen
            tell(self.pairs.total())

    async def _write(self, tenant: str, number: int) -> Any:
        session = self._router.session(tenant)
        values = {"tenant": tenant, "item": number, "number": number}
        await session.execute(self._entries.of(number).insert, values)
        return session

    async def _read(self, way: str, tenant: str, number: int, **given: Any) -> bool:
        session = self._router.session(tenant, context_id=way, **given)
        return bool(await session.fetch_all(self._entries.of(number).select, {"item": number}))

    async def ours(self, tenant: str, number: int, think: float) -> bool:
        """Open the next session after a token, or where it is in the same process after the session."""
        session = await self._write(tenant, number)
        after = await session.token() if self._rng.random() < 0.5 else session
        await asyncio.sleep(think)
        return await self._read("ours", tenant, number, after=after)

    async def eventual(self, tenant: str, number: int, think: float) -> bool:
        """Read anywhere."""
        await self._write(tenant, number)
        await asyncio.sleep(think)
        return await self._read("eventual", tenant, number, consistency="eventual")

    async def stick(self, tenant: str, number: int, think: float) -> bool:
        """Read on the primary for a while after a write."""
        await self._write(tenant, number)
        wrote = monotonic()
        await asyncio.sleep(think)
        level = "strong" if monotonic() - wrote < STICK else "eventual"
        return await self._read("stick", tenant, number, consistency=level)


WAYS: dict[str, Callable[[Pairs, str, int, float], Awaitable[bool]]] = {
    "ours": Pairs.ours,
    "eventual": Pairs.eventual,
    "stick": Pairs.stick,
}


async def pairs(stage: Stage, replica: Any, count: int) -> list[Figure]:
    """Hold one replica back, run ``count`` pairs of each way, and return the figures."""
    plan = stage.plan()
    await prepare(plan, stage.engine.key)
    await stage.engine.settle()
    await off_loop(replica.hold_back, LAG)
    try:
        async with Router.open(parse(plan.sections, Path(plan.folder))) as router:
            made = Pairs(router, plan)
            await made.run(count, lambda done: stage.tell("pairs", done, count * len(WAYS)))
    finally:
        await off_loop(replica.hold_back, 0)
    return list(_figures(made))


def _figures(made: Pairs) -> Iterator[Figure]:
    mix = "/".join(f"{think * 1000:.0f}" for think in THINK)
    stale = {way: made.stale[way] / made.pairs[way] * 10_000 for way in WAYS}
    share = {way: made.replicas[way] / made.pairs[way] * 100 for way in WAYS}
    name = "stale reads per 10,000 write-then-read pairs"
    note = f"{made.pairs['ours']:,} pairs of each, think time {mix} ms, a replica {LAG * 1000:.0f} ms behind"
    yield Figure(f"{name}: ours", stale["ours"], 0, note=note)
    yield Figure(f"{name}: eventual", stale["eventual"], 1, least=True, note="else nothing was behind")
    yield Figure(f"{name}: {STICK:g} s stick", stale["stick"], 0, least=True, note="reported")
    name = "reads that stayed on replicas"
    yield Figure(
        f"{name}: ours", share["ours"], share["stick"], "%", least=True, note="more than the stick's"
    )
    yield Figure(f"{name}: eventual", share["eventual"], 0, "%", least=True, note="reported")
    yield Figure(f"{name}: {STICK:g} s stick", share["stick"], 0, "%", least=True, note="reported")
