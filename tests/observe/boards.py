"""Which panels, variables and alerts a real Prometheus answers, in the situation that they are for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from config.generate.alerts import ALERTS
from config.generate.board import VARIABLES
from config.generate.boards import BOARDS
from tests.cache.servers import Servers
from tests.figures import Figure
from tests.observe.effort import Effort
from tests.observe.scene import TRACE, Scene, Watched
from tests.servers.prometheus import hastened

_RAISED = 'ALERTS{alertname=~"Router.*"}'  # they fire, or will when it has been so for long enough
_FIRING = 'ALERTS{alertname=~"Router.*", alertstate="firing"}'
_TIMED = "router_request_duration_seconds_bucket"


def expressions(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the title and the expression of everything that a board asks."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


def filled(expr: str) -> str:
    """Return an expression as Grafana asks it with everything chosen, over an hour."""
    spans = {"__rate_interval": "5m", "__range": "1h"}
    chosen = re.sub(r"\$(job|cluster|node|tenant)\b", ".*", expr)
    return re.sub(r"\$(__rate_interval|__range)\b", lambda found: spans[found[1]], chosen)


@dataclass(frozen=True)
class Seen:
    """Say what showed nothing, was silent, or was raised for nothing; ``asked`` counts the expressions."""

    asked: int
    empty: tuple[str, ...]
    variables: tuple[str, ...]  # without a value to choose
    silent: tuple[str, ...]
    false: tuple[str, ...]
    unclear: tuple[str, ...]  # alerts whose words could not be filled in
    traced: int  # series of latency with single requests that have a trace


def look(watched: Watched) -> Seen:
    """Ask everything that boards and alerts ask."""
    asked = [
        (f"{board.uid}: {title}", hastened(filled(expr)))
        for board in BOARDS
        for title, expr in expressions(board.json())
    ]
    begin, end = watched.whole
    ask = watched.prometheus.between
    raised = {series["metric"]["alertname"] for series in ask(_RAISED, begin, end)}
    traced = watched.prometheus.api("query_exemplars", query=_TIMED, start=begin, end=end)
    return Seen(
        len(asked),
        tuple(title for title, expr in asked if not _shown(ask(expr, begin, end))),
        tuple(name for name in VARIABLES if not _choices(watched, name)),
        tuple(alert.name for alert in ALERTS if alert.name not in raised or alert.name not in watched.said),
        tuple(sorted({series["metric"]["alertname"] for series in ask(_FIRING, *watched.calm)})),
        tuple(
            name
            for name, texts in watched.said.items()
            if any(word in text for text in texts.values() for word in ("<error", "<no value", "{{"))
        ),
        sum(1 for series in traced if series["exemplars"][0]["labels"]["trace_id"] == TRACE),
    )


def _shown(series: list[Any]) -> bool:
    """Tell whether there is a number to be drawn."""
    return any(value != "NaN" for each in series for _, value in each["values"])


def _choices(watched: Watched, name: str) -> list[Any]:
    """Return what a variable may be set to."""
    metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", filled(VARIABLES[name][1])).groups()  # type: ignore[union-attr]
    return watched.prometheus.between(f"count by ({label}) ({metric})", *watched.calm)


async def figures(effort: Effort, servers: Servers) -> AsyncIterator[Figure]:
    """Yield how many of all expressions returned data in their situation, and what fired in the calm.

    The servers are the scene's own: it breaks them. Less effort would show less.
    """
    with TemporaryDirectory() as folder:
        async for watched in Scene(Path(folder)).play():
            for figure in judged(look(watched)):
                yield figure


def judged(seen: Seen) -> Iterator[Figure]:
    """Yield what was seen as figures, each with what is missing."""
    for name, missed, count in (
        ("panels and annotations with data", seen.empty, seen.asked),
        ("variables of boards with a choice", seen.variables, len(VARIABLES)),
        ("alerts raised in their situation", seen.silent, len(ALERTS)),
    ):
        yield Figure(name, count - len(missed), count, least=True, note=", ".join(missed))
    for name, wrong in (
        ("alerts that fired in the calm", seen.false),
        ("alerts whose words were not filled in", seen.unclear),
    ):
        yield Figure(name, len(wrong), 0, note=", ".join(wrong))
    yield Figure("panels of latency with a trace", seen.traced, 1, least=True)
