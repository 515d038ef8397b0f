"""Measure what many tenants cost and what they notice of each other, each figure beside its limit."""

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from tests.figures import Figure, command_line, measured, of, show
from tests.servers import watchdog
from tests.tenancy import catalog, first, many, neighbours, reloading, weights
from tests.tenancy.effort import FULL, QUICK, Effort
from tests.tenancy.place import Place

FAMILIES: dict[str, Callable[[Effort, Place], AsyncIterator[Figure]]] = {
    "schemas": many.schemas,
    "databases": many.databases,
    "first": first.figures,
    "neighbours": neighbours.figures,
    "weights": weights.figures,
    "catalog": catalog.figures,
    "reload": reloading.figures,
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line("tests.tenancy", __doc__, FAMILIES, "schemas, databases and rounds")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the figures; return 1 if one misses its limit."""
    given = options(arguments)
    logging.getLogger("router").propagate = False  # refusals are part of the game here
    place, effort = Place(), QUICK if given.quick else FULL
    made = {name: of(FAMILIES[name], effort, place) for name in given.family or FAMILIES}
    try:
        found = asyncio.run(measured(made))
    finally:
        place.close()
    return show("tenancy", found, as_json=given.json)


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        watchdog.dismiss()  # not in main(): a test that calls it has servers of its own
