"""Measure what observing a router costs and withstands, each figure beside its limit."""

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from tests.cache.servers import Servers
from tests.figures import Figure, command_line, measured, of, show
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
    parser = command_line("tests.observe", __doc__, FAMILIES, "requests and rounds")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the figures; return 1 if one misses its limit."""
    given = options(arguments)
    logging.getLogger("router").propagate = False  # failures are part of the game here
    servers, effort = Servers(), QUICK if given.quick else FULL
    made = {name: of(FAMILIES[name], effort, servers) for name in given.family or FAMILIES}
    try:
        found = asyncio.run(measured(made))
    finally:
        servers.close()
    return show("observability", found, as_json=given.json)


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        watchdog.dismiss()  # not in main(): a test that calls it has servers of its own
