"""Add up the pictures of several processes: one router to look at, however many serve it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]  # as in router.picture, read from JSON

_NODE: Mapping[str, Callable[[Any, Any], Any]] = {
    "usable": lambda one, other: one and other,
    "breaker": lambda one, other: one or other,
    "reason": lambda one, other: one or other,
    "lag_seconds": lambda one, other: _most(one, other),
    "lag_bytes": lambda one, other: _most(one, other),
    "latency": max,
}
_STATEMENT: Mapping[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("maximum", "p50", "p99", "last"), max),  # there is no more to be known of a percentile
    "tenants": lambda one, other: list(dict.fromkeys([*one, *other])),
    "nodes": lambda one, other: list(dict.fromkeys([*one, *other])),
    "trace_id": lambda one, other: other or one,
    "error": lambda one, other: other or one,
    "plan": lambda one, other: other or one,
}
_NOTHING: Mapping[str, Callable[[Any, Any], Any]] = {}


def together(pictures: Sequence[Row]) -> Row:
    """Return one picture of all; counts and rates are added up, of what is bad the worst is shown."""
    statements = _merged(pictures, "statements", ("fingerprint",), _STATEMENT)
    return {
        "tenants": max((each["tenants"] for each in pictures), default=0),
        "requests": sum(each["pace"]["requests"] for each in pictures),
        "errors": sum(each["pace"]["errors"] for each in pictures),
        "p99": _worst(each["pace"]["p99"] for each in pictures),
        "running_total": sum(each["running_total"] for each in pictures),
        "clusters": _merged(
            pictures, "clusters", ("name",), {"primary": min, "replicas": max, "usable": min}
        ),
        "nodes": _merged(pictures, "nodes", ("cluster", "name"), _NODE),
        "budgets": _merged(pictures, "budgets", ("node",), _NOTHING),
        "pools": sorted(
            _merged(pictures, "pools", ("node", "database", "user"), _NOTHING),
            key=lambda row: (-row["waiting"], -row["in_use"], row["node"], row["database"]),
        ),
        "busy": sorted(_merged(pictures, "busy", ("tenant",), _NOTHING), key=lambda row: -row["seconds"]),
        "queues": sorted(
            _merged(pictures, "queues", ("tenant",), _NOTHING),
            key=lambda row: (-row["waiting"], -row["in_use"]),
        ),
        "statements": sorted(statements, key=lambda row: -row["total"]),
        "running": sorted(_all(pictures, "running"), key=lambda row: -row["seconds"]),
        "changes": sorted(_all(pictures, "changes"), key=lambda row: -row["at"]),
        "troubles": sorted(_all(pictures, "troubles"), key=lambda row: row["level"] != "bad"),
        "listeners": _merged(pictures, "listeners", ("name",), {"muted": lambda one, other: one or other}),
        "cache": _cache([each["cache"] for each in pictures if each["cache"] is not None]),
    }


def _all(pictures: Iterable[Row], name: str) -> list[Row]:
    return [row for picture in pictures for row in picture[name]]


def _merged(
    pictures: Iterable[Row],
    name: str,
    keys: Sequence[str],
    rules: Mapping[str, Callable[[Any, Any], Any]],
) -> list[Row]:
    """Return the rows of all pictures, those of the same ``keys`` as one: numbers added, or by ``rules``."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in _all(pictures, name):
        key = tuple(row[each] for each in keys)
        known = found.get(key)
        found[key] = dict(row) if known is None else _both(known, row, rules)
    return list(found.values())


def _both(one: Row, other: Row, rules: Mapping[str, Callable[[Any, Any], Any]]) -> Row:
    made = {}
    for name, value in one.items():
        more = other.get(name)
        if name in rules:
            made[name] = rules[name](value, more)
        elif isinstance(value, int | float) and not isinstance(value, bool) and more is not None:
            made[name] = value + more
        else:
            made[name] = value
    return made


def _cache(caches: Sequence[Row]) -> Row | None:
    if not caches:
        return None
    found = caches[0]
    for each in caches[1:]:
        found = _both(found, each, {"heard": lambda one, other: one and other, "ratio": lambda one, _: one})
    answered = found["hits"] + found["joined"] + found["shared"]
    asked = answered + found["misses"]
    return {**found, "ratio": answered / asked if asked else None}


def _most(one: Any, other: Any) -> Any:
    return _worst((one, other))


def _worst(values: Iterable[Any]) -> Any:
    return max((each for each in values if each is not None), default=None)
