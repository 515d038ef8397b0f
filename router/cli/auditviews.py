"""What the commands of the audit show to people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from router.audit.verify import Report
from router.cli.screen import printable, table
from router.cli.views import counted

_MOST: Final = 20  # findings that are listed; a wrong key makes one of every record
_STYLES = {
    "committed": "green",
    "rolled_back": "dim",
    "failed": "red",
    "unknown": "bold yellow",
    "sent": "yellow",
}


def show_report(screen: Console, report: Report) -> None:
    """Print what is wrong, the first first, then what is worth knowing, then the verdict."""
    for finding in report.findings[:_MOST]:
        line = Text(printable(finding.place), style="bold")
        line.append(f" {finding.flaw}: {printable(finding.text)}.", style="red")
        line.append(f" {finding.remedy}", style="not bold")
        screen.print(line, soft_wrap=True)
    if len(report.findings) > _MOST:
        screen.print(f"... and {len(report.findings) - _MOST} more; --json lists all", style="red")
    for note in report.notes[:_MOST]:
        line = Text(printable(note.place), style="bold").append(f" {printable(note.text)}", style="yellow")
        screen.print(line, soft_wrap=True)
    what = f"{counted(report.records, 'record')} in {counted(report.chains, 'chain')}"
    if report.ok:
        screen.print(f"{what}: whole", style="bold green")
    else:
        screen.print(f"{what}: {counted(len(report.findings), 'flaw')}", style="bold red")
    for head in report.heads:
        screen.print(Text.assemble(("ends with ", "dim"), str(head)), soft_wrap=True)


def show_records(screen: Console, found: Sequence[dict[str, Any]]) -> None:
    """Print one row for each write."""
    shown = table(screen, "when (UTC)", "who", "tenant", "what became of it", "rows", "text")
    for facts in found:
        at = datetime.fromtimestamp(float(facts.get("at", 0)), UTC)
        outcome = str(facts.get("outcome", ""))
        times = f" (x {facts['times']})" if facts.get("times", 1) != 1 else ""
        rows = facts.get("rows", -1)
        place = str(facts.get("tenant", ""))
        if facts.get("schema"):
            place += f"/{facts['schema']}"
        shown.add_row(
            at.strftime("%Y-%m-%d %H:%M:%S"),
            Text(printable(str(facts.get("actor") or "(nobody said)"))),
            Text(printable(place)),
            Text(outcome.replace("_", " "), _STYLES.get(outcome, "")),
            "" if rows < 0 else str(rows),
            Text(printable(str(facts.get("text", ""))) + times, overflow="fold"),
        )
    screen.print(shown)
