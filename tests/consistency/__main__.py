"""Let many users write and read through lag and failovers, and print what the checker found."""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from tests.consistency import cached, costs, faults, scenes
from tests.consistency.checker import check
from tests.consistency.history import History
from tests.consistency.pairs import pairs
from tests.consistency.plan import Caching
from tests.consistency.run import no_faults, workers
from tests.consistency.scenes import TENANTS, Stage
from tests.engines import Mariadb, PostgresqlSchemas, Sqlite
from tests.figures import Figure, show
from tests.servers import MariadbCluster, PostgresqlCluster, watchdog

ENGINES = ("postgresql", "mariadb", "sqlite")
BROADCASTS = ("none", "alone")
_PROCESSES = 3


Scene = Callable[[Stage, Any, "Effort"], AsyncIterator[Figure]]


@dataclass(frozen=True, slots=True)
class Effort:
    """Say how much to do."""

    operations: dict[str, int]  # with all guarantees on, by engine
    rounds: dict[str, int]  # of all faults meanwhile
    off: int  # operations of a history with a guarantee off
    times: int  # that each of these is made
    lossy: int  # operations of a history with a lossy failover
    pairs: int  # of each way
    blocks: int  # of reads whose time is taken
    thorough: bool = True  # whether each engine plays every scene


