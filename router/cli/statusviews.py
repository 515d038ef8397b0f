"""What ``router status`` shows to people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from router.cli.asking import Answer
from router.cli.merging import Row
from router.cli.screen import ROLES, printable, table
from router.cli.slowviews import number, span
from router.cli.views import counted

_TENANTS = 10  # rows
_WIDE = 100  # columns; below, what can be missed is left out
_FULL = 0.8  # share of the budget in use that is pointed at


def show_status(screen: Console, answers: Sequence[Answer], whole: Row) -> None:
    """Print each process, then what all say of nodes, of tenants, and of what is wrong."""
    given = [each for each in answers if each.error is None]
    for each in given:
        picture = each.data
        line = Text.assemble((printable(each.url), "bold"))
        line.append(f"  pid {picture['pid']}  up {span(picture['up'])}", "dim")
        line.append(f"  {counted(picture['tenants'], 'tenant')}, configuration {picture['generation']}")
        if picture["refused"]:
            line.append("  (a newer one is refused)", "bold red")
        screen.print(line, soft_wrap=True)
    if not given:
        return
    screen.print()
    _nodes(screen, whole)
    _tenants(screen, whole["queues"])
    _parts(screen, whole)


def _nodes(screen: Console, whole: Row) -> None:
    budgets = {each["node"]: each for each in whole["budgets"]}
    lag = any(each["lag_seconds"] is not None for each in whole["nodes"])
    opening = any(each["opening"] for each in whole["budgets"])
    right = [
        *(["lag"] if lag else []),
        *("connections", "in use", "idle"),
        *(["opening"] if opening else []),
        "waiting",
        *(["pools"] if screen.width >= _WIDE else []),
    ]
    shown = table(screen, "node", "role", "state", *right)
    for column in shown.columns[3:]:
        column.justify = "right"
    for node in whole["nodes"]:
        label = f"{node['cluster']}/{node['name']}"
        cells = _budget(budgets.get(label))
        cells["lag"] = Text("" if node["lag_seconds"] is None else span(node["lag_seconds"]))
        shown.add_row(
            Text(label, "bold"),
            Text(node["role"], ROLES.get(node["role"], "")),
            _state(node),
            *(cells.get(name, Text("")) for name in right),
        )
    screen.print(shown)


def _state(node: Row) -> Text:
    if node["breaker"]:
        return Text("breaker open", "bold red")
    if not node["usable"]:
        reason = printable(node["reason"]).replace("_", " ")
        return Text(f"out: {reason}" if reason else "out", "bold red")
    return Text("ok", "green")


def _budget(budget: Row | None) -> dict[str, Text]:
    """Return the cells of a node's connections; a node that nobody has asked yet has none."""
    if budget is None:
        return {"connections": Text("none yet", "dim")}
    style = "bold red" if budget["in_use"] >= budget["max"] else ""
    if not style and budget["in_use"] >= _FULL * budget["max"]:
        style = "yellow"
    return {
        "connections": Text(f"{number(budget['size'])} of {number(budget['max'])}"),
        "in use": Text(number(budget["in_use"]), style),
        "idle": Text(number(budget["idle"])),
        "opening": Text(number(budget["opening"]) if budget["opening"] else ""),
        "waiting": Text(number(budget["waiting"]) if budget["waiting"] else "", "bold red"),
        "pools": Text(number(budget["pools"])),
    }


def _tenants(screen: Console, queues: Sequence[Row]) -> None:
    """Print the tenants that wait or hold most."""
    rows = [each for each in queues if each["tenant"] and (each["waiting"] or each["in_use"])]
    if not rows:
        return
    shown = table(screen, "tenant", "holds", "waiting")
    for column in shown.columns[1:]:
        column.justify = "right"
    for each in rows[:_TENANTS]:
        waiting = Text(number(each["waiting"]) if each["waiting"] else "", "bold red")
        shown.add_row(Text(printable(each["tenant"]), "cyan"), number(each["in_use"]), waiting)
    screen.print(shown)


def _parts(screen: Console, whole: Row) -> None:
    cache, listeners = whole["cache"], whole["listeners"]
    if cache is not None:
        ratio = "not asked yet" if cache["ratio"] is None else f"{cache['ratio']:.0%} of look-ups answered"
        heard = "" if cache["heard"] else ", deaf to writes of other processes"
        screen.print(Text(f"cache  {ratio}, {number(cache['entries'])} answers{heard}"), soft_wrap=True)
    dropped, muted = sum(each["dropped"] for each in listeners), sum(each["muted"] for each in listeners)
    text = (
        f"{number(dropped)} events missed, {number(muted)} muted" if dropped or muted else "no event missed"
    )
    style = "yellow" if dropped or muted else ""
    screen.print(Text(f"listeners  {number(len(listeners))}, {text}", style), soft_wrap=True)
    for each in whole["troubles"]:
        style = "bold red" if each["level"] == "bad" else "yellow"
        line = Text.assemble((printable(each["where"]), style), f"  {printable(each['text'])}")
        screen.print(line, soft_wrap=True)
