"""Figures of a hit through a session, beside the same read without a cache, and beside other caches."""

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median
from time import perf_counter, thread_time

from router import Router
from tests.cache.effort import Effort
from tests.cache.peers import NAMES, SQL, TENANT, peer
from tests.cache.servers import Servers
from tests.engines import Engine
from tests.figures import Figure
from tests.holding import ask_until_current

_SLICE = 400  # reads in one look, of what takes microseconds
_SHORT = 40  # of what asks a server
_ASKED = {"id": 7}
Read = Callable[[int], Awaitable[None]]
"""Make so many reads, one after the other."""


async def figures(effort: Effort, seed: int, servers: Servers) -> AsyncIterator[Figure]:
    """Yield the time of a hit, and how many more there are in a second than reads without a cache."""
    engine = await servers.postgresql(TENANT)
    async with engine.open(tenants=(TENANT,)) as router:
        await _prepare(engine, router)
        async for figure in _beside_peers(router, effort.looks):
            yield figure
        async for figure in _beside_reads("PostgreSQL", router, effort.looks, 10):
            yield figure
    sqlite = servers.sqlite(TENANT)
    async with sqlite.open(tenants=(TENANT,)) as router:
        await _prepare(sqlite, router)
        async for figure in _beside_reads("SQLite", router, effort.looks, 0):
            yield figure


async def _prepare(engine: Engine, router: Router) -> None:
    await router.execute(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price INTEGER)", tenant=TENANT
    )
    await router.execute("INSERT INTO items VALUES (7, 'a small row', 700)", tenant=TENANT)
    await engine.settle()
    while not (stats := router.cache.stats().tenants) or not stats[TENANT].hits:
        await router.fetch_one(SQL, _ASKED, tenant=TENANT, cache=60)
        await ask_until_current(router)  # what a replica gives is kept if it is known to have the write


async def _beside_peers(router: Router, looks: int) -> AsyncIterator[Figure]:
    arms: dict[str, tuple[Read, int]] = {
        "goes on": (_going_on(router), _SLICE),
        "each read": (_new_each(router), _SLICE),
    }
    row = await router.fetch_one(SQL, _ASKED, tenant=TENANT, cache=60)
    for name in NAMES:
        look = await peer(name, tuple(row or ()), _ASKED)  # cashews copies, and a record cannot be
        if look is None:
            yield Figure(f"{name}: not installed, left out", 0, 0)
        else:
            arms[name] = _repeat(look), _SLICE
    taken = await _interleaved(arms, looks, thread_time)  # all they need is the processor
    ours = taken.pop("goes on")
    yield Figure(
        "hit of one small row, in a session that goes on", ours, 8, "us", note="aim 5 us; of the processor"
    )
    new = taken.pop("each read")
    yield Figure("hit of one small row, in a new session for each read", new, 8, "us")
    for name, theirs in taken.items():
        note = f"it takes {theirs:.1f} us, a hit {ours:.1f} us with events and metrics"
        yield Figure(f"{name}, same row and parts of the key: our time in its", ours / theirs, 1, note=note)


async def _beside_reads(name: str, router: Router, looks: int, least: float) -> AsyncIterator[Figure]:
    session = router.session(TENANT)

    async def cached(times: int) -> None:
        for _ in range(times):
            await session.fetch_one(SQL, _ASKED, cache=60)

    async def uncached(times: int) -> None:
        for _ in range(times):
            await session.fetch_one(SQL, _ASKED)

    arms = {"cached": (cached, _SLICE), "uncached": (uncached, _SHORT)}
    taken = await _interleaved(arms, looks, perf_counter)
    note = f"the read takes {taken['uncached']:.0f} us" + ("" if least else "; no limit")
    times = taken["uncached"] / taken["cached"]
    yield Figure(
        f"{name}: hits for each uncached routed read of the session", times, least, least=True, note=note
    )


def _going_on(router: Router) -> Read:
    session = router.session(TENANT)

    async def read(times: int) -> None:
        for _ in range(times):
            await session.fetch_one(SQL, {"id": 7}, cache=60)

    return read


def _new_each(router: Router) -> Read:
    async def read(times: int) -> None:
        for _ in range(times):
            await router.session(TENANT).fetch_one(SQL, {"id": 7}, cache=60)

    return read


def _repeat(look: Callable[[dict[str, int]], Awaitable[object]]) -> Read:
    async def read(times: int) -> None:
        for _ in range(times):
            await look({"id": 7})

    return read


async def _interleaved(
    arms: dict[str, tuple[Read, int]], looks: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the microseconds of a read of each arm, the median of looks at all of them in turn.

    So whatever else the machine does meets all.
    """
    taken: dict[str, list[float]] = {name: [] for name in arms}
    gc.collect()
    for _ in range(looks):
        for name, (read, times) in arms.items():
            began = clock()
            await read(times)
            taken[name].append((clock() - began) / times * 1e6)
    return {name: median(each) for name, each in taken.items()}
