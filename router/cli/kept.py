"""What commands do about secrets that stores keep: read each once, and stand in for the application."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from router import building
from router.cli.screen import printable
from router.config import Config
from router.config.references import Stored
from router.stores.calls import Function
from router.stores.store import Unanswered


@dataclass(frozen=True, slots=True)
class Reading:
    """Say whether a secret can be had."""

    secret: str  # as configured, without the field
    ok: bool | None  # ``None``: only the application can tell
    message: str


def stand_ins(config: Config) -> Mapping[str, Function]:
    """Return functions in place of those that only the application has."""
    return {each.path: _elsewhere for each in config.stored if each.store == "call"}


def _elsewhere() -> str:
    raise NotImplementedError


async def read_all(config: Config) -> list[Reading]:
    """Ask the stores for every secret once, all at the same time."""
    clocks = building.Clocks(time.monotonic, time.time)
    keeper = building.keeper(config, {}, lambda event: None, clocks, random.Random())  # noqa: S311 - jitter
    parts: dict[str, tuple[Stored, ...]] = {}
    for each in config.stored:
        parts[each.source] = (*parts.get(each.source, ()), each)

    async def read(source: str, wanted: tuple[Stored, ...]) -> Reading:
        if wanted[0].store == "call":
            return Reading(source, None, "a function of the application")
        got = await keeper.get(wanted)
        return Reading(source, False, got.why) if isinstance(got, Unanswered) else Reading(source, True, "")

    found = await asyncio.gather(*(read(source, wanted) for source, wanted in parts.items()))
    await keeper.close()
    return list(found)


_WORDS = {True: Text("yes", "green"), False: Text("no", "red"), None: Text("not asked")}


def show_readings(screen: Console, readings: list[Reading]) -> None:
    """Print which secrets can be had."""
    table = Table("secret", "can be had", "why", box=None, pad_edge=False)
    for each in readings:
        table.add_row(printable(each.secret), _WORDS[each.ok], printable(each.message))
    screen.print(table)
