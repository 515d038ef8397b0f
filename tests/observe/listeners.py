"""What requests notice of listeners that hang, raise or are slow: nothing.

Rounds of load with such a listener and without one take turns. Slowed is a request that took as long as
the slow listener takes, beyond what the event loop itself was late.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter

from router import Router
from router.dispatcher import Subscription
from router.events import Event
from tests.cache.servers import Servers
from tests.figures import Figure
from tests.lateness import Lateness
from tests.observe.effort import Effort

_TENANT = "acme"
_TASKS = 8
_PAUSE = 0.004  # seconds between two requests of a task, on average
_LEAST = 40  # requests of a round
_SLOW = 0.05  # seconds that the slow listener takes for an event


async def _hang(event: Event) -> None:
    await asyncio.Event().wait()


async def _take_long(event: Event) -> None:
    await asyncio.sleep(_SLOW)


def _raise(event: Event) -> None:
    raise RuntimeError("a listener that fails")


async def _raise_later(event: Event) -> None:
    raise RuntimeError("a listener that fails")


def hanging(router: Router) -> list[Subscription]:
    """Listen and never come back; one of the two is given up again and again."""
    subscribe = router.dispatcher.subscribe
    return [
        subscribe(Event, _hang, capacity=100),
        subscribe(Event, _hang, capacity=100, drop="oldest", timeout=0.05, mute_after=None),
    ]


def raising(router: Router) -> list[Subscription]:
    """Fail for every event, and never be muted for it."""
    subscribe = router.dispatcher.subscribe
    return [subscribe(Event, call, mute_after=None) for call in (_raise, _raise_later)]


def slow(router: Router) -> list[Subscription]:
    """Take longer for an event than there is time until the next."""
    return [router.dispatcher.subscribe(Event, _take_long, capacity=100)]


KINDS: dict[str, Callable[[Router], list[Subscription]]] = {
    "hanging": hanging,
    "raising": raising,
    "slow": slow,
}


@dataclass
class Seen:
    """Hold what became of the requests of one arm."""

    failed: int = 0
    slowed: int = 0
    p99: list[float] = field(default_factory=list)  # of each round, in milliseconds
    requests: int = 0


async def figures(effort: Effort, servers: Servers) -> AsyncIterator[Figure]:
    """Yield for each kind of listener the requests that failed or were slowed, and the p99."""
    engine = await servers.postgresql(_TENANT)
    async with engine.open((_TENANT,)) as router:
        await router.fetch_value("SELECT 1", tenant=_TENANT)
        for name, listen in KINDS.items():
            without, beside = await compared(router, listen, effort)
            for figure in judged(name, without, beside):
                yield figure


def judged(name: str, without: Seen, beside: Seen) -> list[Figure]:
    """Return what the two arms say of a listener."""
    note = f"of {beside.requests:,}, and {without.failed + without.slowed} of {without.requests:,} without it"
    # as much as nine in ten rounds without any listener stay under
    noise = quantiles(without.p99, n=10, method="inclusive")[-1]
    return [
        Figure(f"{name} listener: failed requests", beside.failed, 0, note=note),
        Figure(f"{name} listener: slowed requests", beside.slowed, 0, note=note),
        Figure(
            f"{name} listener: p99, beside the noise of rounds without it",
            median(beside.p99),
            noise,
            "ms",
            note=f"{median(without.p99):.2f} ms without it",
        ),
    ]


async def compared(
    router: Router, listen: Callable[[Router], list[Subscription]], effort: Effort
) -> tuple[Seen, Seen]:
    """Return what requests saw without a listener and with it."""
    without, beside = Seen(), Seen()
    await _round(router, Seen(), effort.seconds)  # connects
    for _ in range(effort.rounds):
        await _round(router, without, effort.seconds)
        listening = listen(router)
        await _round(router, beside, effort.seconds)
        for each in listening:
            each.cancel()
    return without, beside


async def _round(router: Router, seen: Seen, seconds: float) -> None:
    """Run requests from several tasks for a while."""
    taken: list[float] = []
    end = perf_counter() + seconds

    async def work() -> None:
        # a machine that stands still for a while says nothing of requests that were never made
        while perf_counter() < end or len(taken) < _LEAST:
            began = perf_counter()
            try:
                await router.fetch_value("SELECT 1", tenant=_TENANT)
            except Exception:
                seen.failed += 1
            taken.append(perf_counter() - began)
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))

    async with Lateness() as late, asyncio.TaskGroup() as group:
        for _ in range(_TASKS):
            group.create_task(work())
    seen.requests += len(taken)
    seen.slowed += sum(each > _SLOW + late.worst for each in taken)
    seen.p99.append(_p99(taken) * 1e3)


def _p99(taken: Sequence[float]) -> float:
    return sorted(taken)[int(len(taken) * 0.99)]
