"""Look for a row of another tenant, in all isolation models and through every abuse."""

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from tests.figures import Family, Figure, command_line, measured, show
from tests.leaks import mutants, whole
from tests.leaks.effort import FULL, QUICK, Effort
from tests.leaks.world import Servers, started
from tests.servers import watchdog

# one module each, with a function of this form
FAMILIES: dict[str, Callable[[Path, Servers, Effort, Callable[[str], None]], AsyncIterator[Figure]]] = {
    "whole": whole.figures,
    "mutants": mutants.figures,
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line("tests.leaks", __doc__, FAMILIES, "reads")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check and print the figures; return 1 if one misses its limit."""
    given = options(arguments)
    logging.getLogger("router").propagate = False  # failures are part of the game here
    found = asyncio.run(_all(given.family or list(FAMILIES), QUICK if given.quick else FULL))
    return show("leaks", found, as_json=given.json)


async def _all(families: Sequence[str], effort: Effort) -> list[Figure]:
    with started() as servers:
        return await measured({name: _family(name, servers, effort) for name in families})


def _family(name: str, servers: Servers, effort: Effort) -> Family:
    async def figures(say: Callable[[str], None]) -> AsyncIterator[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            say("making tenants")
            async for figure in FAMILIES[name](Path(folder), servers, effort, say):
                yield figure

    return figures


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        watchdog.dismiss()  # not in main(): a test that calls it has servers of its own
