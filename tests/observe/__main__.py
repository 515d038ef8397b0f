"""Measure what observing a router costs and withstands, each figure beside its limit."""

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.cache.servers import Servers
from tests.figures import Figure, show
from tests.observe import boards, digests, listeners, overhead, scrape
from tests.observe.effort import FULL, QUICK, Effort
from tests.servers import watchdog

# one module each, with a function of this form
FAMILIES: dict[str, Callable[[Effort, Servers], AsyncIterator[Figure]]] = {
    "overhead": overhead.figures,
    "listeners": listeners.figures,
    "scrape": scrape.figures,
    "boards": boards.figures,
    "digests": digests.figures,
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.observe", description=__doc__)
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON object a line instead of a table")
    add("--quick", action="store_true", help="finish within a minute: fewer requests and rounds")
    add("--family", action="append", choices=list(FAMILIES), help="only these figures; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the figures; return 1 if one misses its limit."""
    given = options(arguments)
    logging.getLogger("router").propagate = False  # failures are part of the game here
    servers = Servers()
    try:
        found = asyncio.run(_all(given.family or list(FAMILIES), QUICK if given.quick else FULL, servers))
    finally:
        servers.close()
    return show("observability", found, as_json=given.json)


async def _all(families: Sequence[str], effort: Effort, servers: Servers) -> list[Figure]:
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    found: list[Figure] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        for name in families:
            bar.update(task, description=name)
            async for figure in FAMILIES[name](effort, servers):
                found.append(figure)
                bar.update(task, description=f"{name}: {figure.name}")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        watchdog.dismiss()  # not in main(): a test that calls it has servers of its own
