"""Tell the demonstration: to people as rows that fit their terminal, to programs as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from router.cli.screen import ROLES, printable, table, write_json
from router.demo import Told
from router.events import RequestFailed, RetryScheduled
from router.metrics import Summary
from router.pools.bounds import PoolStatus
from router.reasons import Reason
from router.status import Explanation, Status

# Each row is printed when its request ends, so the widths are fixed before the first one is known.
_WIDTHS = {"tenant": 7, "schema": 9, "statement": 0, "node": 8, "role": 7, "reason": 11, "rows": 4, "ms": 6}
_RIGHT = frozenset({"rows", "ms"})
_INDENT = 2
_REASON = max(map(len, Reason))
_NARROWEST, _WIDEST = 17, 76  # columns of the statement, which gets what the others leave


class Playbill:
    """Show the demonstration to people, in colour where the terminal has them."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        fixed = sum(_WIDTHS.values()) + len(_WIDTHS) - 1 + _INDENT
        self._statement = min(max(screen.width - fixed, _NARROWEST), _WIDEST)
        self._width = fixed + self._statement
        self._headed = False
        self._unicode = screen.encoding.lower().startswith("utf")

    def step(self, number: int, title: str, text: str) -> None:
        """Begin a step with a ruled heading and a sentence."""
        heading = Text.assemble((f"{number} ", "bold yellow"), (title, "bold"))
        rule = Rule(heading, align="left", style="dim", characters="─" if self._unicode else "-")
        self._screen.print()
        self._screen.print(rule, width=self._width)
        self._indented(Text(text, "italic"))
        self._headed = False

    def request(self, event: Told) -> None:
        """Show a request as one row; a failed one with its error below."""
        if not self._headed:
            self._row({name: Text(name, "dim") for name in _WIDTHS})
            self._headed = True
        failed = isinstance(event, RequestFailed)
        role = ROLES[event.role.value]
        rows = "" if isinstance(event, RequestFailed) or event.rows < 0 else str(event.rows)
        self._row(
            {
                "tenant": Text(event.tenant, "bold"),
                "schema": Text(event.schema or "main"),
                "statement": Text(_one_line(event.sql), "red" if failed else ""),
                "node": Text(event.node.name if event.node else "none", role),
                "role": Text(event.role.value, role),
                "reason": Text(event.reason.value),
                "rows": Text(rows),
                "ms": Text(f"{event.total * 1e3:.1f}", "dim"),
            }
        )
        if isinstance(event, RequestFailed):
            self._line("!", f"{event.error}: {event.message} ({event.code})", "red")

    def _row(self, cells: dict[str, Text]) -> None:
        line = Text(" " * _INDENT)
        for index, (name, cell) in enumerate(cells.items()):
            width = _WIDTHS[name] or self._statement
            cell.truncate(width, overflow="ellipsis" if self._unicode else "crop")
            cell.align("right" if name in _RIGHT else "left", width)
            line.append(" " if index else "").append_text(cell)
        line.rstrip()
        self._screen.print(line, soft_wrap=True)

    def retry(self, event: RetryScheduled) -> None:
        """Show a failed attempt and the wait before the next."""
        wait = f"{event.delay * 1e3:.0f} ms"
        self._line(
            "~", f"{event.tenant}: attempt {event.attempt} failed ({event.error}); again in {wait}", "yellow"
        )

    def explained(self, sql: str, found: Explanation) -> None:
        """Show where a statement would go, and why."""
        role = ROLES[found.role]
        grid = Table.grid(padding=(0, 1))
        for width in (len("primary"), _REASON, None):
            grid.add_column(width=width, overflow="fold")
        grid.add_row(Text(found.role, role), Text(found.reason), Text(_one_line(sql)))
        self._indented(grid)

    def note(self, text: str) -> None:
        """Show a remark."""
        self._line("*", text, "yellow")

    def checked(self, fact: str, holds: bool) -> None:
        """Show a fact with a tick, or that it does not hold."""
        self._line(
            "+" if holds else "x", fact if holds else f"NOT SO: {fact}", "green" if holds else "bold red"
        )

    def _line(self, mark: str, text: str, style: str) -> None:
        """Print a marked line that wraps under its own text."""
        shown = {"+": "✓", "x": "✗", "~": "↻", "*": "•", "!": "└"}[mark] if self._unicode else mark
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(overflow="fold")
        grid.add_row(Text(shown, style), Text(printable(text), style))
        self._indented(grid)

    def summary(self, totals: Summary, status: Status) -> None:
        """Show the totals, and which connections are open."""
        counts: dict[str, dict[str, int]] = {
            "requests": totals["requests"],
            "reasons": totals["reasons"],
            "outcomes": totals["outcomes"],
            "errors": totals["errors"],
            "retries": totals["retries"],
            "transactions": totals["transactions"],
            "slow": {"over the threshold": totals["slow"]},
        }
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column()
        for name, values in counts.items():
            grid.add_row(name, _counts(values))
        self._indented(grid)
        self._indented(self._pools(status.pools))

    def _pools(self, pools: Sequence[PoolStatus]) -> Table:
        nodes = sorted({pool.node for pool in pools})
        shown = table(self._screen, "open connections of", *(node.rpartition("/")[2] for node in nodes))
        for column in shown.columns[1:]:
            column.justify = "right"
        sizes = {(pool.database, pool.node): str(pool.size) for pool in pools}
        for database in sorted({pool.database for pool in pools}):
            shown.add_row(database, *(sizes.get((database, node), "") for node in nodes))
        return shown

    def _indented(self, shown: RenderableType) -> None:
        self._screen.print(Padding(shown, (0, 0, 0, _INDENT), expand=False), width=self._width)


def _counts(values: dict[str, int]) -> Text:
    """Return ``read 22   write 10``, the largest first."""
    text = Text()
    for name, count in sorted(values.items(), key=lambda each: -each[1]):
        text.append("   " if text else "").append(name, ROLES.get(name, "")).append(f" {count}", "bold")
    return text


class JsonTeller:
    """Write one JSON object a line for each request, and nothing else."""

    def __init__(self) -> None:
        self._step = 0

    def step(self, number: int, title: str, text: str) -> None:
        """Remember the step for its requests."""
        self._step = number

    def request(self, event: Told) -> None:
        """Write a request; ``ms`` in milliseconds, ``rows`` -1 where unknown."""
        failed = event if isinstance(event, RequestFailed) else None
        write_json(
            {
                "step": self._step,
                "tenant": event.tenant,
                "schema": event.schema or "main",
                "sql": event.sql,
                "kind": event.kind,
                "node": event.node.name if event.node else None,
                "role": event.role.value,
                "reason": event.reason.value,
                "attempts": event.attempts,
                "rows": -1 if isinstance(event, RequestFailed) else event.rows,
                "ms": round(event.total * 1e3, 3),
                "outcome": event.outcome,
                "error": failed and failed.error,
            },
            indent=None,
        )

    def retry(self, event: RetryScheduled) -> None:
        """Leave it out: it is no request."""

    def explained(self, sql: str, found: Explanation) -> None:
        """Leave it out: nothing was requested."""

    def note(self, text: str) -> None:
        """Leave it out."""

    def checked(self, fact: str, holds: bool) -> None:
        """Leave it out: a fact that does not hold is in the last object."""

    def summary(self, totals: Summary, status: Status) -> None:
        """Leave it out: it can be counted from the requests."""


def _one_line(sql: str) -> str:
    return printable(" ".join(sql.split()))
