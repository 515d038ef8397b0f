"""What a scrape costs a router of ten thousand tenants: how many series, its time, what the loop sees."""

import asyncio
from collections.abc import AsyncIterator
from statistics import median

from router import Router
from router.cache.tally import add
from router.config import Config, parse
from router.drivers import registry
from tests.cache.servers import Servers
from tests.doubles import PASSWORD
from tests.figures import Figure
from tests.observe.effort import Effort
from tests.observe.overhead import double
from tests.pause import Pause

_TENANTS = 10_000
_SERIES = 20_000
_PAUSE = 5.0  # milliseconds
_READ = "SELECT id, name, seats FROM plans WHERE id = :id"
_WRITE = "UPDATE plans SET seats = seats + 1 WHERE id = :id"
_FRESH = 1.05  # seconds after which a scrape is made anew


async def figures(effort: Effort, servers: Servers) -> AsyncIterator[Figure]:
    """Yield series, time and pauses, where each tenant asks something between two scrapes."""
    with double():
        async with Router(_config()) as router:
            await _ask(router)
            first = await _scraped(router)
            found = []
            for _ in range(effort.scrapes):
                await _ask(router)
                await asyncio.sleep(_FRESH)
                found.append(await _scraped(router))
            still = await _watched(median(each.seconds for each in found))
    yield Figure(f"{_TENANTS:,} tenants: series", max(each.series for each in found), _SERIES)
    times = sorted(each.seconds * 1e3 for each in found)
    yield Figure("time of a scrape", median(times), 2000.0, "ms", note=f"at most {times[-1]:.0f}")
    note = (
        f"{max(each.late for each in found) * 1e3:.1f} by the clock, without one {still.late * 1e3:.1f}; "
        f"at the first one ever {first.longest * 1e3:.1f}"
    )
    yield Figure(
        "longest pause of the loop", max(each.longest for each in found) * 1e3, _PAUSE, "ms", note=note
    )


class Scrape(Pause):
    """Watch the loop while the metrics are asked for."""

    series = 0


async def _scraped(router: Router) -> Scrape:
    async with Scrape() as found:
        body = await router.metrics.scrape()
    found.series = sum(not line.startswith(b"#") for line in body.splitlines())
    return found


async def _watched(seconds: float) -> Scrape:
    async with Scrape() as found:
        await asyncio.sleep(seconds)
    return found


async def _ask(router: Router) -> None:
    """Have every tenant read, one in ten write, and each count for the cache: the double has no catalog."""
    executor = router._running()
    for number in range(_TENANTS):
        tenant = f"t{number}"
        for _ in range(1 + number % 3):
            await router.fetch_one(_READ, {"id": number}, tenant=tenant)
        if number % 10 == 0:
            await router.execute(_WRITE, {"id": number}, tenant=tenant)
        tally = executor.scope(executor.target(tenant, None)).tally
        tally.hits += 2
        tally.misses += 1
        add(tally.bypasses, "primary")
        add(tally.refused, "written")


def _config() -> Config:
    """Return a cluster whose tenants have a database each, so that each has a pool on each node."""
    section = {
        "engine": "scripted",
        "primary": {"host": "127.0.0.1", "port": 1},
        "replicas": [{"name": f"r{number}", "host": "127.0.0.1", "port": number + 1} for number in (1, 2)],
        "credentials": {"writer": {"username": "app", "password": PASSWORD}},
    }
    tenants = {
        f"t{number}": {"cluster": "main", "isolation": "database", "database": f"t{number}"}
        for number in range(_TENANTS)
    }
    data = {"version": 1, "clusters": {"main": section}, "tenants": tenants, "cache": {"broadcast": "alone"}}
    return parse(data, known_engines=registry.engines())
