"""Measure the router beside the bare drivers, the pools and the proxies."""

import argparse
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench import markdown, plan
from tests.bench.arms import NAMES, arm
from tests.bench.decision import decision
from tests.bench.place import POOLED, World, world
from tests.bench.report import print_json, print_tables
from tests.bench.results import Cell, Results
from tests.bench.runs import Effort, run_all
from tests.bench.tenants import tenants
from tests.bench.workloads import ALONE, WORKLOADS
from tests.servers import watchdog


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON object a line instead of tables")
    add("--quick", action="store_true", help="finish within a minute: short slices, one number of tasks")
    add("--check", action="store_true", help="exit 1 if a figure misses its limit; with --json print them")
    add("--workload", action="append", choices=[*WORKLOADS, *ALONE], help="only this one; may be repeated")
    add("--arm", action="append", choices=NAMES, help="only this one and its bare driver; may be repeated")
    add("--loop", action="append", choices=plan.LOOPS, help="only this event loop; may be repeated")
    add("--rounds", type=int, help="how many rounds")
    add("--markdown", type=Path, metavar="FILE", help="put the saved lines of --json into the documentation")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit code whether a figure was missed, if asked to."""
    given = options(arguments)
    if given.markdown:
        markdown.write(given.markdown)
        return 0
    effort = plan.QUICK if given.quick else plan.FULL
    effort = replace(effort, rounds=given.rounds or effort.rounds, loops=tuple(given.loop or effort.loops))
    workloads = given.workload or [*WORKLOADS, *ALONE]
    arms = set(given.arm or NAMES)
    arms |= {other for name in arms for other in _bare(name)}
    cells = list((plan.quick if given.quick else plan.full)(workloads, arms, effort.loops))
    results = Results()
    places = {plan.place_of(cell.arm) for cell in cells}
    alone = [name for name in ALONE if name in workloads and "router" in arms]
    if "tenants" in alone:
        places.add("postgresql")
    logging.getLogger("router").addHandler(logging.NullHandler())  # slow requests are part of the game here
    if places:
        _install()
    try:
        with world(places) as servers:
            _measure(cells, servers, effort, results)
            _measure_alone(alone, servers, effort, results)
    finally:
        watchdog.dismiss()
    lines = results.all_lines({name: _bare(name) for name in arms})
    if "tenants" in alone:
        cells.append(Cell("tenants", "router", POOLED, effort.loops[0]))
    reached = print_json(results, lines, cells, given.check) if given.json else print_tables(results, lines)
    return int(given.check and not all(figure.ok for figure in reached))


def _bare(name: str) -> tuple[str, ...]:
    try:
        return arm(name).bare
    except ImportError:
        return ()  # it will be reported as missing


def _install() -> None:
    """Install servers and proxies where we may, and say so on stderr: standard output is for the figures."""
    command = [sys.executable, "-m", "tests.servers.install", "bench"]
    subprocess.run(command, stdout=sys.stderr, check=False)  # what fails is reported as missing


def _measure(cells: list[Cell], servers: World, effort: Effort, results: Results) -> None:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    # refreshed by hand between slices: a thread of its own would be measured too
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=len(cells) * effort.rounds)

        def progress(cell: Cell) -> None:
            bar.update(task, advance=1, description=f"{cell.workload} {cell.arm} {cell.tasks} {cell.loop}")
            bar.refresh()

        run_all(cells, servers, effort, results, progress)


def _measure_alone(names: list[str], servers: World, effort: Effort, results: Results) -> None:
    if "decision" in names:
        results.lines.append(decision(effort.rounds))
    if "tenants" in names:
        place = servers.places.get("postgresql")
        if place is None:
            results.missing["tenants", "router"] = servers.missing["postgresql"]
        else:
            results.lines.extend(tenants(place, effort))


if __name__ == "__main__":
    sys.exit(main())
