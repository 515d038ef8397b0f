"""Figures of requests while the Redis that processes share does whatever it may."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import quantiles
from time import monotonic
from typing import Any

from router import Router
from tests.cache.effort import Effort
from tests.cache.rows import TENANTS, Account, Load, create
from tests.cache.servers import Servers
from tests.cache.troubles import TROUBLES, Victim
from tests.chaos.cases import until
from tests.engines import Postgresql
from tests.figures import Figure
from tests.lateness import Lateness
from tests.servers import CANARY

_KEY = f"{CANARY}-of-cached-values"
_ONCE = 0.3  # seconds until the breaker must have opened
_ENTRIES = 32  # in memory, fewer than there are rows: most reads ask Redis
_STEADY = ("killed", "frozen")  # in which it never answers


async def figures(
    effort: Effort, seed: int, servers: Servers, troubles: Collection[str] = TROUBLES
) -> AsyncIterator[Figure]:
    """Yield failures, wrong rows and delays of two processes, beside one that uses no Redis.

    The processes are new for each trouble: those of before may leave Redis alone for a while.
    """
    engine = await servers.postgresql(*TENANTS)
    redis = await servers.redis()
    rng = random.Random(seed)
    async with engine.open(TENANTS) as router:
        await create(router, "shared")
        await create(router, "apart")
    total = Total()
    for name in troubles:
        prefix = f"f{secrets.token_hex(4)}"
        victim = Victim(redis, prefix, rng)
        remote = {"url": redis.dsn(), "key": _KEY, "prefix": prefix}
        async with AsyncExitStack() as stack:
            stack.push_async_callback(victim.close)
            with_redis = {"broadcast": "redis", "remote": remote, "entries": _ENTRIES}
            routers = [await _open(stack, engine, with_redis) for _ in range(2)]
            alone = await _open(stack, engine, {"entries": _ENTRIES})
            load = await stack.enter_async_context(Load(routers, "shared", rng))
            beside = await stack.enter_async_context(Load([alone], "apart", rng))
            await asyncio.sleep(0.3)
            await until(partial(_in_use, routers), 60)
            began = monotonic()
            async with Lateness() as late:
                await TROUBLES[name](victim, effort.trouble)
        for figure in _delays(name, load.account, beside.account, began, late.worst):
            yield figure
        total.add(load.account, victim)
    for figure in total.figures():
        yield figure


@dataclass
class Total:
    """Add up what became of all requests."""

    reads: int = 0
    forged: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, account: Account, victim: Victim) -> None:
        """Add what happened in one trouble."""
        self.reads += len(account.reads)
        self.forged += victim.changed
        self.failed += account.failed
        self.wrong += account.wrong

    def figures(self) -> Iterator[Figure]:
        """Yield what must never be."""
        failed, wrong = self.failed, self.wrong
        yield Figure(
            "Redis in any trouble: failed requests", len(failed), 0, note=failed[0] if failed else ""
        )
        note = wrong[0] if wrong else f"of {self.reads:,} reads; {self.forged:,} values there were forged"
        yield Figure("Redis in any trouble: wrong rows", len(wrong), 0, note=note)


async def _open(stack: AsyncExitStack, engine: Postgresql, cache: dict[str, Any]) -> Router:
    # without replicas: what they give is kept only now and then, and Redis would be asked in vain
    return await stack.enter_async_context(
        engine.open(TENANTS, connections=8, cluster={"replicas": []}, cache=cache)
    )


def _in_use(routers: list[Router]) -> bool:
    """Tell whether all processes use Redis, and had answers of each other: else no trouble would show."""
    found = [router.cache.stats() for router in routers]
    return all(each.remote and each.heard for each in found) and all(
        tally.remote for each in found for tally in each.tenants.values()
    )


def _delays(name: str, with_redis: Account, alone: Account, began: float, late: float) -> list[Figure]:
    found, plain = with_redis.since(began), alone.since(began)
    note = f"slowest {max(found) * 1e3:.0f} ms of {len(found)}, beside {max(plain) * 1e3:.0f} ms; "
    note += f"the event loop was late by up to {late * 1e3:.0f} ms"
    figures = [
        Figure(f"Redis {name}: p99 that reads take longer", _longer(found, plain), 50, "ms", note=note)
    ]
    if name in _STEADY:
        after, apart = with_redis.since(began + _ONCE), alone.since(began + _ONCE)
        longer = f"Redis {name}: p99 that reads take longer once it is left alone"
        figures.append(Figure(longer, _longer(after, apart), 5, "ms"))
    return figures


def _longer(found: list[float], plain: list[float]) -> float:
    """Return by how many milliseconds the 99th percentile is higher."""
    return max(_p99(found) - _p99(plain), 0.0) * 1_000


def _p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[98]
