"""What a tenant's first query takes beyond a connect: nothing may be prepared for ten thousand tenants ahead.

Each of the tenants is asked once, one after the other, while nothing else happens.
"""

from collections.abc import AsyncIterator, Sequence
from statistics import median, quantiles
from time import perf_counter

import asyncpg

from router import Router
from tests.figures import Figure
from tests.tenancy.effort import Effort
from tests.tenancy.place import READ, Place

_MOST = 10.0  # milliseconds
_KEY = {"id": 7}


async def figures(effort: Effort, place: Place) -> AsyncIterator[Figure]:
    """Yield the first query of tenants with a schema, where a connection is open, and with a database."""
    yield await _schemas(effort, place)
    yield await _databases(effort, place)


async def _schemas(effort: Effort, place: Place) -> Figure:
    known, *fresh = await place.schemas(effort.fresh + 1)
    async with Router(place.config((known, *fresh))) as router:
        for _ in range(20):
            again = await _timed(router, known)
        found = [await _timed(router, tenant) for tenant in fresh]
    note = f"99 in 100 of {len(found)}; median {median(found):.2f}, second query {again:.2f}"
    return Figure("first query with a schema, connection open", _part(found, 99), _MOST, "ms", note=note)


async def _databases(effort: Effort, place: Place) -> Figure:
    """Compare databases that nobody has connected to yet: every other is connected to by the bare driver.

    After half of them the router's budget is used up: a connection of another tenant is closed first.
    """
    pairs = effort.fresh // 4
    fresh = (await place.databases(effort.databases + 2 * pairs))[-2 * pairs :]
    cluster = await place.cluster()
    bare, over = [], []
    async with Router(place.config(fresh, connections=pairs // 2)) as router:
        for connected, asked in zip(fresh[::2], fresh[1::2], strict=True):
            dsn = cluster.primary.dsn(database=place.database(connected))
            began = perf_counter()
            connection = await asyncpg.connect(dsn)
            bare.append((perf_counter() - began) * 1e3)
            await connection.close()
            over.append(await _timed(router, asked) - bare[-1])
    room, full = over[1 : pairs // 2], over[pairs // 2 :]  # the first one of all begins to watch the server
    note = (
        f"median of {len(full)}, another's closed first; {median(room):.2f} while there is room; "
        f"a bare connect takes {median(bare):.2f}"
    )
    return Figure("first query with a database, over the connect", median(full), _MOST, "ms", note=note)


async def _timed(router: Router, tenant: str) -> float:
    """Return how long a read of a tenant takes, in milliseconds."""
    began = perf_counter()
    row = await router.fetch_one(READ, _KEY, tenant=tenant)
    assert row is not None
    return (perf_counter() - began) * 1e3


def _part(found: Sequence[float], percent: int) -> float:
    return quantiles(found, n=100, method="inclusive")[percent - 1]
