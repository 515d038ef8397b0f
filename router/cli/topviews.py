"""What ``router top`` shows: sections of one line a row, as many rows as the terminal has room for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.cli.merging import Row, together
from router.cli.screen import ROLES, printable
from router.cli.slowviews import number, span

SORTS = ("load", "total", "p99", "maximum", "count", "errors")
"""What the statements can be sorted by, in the order of the key."""

_WIDE = 110  # columns; below, what can be missed is left out
_ENDLESS = 10_000  # lines, where nobody has to see all at once
_LEAST = 2  # rows of a section, before any gets more
_LEVELS = {"bad": "bold red", "warn": "yellow", "good": "green", "info": ""}


@dataclass(slots=True)
class Seen:
    """Hold what one process has said last, and since when it says nothing any more."""

    url: str
    picture: Row | None = None
    error: str | None = None
    since: float = 0.0  # wall clock: of the first error in a row, or of its return
    returned: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Hold a table that may be cut."""

    heads: tuple[str, ...]  # the last one takes what room is left; "-" before a name: to the right
    rows: Sequence[tuple[Text, ...]]
    most: int  # rows


def rooms(wanted: Sequence[int], height: int) -> list[int]:
    """Return how many rows each section gets of ``height`` lines; each that is shown has a head and a blank.

    The first ones come first: a few rows for each, then one more for each in turn.
    """
    given = [0] * len(wanted)
    left = height
    for index, rows in enumerate(wanted):
        first = min(rows, _LEAST)
        if first and left >= first + 2:
            given[index] = first
            left -= first + 2
    while left > 0:
        hungry = [index for index, rows in enumerate(wanted) if 0 < given[index] < rows]
        if not hungry:
            break
        for index in hungry[:left]:
            given[index] += 1
        left -= min(len(hungry), left)
    return given


def screenful(
    screen: Console,
    seen: Sequence[Seen],
    now: float,
    *,
    sort: str = SORTS[0],
    foot: str = "",
    height: int = 0,
) -> RenderableType:
    """Return all that fits into ``height`` lines, or all there is."""
    width = screen.width
    parts: list[RenderableType] = [*_heads(seen, now, width)]
    pictures = [each.picture for each in seen if each.picture is not None]
    if pictures:
        sections = _sections(together(pictures), sort, width >= _WIDE)
        room = (height or _ENDLESS) - len(parts) - 2 * bool(foot)
        given = rooms([min(len(each.rows), each.most) for each in sections], room)
        for section, rows in zip(sections, given, strict=True):
            if rows:
                parts += ["", _table(section, rows, fill=height > 0)]
    if foot:
        parts += ["", Text(foot, "dim")]
    return Group(*parts)


def _table(section: Section, rows: int, *, fill: bool) -> Table:
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=fill)
    last = section.heads[-1]
    for head in section.heads:
        made.add_column(
            head.lstrip("-"),
            justify="right" if head.startswith("-") else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if head == last else None,
        )
    for row in section.rows[:rows]:
        made.add_row(*row)
    return made


def _heads(seen: Sequence[Seen], now: float, width: int) -> list[Text]:
    pictures = [each.picture for each in seen if each.picture is not None and each.error is None]
    whole = together(pictures)
    title = Text.assemble(
        ("router top ", "bold"),
        time.strftime(" %H:%M:%S ", time.localtime(now)),
        (f" {whole['requests']:,.1f}/s", "bold cyan"),
        (f"  {whole['errors']:,.1f} errors/s", "bold red" if whole["errors"] else "dim"),
        "" if whole["p99"] is None else f"  p99 {span(whole['p99'])}",
        f"  {whole['running_total']:,} running",
        ("" if width < _WIDE else f"  {whole['tenants']:,} tenants", "dim"),
    )
    cache = whole["cache"]
    if cache is not None and cache["ratio"] is not None:
        title.append(f"  cache {cache['ratio']:.0%}", "green" if cache["ratio"] > 0.5 else "")
    lines = [title]
    if len(seen) > 1 or any(each.error for each in seen):
        lines += [_process(each, now) for each in seen]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _process(seen: Seen, now: float) -> Text:
    picture = seen.picture
    line = Text.assemble((printable(seen.url), "bold"))
    if seen.error is not None:
        for_ = f" for {span(now - seen.since)}" if now - seen.since >= 1 else ""
        line.append(f"  gone{for_}: {printable(seen.error)}", "bold red")
        line.append(
            "; asking again" if picture is None else "; asking again, below is what it said last", "red"
        )
        return line
    if picture is not None:
        pace = picture["pace"]
        line.append(f"  pid {picture['pid']}  up {span(picture['up'])}", "dim")
        line.append(f"  {pace['requests']:,.1f}/s")
        line.append(f"  {pace['errors']:,.1f} errors/s", "red" if pace["errors"] else "dim")
        line.append("" if pace["p99"] is None else f"  p99 {span(pace['p99'])}")
    if seen.returned and now - seen.since < 10:
        line.append("  is back", "green")
    return line


# --- sections --------------------------------------------------------------------------------------------


