"""Tenants of all models in one router: in peace, while two of them move, while servers end sessions."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from router import Router
from router.leaks import LeakCheck
from tests.figures import Figure
from tests.leaks.effort import Effort
from tests.leaks.moving import swap
from tests.leaks.world import CUT, Servers, compare, kill, opened, places

_SLICE = 0.5  # seconds between two looks at whether something has ended
Say = Callable[[str], None]


async def figures(folder: Path, servers: Servers, effort: Effort, say: Say) -> AsyncIterator[Figure]:
    """Let visitors of all tenants do what they like, and yield what they saw and what was left of it."""
    with places(folder, servers, effort.tenants) as made:
        async with opened(folder, servers, made) as (router, check):
            began, seen = time.monotonic(), [0]
            watch = asyncio.create_task(_watch(router, check, effort, seen, say))
            try:
                reads = None if effort.calm is not None else effort.reads
                await check.run(seconds=effort.calm, reads=reads, tasks=effort.tasks)
                seconds, calm = time.monotonic() - began, check.account.reads
                moves = asyncio.create_task(swap(router, check, folder, servers, made, effort.moves))
                while not moves.done():
                    await check.run(seconds=_SLICE, tasks=effort.tasks)
                await moves
                cuts = await _rough(check, servers, effort)
            finally:
                watch.cancel()
            await check.look_again()
        left = await asyncio.to_thread(compare, made, check.owned)
    report, most = check.report(), sum(model.most for model in made)
    told = "; ".join(report.told[:3])
    yield Figure("rows seen of another tenant", report.foreign, 0, note=told)
    yield Figure("own rows that an answer lacked, or had twice", report.missing, 0)
    yield Figure("rows seen that were not committed", report.undone, 0)
    yield Figure("requests that failed and should not have", report.errors, 0)
    yield Figure("rows in the place of another tenant, on the servers", left.foreign, 0, note=left.told)
    yield Figure("rows lost or left behind, on the servers", left.lost + left.undone, 0)
    note = f"{calm / seconds:,.0f} a second, {report.rows:,} rows"
    yield Figure("reads looked at", report.reads, effort.reads, least=True, note=note)
    note = f"of {len(check.tenants)} tenants, {effort.tasks} at a time"
    yield Figure("tasks", report.tasks, effort.reads // 20, least=True, note=note)
    yield Figure("connections at once", max(seen), most, note=f"in {len(made)} models")
    yield Figure("times that tenants changed places", effort.moves, 1, least=True)
    yield Figure("times that sessions were ended on a server", cuts, 1, least=True)


async def _rough(check: LeakCheck, servers: Servers, effort: Effort) -> int:
    """Go on while sessions are ended, which requests may tell of; return how often."""
    before = check.expected
    check.expected = (*before, *CUT)
    killer = asyncio.create_task(kill(servers, effort.rough, random.Random()))
    await check.run(seconds=effort.rough, tasks=effort.tasks)
    check.expected = before
    return await killer


async def _watch(router: Router, check: LeakCheck, effort: Effort, seen: list[int], say: Say) -> None:
    while True:
        await asyncio.sleep(0.2)
        seen.append(sum(pool.size for pool in router.status().pools))
        account = check.account
        say(f"{account.reads:,} of {effort.reads:,} reads, {account.foreign} rows of another tenant")
