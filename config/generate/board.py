"""Boards: rows of panels laid out on the grid, with variables, annotations and links to each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from config.generate.panels import SOURCE, Json, Panel
from config.generate.promql import PREFIX, happened

COLUMNS = 24
TAG = "router"

VARIABLES = {
    "job": ("Application", f"label_values({PREFIX}build_info, job)"),
    "cluster": ("Cluster", f'label_values({PREFIX}requests_total{{job=~"$job"}}, cluster)'),
    "node": ("Node", f'label_values({PREFIX}node_up{{job=~"$job", node=~"$cluster/.*"}}, node)'),
    "tenant": ("Tenant", f'label_values({PREFIX}tenant_requests_total{{job=~"$job"}}, tenant)'),
}
"""What a board can be narrowed to, and the query for the choices."""

# `node` has no value for all: all the nodes of the chosen clusters are meant, not all there are
_ANYTHING = {"job", "cluster", "tenant"}


@dataclass(frozen=True)
class Row:
    """Hold panels that answer one question."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Board:
    """Hold one dashboard; ``uid`` never changes, for it is in people's links."""

    uid: str
    title: str
    question: str
    variables: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> Iterator[Panel]:
        """Yield all panels."""
        for row in self.rows:
            yield from row.panels

    def json(self) -> Json:
        """Return the board as Grafana reads it, in version 1 of its schema."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.question,
            "tags": [TAG],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,  # one crosshair through all panels
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "fiscalYearStartMonth": 0,
            "liveNow": False,
            "links": [_LINKS],
            "annotations": {"list": _annotations()},
            "templating": {"list": [_SOURCE, *(_variable(name) for name in self.variables)]},
            "panels": list(_placed(self.rows)),
        }


_LINKS: Json = {
    "type": "dashboards",
    "title": "Router",
    "tags": [TAG],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "",
    "url": "",
}

_SOURCE: Json = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "regex": "",
    "current": {},
    "options": [],
    "hide": 0,
    "refresh": 1,
    "multi": False,
    "includeAll": False,
    "skipUrlSync": False,
}


def _variable(name: str) -> Json:
    label, query = VARIABLES[name]
    found: Json = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "regex": "",
        "sort": 1,
        "refresh": 2,  # with the time range: tenants and nodes come and go
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "skipUrlSync": False,
    }
    return found | ({"allValue": ".*"} if name in _ANYTHING else {})


def _annotations() -> list[Json]:
    builtin = {
        "name": "Annotations & Alerts",
        "builtIn": 1,
        "type": "dashboard",
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
    }
    failovers = happened("failovers_total", "cluster", "1m", 'job=~"$job"')
    loaded = f'{PREFIX}configuration_loaded_timestamp_seconds{{job=~"$job"}}'
    loads = f"max by (job) (time() - {loaded} < bool 60) == 1"
    return [
        builtin,
        _annotation("Failovers", failovers, "Another primary: {{cluster}}", "red"),
        _annotation("Configuration", loads, "Configuration loaded: {{job}}", "purple"),
    ]


def _annotation(name: str, expr: str, title: str, colour: str) -> Json:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expr,
        "step": "15s",
        "titleFormat": title,
        "textFormat": "",
        "tagKeys": "",
        "useValueForTime": False,
    }


def _placed(rows: Sequence[Row]) -> Iterator[Json]:
    """Yield rows and panels with their places: from left to right, a new line where one is full."""
    number = y = 0
    for row in rows:
        number += 1
        yield _heading(number, row.title, y)
        y += 1
        for line in _lines(row.panels):
            x, height = 0, max(panel.height for panel in line)
            for panel in line:
                number += 1
                yield panel.json(number, {"x": x, "y": y, "w": panel.width, "h": height})
                x += panel.width
            y += height


def _heading(number: int, title: str, y: int) -> Json:
    place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _lines(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    line: list[Panel] = []
    for panel in panels:
        if sum(each.width for each in line) + panel.width > COLUMNS:
            yield line
            line = []
        line.append(panel)
    if line:
        yield line


def link_to(uid: str, title: str, **chosen: str) -> Any:
    """Return a link from a value to another board, with variables set."""
    variables = "".join(f"&var-{name}={value}" for name, value in chosen.items())
    return {"title": title, "url": f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}{variables}"}
