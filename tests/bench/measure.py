"""One slice of one arm: the client loop, and what it cost."""

import asyncio
import gc
import time
from dataclasses import dataclass

from tests.bench.texts import KEYS
from tests.bench.workloads import Operation

_APART = 617  # keys between the tasks, so that writers do not wait for each other's rows
_PATIENCE = 30.0  # seconds past its time that a slice may take


@dataclass(frozen=True)
class Sample:
    """Hold what one slice showed: requests a second; CPU of this process, p50 and p99 in µs a request."""

    rps: float
    cpu_us: float
    p50_us: float
    p99_us: float


async def _client(operation: Operation, task: int, until: float, took: list[float]) -> None:
    clock = time.perf_counter
    number = task * _APART
    before = clock()
    while True:
        number += 1
        await operation(task, number % KEYS + 1)
        now = clock()
        took.append(now - before)
        if now >= until:
            return
        before = now


async def _run(operation: Operation, tasks: int, seconds: float) -> list[float]:
    took: list[float] = []
    async with asyncio.timeout(seconds + _PATIENCE), asyncio.TaskGroup() as group:
        until = time.perf_counter() + seconds
        for task in range(tasks):
            group.create_task(_client(operation, task, until, took))
    return took


async def warm(operation: Operation, tasks: int, seconds: float) -> None:
    """Let connections open, statements get prepared and caches fill."""
    await _run(operation, tasks, seconds)


async def measure(operation: Operation, tasks: int, seconds: float) -> Sample:
    """Run ``tasks`` clients for about ``seconds``; each does one request at least."""
    gc.collect()  # every arm starts with the same; the collector itself stays on
    cpu, started = time.process_time(), time.perf_counter()
    took = await _run(operation, tasks, seconds)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    took.sort()
    count = len(took)
    middle, high = took[count // 2] * 1e6, took[count * 99 // 100] * 1e6
    return Sample(count / elapsed, cpu / count * 1e6, middle, high)
