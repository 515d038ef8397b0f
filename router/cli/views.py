"""What the commands show to people: plain values in, rich tables and lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.cache.advice import ADVICE
from router.cli.screen import ROLES, printable, table
from router.cli.sentences import SENTENCES
from router.errors import Problem
from router.reasons import Reason
from router.row_security import RowFinding
from router.status import Explanation, Ping


def counted(count: int, noun: str) -> str:
    """Return ``1 tenant`` or ``2 tenants``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def show_problems(screen: Console, problems: Sequence[Problem], style: str) -> None:
    """Print one line for each problem, grouped by file; ``file:line:column`` first, as editors click it."""
    for index, (_, group) in enumerate(groupby(problems, key=lambda problem: problem.file)):
        if index:
            screen.print()
        for problem in group:
            place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
            line = Text(printable(place), style="bold")
            line.append(f" {printable(problem.message)}.", style=style)
            line.append(f" {printable(problem.remedy)}", style="not bold")
            screen.print(line, soft_wrap=True)


def show_row_findings(screen: Console, found: Sequence[RowFinding]) -> None:
    """Print one line for each place where row security does not hold."""
    for each in found:
        line = Text(printable(f"{each.cluster}/{each.database} {each.name}"), style="bold")
        line.append(f" {printable(each.fact)}.", style="red")
        line.append(f" {printable(each.remedy)}", style="not bold")
        screen.print(line, soft_wrap=True)
    style = "bold red" if found else "green"
    text = f"{counted(len(found), 'flaw')} in row security" if found else "row security: nothing found"
    screen.print(text, style=style, soft_wrap=True)


def show_explanation(screen: Console, found: Explanation) -> None:
    """Print where a statement would go, and why."""
    role = ROLES[found.role]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    names = ", ".join(found.candidates)
    own = "the database is the tenant's own" if found.rows is None else "by the user's search path"
    none = f"(none: {own})"
    rows: Iterable[tuple[str, Text]] = (
        ("tenant", Text(found.tenant, "bold")),
        ("schema", Text(found.schema or "(main)")),
        ("cluster", Text(found.cluster)),
        ("database", Text(found.database)),
        ("physical schema", Text(found.physical_schema or none)),
        *((("rows", Text(printable(found.rows))),) if found.rows else ()),
        *((("runs as", Text(found.runs_as)),) if found.runs_as else ()),
        ("role", Text(found.role, f"bold {role}")),
        ("node", Text.assemble((found.node, role), "" if len(found.candidates) == 1 else f"  (of {names})")),
        ("reason", Text.assemble((found.reason, "bold"), f"  {SENTENCES[Reason(found.reason)]}")),
        ("kind", Text(found.kind)),
        ("tables", Text(", ".join(found.tables) or "(none)")),
        ("functions", Text(", ".join(found.functions) or "(none)")),
        ("cache", _cache(found)),
        ("fingerprint", Text(found.fingerprint)),
        ("normalized", Text(printable(found.normalized))),
    )
    for name, value in rows:
        grid.add_row(name, value)
    screen.print(grid)


def _cache(found: Explanation) -> Text:
    if found.uncached:
        advice = ADVICE.get(found.uncached)
        return Text.assemble((found.uncached, "bold"), f"  {advice.fact if advice else 'cache.size is 0B'}")
    ends = f"; ended by writes to {', '.join(found.depends)}" if found.depends else ""
    kept = "if the call says so" if found.ttl is None else f"for {found.ttl:g} s, by a rule"
    asked = ", unless the database's catalog speaks against it" if found.cacheable is None else ""
    return Text(f"{kept}{asked}{ends}")


def show_standings(screen: Console, found: Explanation) -> None:
    """Print which nodes have what the read must see, and what became of tokens that could not be used."""
    shown = table(screen, "node", "role", "position", "caught up", "why")
    for node in found.nodes:
        has = Text("yes", "green") if node.caught_up else Text("no", "yellow")
        shown.add_row(
            node.name,
            Text(node.role, ROLES[node.role]),
            Text(node.position or "(unknown)", overflow="fold"),
            has,
            Text(node.why),
        )
    screen.print()
    screen.print(shown)
    for note in found.notes:
        screen.print(Text(note, "yellow"), soft_wrap=True)


def show_pings(screen: Console, pings: Sequence[Ping]) -> None:
    """Print one row for each node, and the count of those that answered."""
    shown = table(screen, "cluster", "node", "role", "address", "", "ms")
    shown.columns[5].justify = "right"
    for ping in pings:
        answer = Text("ok", "green") if ping.ok else Text("failed", "bold red")
        shown.add_row(
            ping.cluster,
            ping.node,
            Text(ping.role, ROLES[ping.role]),
            Text(ping.address, overflow="fold"),
            answer,
            f"{ping.seconds * 1e3:.1f}",
        )
    screen.print(shown)
    for ping in pings:
        if ping.error is not None:
            line = Text.assemble((f"{ping.cluster}/{ping.node}: ", "bold"), (printable(ping.error), "red"))
            screen.print(line, soft_wrap=True)
    answered = sum(ping.ok for ping in pings)
    style = "green" if answered == len(pings) else "red"
    screen.print(Text(f"{answered} of {counted(len(pings), 'node')} answered", style))
