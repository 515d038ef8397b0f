"""Break servers under load and print what requests saw of it, each figure beside its limit."""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.chaos.budget import everything_failing
from tests.chaos.cases import QUICK, Effort, frozen_all, frozen_replica, killed_primary, killed_replica
from tests.chaos.load import CREATE, TABLE, Load
from tests.chaos.outcomes import commits_cut
from tests.chaos.sqlite import sqlite_cases
from tests.engines import Engine, Mariadb, Postgresql, Sqlite
from tests.faults.storm import storm
from tests.figures import Figure, show
from tests.servers import MariadbCluster, PostgresqlCluster, watchdog

ENGINES = ("postgresql", "mariadb", "sqlite")


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON object a line instead of a table")
    add("--quick", action="store_true", help="finish within a minute: shorter looks, fewer tasks and cuts")
    add("--engine", action="append", choices=ENGINES, help="only this one; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and print the figures; return 1 if one misses its limit."""
    given = options(arguments)
    effort = QUICK if given.quick else Effort()
    logging.getLogger("router").addHandler(logging.NullHandler())  # failures are part of the game here
    try:
        figures = asyncio.run(_all(given.engine or ENGINES, effort))
    finally:
        watchdog.dismiss()
    return show("chaos", figures, as_json=given.json)


async def _all(engines: Sequence[str], effort: Effort) -> list[Figure]:
    found: list[Figure] = []
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting servers")
        for name in engines:
            bar.update(task, description=f"{name}: starting")
            async for figure in _CASES[name](effort):
                found.append(figure)
                bar.update(task, description=figure.name)
    return found


async def _served(engine: Engine, cluster: Any, effort: Effort) -> AsyncIterator[Figure]:
    """Yield the figures of an engine with servers; the primary is killed last, which ends the cluster."""
    name = engine.dialect if engine.dialect == "postgresql" else "mariadb"
    engine.create("acme", "globex")
    async for figure in commits_cut(name, engine, effort.step):
        yield figure
    async for figure in _stormed(name, engine, effort):
        yield figure
    async for figure in everything_failing(name, engine, effort.look):
        yield figure
    async with engine.open(tenants=("acme",), connections=20) as router:
        await router.execute(CREATE, tenant="acme")
        await asyncio.to_thread(cluster.wait_for_replicas)
        async for figure in frozen_all(name, router, cluster.servers):
            yield figure
        await asyncio.sleep(2)  # all probes are quick, and find that everybody is back
        async with Load(router) as load:
            await asyncio.sleep(0.5)
            async for figure in frozen_replica(name, router, load, cluster.replicas[0], effort.look):
                yield figure
            async for figure in killed_replica(name, router, load, cluster.replicas[-1], effort.look):
                yield figure
            old, new = cluster.primary, cluster.replicas[0]
            database = engine.tenant("acme")["database"]

            def rows(server: Any) -> list[int]:
                return [int(number) for number in server.run(f"SELECT number FROM {TABLE}", database).split()]

            async for figure in killed_primary(name, router, load, old, new, new.promote, rows):
                yield figure


async def _stormed(name: str, engine: Engine, effort: Effort) -> AsyncIterator[Figure]:
    result = await storm(engine, effort.tasks, 0.6, random.Random(7))
    case = f"{name}: {effort.tasks:,} tasks, 60 % cancelled"
    yield Figure(f"{case}: wrong rows", result.wrong_rows, 0, note="; ".join(result.wrong))
    yield Figure(f"{case}: leaked connections", result.leaked_connections + result.orphan_sessions, 0)
    yield Figure(f"{case}: unretrieved exceptions, orphan tasks", result.unretrieved + result.orphan_tasks, 0)


async def _on_servers(
    kind: type[Postgresql] | type[Mariadb], cluster: Any, effort: Effort
) -> AsyncIterator[Figure]:
    await asyncio.to_thread(cluster.start)
    try:
        with tempfile.TemporaryDirectory() as folder:
            async for figure in _served(kind(Path(folder), cluster), cluster, effort):
                yield figure
    finally:
        cluster.close()


async def _sqlite(effort: Effort) -> AsyncIterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async for figure in sqlite_cases(Path(folder), effort.look):
            yield figure
    with tempfile.TemporaryDirectory() as folder:
        engine = Sqlite(Path(folder))
        engine.create("acme", "globex")
        async for figure in _stormed("sqlite", engine, effort):
            yield figure


_CASES: dict[str, Callable[[Effort], AsyncIterator[Figure]]] = {
    "postgresql": lambda effort: _on_servers(Postgresql, PostgresqlCluster(2), effort),
    "mariadb": lambda effort: _on_servers(Mariadb, MariadbCluster(1), effort),
    "sqlite": _sqlite,
}

if __name__ == "__main__":
    sys.exit(main())
