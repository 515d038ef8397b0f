"""An entry: the rows of one read, and what must be known of it to tell for whom they still count."""

from __future__ import annotations

from router.cache.marks import Mark, Place
from router.cache.values import Frozen
from router.positions import Position
from router.topology import Node

ENTRY = 200
"""Bytes of an entry beside its value: itself, its moments, and what holds its marks."""


class Entry:
    """Hold the answer to one read. Moments and seconds are of the router's clock."""

    __slots__ = (
        "as_of", "born", "cost", "marks", "node", "places", "position", "refreshing", "reign", "until",
        "value",
    )  # fmt: skip

    def __init__(
        self,
        value: Frozen,
        *,
        places: tuple[Place, ...],
        marks: tuple[Mark, ...],
        as_of: float,
        until: float,
        born: float,
        position: Position | None,
        reign: float,
        node: Node,
        cost: float,
    ) -> None:
        self.value = value
        self.places = places  # the tables that were read
        self.marks = marks  # of the tables, their schemas and the cluster
        self.as_of = (
            as_of  # it holds all that was committed before; -inf: its age is not known, it is not kept
        )
        self.until = until  # it holds nothing that was committed later
        self.born = born  # when it was read: its age counts from then
        self.position = position  # that what was read had reached at least
        self.reign = reign  # when the primary of then had taken over
        self.node = node  # that gave it
        self.cost = cost  # seconds that it took
        self.refreshing = False  # somebody reads it anew, beside

    def rest(self) -> None:
        """Take note that nobody reads it anew."""
        self.refreshing = False

    @property
    def alive(self) -> bool:
        """Tell whether none of its tables was written since."""
        as_of = self.as_of
        for mark in self.marks:  # noqa: SIM110  # what comes up for eviction is asked: all() takes twice as long
            if mark.moment > as_of:
                return False
        return True

    def high(self, heard: float) -> float:
        """Return up to which moment it is known to hold, if all writes up to ``heard`` are known.

        A write that goes on may be visible to others already. Of unknown tables no writes are known.
        """
        if not self.marks:
            return self.as_of
        for mark in self.marks:
            heard = min(heard, mark.since)
        return max(heard, self.as_of)
