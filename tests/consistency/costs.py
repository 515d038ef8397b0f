"""What the session level and its tokens cost: messages on the wire, and time of our own processor."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import uvloop

from router import Router
from router.config import parse
from router.events import RequestFinished
from router.reasons import Reason
from router.session import Session
from tests.consistency.faults import off_loop
from tests.consistency.plan import Plan
from tests.consistency.run import prepare
from tests.consistency.scenes import Stage
from tests.consistency.table import Entries, Row
from tests.faults.cluster import Proxied, behind_proxies
from tests.figures import Figure

_TENANT = "acme"
_WRITES = 60  # of each kind
_BLOCK = 5  # reads whose time is taken together: few, so that most blocks meet no disturbance

Make = Callable[[], Session]


@asynccontextmanager
async def _opened(plan: Plan, **checks: str) -> AsyncIterator[Router]:
    sections = plan.sections
    if checks:
        sections = {**sections, "clusters": {"main": {**sections["clusters"]["main"], "checks": checks}}}
    async with Router.open(parse(sections, Path(plan.folder))) as router:
        yield router


# --- messages --------------------------------------------------------------------------------------------


async def messages(stage: Stage) -> AsyncIterator[Figure]:
    """Count what goes over the wire for a write, and for a token."""
    with behind_proxies(stage.engine) as proxied:
        plan = stage.plan(proxied.engine)
        await prepare(plan, stage.engine.key)
        await stage.engine.settle()
        async with _opened(plan, interval="1h") as router:  # probes would be counted too
            entries = Entries(plan.table)
            yield await _writes(router, entries, proxied)
            yield await _tokens(router, entries, proxied)


async def _writes(router: Router, entries: Entries, proxied: Proxied) -> Figure:
    sent: dict[str, list[int]] = {"eventual": [], "session": []}
    numbers = itertools.count(1)
    for way in (Entries.plain, Entries.transaction, Entries.orm):
        for turn in range(_WRITES):
            for level in sent if turn % 2 else reversed(sent):
                session = router.session(_TENANT, consistency=level)
                number = next(numbers)
                before = proxied.traffic.statements
                await way(entries, session, [Row(number, number)])
                if turn > 1:  # the first open connections and prepare statements
                    sent[level].append(proxied.traffic.statements - before)
    added = (sum(sent["session"]) - sum(sent["eventual"])) / len(sent["session"])
    each = sum(sent["eventual"]) / len(sent["eventual"])
    note = f"{len(sent['session'])} writes of three kinds, {each:.1f} messages each"
    return Figure("session level on a write: round trips added", added, 0, note=note)


async def _tokens(router: Router, entries: Entries, proxied: Proxied) -> Figure:
    """Take tokens of sessions in every state; the most that one took counts."""
    counts: dict[str, list[int]] = {"new": [], "wrote": [], "read": [], "again": [], "after": []}

    async def take(state: str, session: Session) -> str:
        before = proxied.traffic.statements
        token = await session.token()
        counts[state].append(proxied.traffic.statements - before)
        return token

    for number in range(10**6, 10**6 + _WRITES):
        await take("new", router.session(_TENANT))
        wrote, read = router.session(_TENANT), router.session(_TENANT)
        await entries.plain(wrote, [Row(number, number)])
        token = await take("wrote", wrote)
        await take("again", wrote)
        await entries.fetch(read, [number])
        await take("read", read)
        after = router.session(_TENANT, after=token)
        await entries.fetch(after, [number])
        await take("after", after)
    note = ", ".join(f"{state} {sum(each) / len(each):.2g}" for state, each in counts.items())
    most = max(max(each) for each in counts.values())
    return Figure(
        "a token that leaves the process: round trips", most, 1, note=f"at most; on average: {note}"
    )


# --- time ------------------------------------------------------------------------------------------------


async def processor(stage: Stage, replica: Any, blocks: int) -> AsyncIterator[Figure]:
    """Measure what a read at the session level costs more than an eventual one, on both event loops."""
    plan = stage.plan()
    await prepare(plan, stage.engine.key)
    await stage.engine.settle()
    runners: dict[str, Callable[[Any], Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
    for name, run in runners.items():
        # in a thread of its own: that has a loop and a clock for itself
        found = await asyncio.to_thread(run, _added(plan, replica, blocks))
        for state, added in found.items():
            yield Figure(f"session level on a read, {state} ({name}): CPU added", added * 1e6, 3, "µs")


async def _added(plan: Plan, replica: Any, blocks: int) -> dict[str, float]:
    """Return the seconds that a read takes longer, by what its session has seen."""
    async with _opened(plan, interval="200ms") as router:
        measure = Measure(router, Entries(plan.table), blocks)
        found = {"nothing seen": await measure.added(lambda: router.session(_TENANT))}
        wrote = await measure.wrote()
        await asyncio.sleep(1)  # until the other replica is known to have it too
        found["own write on all replicas"] = await measure.added(lambda: wrote)
        followed = router.session(_TENANT, after=await wrote.token())
        found["token"] = await measure.added(lambda: followed)
        await off_loop(replica.pause)
        try:
            wrote = await measure.wrote()
            found["own write on one of two"] = await measure.added(lambda: wrote)
        finally:
            await off_loop(replica.resume)
    return found


class Measure:
    """Compare the time of reads; ``blocks`` of them, in turn."""

    def __init__(self, router: Router, entries: Entries, blocks: int) -> None:
        self._router, self._entries, self._blocks = router, entries, blocks

    async def added(self, make: Make) -> float:
        """Return the seconds that a read takes longer than an eventual one, session included."""
        kept = self._router.session(_TENANT, consistency="eventual") if make() is make() else None

        def eventual() -> Session:  # a new one where the other is new as well
            return kept or self._router.session(_TENANT, consistency="eventual")

        differences = []
        for number in range(self._blocks):
            order = (eventual, make) if number % 2 else (make, eventual)
            first, second = await self._block(order[0]), await self._block(order[1])
            differences.append(second - first if number % 2 else first - second)
        return median(differences)

    async def _block(self, make: Make) -> float:
        began = thread_time()
        for _ in range(_BLOCK):
            await make().fetch_one(self._entries.of(1).select, {"item": 1})
        return (thread_time() - began) / _BLOCK

    async def wrote(self) -> Session:
        """Return a session that has written, once replicas are known to have it and need not be asked."""
        session = self._router.session(_TENANT)
        await self._entries.plain(session, [Row(1, 1)])
        known: deque[bool] = deque(maxlen=20)
        listener = self._router.dispatcher.subscribe(
            RequestFinished, lambda event: known.append(event.reason in (Reason.READ, Reason.CAUGHT_UP))
        )
        async with asyncio.timeout(30):
            while len(known) < 20 or not all(known):
                await self._entries.fetch(self._router.session(_TENANT, after=session), [1])
                await asyncio.sleep(0.01)
        listener.cancel()
        return session
