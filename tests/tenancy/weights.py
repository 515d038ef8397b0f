"""How tenants share a node that all of them want more of: by their weights."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from time import perf_counter

from router import Router
from tests.figures import Figure
from tests.tenancy.effort import Effort
from tests.tenancy.neighbours import CONNECTIONS, Work, reads, statements
from tests.tenancy.place import Place

_WEIGHTS = {"s1": 1, "s2": 2, "s3": 4}
_PARTS = sum(_WEIGHTS.values())
_TASKS = 50  # of each tenant: more than there are connections
_MOST = 10.0  # percent
_WORKS = {"statements of 5 ms": statements, "reads": reads}


async def figures(effort: Effort, place: Place) -> AsyncIterator[Figure]:
    """Yield by how much throughput differs from the weights, at most."""
    tenants = await place.schemas(len(_WEIGHTS))
    own = {tenant: {"limits": {"weight": weight}} for tenant, weight in _WEIGHTS.items()}
    async with Router(place.config(tenants, connections=CONNECTIONS, own=own)) as router:
        for name, work in _WORKS.items():
            await _shared(router, work, 0.2)  # connects
            done = await _shared(router, work, effort.rounds * effort.seconds / 2)
            shares = ":".join(f"{done[tenant] / done.total() * _PARTS:.2f}" for tenant in _WEIGHTS)
            note = f"{shares} of {done.total():,} requests by {len(_WEIGHTS) * _TASKS} tasks"
            yield Figure(f"weights 1:2:4, {name}: off by", off(done) * 100, _MOST, "%", note=note)


def off(done: Counter[str]) -> float:
    """Return by which part of its share what a tenant has had differs from it, at most."""
    fair = {tenant: done.total() * weight / _PARTS for tenant, weight in _WEIGHTS.items()}
    return max(abs(done[tenant] / fair[tenant] - 1) for tenant in _WEIGHTS)


async def _shared(router: Router, work: Work, seconds: float) -> Counter[str]:
    """Return how many requests of each tenant were answered while all of them sent what they could."""
    done: Counter[str] = Counter()
    end = perf_counter() + seconds

    async def repeat(tenant: str) -> None:
        while True:
            await work(router, tenant, asyncio.Event())
            if perf_counter() > end:  # others have stopped by then: no share any more
                return
            done[tenant] += 1

    await asyncio.gather(*(repeat(tenant) for tenant in _WEIGHTS for _ in range(_TASKS)))
    return done
