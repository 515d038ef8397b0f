"""What ``router slow`` shows to people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from router.cli.screen import printable, table
from router.cli.views import counted
from router.digests import ORIGIN, OTHERS, STEPS, Digest

_BARS = " ▁▂▃▄▅▆▇█"
_WIDE = 140  # columns; below, a statement has no room beside its figures
_TEXT = 400  # characters of a statement in a list


def span(seconds: float) -> str:
    """Return a time as people read it: three digits and a unit."""
    if seconds < 0.0995:
        return f"{seconds * 1e3:.2g} ms" if seconds < 0.00995 else f"{seconds * 1e3:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    if seconds < 5970:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.3g} h" if seconds < 3.6e6 else f"{seconds / 3600:,.0f} h"


def number(count: float) -> str:
    """Return a count as people read it: 1,234 or 5.6M."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:,.0f}"


def show_digests(
    screen: Console, shown: Sequence[Digest], known: Sequence[Digest], *, processes: int
) -> None:
    """Print one row for each statement, and what share of all time that is."""
    if not known:
        screen.print("no request has been counted yet", style="yellow")
        return
    whole = sum(each.total for each in known)
    screen.print(digests_table(screen, shown, whole))
    part = sum(each.total for each in shown)
    text = f"{counted(len(shown), 'statement')} of {len(known):,}, {_share(part, whole)} of {span(whole)}"
    screen.print(f"{text}, in {processes} {'process' if processes == 1 else 'processes'}", style="dim")


def digests_table(screen: Console, shown: Iterable[Digest], whole: float) -> RenderableType:
    """Return the table of statements; in a narrow terminal a statement stands below its figures."""
    if screen.width < _WIDE:
        return _narrow(screen, shown, whole)
    made = table(screen, *_FIGURES, "statement")
    for column in made.columns[:-1]:
        column.justify, column.no_wrap = "right", True
    made.columns[-1].overflow = "fold"
    for each in shown:
        made.add_row(*_figures(each, whole), Group(*_described(each)))
    return made


_FIGURES = ("total", "%", "load", "count", "mean", "p99", "max", "wait", "rows", "slow", "errors")
_WIDTHS = (8, 4, 5, 7, 7, 7, 7, 4)  # of the first of them, where there is no room for all


def _narrow(screen: Console, shown: Iterable[Digest], whole: float) -> RenderableType:
    head = Text(" ".join(name.rjust(width) for name, width in zip(_FIGURES, _WIDTHS, strict=False)), "dim")
    found = [head]
    for each in shown:
        line = Text(" ").join(_right(*pair) for pair in zip(_figures(each, whole), _WIDTHS, strict=False))
        found.append(line)
        for text in _described(each):
            text.truncate(2 * screen.width - 8, overflow="ellipsis")
            found.append(Text("    ") + text)
    return Group(*found)


def _right(text: Text, width: int) -> Text:
    text.pad_left(max(width - len(text), 0))
    return text


def _figures(digest: Digest, whole: float) -> list[Text]:
    return [
        Text(span(digest.total), "bold"),
        Text(_share(digest.total, whole)),
        Text(f"{digest.load:.2f}", "bold yellow" if digest.load >= 1 else ""),
        Text(number(digest.count)),
        Text(span(digest.mean)),
        Text(span(digest.p99)),
        Text(span(digest.maximum)),
        Text(_share(digest.waited, digest.total), "yellow" if digest.waited > digest.total / 4 else ""),
        Text(number(digest.rows)),
        Text(number(digest.slow) if digest.slow else ""),
        Text(number(digest.errors) if digest.errors else "", "red"),
    ]


def _described(digest: Digest) -> tuple[Text, Text]:
    text = Text(printable(digest.text))
    text.truncate(_TEXT, overflow="ellipsis")
    about = Text(digest.fingerprint, "dim")
    by = ", ".join(name for name in digest.tenants if name != OTHERS)
    about.append(f"  {printable(by)}", "not dim cyan")
    about.append(f"  {printable(', '.join(digest.nodes))}")
    if digest.plan is not None:
        about.append("  plan", "not dim green")
    if digest.trace_id is not None:
        about.append(f"  trace {printable(digest.trace_id)}")
    return text, about


def show_digest(screen: Console, digest: Digest) -> None:
    """Print all that is known of one statement."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    rows = {
        "fingerprint": digest.fingerprint,
        "statement": printable(digest.text),
        "kind": digest.kind,
        "tables": ", ".join(digest.tables) or "(none)",
        "requests": f"{digest.count:,}, {digest.slow:,} of them slow, {digest.errors:,} failed; "
        f"{digest.rows:,} rows; {digest.cached:,} more were answered from memory",
        "time": f"{span(digest.total)} in sum, {span(digest.waited)} of it until a connection was had",
        "one request": f"{span(digest.mean)} on average, {span(digest.p50)} p50, {span(digest.p99)} p99, "
        f"{span(digest.maximum)} at most",
        "load": f"{digest.load:.2f} at once during the last minute or two",
        "tenants": _parts(digest.tenants, span),
        "nodes": _parts(digest.nodes, number),
        "counted since": _moment(digest.since)
        + (f"; before that {span(digest.missed)} at most" if digest.missed else ""),
        "asked last": _moment(digest.last),
        "last trace": printable(digest.trace_id or "(none)"),
        "last error": printable(digest.error or "(none)"),
    }
    for name, value in rows.items():
        grid.add_row(name, Text(value))
    grid.add_row("durations", histogram(digest.durations))
    screen.print(grid)
    if digest.plan is not None:
        head = Text.assemble(
            ("\nplan ", "bold"), (f"of {_moment(digest.plan.at)}, on {printable(digest.plan.node)}", "dim")
        )
        screen.print(Group(head, Padding(Text(printable(digest.plan.text)), (0, 0, 0, 2))), soft_wrap=True)


def histogram(durations: Mapping[int, int]) -> Text:
    """Return the durations of recent requests as bars, one for each half of a doubling."""
    half = STEPS // 2
    counts: dict[int, int] = {}
    for bucket, count in durations.items():
        counts[bucket // half] = counts.get(bucket // half, 0) + count
    if not counts:
        return Text("(none)")
    first, last, most = min(counts), max(counts), max(counts.values())
    bars = "".join(_BARS[-(-counts.get(each, 0) * 8 // most)] for each in range(first, last + 1))
    low, high = (2.0 ** ((each * half - ORIGIN) / STEPS) for each in (first, last + 1))
    return Text.assemble((f"{span(low)} ", "dim"), (bars, "cyan"), (f" {span(high)}", "dim"))


def _parts(parts: Mapping[str, float], shown: Callable[[float], str]) -> str:
    return ", ".join(f"{printable(name)} {shown(value)}" for name, value in parts.items()) or "(none)"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole > 0 else "0%"


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
