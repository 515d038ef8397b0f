"""What was measured: the samples of each cell, and what follows from them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from tests.bench.arms import NAMES
from tests.bench.measure import Sample


@dataclass(frozen=True)
class Cell:
    """Name one thing to measure."""

    workload: str
    arm: str
    tasks: int
    loop: str


@dataclass
class Line:
    """Hold one line of the report; None where there is no such figure."""

    cell: Cell
    rps: float | None = None
    cpu_us: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    vs_bare: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the line as one object."""
        cell = self.cell
        known = {"workload": cell.workload, "arm": cell.arm, "tasks": cell.tasks, "loop": cell.loop}
        figures = {
            "rps": self.rps,
            "cpu_us": self.cpu_us,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "vs_bare": self.vs_bare,
        }
        return known | {key: short(value) for key, value in (figures | self.extra).items()}


def short(value: Any) -> Any:
    """Return a number with as many digits as mean something."""
    if isinstance(value, list):
        return [short(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


class Results:
    """Collect samples in rounds. Ratios are taken within a round, where the machine was the same for both."""

    def __init__(self) -> None:
        self.rounds: dict[Cell, dict[int, Sample]] = defaultdict(dict)
        self.missing: dict[tuple[str, str], str] = {}  # (workload or "", arm) -> reason
        self.extra: dict[Cell, dict[str, Any]] = defaultdict(dict)
        self.lines: list[Line] = []  # of the workloads that are the router's alone

    def lacks(self, workload: str, arm: str) -> str | None:
        """Return why an arm does not take part in a workload, if it does not."""
        return self.missing.get(("", arm)) or self.missing.get((workload, arm))

    def median(self, cell: Cell, figure: str) -> float | None:
        """Return the median over the rounds of one figure of a cell."""
        values = [getattr(sample, figure) for sample in self.rounds.get(cell, {}).values()]
        return median(values) if values else None

    def compare(self, cell: Cell, other: Cell, figure: str = "rps") -> list[tuple[float, float]]:
        """Return the pairs of both cells' figures, round by round."""
        mine, theirs = self.rounds.get(cell, {}), self.rounds.get(other, {})
        return [
            (getattr(mine[number], figure), getattr(theirs[number], figure))
            for number in mine
            if number in theirs
        ]

    def ratio(self, cell: Cell, other: Cell) -> float | None:
        """Return the median ratio of throughput of one cell to another."""
        ratios = [mine / theirs for mine, theirs in self.compare(cell, other)]
        return median(ratios) if ratios else None

    def all_lines(self, bare: dict[str, tuple[str, ...]]) -> Iterator[Line]:
        """Yield a line for each cell; ``bare`` names the arms that each arm is measured against."""
        groups = dict.fromkeys((cell.workload, cell.tasks, cell.loop) for cell in self.rounds)
        for workload, tasks, loop in groups:
            for arm in NAMES:
                cell = Cell(workload, arm, tasks, loop)
                if self.rounds.get(cell):
                    yield self._line(cell, bare[arm])
        yield from self.lines

    def unmeasured(self, cells: Iterable[Cell]) -> Iterator[Line]:
        """Yield a line without figures for each of the cells that could not be measured."""
        for cell in cells:
            if self.lacks(cell.workload, cell.arm) and not self.rounds.get(cell):
                yield Line(cell)

    def _line(self, cell: Cell, bare: tuple[str, ...]) -> Line:
        samples = list(self.rounds[cell].values())
        first, *more = [replace(cell, arm=name) for name in bare]
        ratios = [mine / theirs for mine, theirs in self.compare(cell, first)]
        all_rps = [sample.rps for sample in samples]
        extra: dict[str, Any] = {"rounds": len(samples), "spread": [min(all_rps), max(all_rps)]}
        if ratios:
            extra["vs_bare_spread"] = [min(ratios), max(ratios)]
        extra |= {f"vs_{other.arm}": self.ratio(cell, other) for other in more}
        return Line(
            cell,
            median(all_rps),
            self.median(cell, "cpu_us"),
            self.median(cell, "p50_us"),
            self.median(cell, "p99_us"),
            median(ratios) if ratios else None,
            extra | self.extra.get(cell, {}),
        )
