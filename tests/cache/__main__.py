"""Measure what the cache costs, what it keeps and what it never does, each figure beside its limit."""

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.cache import costs, faults, growth, herds, hits, processes, ratios
from tests.cache.effort import FULL, QUICK, Effort
from tests.cache.servers import Servers
from tests.figures import Figure, show
from tests.servers import watchdog

# one module each, with a function of this form
FAMILIES: dict[str, Callable[[Effort, int, Servers], AsyncIterator[Figure]]] = {
    "hits": hits.figures,
    "costs": costs.figures,
    "herds": herds.figures,
    "processes": processes.figures,
    "faults": faults.figures,
    "ratios": ratios.figures,
    "growth": growth.figures,
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.cache", description=__doc__)
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON object a line instead of a table")
    add("--quick", action="store_true", help="finish within a minute: fewer keys and requests")
    add("--seed", type=int, help="of all choices; a new one if left out, printed in any case")
    add("--family", action="append", choices=list(FAMILIES), help="only these figures; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the figures; return 1 if one misses its limit."""
    given = options(arguments)
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    logging.getLogger("router").addHandler(logging.NullHandler())  # failures are part of the game here
    servers = Servers()
    try:
        found = asyncio.run(
            _all(given.family or list(FAMILIES), QUICK if given.quick else FULL, seed, servers)
        )
    finally:
        servers.close()
    return show(f"cache, seed {seed}", found, as_json=given.json)


async def _all(families: Sequence[str], effort: Effort, seed: int, servers: Servers) -> list[Figure]:
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    found: list[Figure] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        for name in families:
            bar.update(task, description=name)
            async for figure in FAMILIES[name](effort, seed, servers):
                found.append(figure)
                bar.update(task, description=f"{name}: {figure.name}")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        watchdog.dismiss()  # not in main(): a test that calls it has servers of its own