FULL = Effort(
    {"postgresql": 200_000, "mariadb": 40_000, "sqlite": 20_000},
    {"postgresql": 20, "mariadb": 8},
    off=5_000,
    times=3,
    lossy=6_000,
    pairs=9_996,
    blocks=2_000,
)
QUICK = Effort(
    {"postgresql": 6_000, "mariadb": 2_500, "sqlite": 1_500},
    {"postgresql": 1, "mariadb": 1},
    off=1_200,
    times=1,
    lossy=1_800,
    pairs=300,
    blocks=320,
    thorough=False,
)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.consistency", description=__doc__)
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON object a line instead of a table")
    add("--quick", action="store_true", help="finish within a minute: fewer operations")
    add("--seed", type=int, help="of all choices; a new one if left out, printed in any case")
    add("--engine", action="append", choices=ENGINES, help="only this one; may be repeated")
    add("--cache", action="store_true", help="cache the reads of sessions, and switch off each rule of that")
    add(
        "--broadcast",
        action="append",
        choices=BROADCASTS,
        help="with --cache: only this way between processes",
    )
    add("--history", type=Path, help="only check a history that a failed run has left")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the histories and print the figures; return 1 if one misses its limit."""
    given = options(arguments)
    if given.history is not None:
        return _judge(given.history)
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    logging.getLogger("router").addHandler(logging.NullHandler())  # failures are part of the game here
    try:
        effort = QUICK if given.quick else FULL
        if given.cache:
            play = _cached_scenes([_caching(each) for each in given.broadcast or BROADCASTS])
        else:
            play = _SCENES
        found = asyncio.run(_all(given.engine or ENGINES, effort, seed, play))
    finally:
        watchdog.dismiss()
    code = show(f"consistency, seed {seed}", found, as_json=given.json)
    if not given.json:
        print(f"violations: {sum(each.value for each in found if ': violations' in each.name):.0f}")
    return code


def _judge(path: Path) -> int:
    """Check a history that was saved, and say what contradicts what."""
    verdict = check(History.load(path))
    for violation in verdict.violations:
        print(violation, end="\n\n")
    print(f"violations: {len(verdict.violations)}")
    return int(bool(verdict.violations))


def _caching(broadcast: str) -> Caching:
    return cached.FEW if broadcast == cached.FEW.broadcast else Caching(broadcast)


async def _all(engines: Sequence[str], effort: Effort, seed: int, play: Mapping[str, Scene]) -> list[Figure]:
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"), BarColumn())
    found: list[Figure] = []
    with ExitStack() as stack:
        bar = stack.enter_context(
            Progress(*columns, MofNCompleteColumn(), console=Console(stderr=True), transient=True)
        )
        task = bar.add_task("starting servers", total=None)

        def tell(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        processes = stack.enter_context(workers(_PROCESSES))
        folders = {name: Path(stack.enter_context(tempfile.TemporaryDirectory())) for name in engines}
        clusters = await asyncio.gather(*(asyncio.to_thread(_start, name, stack) for name in engines))
        for name, cluster in zip(engines, clusters, strict=True):
            engine = _ENGINES[name](folders[name], *([cluster] if cluster is not None else []))
            engine.create(*TENANTS)
            stage = Stage(engine, processes, seed, tell=tell)
            found += [figure async for figure in play[name](stage, cluster, effort)]
    return found


def _start(name: str, stack: ExitStack) -> Any:
    if name == "sqlite":
        return None
    cluster = PostgresqlCluster(2) if name == "postgresql" else MariadbCluster(1)
    stack.callback(cluster.close)
    cluster.start()
    return cluster


async def _served(name: str, stage: Stage, cluster: Any, effort: Effort, harm: Any) -> AsyncIterator[Figure]:
    """Yield what both engines with servers have in common; the lossy failover ends the cluster."""
    whole = harm(cluster, stage.seed, effort.rounds[name])
    async for figure in scenes.kept(stage, name, effort.operations[name], whole):
        yield figure
    every = effort.thorough or name == "postgresql"
    off = scenes.OFF if every else scenes.OFF[:1]
    async for figure in scenes.switched_off(
        stage, name, effort.off, lambda seed: harm(cluster, seed, 1), effort.times, off
    ):
        yield figure
    if every:
        async for figure in scenes.repeated(stage, name, effort.off // 2, cuts=4):
            yield figure
    async for figure in scenes.lossy(stage, name, effort.lossy, faults.lossy(cluster, stage.seed)):
        yield figure


async def _postgresql(stage: Stage, cluster: PostgresqlCluster, effort: Effort) -> AsyncIterator[Figure]:
    for replica in cluster.replicas:
        replica.hold_back(0)
    for figure in await pairs(stage, cluster.replicas[-1], effort.pairs):
        yield figure
    async for figure in costs.messages(stage):
        yield figure
    async for figure in costs.processor(stage, cluster.replicas[-1], effort.blocks):
        yield figure
    async for figure in _served("postgresql", stage, cluster, effort, faults.postgresql):
        yield figure


async def _mariadb(stage: Stage, cluster: MariadbCluster, effort: Effort) -> AsyncIterator[Figure]:
    async for figure in _served("mariadb", stage, cluster, effort, faults.mariadb):
        yield figure


async def _sqlite(stage: Stage, cluster: None, effort: Effort) -> AsyncIterator[Figure]:
    async for figure in scenes.kept(stage, "sqlite", effort.operations["sqlite"], no_faults):
        yield figure


def _cached_scenes(cachings: Sequence[Caching]) -> Mapping[str, Scene]:
    """Return the scenes with cached reads; the last of each engine with servers ends its cluster."""

    def with_all(name: str, harm: Any) -> Scene:
        async def play(stage: Stage, cluster: Any, effort: Effort) -> AsyncIterator[Figure]:
            for caching in cachings:
                whole = harm(cluster, stage.seed, effort.rounds[name]) if cluster is not None else no_faults
                total = effort.operations[name] // len(cachings)
                async for figure in cached.kept(stage, name, total, whole, caching):
                    yield figure

        return play

    async def postgresql(stage: Stage, cluster: Any, effort: Effort) -> AsyncIterator[Figure]:
        async for figure in with_all("postgresql", faults.postgresql)(stage, cluster, effort):
            yield figure
        async for figure in cached.controls(stage, "postgresql", effort.off, late=effort.thorough):
            yield figure
        trials = (*cached.TRIALS, *cached.RARE) if effort.thorough else cached.TRIALS
        async for figure in cached.switched_off(stage, "postgresql", effort.off, effort.times, trials):
            yield figure
        harm = faults.lossy(cluster, stage.seed)
        async for figure in cached.lossy(stage, "postgresql", effort.lossy, harm):
            yield figure

    async def mariadb(stage: Stage, cluster: Any, effort: Effort) -> AsyncIterator[Figure]:
        async for figure in with_all("mariadb", faults.mariadb)(stage, cluster, effort):
            yield figure
        harm = faults.lossy(cluster, stage.seed)
        if effort.thorough:  # in a short history nobody may be there to be misled
            async for figure in cached.lossy_without(stage, "mariadb", effort.lossy, harm):
                yield figure

    return {"postgresql": postgresql, "mariadb": mariadb, "sqlite": with_all("sqlite", no_faults)}


_ENGINES: dict[str, Any] = {"postgresql": PostgresqlSchemas, "mariadb": Mariadb, "sqlite": Sqlite}
_SCENES: dict[str, Any] = {"postgresql": _postgresql, "mariadb": _mariadb, "sqlite": _sqlite}

if __name__ == "__main__":
    sys.exit(main())
