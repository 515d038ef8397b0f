"""Secrets of stores as they are when metrics are rendered: how old, and whether they can be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from router.metrics.families import Family, Numbers, Values
from router.stores.keeper import Condition


def families(secrets: Iterable[Condition], prefix: str) -> Iterator[Family]:
    """Yield the age of each secret that was read, and whether the last reading went wrong."""
    ages: list[tuple[Values, float]] = []
    failing: list[tuple[Values, float]] = []
    for each in secrets:
        failing.append(((each.source,), float(each.failing)))
        if each.age is not None:
            ages.append(((each.source,), each.age))
    text = "Time since a store last gave a secret"
    yield Numbers(f"{prefix}secret_age_seconds", text, "gauge", ("source",), ages)
    text = "Whether a secret could not be read when its store was last asked"
    yield Numbers(f"{prefix}secret_failing", text, "gauge", ("source",), failing)
