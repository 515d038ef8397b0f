"""Counts by tenant, as they are exported: by name for some, together for all others, and never going back.

What a tenant has counted since the last look is entered where it belongs at that time. So a tenant that gets
series of its own begins at what it asks from then on, and who loses them leaves what was counted with the
others: no sum is ever lost or counted twice, whoever comes and goes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from threading import Lock
from typing import Generic, Protocol, Self, TypeVar

from router.pacing import paced

OTHER = "_other"
"""The tenant under which all are counted that have no series of their own; no id begins so."""


class Sum(Protocol):
    """Describe what can be added up: counts of several things."""

    def same(self, other: Self, /) -> bool:
        """Tell whether both have counted the same."""
        ...

    def include(self, other: Self, /) -> None:
        """Add what another one has counted."""
        ...

    def since(self, before: Self, /) -> Self:
        """Return what was counted after ``before`` was: an earlier copy."""
        ...


S = TypeVar("S", bound=Sum)


class Ledger(Generic[S]):
    """Keep what is exported by tenant; ``make`` returns an empty sum."""

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._before: dict[str, S] = {}  # what each has counted at the last look
        self._rows: dict[str, S] = {}
        self._lock = Lock()  # of threads that render; who counts does not wait

    def fold(self, counted: Mapping[str, S], shown: Container[str]) -> dict[str, S]:
        """Return what is exported now, by tenant; those that are not ``shown`` are under ``OTHER``."""
        with self._lock:
            for name in [each for each in self._rows if each not in shown and each != OTHER]:
                self._row(OTHER).include(self._rows.pop(name))
            for name in paced(list(counted)):  # of names only: pairs would be work for the collector
                current = counted.get(name)
                if current is None:
                    continue
                row = name if name in shown else OTHER
                self._row(row)  # even for nothing: what first appears at more is no increase to Prometheus
                self._enter(row, name, current)
            return dict(self._rows)

    def settle(self, name: str, last: S) -> None:
        """Enter the last of a tenant that is gone, and forget it."""
        with self._lock:
            self._enter(OTHER, name, last)
            self._before.pop(name, None)

    def _enter(self, row: str, name: str, current: S) -> None:
        before = self._before.get(name)
        if before is None:
            before = self._make()
        elif current.same(before):
            return
        fresh = current.since(before)
        self._row(row).include(fresh)
        before.include(fresh)  # what was read, not what is there by now
        self._before[name] = before

    def _row(self, name: str) -> S:
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = self._make()
        return row