def _sections(whole: Row, sort: str, wide: bool) -> list[Section]:
    statements = sorted(whole["statements"], key=lambda row: -row[sort])
    return [
        Section(*_troubles(whole["troubles"]), 5),
        Section(*_nodes(whole["nodes"], wide), 12),
        Section(*_statements(statements, sort, wide), 20),
        Section(*_running(whole["running"], wide), 8),
        Section(*_tenants(whole["busy"], whole["queues"]), 8),
        Section(*_pools(whole["pools"], wide), 8),
        Section(*_changes(whole["changes"]), 6),
    ]


Made = tuple[tuple[str, ...], list[tuple[Text, ...]]]


def _troubles(rows: Sequence[Row]) -> Made:
    return ("trouble", "where", "what"), [
        (Text(each["level"], _LEVELS.get(each["level"], "")), _text(each["where"]), _text(each["text"]))
        for each in rows
    ]


def _nodes(rows: Sequence[Row], wide: bool) -> Made:
    heads = ("node", "role", "state", "-running", "-latency", "-lag", *(("address",) if wide else ("",)))
    return heads, [
        (
            Text(f"{each['cluster']}/{each['name']}", "bold"),
            Text(each["role"], ROLES.get(each["role"], "")),
            _state(each),
            Text(number(each["in_flight"])),
            Text(span(each["latency"]) if each["latency"] else ""),
            Text("" if each["lag_seconds"] is None else span(each["lag_seconds"])),
            _text(each["address"] if wide else "", "dim"),
        )
        for each in rows
    ]


def _state(node: Row) -> Text:
    if node["breaker"]:
        return Text("breaker open", "bold red")
    if not node["usable"]:
        return Text(f"out: {printable(node['reason'])}" if node["reason"] else "out", "bold red")
    return Text("ok", "green")


def _statements(rows: Sequence[Row], sort: str, wide: bool) -> Made:
    names = ("load", "total", "count", "p99", "maximum") if wide else ("load", "total", "p99")
    shown: dict[str, Callable[[Any], str]] = {
        "load": lambda value: f"{value:.2f}", "count": number, "total": span, "p99": span, "maximum": span,
        "errors": lambda value: number(value) if value else "",
    }  # fmt: skip
    names = (*dict.fromkeys((sort, *names)), "errors") if sort != "errors" else ("errors", *names)
    heads = (*(f"-{'max' if name == 'maximum' else name}" for name in names), "tenants", "statement")
    return heads, [
        (
            *(Text(shown[name](each[name]), _style(name, each, sort)) for name in names),
            _text(", ".join(each["tenants"][: 2 if wide else 1]), "cyan"),
            _text(each["text"]),
        )
        for each in rows
    ]


def _style(name: str, row: Row, sort: str) -> str:
    if name == "errors":
        return "red"
    return "bold yellow" if name == "load" and row["load"] >= 1 else "bold" if name == sort else ""


def _running(rows: Sequence[Row], wide: bool) -> Made:
    heads = ("-running for", "tenant", *(("task",) if wide else ()), "statement")
    return heads, [
        (
            Text(span(each["seconds"]), "bold yellow" if each["seconds"] >= 1 else ""),
            _text(each["tenant"], "cyan"),
            *((_text(each["task"], "dim"),) if wide else ()),
            _text(each["text"]),
        )
        for each in rows
    ]


def _tenants(busy: Sequence[Row], queues: Sequence[Row]) -> Made:
    queued = {each["tenant"]: each for each in queues}
    heads = ("tenant", "-req/s", "-errors/s", "-load", "-waiting", "-holds", "-in queue", "")
    return heads, [
        (
            _text(each["tenant"], "cyan"),
            Text(f"{each['requests']:,.1f}"),
            Text(f"{each['errors']:,.1f}" if each["errors"] else "", "red"),
            Text(f"{each['seconds']:.2f}"),
            Text(f"{each['waiting']:.2f}", "yellow" if each["waiting"] > each["seconds"] / 4 else ""),
            Text(number(queued.get(each["tenant"], {}).get("in_use", 0))),
            Text(number(queued.get(each["tenant"], {}).get("waiting", 0))),
            Text(""),
        )
        for each in busy
    ]


def _pools(rows: Sequence[Row], wide: bool) -> Made:
    heads = ("pool", "database", "-in use", "-idle", "-max", "-waiting", *(("user",) if wide else ("",)))
    return heads, [
        (
            _text(each["node"]),
            _text(each["database"]),
            Text(number(each["in_use"]), "yellow" if each["in_use"] >= each["max"] else ""),
            Text(number(each["idle"])),
            Text(number(each["max"])),
            Text(number(each["waiting"]) if each["waiting"] else "", "bold red"),
            _text(each["user"] if wide else "", "dim"),
        )
        for each in rows
    ]


def _changes(rows: Sequence[Row]) -> Made:
    return ("changes", "where", "what"), [
        (
            Text(time.strftime("%H:%M:%S", time.localtime(each["at"])), "dim"),
            _text(each["where"]),
            _text(
                each["text"] + (f"  ({each['count']} times)" if each["count"] > 1 else ""),
                _LEVELS[each["level"]],
            ),
        )
        for each in rows
    ]


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text).replace("\n", " "), style)
