"""Where output goes: results to stdout, messages to stderr; colours only in a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.box import ASCII2, SIMPLE_HEAD, Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 200  # columns where nobody's terminal says; a narrow guess would cut names in a log file

ROLES = {"primary": "magenta", "replica": "cyan", "cache": "green"}
"""The colour of each role, the same in every table."""


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr as it is now: its width, its colours or none (NO_COLOR)."""
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not made.is_terminal:
        made = Console(
            stderr=stderr, highlight=False, markup=False, emoji=False, width=_PIPE_WIDTH, color_system=None
        )
    return made


def write_json(value: Any, *, indent: int | None = 2) -> None:
    """Write one JSON value to stdout; ``indent=None`` for one line."""
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")
    sys.stdout.flush()  # here, where a reader that went away can still be handled


def box_for(screen: Console) -> Box:
    """Return the lines of a table that this console can show."""
    return SIMPLE_HEAD if screen.encoding.lower().startswith("utf") else ASCII2


def table(screen: Console, *columns: str, title: str | None = None) -> Table:
    """Return an empty table in the one style of the command."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box_for(screen),
        header_style="dim",
        pad_edge=False,
    )
    for column in columns:
        made.add_column(column)
    return made


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped: a file name must not command the terminal."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def say(text: str, style: str = "") -> None:
    """Write a message to stderr, in one line however narrow the terminal."""
    console(stderr=True).print(Text(printable(text), style=style), soft_wrap=True)
