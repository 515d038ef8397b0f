"""What the listeners that every router has cost a request: processor time with all of them, and with none.

The arms take turns in short blocks, so that whatever else the machine does meets all of them; the figure is
the median of the differences. Two arms without listeners beside each other show how much of it is noise. A
console adds its own listeners while somebody looks at it, and is a figure of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from statistics import median
from time import thread_time
from unittest.mock import patch

from router import Router
from router.drivers import registry
from router.live import Live
from tests import doubles
from tests.cache.servers import Servers
from tests.engines import Engine
from tests.figures import Figure
from tests.observe.effort import Effort

LIMIT = 10.0  # microseconds a request
# what each work takes without listeners where LIMIT was set, for its share of a slower machine's time
_USUAL = {"read": 19.4, "write": 18.8, "statement in a transaction": 26.7}
_TASKS = 4  # that send requests at the same time, as those of a service do
_BLOCK = 20  # requests whose time is taken together
_WARM = 100  # blocks until all is connected, known and specialised by the interpreter
_LOOK = 25  # blocks between two looks of a console
_TENANT = "acme"
_READ = "SELECT id, name, seats FROM plans WHERE id = :id"
_WRITE = "UPDATE plans SET seats = seats + 1 WHERE id = :id"
_ID = {"id": 7}
_ON, _OFF, _BESIDE, _WATCHED = "on", "off", "beside", "watched"


async def read(router: Router) -> int:
    """Run one read; return how many requests that was."""
    async with router.session(_TENANT) as session:
        await session.fetch_one(_READ, _ID)
    return 1


async def write(router: Router) -> int:
    """Run one write that commits by itself."""
    async with router.session(_TENANT) as session:
        await session.execute(_WRITE, _ID)
    return 1


async def transaction(router: Router) -> int:
    """Run three statements in a transaction."""
    async with router.session(_TENANT) as session, session.transaction() as tx:
        await tx.fetch_one(_READ, _ID)
        await tx.execute(_WRITE, _ID)
        await tx.fetch_one(_READ, _ID)
    return 3


WORKS: dict[str, Callable[[Router], Awaitable[int]]] = {
    "read": read,
    "write": write,
    "statement in a transaction": transaction,
}


async def figures(effort: Effort, servers: Servers) -> AsyncIterator[Figure]:
    """Yield what all listeners add, on an engine that costs nothing and on real ones."""
    with double():
        async for figure in on_double(effort):
            yield figure
    for name, engine, tasks in (
        # its connections are threads: several would compete for the interpreter, which is no listener's time
        ("SQLite", servers.sqlite(_TENANT), 1),
        ("PostgreSQL", await servers.postgresql(_TENANT), _TASKS),
    ):
        await _prepare(engine)
        async with _arms(lambda engine=engine: Router(engine.config((_TENANT,)))) as arms:
            # a write waits for the disk; there are enough of them on the double
            async for figure in _figures(name, arms, effort.blocks, tasks, ("read",)):
                yield figure


async def on_double(effort: Effort) -> AsyncIterator[Figure]:
    """Yield what all listeners add where nothing else takes time."""
    async with _arms(lambda: Router(doubles.config())) as arms:
        async for figure in _figures("a double", arms, effort.blocks, _TASKS):
            yield figure


async def scaled(blocks: int) -> dict[str, float]:
    """Return what all listeners add there, in µs of the machine on which the limit was set.

    What a request takes without them, in the same minute, says how much slower this one is.
    """
    found = {}
    async with _arms(lambda: Router(doubles.config())) as arms:
        async for name, taken in _taken(arms, blocks, _TASKS):
            slower = median(taken[_OFF]) / _USUAL[name]
            found[name] = _added(taken, _ON, _OFF) / slower
            found[f"{name}, watched"] = _added(taken, _WATCHED, _ON) / slower
    return found


@contextmanager
def double() -> Iterator[None]:
    """Have an engine named "scripted" that answers at once."""
    server = doubles.Server()
    with patch.dict(registry._registered, {"scripted": lambda: doubles.ScriptedDriver(server)}):
        yield


async def _prepare(engine: Engine) -> None:
    async with engine.open((_TENANT,)) as router:
        await router.execute(
            "CREATE TABLE plans (id INTEGER PRIMARY KEY, name TEXT, seats INTEGER)", tenant=_TENANT
        )
        await router.execute("INSERT INTO plans VALUES (7, 'team', 5)", tenant=_TENANT)
        await engine.settle()


@asynccontextmanager
async def _arms(make: Callable[[], Router]) -> AsyncIterator[dict[str, Router]]:
    """Open routers that differ in their listeners only."""
    async with AsyncExitStack() as stack:
        names = (_ON, _OFF, _BESIDE, _WATCHED)
        arms = {name: await stack.enter_async_context(make()) for name in names}
        for name in (_OFF, _BESIDE):
            for subscription in arms[name].dispatcher.subscriptions:
                subscription.cancel()
        yield arms


async def _figures(
    engine: str, arms: dict[str, Router], blocks: int, tasks: int, works: tuple[str, ...] = tuple(WORKS)
) -> AsyncIterator[Figure]:
    async for name, taken in _taken(arms, blocks, tasks, works):
        off, on = median(taken[_OFF]), median(taken[_ON])
        noise = abs(_added(taken, _BESIDE, _OFF))
        note = f"{on:.1f} with, {off:.1f} without; two without differ by {noise:.2f}"
        what = f"{name} on {engine}"
        yield Figure(f"{what}: all listeners add", _added(taken, _ON, _OFF), LIMIT, "us", note=note)
        watched = _added(taken, _WATCHED, _ON)
        yield Figure(f"{what}: a console that is watched adds", watched, LIMIT, "us")


async def _taken(
    arms: dict[str, Router], blocks: int, tasks: int, works: tuple[str, ...] = tuple(WORKS)
) -> AsyncIterator[tuple[str, dict[str, list[float]]]]:
    """Yield each work with what it took, while a console is watched in one arm."""
    live = Live(arms[_WATCHED])
    try:
        for name in works:
            yield name, await measured(arms, WORKS[name], blocks, tasks, before=live.picture)
    finally:
        live.close()


def _added(taken: dict[str, list[float]], arm: str, to: str) -> float:
    """Return by how much one arm takes longer than another, block by block."""
    return median(one - two for one, two in zip(taken[arm], taken[to], strict=True))


async def measured(
    arms: dict[str, Router],
    work: Callable[[Router], Awaitable[int]],
    blocks: int,
    tasks: int,
    *,
    before: Callable[[], Awaitable[object]],
) -> dict[str, list[float]]:
    """Return the microseconds of the processor that a request took in each block, by arm.

    Of the event loop's thread: all listeners run there, and SQLite's own threads only add noise.
    ``before`` is called now and then, outside of what is measured.
    """
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for router in arms.values():
        for _ in range(_WARM):
            await _block(work, router, tasks)
    order = list(arms)
    for number in range(blocks):
        if number % _LOOK == 0:
            await before()
        order.append(order.pop(0))
        for name in order:
            router, began = arms[name], thread_time()
            count = await _block(work, router, tasks)
            taken[name].append((thread_time() - began) / count * 1e6)
    return taken


async def _block(work: Callable[[Router], Awaitable[int]], router: Router, tasks: int) -> int:
    """Do some work several times in several tasks; return how many requests that was."""

    async def repeat() -> int:
        return sum([await work(router) for _ in range(_BLOCK // tasks)])

    return sum(await asyncio.gather(*(repeat() for _ in range(tasks))))
