"""What quiet tenants notice of a neighbour that floods them, or that keeps all the connections it can get.

Nine quiet tenants read one row 20 times a second each, at moments of their own: a request that is late delays
no other. The tenth sends statements from 200 tasks without a pause, and shares ten connections with them.
Rounds without it and with it take turns. What is compared are times from call to answer of all the quiet
ones' requests.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from unittest.mock import patch

from router import Router, RouterError
from router.config import TenantLimits
from router.pools import registry
from router.pools.admission import Admission
from router.pools.fairness import Flow
from tests.figures import Figure
from tests.tenancy.effort import Effort
from tests.tenancy.place import READ, ROWS, Place

CONNECTIONS = 10
_QUIET = 9
_RATE = 20.0  # requests a second of each quiet tenant
_TASKS = 200  # of the one that is not
_BEGIN = 0.2  # seconds in which these begin: no more than a service's users are they all of one mind
_MOST = 2.0
_PATIENCE = "1s"  # to wait for a connection

Work = Callable[[Router, str, asyncio.Event], Awaitable[None]]


async def statements(router: Router, tenant: str, over: asyncio.Event) -> None:
    """Send statements that take 5 ms on the server, without using its processor."""
    await router.fetch_value("SELECT 1 FROM pg_sleep(0.005)", tenant=tenant)


async def reads(router: Router, tenant: str, over: asyncio.Event) -> None:
    """Send the same reads as everyone: they keep server and client busy."""
    await router.fetch_one(READ, {"id": 7}, tenant=tenant)


async def holding(router: Router, tenant: str, over: asyncio.Event) -> None:
    """Begin a transaction, and keep it open as long as the round lasts."""
    async with router.session(tenant) as session, session.transaction() as tx:
        await tx.fetch_one(READ, {"id": 7})
        await over.wait()


WORKS: dict[str, Work] = {
    "floods with statements of 5 ms": statements,
    "floods with reads": reads,
    "holds its connections": holding,
}


@dataclass
class Seen:
    """Hold what became of requests."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    async def add(self, request: Awaitable[object]) -> None:
        """Wait for a request, and take down how it went."""
        began = perf_counter()
        try:
            await request
        except RouterError as exc:
            self.errors[type(exc).__name__] += 1
        self.seconds.append(perf_counter() - began)

    def part(self, percent: float) -> float:
        """Return in how many milliseconds so many in a hundred were answered."""
        return sorted(self.seconds)[int(len(self.seconds) * percent / 100)] * 1e3


class Unfair(Admission):
    """Serve first come, first served, whoever it is, and let one tenant hold all."""

    def flow(self, tenant: str, limits: TenantLimits, *, alone: bool) -> Flow:
        return super().flow("", limits, alone=True)


async def figures(effort: Effort, place: Place) -> AsyncIterator[Figure]:
    """Yield errors and p99 of the quiet tenants, for each thing that the other one may do."""
    tenants = await place.schemas(_QUIET + 1)
    config = place.config(tenants, connections=CONNECTIONS, defaults={"timeouts": {"acquire": _PATIENCE}})
    async with Router(config) as router:
        alone, found = await compared(router, tenants, effort.visits, effort.quiet)
    with patch.object(registry, "Admission", Unfair):
        async with Router(config) as router:
            _, unfair = await compared(router, tenants, 1, effort.quiet / 4)
    for name in WORKS:
        for figure in judged(name, alone, *found[name], unfair[name][0]):
            yield figure


def judged(name: str, alone: Seen, beside: Seen, loud: Seen, unfair: Seen) -> list[Figure]:
    """Return what rounds without and with the neighbour say of it."""
    failed = "".join(f", {count} {error}" for error, count in beside.errors.items())
    fifo = unfair.part(99) / alone.part(99)
    times = (
        f"{beside.part(99):.2f} ms, alone {alone.part(99):.2f}; median {beside.part(50):.2f} and "
        f"{alone.part(50):.2f}; without fairness {fifo:,.0f} x, {unfair.errors.total():,} errors"
    )
    requests = (
        f"of {len(beside.seconds):,}{failed}; of its own {len(loud.seconds):,} {loud.errors.total():,} failed"
    )
    errors, ratio = beside.errors.total() + alone.errors.total(), beside.part(99) / alone.part(99)
    return [
        Figure(f"one {name}: errors of nine quiet ones", errors, 0, note=requests),
        Figure(f"one {name}: p99 of nine quiet ones to alone", ratio, _MOST, "x", note=times),
    ]


async def compared(
    router: Router, tenants: Sequence[str], rounds: int, seconds: float
) -> tuple[Seen, dict[str, tuple[Seen, Seen]]]:
    """Return what the quiet tenants saw alone, and for each work what they and the first one saw."""
    loud, *quiet = tenants
    alone = Seen()
    found = {name: (Seen(), Seen()) for name in WORKS}
    await _round(router, quiet, Seen(), 0.3)  # connects
    for _ in range(rounds):
        await _round(router, quiet, alone, seconds)
        for name, (beside, other) in found.items():
            async with _neighbour(router, loud, WORKS[name], other):
                await _round(router, quiet, beside, seconds)
    return alone, found


@asynccontextmanager
async def _neighbour(router: Router, tenant: str, work: Work, seen: Seen) -> AsyncIterator[None]:
    """Do the work from many tasks, again and again, while the block lasts."""
    over = asyncio.Event()

    async def repeat(number: int) -> None:
        await asyncio.sleep(_BEGIN * number / _TASKS)
        while not over.is_set():
            await seen.add(work(router, tenant, over))

    tasks = [asyncio.create_task(repeat(number)) for number in range(_TASKS)]
    await asyncio.sleep(1.5 * _BEGIN)  # it has what it can get
    yield
    over.set()
    await asyncio.gather(*tasks)


async def _round(router: Router, tenants: Sequence[str], seen: Seen, seconds: float) -> None:
    """Send reads of each tenant at random moments, and return when all are answered."""
    async with asyncio.TaskGroup() as group:
        for number, tenant in enumerate(tenants):
            group.create_task(_visit(router, tenant, seen, seconds, Random(number)))


async def _visit(router: Router, tenant: str, seen: Seen, seconds: float, rng: Random) -> None:
    end = perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        while perf_counter() < end:
            await asyncio.sleep(rng.expovariate(_RATE))
            key = {"id": rng.randint(1, ROWS)}
            group.create_task(seen.add(router.fetch_one(READ, key, tenant=tenant)))
