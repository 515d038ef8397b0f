"""Figures of processes that share rows: whether anybody sees what was written over, and for how long."""

import asyncio
import multiprocessing
import secrets
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from math import inf
from queue import Empty
from statistics import quantiles
from time import monotonic
from typing import Any

from tests.cache.effort import Effort
from tests.cache.servers import Servers
from tests.cache.worker import TENANT, Account, Job, Write, main
from tests.engines import Engine
from tests.figures import Figure
from tests.servers import CANARY, RedisServer

_TABLES, _ROWS = 40, 5
_KEY = f"{CANARY}-of-cached-values"
_PATIENCE = 60.0  # seconds for a process to start, or to end after its time


async def figures(effort: Effort, seed: int, servers: Servers) -> AsyncIterator[Figure]:
    """Yield what sessions with a token and others saw in processes that read and write."""
    engine = await servers.postgresql(TENANT)
    redis = await servers.redis()
    await _create(engine)
    accounts = await _work(_job(engine, redis, effort.together, seed), effort.processes)
    for figure in judged(accounts):
        yield figure


async def _create(engine: Engine) -> None:
    async with engine.open(tenants=(TENANT,)) as router:
        session = router.session(TENANT)
        for table in range(_TABLES):
            create = f"CREATE TABLE shared_{table} (id INTEGER PRIMARY KEY, version INTEGER)"
            await session.execute(create)
            rows = [{"id": number} for number in range(_ROWS)]
            await session.execute_many(f"INSERT INTO shared_{table} VALUES (:id, 0)", rows)
    await engine.settle()


def _job(engine: Engine, redis: RedisServer, seconds: float, seed: int) -> Job:
    remote = {"url": redis.dsn(), "key": _KEY, "prefix": f"p{secrets.token_hex(4)}"}
    cache = {"broadcast": "redis", "remote": remote}
    document = engine.document((TENANT,), connections=6, keys=(_KEY,), cache=cache)
    return Job(document, str(engine.folder), _TABLES, _ROWS, seconds, pause=0.03, writes=0.01, seed=seed)


async def _work(job: Job, count: int) -> list[Account]:
    """Run the processes and return their accounts."""
    context = multiprocessing.get_context("spawn")  # as servers of applications do; a fork shares sockets
    home: Any = context.Queue()
    inboxes: list[Any] = [context.Queue() for _ in range(count)]
    processes = [
        context.Process(target=main, args=(number, job, inboxes, home), daemon=True)
        for number in range(count)
    ]
    for process in processes:
        process.start()
    try:
        await asyncio.to_thread(_gather, home, processes, _PATIENCE)  # ready
        began = monotonic() + 0.2
        for inbox in inboxes:
            inbox.put(began)
        return await asyncio.to_thread(_gather, home, processes, job.seconds + _PATIENCE)
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()


def _gather(home: Any, processes: list[Any], seconds: float) -> list[Account]:
    """Return what each process sends next; raise if one sends its failure, has died, or takes too long."""
    found: list[Account] = []
    ends = monotonic() + seconds
    while len(found) < len(processes):
        dead = [each.name for each in processes if each.exitcode]
        if dead or monotonic() > ends:
            raise RuntimeError(f"{len(found)} of {len(processes)} processes have answered; dead: {dead}")
        with suppress(Empty):
            number, sent = home.get(timeout=0.5)
            if isinstance(sent, str):
                raise RuntimeError(f"process {number} has failed:\n{sent}")
            found.append(sent)
    return found


def judged(accounts: list[Account]) -> Iterator[Figure]:
    """Yield what the accounts say together."""
    name = f"{len(accounts)} processes, 1 % writes, Redis"
    writes = [write for account in accounts for write in account.writes]
    behind = [each for account in accounts for each in account.behind]
    failed = [each for account in accounts for each in account.failed]
    owed, hits = (sum(getattr(each, what) for each in accounts) for what in ("owed", "owed_hits"))
    note = behind[0] if behind else f"of {owed:,}, {hits:,} from memory, after {len(writes):,} writes"
    yield Figure(f"{name}: stale reads of sessions with a token or an own write", len(behind), 0, note=note)
    yield Figure(f"{name}: failed requests", len(failed), 0, note=failed[0] if failed else "")
    reads = sum(len(each.reads) for each in accounts)
    ages = sorted(_stale(accounts, writes))
    hit = 100 * sum(each.hits for each in accounts) / max(reads, 1)
    note = f"of {reads:,} reads, {hit:.0f} % from memory; {len(ages):,} were stale at all"
    old = len(ages) - bisect_left(ages, 1.0)
    yield Figure(f"{name}: others' reads that began 1 s after a write and lack it", old, 0, note=note)
    yield Figure(f"{name}: oldest that others' reads were", 1_000 * (ages[-1] if ages else 0), 1_000, "ms")
    delays = sorted(_delays(accounts))
    half, most = (quantiles(delays, n=100)[at] * 1_000 for at in (49, 98))
    note = f"p50 {half:.1f} ms, of {len(delays):,}"
    yield Figure(f"{name}: p99 until another process has heard of a write", most, 1_000, "ms", note=note)


def _stale(accounts: list[Account], writes: list[Write]) -> Iterator[float]:
    """Yield for each read that lacks a write how long ago that was answered when the read began."""
    answered: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for write in writes:
        answered[write.row][write.version] = write.answered
    later: dict[tuple[int, int], list[float]] = {}  # by version: when the first of all later ones was there
    for row, versions in answered.items():
        moments = [inf] * (max(versions) + 1)
        for version in range(max(versions) - 1, -1, -1):
            moments[version] = min(moments[version + 1], versions.get(version + 1, inf))
        later[row] = moments
    for account in accounts:
        for row, version, began in account.reads:
            moments = later.get(row, [])
            if version < len(moments) and moments[version] < began:
                yield began - moments[version]


def _delays(accounts: list[Account]) -> Iterator[float]:
    """Yield for each write and each other process how long after the answer it heard of it."""
    for account in accounts:
        heard: dict[int, list[float]] = defaultdict(list)
        for table, at in account.heard:
            heard[table].append(at)
        for other in accounts:
            for write in other.writes if other is not account else ():
                moments = heard[write.row[0]]
                first = bisect_left(moments, write.sent)
                if first < len(moments):
                    yield max(moments[first] - write.answered, 0.0)
                else:
                    yield inf
