"""The cases on servers: each breaks something under load and yields figures of what requests saw of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from router import Router, RouterError
from router.events import PrimaryChanged
from tests.chaos.load import TABLE, Load, failed, slowest
from tests.figures import Figure
from tests.lateness import Lateness


@dataclass(frozen=True, slots=True)
class Effort:
    """Say how long to look after each fault, in seconds, and how much of the counted cases to run."""

    look: float = 6.0
    tasks: int = 10_000  # of the storm of cancellations
    step: int = 1  # between the bytes at which an answer is cut


QUICK = Effort(look=2.5, tasks=1_000, step=7)


async def off_loop(work: Callable[..., Any], *args: Any) -> Any:
    """Run what blocks, such as stopping a server, beside the loop that is being measured."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(work, *args))


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when a condition holds; raise TimeoutError otherwise."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of servers and snapshots, which set no event
            await asyncio.sleep(0.01)


def usable(router: Router, name: str) -> bool:
    """Tell whether the router uses a node."""
    return next(node.usable for node in router.status().nodes if node.name == name)


def _reads(case: str, load: Load, began: float) -> Figure:
    errors = failed(load.since(began, "read"))
    return Figure(f"{case}: failed reads", len(errors), 0, note=errors[0] if errors else "")


async def killed_replica(name: str, router: Router, load: Load, server: Any, look: float) -> Any:
    """Kill a replica and bring it back."""
    began = time.monotonic()
    await off_loop(server.kill)
    await load.for_a_while(look)
    yield _reads(f"{name}: kill a replica", load, began)
    await off_loop(server.start)
    await until(lambda: usable(router, server_name(router, server)))


async def frozen_replica(name: str, router: Router, load: Load, server: Any, look: float) -> Any:
    """Freeze a replica: it takes connections and requests, and answers none."""
    began = time.monotonic()
    await off_loop(server.freeze)
    await load.for_a_while(max(look, 4.0))
    reads = load.since(began, "read")
    await off_loop(server.thaw)
    yield _reads(f"{name}: freeze a replica", load, began)
    yield Figure(
        f"{name}: freeze a replica: slowest read", slowest(reads), 4.0, "s", note="2 probe intervals"
    )
    await until(lambda: usable(router, server_name(router, server)))


async def killed_primary(
    name: str, router: Router, load: Load, old: Any, new: Any, promote: Callable[[], None], rows: Any
) -> Any:
    """Kill the primary, promote a replica a second later, and compare what was told with what is there."""
    changes: list[tuple[float, PrimaryChanged]] = []
    router.dispatcher.subscribe(PrimaryChanged, lambda event: changes.append((time.monotonic(), event)))
    before = set(load.account.acknowledged)
    began = time.monotonic()
    await off_loop(old.kill)
    await asyncio.sleep(1.0)
    received = set(await off_loop(rows, new))
    await off_loop(promote)
    promoted = time.monotonic()
    await load.for_a_while(3.0)
    writes = [each for each in load.since(promoted, "write") if not each.error]
    yield _reads(f"{name}: kill the primary, promote", load, began)
    first = min((each.ended for each in writes), default=float("nan")) - promoted
    yield Figure(f"{name}: promotion finished to first good write", max(first, 0.0), 0.5, "s")
    there = await off_loop(rows, new)
    lost = [number for number in before if number in received and number not in there]
    after = [number for number in load.account.acknowledged - before if number not in there]
    lost += [number for number in after if number in received]
    yield Figure(f"{name}: acknowledged writes lost that the new primary had", len(lost), 0)
    yield Figure(f"{name}: duplicate writes", len(there) - len(set(there)), 0)
    wrong = load.account.refused & set(there)
    yield Figure(f"{name}: writes told as failed that are there", len(wrong), 0)


def server_name(router: Router, server: Any) -> str:
    """Return the router's name for a server, by its port."""
    return next(node.name for node in router.status().nodes if node.address.endswith(f":{server.port}"))


async def frozen_all(name: str, router: Router, servers: list[Any]) -> AsyncIterator[Figure]:
    """Freeze every server: requests end in their own time, not in the servers'."""
    for server in servers:
        await off_loop(server.freeze)
    try:
        over = await _overshoot(router, 0.7)
    finally:
        for server in servers:
            await off_loop(server.thaw)
    yield Figure(f"{name}: everything frozen: overshoot of a timeout", over, 0.05, "s")


async def _overshoot(router: Router, limit: float) -> float:
    """Return the worst overshoot of requests that run into their timeout, less what our own loop was late."""

    async def ask(number: int) -> float:
        began = time.monotonic()
        try:
            if number % 2:
                await router.fetch_value("SELECT 1", tenant="acme", timeout=limit)
            else:
                await router.execute(f"INSERT INTO {TABLE} VALUES (0, 0)", tenant="acme", timeout=limit)
        except RouterError:
            return time.monotonic() - began - limit
        return 0.0

    async with Lateness() as late:
        over = await asyncio.gather(*(ask(number) for number in range(40)))
    return max(max(over) - late.worst, 0.0)
