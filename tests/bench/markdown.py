"""The tables of docs/performance.md, out of the saved lines of ``--json``."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.arms import NAMES
from tests.bench.workloads import WORKLOADS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"

_PART = re.compile(r"(?<=<!-- bench -->\n).*?(?=<!-- end of bench -->)", re.DOTALL)
_PARTS = {  # key of the line of the decision: what it is
    "lookup_us": "look the tenant up",
    "classify_us": "classify a known text",
    "decide_us": "decide between primary and replicas",
    "choose_us": "choose one of two replicas",
    "cpu_us": "these four together",
    "take_give_us": "take a connection from its pool and give it back",
    "event_us": "build the event of a request and count it in the metrics",
    "cold_us": "classify a text never seen before",
}
Object = dict[str, Any]


def write(saved: Path) -> None:
    """Put the tables of a saved run into the page."""
    lines = [json.loads(text) for text in saved.read_text().splitlines() if text.startswith("{")]
    PAGE.write_text(inserted(PAGE.read_text(), tables(lines)))


def inserted(page: str, text: str) -> str:
    """Return the page with ``text`` between its marks; raises ValueError if it has not one pair of them."""
    result, count = _PART.subn(lambda _: text, page)
    if count != 1:
        raise ValueError(f"{count} pairs of <!-- bench --> and <!-- end of bench --> in the page, not 1")
    return result


def tables(lines: list[Object]) -> str:
    """Return all tables in Markdown; a part that was not measured is left out."""
    measured = [line for line in lines if line.get("rps") is not None]
    rounds = {line["rounds"] for line in measured if line["workload"] in WORKLOADS}
    parts: list[str] = []
    if rounds:
        many = f"{min(rounds)} to {max(rounds)}" if len(rounds) > 1 else f"{max(rounds)}"
        parts.append(f"Medians of {many} rounds; ratios are throughput.\n")
    for tasks, loop in sorted({_setting(line) for line in measured if line["workload"] == "point_read"}):
        head = ("arm", "req/s", "CPU µs", "p50 µs", "p99 µs", "vs bare", "min..max")
        parts += _section(f"Point read, {_many(tasks)}, {loop}", head, _reads(measured, tasks, loop))
    names = [name for name in WORKLOADS if any(line["workload"] == name for line in measured)]
    if names:
        parts += _section("Throughput against the bare driver", ("arm", *names), _ratios(measured, names))
    for line in measured:
        if line["workload"] == "decision":
            rows = [(what, _number(line[key])) for key, what in _PARTS.items() if key in line]
            parts += _section("Parts of a request", ("part", "µs"), rows)
    tenants = [line for line in measured if line["workload"] == "tenants"]
    rows = [(f"{line['tenants']:,}", _number(line["rps"]), _ratio(line["vs_one_tenant"])) for line in tenants]
    parts += _section("Many tenants", ("tenants", "req/s", "vs one tenant"), rows)
    parts += [
        f"A tenant in use takes {line['bytes_per_tenant']:,.0f} bytes; 10,000 tenant files load in "
        f"{line['load_10000_files_s']:.2g} s.\n"
        for line in tenants
        if "bytes_per_tenant" in line
    ]
    limits = [line for line in lines if "limit" in line]
    figures = [(line["name"], _number(line["value"]), _number(line["limit"])) for line in limits]
    parts += _section("Figures beside their limits", ("figure", "value", "limit"), figures)
    gaps = sorted({(line["arm"], line["workload"], line["missing"]) for line in lines if "missing" in line})
    rows = [(_code(arm), workload, why) for arm, workload, why in gaps]
    parts += _section("Not measured", ("arm", "workload", "why"), rows, "---")
    return "\n" + "\n".join(parts) + "\n"


def _section(
    title: str, head: Iterable[str], rows: Iterable[Iterable[str]], column: str = "---:"
) -> Iterator[str]:
    filled = [f"| {' | '.join(text.replace('|', ' ') for text in row)} |" for row in rows]
    if filled:
        names = list(head)
        rule = "| --- |" + f" {column} |" * (len(names) - 1)
        yield f"### {title}\n"
        yield "\n".join([f"| {' | '.join(names)} |", rule, *filled]) + "\n"


def _reads(lines: list[Object], tasks: int, loop: str) -> Iterator[tuple[str, ...]]:
    for line in sorted(lines, key=lambda line: NAMES.index(line["arm"])):
        if line["workload"] == "point_read" and _setting(line) == (tasks, loop):
            figures = (_number(line[key]) for key in ("rps", "cpu_us", "p50_us", "p99_us"))
            low, high = line.get("vs_bare_spread", (None, None))
            spread = "" if low is None else f"{_ratio(low)}..{_ratio(high)}"
            yield (_code(line["arm"]), *figures, _ratio(line["vs_bare"]), spread)


def _ratios(lines: list[Object], names: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield for each arm its ratios on uvloop, if that was measured, with the most tasks of each workload."""
    found: dict[tuple[str, str], Object] = {}
    for line in sorted(lines, key=lambda line: (line["loop"] == "uvloop", line["tasks"])):
        found[line["arm"], line["workload"]] = line  # the last is the one to show
    for arm in NAMES:
        row = [_ratio(found.get((arm, name), {}).get("vs_bare")) for name in names]
        if any(row):
            yield (_code(arm), *row)


def _setting(line: Object) -> tuple[int, str]:
    return line["tasks"], line["loop"]


def _many(tasks: int) -> str:
    return "1 task" if tasks == 1 else f"{tasks} tasks"


def _code(name: str) -> str:
    return f"`{name}`"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
