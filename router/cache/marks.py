"""Marks: when each table was last written, so that what was read before can be told from what was read after.

An entry holds the marks of its tables. A write changes the marks and touches no entry, however many there
are: an entry that a mark has overtaken is found dead when it is looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import NamedTuple
from weakref import WeakValueDictionary

_MOST = 65_536  # written places remembered beside those that entries hold; some 300 bytes each


class Place(NamedTuple):
    """Name what is written: a table, or with ``table=None`` all of a schema, with ``schema=None`` of all."""

    cluster: str
    database: str  # "" where schemas are not inside of databases (MySQL)
    schema: str | None = None
    table: str | None = None


EVERYTHING = Place("*", "")
"""What is written when nobody knows what was."""


class Mark:
    """Say when something was last written; ``since`` when the oldest write that goes on was sent."""

    __slots__ = ("__weakref__", "moment", "since", "writers")

    def __init__(self, moment: float) -> None:
        self.moment = moment  # entries that do not hold all that was committed before it are dead
        self.since = inf
        self.writers = 0

    def __repr__(self) -> str:
        return f"<Mark {self.moment:.3f}, {self.writers} writers>"


class Writing:
    """Hold the marks of writes whose outcome is not known yet; it ends by :meth:`Marks.end`."""

    __slots__ = ("facts", "marks")

    def __init__(self, facts: object = None) -> None:
        self.marks: dict[Place, Mark] = {}
        self.facts = facts  # by which the places were found


class Marks:
    """Keep the marks of what was written lately, and of what entries hold.

    A mark that was forgotten comes back as if written when the newest of the forgotten ones was: too much is
    refused rather than too little. Moments are on the router's clock.
    """

    def __init__(self, clock: Callable[[], float], *, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._all: WeakValueDictionary[Place, Mark] = WeakValueDictionary()
        self._written: dict[Place, Mark] = {}
        self._floor = clock()  # nothing is known of writes before

    def __len__(self) -> int:
        return len(self._all)

    def of(self, place: Place) -> Mark:
        """Return the mark of a place."""
        mark = self._all.get(place)
        if mark is None:
            mark = self._all[place] = Mark(self._floor)
        return mark

    def _written_one(self, place: Place) -> Mark:
        mark = self._written.get(place)
        if mark is None:
            if len(self._written) >= self._most:
                self._forget()
            mark = self._written[place] = self.of(place)
        return mark

    def _forget(self) -> None:
        """Let go of the half that was written first; entries, and writes that go on, keep theirs."""
        for place in list(self._written)[: max(self._most // 2, 1)]:
            self._floor = max(self._floor, self._written.pop(place).moment)

    def raised(self, places: Iterable[Place], moment: float) -> None:
        """Take note that what was read of places may lack what was committed before ``moment``."""
        for place in places:
            mark = self._written_one(place)
            if moment > mark.moment:
                mark.moment = moment

    def begin(self, writing: Writing, places: Iterable[Place]) -> None:
        """Take note that places are about to be written: others may see it before its answer is here."""
        now = self._clock()
        for place in places:
            if place not in writing.marks:
                mark = writing.marks[place] = self._written_one(place)
                if not mark.writers:
                    mark.since = now
                mark.writers += 1

    def end(self, writing: Writing, moment: float | None) -> None:
        """Take note that writes were committed before ``moment``, or with ``None`` that they never were."""
        for mark in writing.marks.values():
            mark.writers -= 1
            if not mark.writers:
                mark.since = inf
        if moment is not None:
            self.raised(writing.marks, moment)
        writing.marks = {}
