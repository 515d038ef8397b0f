"""What to measure: all of it, or with ``--quick`` each workload and arm once."""

from collections.abc import Collection, Iterator

from tests.bench.arms import NAMES
from tests.bench.results import Cell
from tests.bench.runs import Effort
from tests.bench.workloads import WORKLOADS, Workload

LOOPS = ("uvloop", "asyncio")

_PLACES = {
    "bare_aiomysql": "mariadb",
    "router_mysql": "mariadb",
    "bare_aiosqlite": "sqlite",
    "router_sqlite": "sqlite",
    "pgbouncer": "pgbouncer",
    "pgpool": "pgpool",
}
_PAIR = ("bare_asyncpg", "router")  # the arms of most figures

FULL = Effort(rounds=5, seconds=0.25, warm_up=0.05, loops=LOOPS)
QUICK = Effort(rounds=5, seconds=0.04, warm_up=0.005, loops=LOOPS, memory=False, limit=18.0)


def place_of(arm: str) -> str:
    """Return the name of the servers that an arm needs; known even where its driver is not installed."""
    return _PLACES.get(arm, "postgresql")


def full(workloads: Collection[str], arms: Collection[str], loops: Collection[str]) -> Iterator[Cell]:
    """Yield every cell that the filters leave."""
    for loop in loops:
        for workload in WORKLOADS.values():
            if workload.name in workloads:
                for tasks in workload.tasks:
                    yield from _group(workload, tasks, loop, arms)


def quick(workloads: Collection[str], arms: Collection[str], loops: Collection[str]) -> Iterator[Cell]:
    """Yield each workload and arm once on uvloop, and what else the figures need.

    The most tasks of the workload; but one where 16 requests at once take seconds in a slow arm.
    """
    first = next(iter(loops))
    pair = [arm for arm in _PAIR if arm in arms]
    for workload in WORKLOADS.values():
        if workload.name in workloads:
            yield from _group(workload, workload.tasks[0 if workload.heavy else -1], first, arms)
            if workload.name == "rows_10000":
                yield from _group(workload, workload.tasks[-1], first, pair)
    if "point_read" in workloads:
        read = WORKLOADS["point_read"]
        yield from _group(read, 1, first, pair)
        for loop in loops:
            if loop != first:
                yield from _group(read, 1, loop, pair)


def _group(workload: Workload, tasks: int, loop: str, arms: Collection[str]) -> Iterator[Cell]:
    for name in NAMES:
        if name in arms and not (workload.narrow and place_of(name) in ("mariadb", "sqlite")):
            yield Cell(workload.name, name, tasks, loop)
