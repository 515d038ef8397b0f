"""Panels as values: what to ask, how to draw it, what it means and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Steps = Sequence[tuple[float, str]]
States = Mapping[float, tuple[str, str]]  # what is shown of a value, and its colour

SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
GOOD, WARN, BAD, CALM = "green", "orange", "red", "blue"


@dataclass(frozen=True)
class Query:
    """Ask one expression; ``legend`` names its series by their labels."""

    expr: str
    legend: str = ""
    exemplar: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Describe one panel; ``width`` is of 24 columns, ``height`` in lines of the grid.

    ``thresholds`` are from which value on which colour is shown. ``texts`` are shown instead of values.
    """

    kind: str
    title: str
    means: str
    do: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    height: int = 8
    thresholds: Steps = ()
    texts: States = field(default_factory=dict)
    least: float | None = 0
    most: float | None = None
    decimals: int | None = None
    custom: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    transformations: Sequence[Json] = ()
    links: Sequence[Json] = ()

    @property
    def table(self) -> bool:
        """Tell whether it shows the present moment only, a row a series."""
        return self.kind in ("table", "bargauge")

    def json(self, number: int, grid: Json) -> Json:
        """Return the panel as Grafana reads it."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": f"{self.means}\n\n**Do:** {self.do}",
            "datasource": SOURCE,
            "gridPos": grid,
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": dict(self.options),
            "transformations": list(self.transformations),
        }

    def _target(self, place: int, query: Query) -> Json:
        form = "table" if self.kind == "table" else "heatmap" if self.kind == "heatmap" else "time_series"
        return {
            "refId": chr(ord("A") + place),
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend,
            "format": form,
            "instant": self.table,
            "range": not self.table,
            "exemplar": query.exemplar,
        }

    def _defaults(self) -> Json:
        steps: list[Json] = [{"color": GOOD if self.thresholds else CALM, "value": None}]
        steps += [{"color": colour, "value": value} for value, colour in self.thresholds]
        found: Json = {
            "unit": self.unit,
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
            "thresholds": {"mode": "absolute", "steps": steps},
            "mappings": self._mappings(),
            "custom": dict(self.custom),
            "links": list(self.links),
        }
        bounds = {"min": self.least, "max": self.most, "decimals": self.decimals}
        return found | {name: bound for name, bound in bounds.items() if bound is not None}

    def _mappings(self) -> list[Json]:
        if not self.texts:
            return []
        shown = {
            f"{value:g}": {"text": text, "color": colour, "index": index}
            for index, (value, (text, colour)) in enumerate(self.texts.items())
        }
        return [{"type": "value", "options": shown}]


def graph(
    title: str,
    means: str,
    do: str,
    *queries: Query,
    stacked: bool = False,
    percent: bool = False,
    bars: bool = False,
    **given: Any,
) -> Panel:
    """Draw series over time; ``percent`` stacks them to a hundred, ``bars`` is for what is counted."""
    stacking = "percent" if percent else "normal" if stacked else "none"
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 70 if bars else 25 if stacked or percent else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": stacking, "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if given.get("thresholds") else "off"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(
        kind="timeseries",
        title=title,
        means=means,
        do=do,
        queries=queries,
        custom=custom,
        options=options,
        **given,
    )


def number(title: str, means: str, do: str, query: Query, **given: Any) -> Panel:
    """Show the last value, large, coloured by its thresholds."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
    }
    given = {"width": 4, "height": 4, **given}
    return Panel(kind="stat", title=title, means=means, do=do, queries=(query,), options=options, **given)


def timeline(title: str, means: str, do: str, query: Query, texts: States, **given: Any) -> Panel:
    """Draw states over time, a line a series."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.9,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return Panel(
        kind="state-timeline",
        title=title,
        means=means,
        do=do,
        queries=(query,),
        texts=texts,
        custom={"fillOpacity": 80, "lineWidth": 0},
        options=options,
        **given,
    )


def ranking(title: str, means: str, do: str, query: Query, **given: Any) -> Panel:
    """Show who has most of something now, as bars."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "gradient",
        "valueMode": "color",
        "showUnfilled": True,
        "minVizWidth": 8,
        "minVizHeight": 16,
    }
    return Panel(kind="bargauge", title=title, means=means, do=do, queries=(query,), options=options, **given)


def heat(title: str, means: str, do: str, query: Query, **given: Any) -> Panel:
    """Draw how a histogram is spread over time."""
    unit = given.pop("unit", "s")
    options = {
        "calculate": False,
        "yAxis": {"unit": unit, "axisPlacement": "left"},
        "rowsFrame": {"layout": "auto"},
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
        },
        "cellGap": 1,
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
    }
    custom = {"scaleDistribution": {"type": "linear"}}
    return Panel(
        kind="heatmap",
        title=title,
        means=means,
        do=do,
        queries=(query,),
        unit=unit,
        custom=custom,
        options=options,
        **given,
    )


def listing(title: str, means: str, do: str, query: Query, names: Mapping[str, str], **given: Any) -> Panel:
    """Show labels as the columns of a table: ``names`` maps a label, or ``Value``, to its heading."""
    organize = {
        "id": "organize",
        "options": {
            "excludeByName": {},
            "includeByName": dict.fromkeys(names, True),
            "indexByName": {name: place for place, name in enumerate(names)},
            "renameByName": dict(names),
        },
    }
    options = {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"]}}
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False}
    return Panel(
        kind="table",
        title=title,
        means=means,
        do=do,
        queries=(query,),
        custom=custom,
        options=options,
        transformations=(organize,),
        **given,
    )
