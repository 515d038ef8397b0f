"""A measured figure beside its limit: what the long commands take, print and return is the same for all."""

import argparse
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """Hold one figure; it is met if ``value`` is at most ``limit``, or at least with ``least``."""

    name: str
    value: float
    limit: float
    unit: str = ""
    least: bool = False
    note: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether the figure is met; NaN, for what could not be measured, never is."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def json(self) -> dict[str, Any]:
        """Return the figure for machines."""
        value = None if self.value != self.value else round(self.value, 6)
        found = {"name": self.name, "value": value, "limit": self.limit, "ok": self.ok, "unit": self.unit}
        return found | ({"note": self.note} if self.note else {})


#: Yields figures; is given what says meanwhile how far it is.
Family = Callable[[Callable[[str], None]], AsyncIterator[Figure]]


def of(figures: Callable[..., AsyncIterator[Figure]], *given: object) -> Family:
    """Return a family that says nothing on its way."""
    return lambda say: figures(*given)


def command_line(
    module: str, description: str | None, families: Iterable[str], fewer: str
) -> argparse.ArgumentParser:
    """Return what reads a command's options; ``fewer`` says what there is less of in a quick run."""
    parser = argparse.ArgumentParser(f"python -m {module}", description=description)
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON object a line instead of a table")
    add("--quick", action="store_true", help=f"finish within a minute: fewer {fewer}")
    add("--family", action="append", choices=list(families), help="only these figures; may be repeated")
    return parser


async def measured(families: Mapping[str, Family]) -> list[Figure]:
    """Return the figures of some families, by name; show the way there where there is a terminal."""
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    found: list[Figure] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        for name, family in families.items():

            def say(text: str, name: str = name) -> None:
                bar.update(task, description=f"{name}: {text}")

            bar.update(task, description=name)
            async for figure in family(say):
                found.append(figure)
                say(figure.name)
    return found


def show(title: str, figures: Iterable[Figure], *, as_json: bool) -> int:
    """Print the figures, one JSON object a line or a table; return the exit code: 1 if one is missed."""
    found = list(figures)
    if as_json:
        for figure in found:
            print(json.dumps(figure.json()))
    else:
        # rich takes 80 columns where there is no terminal
        Console(width=None if sys.stdout.isatty() else 140).print(_table(title, found))
    return int(not found or not all(figure.ok for figure in found))


def _table(title: str, figures: list[Figure]) -> Table:
    table = Table("figure", title=title, title_justify="left")
    for head in ("value", "limit"):
        table.add_column(head, justify="right")
    table.add_column("")
    for figure in figures:
        sign = ">=" if figure.least else "<="
        word = "[green]ok[/]" if figure.ok else "[bold red]missed[/]"
        table.add_row(
            figure.name,
            f"{_number(figure.value)} {figure.unit}".rstrip(),
            f"{sign} {_number(figure.limit)} {figure.unit}".rstrip(),
            f"{word} {figure.note}".rstrip(),
        )
    return table


def _number(value: float) -> str:
    if value != value:
        return "not measured"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"
