"""Figures of many who read the same at the same time, and nothing is cached yet."""

import asyncio
from collections.abc import AsyncIterator

from router import Router
from router.events import RequestFinished
from router.topology import Role
from tests.cache.effort import Effort
from tests.cache.servers import Servers
from tests.engines import Postgresql, Recorder
from tests.figures import Figure

_READERS = 1_000
_SCANS = """
SELECT coalesce(sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0)), 0)
FROM pg_stat_user_tables WHERE relname = 'herd'
"""


async def figures(effort: Effort, seed: int, servers: Servers) -> AsyncIterator[Figure]:
    """Yield how often the database was read for a thousand readers, as the router and the servers count."""
    engine = await servers.postgresql("acme")
    async with engine.open(tenants=("acme",)) as router:
        await router.execute("CREATE TABLE herd (id INTEGER PRIMARY KEY, name TEXT)", tenant="acme")
        rows = [{"id": number, "name": f"row {number}"} for number in range(effort.herds)]
        await router.execute_many("INSERT INTO herd VALUES (:id, :name)", rows, tenant="acme")
    await engine.settle()
    told, scanned = [], []
    for number in range(effort.herds):
        before = await _scans(engine)
        async with engine.open(tenants=("acme",)) as router:  # which knows nothing yet, not even the catalog
            told.append(await _herd(router, number))
        scanned.append(await _scans(engine) - before)  # servers count when a connection ends
    name = f"{_READERS:,} readers of one cold key, {effort.herds} times: most database reads"
    yield Figure(f"{name}, by the router's events", max(told), 1)
    yield Figure(f"{name}, by the servers' own count", max(scanned), 1)


async def _herd(router: Router, number: int) -> int:
    """Return how many of the requests went to the database; raise if one of them got something else."""
    recorder = Recorder(router)
    sql = "SELECT name FROM herd WHERE id = :id"
    found = await asyncio.gather(
        *(router.session("acme").fetch_value(sql, {"id": number}, cache=60) for _ in range(_READERS))
    )
    if set(found) != {f"row {number}"}:
        raise AssertionError(f"readers of row {number} have found {set(found)}")
    return sum(each.role is not Role.CACHE for each in recorder.of(RequestFinished))


async def _scans(engine: Postgresql) -> int:
    """Return how often the servers have looked into the table."""
    await asyncio.sleep(0.1)
    counts = [
        asyncio.to_thread(server.run, _SCANS, engine.database("acme")) for server in engine.server.servers
    ]
    return sum(map(int, await asyncio.gather(*counts)))
