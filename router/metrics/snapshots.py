"""A metric as one line of JSON, so that another process can read it."""

from __future__ import annotations

import json
from typing import Any

from router.metrics.bins import Bins
from router.metrics.families import Family, Histogram, Numbers


def dumped(family: Family) -> str:
    """Return a metric with its series as a line."""
    data: dict[str, Any] = {
        "name": family.name,
        "text": family.text,
        "type": family.type,
        "labels": family.labels,
    }
    if isinstance(family, Histogram):
        data["bounds"] = family.bounds
        data["rows"] = [
            (values, bins.counts, bins.total, list((bins.exemplars or {}).items()))
            for values, bins in family.rows
        ]
    elif isinstance(family, Numbers):
        data["rows"] = family.rows
    return json.dumps(data, separators=(",", ":"))


def loaded(line: str) -> Family:
    """Return the metric of a line; raises ValueError, KeyError or TypeError for what is none."""
    data = json.loads(line)
    name, text, labels = data["name"], data["text"], tuple(data["labels"])
    if data["type"] == "histogram":
        bounds = tuple(data["bounds"])
        return Histogram(
            name,
            text,
            labels,
            bounds,
            [
                (tuple(values), _bins(len(bounds), counts, total, exemplars))
                for values, counts, total, exemplars in data["rows"]
            ],
        )
    return Numbers(name, text, data["type"], labels, [(tuple(values), each) for values, each in data["rows"]])


def _bins(bounds: int, counts: list[int], total: float, exemplars: list[Any]) -> Bins:
    bins = Bins(bounds)
    bins.include(counts, total, {place: (trace, value, at) for place, (trace, value, at) in exemplars})
    return bins
