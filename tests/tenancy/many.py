"""Many tenants on one server with few connections: schemas of one database, or databases of their own."""

from collections.abc import AsyncIterator
from random import Random
from statistics import median

from router import Router
from tests.figures import Figure
from tests.tenancy.counting import ALONE, Connections
from tests.tenancy.effort import Effort
from tests.tenancy.load import Load, zipf
from tests.tenancy.place import BUDGET, Place

_LEAST = 0.6  # of the throughput of one tenant


async def schemas(effort: Effort, place: Place) -> AsyncIterator[Figure]:
    """Yield errors, connections and throughput of schemas, beside the same load of one tenant.

    The tenant alone has a router of its own, with as many connections; both take turns. What is counted are
    the connections of the many.
    """
    tenants = await place.schemas(effort.schemas)
    what = f"{len(tenants):,} schema tenants"
    cluster = await place.cluster()
    async with (
        Router(place.config(tenants)) as router,
        Router(place.config(tenants[:1], application=ALONE)) as one,
    ):
        many, single = Load(router, zipf(tenants, Random(8))), Load(one, tenants[:1])
        await single.round(effort.seconds)
        async with Connections(cluster.primary.dsn("admin")) as seen:
            await many.round(effort.seconds)
            cold = many.rates[-1] / single.rates[-1]
            await many.round(effort.warm)
            many.rates.clear(), single.rates.clear()
            for _ in range(effort.rounds):
                await single.round(effort.seconds)
                await many.round(effort.seconds)
    for figure in _held(what, many, seen):
        yield figure
    ratios = [mine / alone for mine, alone in zip(many.rates, single.rates, strict=True)]
    note = (
        f"{median(many.rates):,.0f}/s and {median(single.rates):,.0f}/s; "
        f"{min(ratios):.2f}..{max(ratios):.2f} in {len(ratios)} rounds; {cold:.2f} in the first "
        f"{effort.seconds:g} s, when nothing was asked before"
    )
    yield Figure(f"{what}: throughput to that of one", median(ratios), _LEAST, least=True, note=note)


async def databases(effort: Effort, place: Place) -> AsyncIterator[Figure]:
    """Yield errors and connections of tenants with a database each: most requests need another connection."""
    tenants = await place.databases(effort.databases)
    cluster = await place.cluster()
    async with Router(place.config(tenants)) as router:
        load = Load(router, zipf(tenants, Random(8)))
        async with Connections(cluster.primary.dsn("admin")) as seen:
            await load.round(effort.rounds * effort.seconds)
    for figure in _held(f"{len(tenants):,} database tenants", load, seen):
        yield figure


def _held(what: str, load: Load, seen: Connections) -> list[Figure]:
    note = f"{load.note()}, {median(load.rates):,.0f}/s"
    return [
        Figure(f"{what}: errors", load.errors.total(), 0, note=note),
        Figure(f"{what}: connections", seen.most, BUDGET, note=f"at most, in {seen.looks:,} looks"),
    ]
