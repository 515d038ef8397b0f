"""Run the cells: all arms open at once, one slice each in turn, round after round, loop after loop."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import inf

from tests.bench.arms import Arm, arm
from tests.bench.arms.bare import BareAsyncpg, BareShared
from tests.bench.measure import measure, warm
from tests.bench.place import NARROW, POOLED, World, redact
from tests.bench.results import Cell, Results
from tests.bench.texts import STREAMED
from tests.bench.workloads import WORKLOADS

_FIRST = 0.02  # seconds of a workload's first warm-up, at least
_SETTLING = 0.2  # seconds of point reads after an arm was opened: some open their connections only then
_OPENING = 20.0  # seconds that an arm may take to connect

Progress = Callable[[Cell], None]


@dataclass(frozen=True)
class Effort:
    """Say how long to measure: ``rounds`` of slices of ``seconds``, after ``warm_up`` seconds each."""

    rounds: int
    seconds: float
    warm_up: float
    loops: tuple[str, ...]
    memory: bool = True  # trace the memory of every arm's stream, not of the router's and the bare one's only
    limit: float = inf  # seconds after which only point_read has further rounds


def runner(loop: str) -> asyncio.Runner:
    """Return a runner on the event loop of that name."""
    if loop == "uvloop":
        import uvloop

        return asyncio.Runner(loop_factory=uvloop.new_event_loop)
    return asyncio.Runner()


def run_all(
    cells: Iterable[Cell], world: World, effort: Effort, results: Results, progress: Progress
) -> None:
    """Measure all cells; what fails is noted with its reason and left out from then on.

    With two loops each round runs on one and then on the other, with new connections; with one loop, or
    with a limit of time, the connections last.
    """
    cells = list(cells)
    gc.collect()
    gc.freeze()  # what was imported need not be looked at again before each slice
    loops = [loop for loop in effort.loops if any(cell.loop == loop for cell in cells)]
    hurry = effort.limit < inf
    every = range(effort.rounds)
    blocks = [every] if hurry or len(loops) == 1 else [[number] for number in every]
    until = time.monotonic() + effort.limit
    for block in blocks:
        for loop in loops:
            mine = [cell for cell in cells if cell.loop == loop]
            with runner(loop) as run:
                run.run(_Run(world, effort, results, progress, until).rounds(mine, list(block)))


class _Run:
    """Hold the open arms of one event loop."""

    def __init__(
        self, world: World, effort: Effort, results: Results, progress: Progress, until: float
    ) -> None:
        self._world = world
        self._effort = effort
        self._results = results
        self._progress = progress
        self._until = until
        self._open: dict[tuple[str, bool], Arm] = {}
        self._warm: set[Cell] = set()

    async def rounds(self, cells: list[Cell], numbers: list[int]) -> None:
        """Measure each cell once in each of the rounds."""
        async with AsyncExitStack() as stack:
            for number in numbers:
                for position, cell in enumerate(cells):
                    self._progress(cell)
                    if number and self._late(cell):
                        continue
                    await self._cell(cell, number, stack)
                    if cell.workload == "insert_many" and _last_of_its_kind(cells, position):
                        self._world.clean()
            if 0 in numbers:
                for cell in cells:
                    await self._memory(cell)

    def _late(self, cell: Cell) -> bool:
        if self._effort.limit == inf or cell.workload == "point_read":
            return False
        return cell.workload == "stream" or time.monotonic() > self._until

    async def _cell(self, cell: Cell, number: int, stack: AsyncExitStack) -> None:
        if self._results.lacks(cell.workload, cell.arm):
            return
        workload = WORKLOADS[cell.workload]
        opened = await self._arm(cell, workload.narrow, stack)
        if opened is None:
            return
        operation = workload.bind(opened)
        warm_up = self._effort.warm_up if cell in self._warm else max(self._effort.warm_up, _FIRST)
        self._warm.add(cell)
        try:
            # a heavy request is no warm-up: point reads open the connections as well
            await warm(opened.point_read if workload.heavy else operation, cell.tasks, warm_up)
            sample = await measure(operation, cell.tasks, self._effort.seconds)
        except* Exception as failure:
            self._results.missing[cell.workload, cell.arm] = self._reason(_first(failure))
        else:
            self._results.rounds[cell][number] = sample

    async def _arm(self, cell: Cell, narrow: bool, stack: AsyncExitStack) -> Arm | None:
        name = cell.arm
        if (name, narrow) in self._open:
            return self._open[name, narrow]
        try:
            kind = arm(name)
            if reason := kind.unfit.get(cell.workload):
                self._results.missing[cell.workload, name] = reason
                return None
            place = self._world.places.get(kind.place)
            if place is None:
                raise LookupError(self._world.missing.get(kind.place, "its server was not started"))
            if narrow:
                kind = BareShared if kind is BareAsyncpg else kind
                place = place.narrow()
            opened = kind(place, _connections(name, narrow))
            async with asyncio.timeout(_OPENING):
                await opened.open()
            stack.push_async_callback(opened.close)
            # as many at once as ever, so that nobody opens a connection while it is measured
            await warm(opened.point_read, _most_tasks(narrow), _SETTLING)
        except LookupError as exc:
            self._results.missing["", name] = redact(str(exc.args[0]), self._world)
            return None
        except Exception as exc:
            self._results.missing["", name] = self._reason(_first(exc))
            return None
        self._open[name, narrow] = opened
        return opened

    def _reason(self, exc: BaseException) -> str:
        if isinstance(exc, ImportError):
            return f"not installed: {exc.name}. Install the extra: bench"
        return redact(f"failed: {type(exc).__name__}: {exc}", self._world)

    async def _memory(self, cell: Cell) -> None:
        """Trace the peak of Python's memory while the stream runs, and while a tenth of it does."""
        opened = self._open.get((cell.arm, False))
        if cell.workload != "stream" or opened is None or self._results.lacks("stream", cell.arm):
            return
        if not self._effort.memory and cell.arm not in ("bare_asyncpg", "router"):
            return
        self._results.extra[cell] |= {
            "peak_kib": await _peak(opened, STREAMED),
            "peak_kib_of_a_tenth": await _peak(opened, 1),
        }


def _most_tasks(narrow: bool) -> int:
    return WORKLOADS["oversubscribed" if narrow else "point_read"].tasks[-1]


def _connections(name: str, narrow: bool) -> int:
    if narrow:
        # PgBouncer pools behind the clients' connections, of which there is one a task
        return WORKLOADS["oversubscribed"].tasks[0] if name == "pgbouncer" else NARROW
    return POOLED


def _last_of_its_kind(cells: list[Cell], position: int) -> bool:
    return position + 1 == len(cells) or cells[position + 1].workload != cells[position].workload


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


async def _peak(opened: Arm, times: int) -> float:
    await opened.stream(0, 1)
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        await opened.stream(0, times)
        return (tracemalloc.get_traced_memory()[1] - before) / 1024
    finally:
        tracemalloc.stop()
