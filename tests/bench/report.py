"""Say what was measured: tables for people, or one JSON object a line."""

import json
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from tests.bench.arms import NAMES, arm
from tests.bench.figures import Figure, figures
from tests.bench.results import Cell, Line, Results


def print_json(results: Results, lines: Iterable[Line], cells: Iterable[Cell], check: bool) -> list[Figure]:
    """Print one object for each cell, measured or missing; with ``check`` also one for each figure."""
    for line in (*lines, *results.unmeasured(cells)):
        reason = results.lacks(line.cell.workload, line.cell.arm)
        print(json.dumps(line.json() | ({} if reason is None else {"missing": reason})))
    reached = list(figures(results))
    if check:
        for figure in reached:
            print(json.dumps(figure.json()))
    return reached


def print_tables(results: Results, lines: Iterable[Line]) -> list[Figure]:
    """Print a table for each workload, number of tasks and loop, then notes, then figures beside limits."""
    # rich takes 80 columns where there is no terminal
    console = Console(width=None if sys.stdout.isatty() else 160)
    groups: dict[str, list[Line]] = {}
    for line in lines:
        cell = line.cell
        groups.setdefault(f"{cell.workload}: {cell.tasks} tasks, {cell.loop}", []).append(line)
    for title, group in groups.items():
        console.print(_table(title, group))
    _notes(console, results)
    reached = list(figures(results))
    table = Table("figure", "value", "limit", "", title="figures", title_justify="left")
    for figure in reached:
        sign = "≥" if figure.least else "<"
        table.add_row(
            figure.name, f"{figure.value:.4g}", f"{sign} {figure.limit:g}", "ok" if figure.ok else "miss"
        )
    console.print(table)
    return reached


def _table(title: str, lines: list[Line]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("arm")
    for name in ("req/s", "min..max", "CPU µs", "p50 µs", "p99 µs", "vs bare", "min..max"):
        table.add_column(name, justify="right")
    table.add_column("more")
    for line in lines:
        extra = dict(line.extra)
        spread, ratios = extra.pop("spread", None), extra.pop("vs_bare_spread", None)
        extra.pop("rounds", None)
        table.add_row(
            line.cell.arm,
            _number(line.rps),
            _range(spread),
            _number(line.cpu_us),
            _number(line.p50_us),
            _number(line.p99_us),
            "" if line.vs_bare is None else f"{line.vs_bare:.2f}",
            "" if ratios is None else f"{ratios[0]:.2f}..{ratios[1]:.2f}",
            ", ".join(f"{key}={_number(value)}" for key, value in extra.items()),
        )
    return table


def _notes(console: Console, results: Results) -> None:
    for (workload, name), reason in sorted(results.missing.items()):
        console.print(
            f"{name}{f' in {workload}' if workload else ''}: {reason}", markup=False, soft_wrap=True
        )
    for name in NAMES:
        try:
            note = arm(name).note
        except ImportError:
            continue
        if note:
            console.print(f"{name}: {note}", markup=False, soft_wrap=True)
    console.print(
        "All: same statement, client loop, connections a server, no TLS, collector on. Medians over the "
        "rounds; ratios are taken within a round.",
        soft_wrap=True,
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _range(spread: list[float] | None) -> str:
    return "" if spread is None else f"{_number(spread[0])}..{_number(spread[1])}"
