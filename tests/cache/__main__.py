"""Measure what the cache costs, what it keeps and what it never does, each figure beside its limit."""

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from tests.cache import costs, faults, growth, herds, hits, processes, ratios
from tests.cache.effort import FULL, QUICK, Effort
from tests.cache.servers import Servers
from tests.figures import Figure, command_line, measured, of, show
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
    parser = command_line("tests.cache", __doc__, FAMILIES, "keys and requests")
    parser.add_argument("--seed", type=int, help="of all choices; a new one if left out, printed in any case")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the figures; return 1 if one misses its limit."""
    given = options(arguments)
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    logging.getLogger("router").addHandler(logging.NullHandler())  # failures are part of the game here
    servers, effort = Servers(), QUICK if given.quick else FULL
    made = {name: of(FAMILIES[name], effort, seed, servers) for name in given.family or FAMILIES}
    try:
        found = asyncio.run(measured(made))
    finally:
        servers.close()
    return show(f"cache, seed {seed}", found, as_json=given.json)


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        watchdog.dismiss()  # not in main(): a test that calls it has servers of its own
