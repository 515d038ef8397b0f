"""What a tenant's table must, may and must not show: the account that a leak check keeps of what it writes.

Rows are written and removed by their ``mark``, a number that no other write has, all of a mark's rows at
once. A transaction's mark counts as possible only from the moment that its commit is sent: a row that is seen
before that, or after a rollback, is one that nobody may see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

BASE = 0  # the mark of the rows that are always there


@dataclass(frozen=True, slots=True)
class Glance:
    """Hold what was certain when a read began."""

    moment: int
    certain: Mapping[int, int]  # rows of each mark
    lagging: bool = False  # it may be answered by a server that does not have all yet


@dataclass(slots=True)
class Belongings:
    """Keep account of one tenant's table."""

    certain: dict[int, int] = field(default_factory=dict)
    possible: dict[int, int] = field(default_factory=dict)  # under way, or with an unknown outcome
    _gone: dict[int, int] = field(default_factory=dict)  # when each mark was removed
    _moment: int = 0

    # --- writing -----------------------------------------------------------------------------------------

    def attempt(self, mark: int, rows: int) -> None:
        """Take note that a commit is on its way, of a mark's rows or of their removal."""
        self.certain.pop(mark, None)
        self.possible[mark] = rows

    def keep(self, mark: int) -> None:
        """Take note that a mark's rows are there: they were committed, or not removed."""
        self.certain[mark] = self.possible.pop(mark)

    def undo(self, mark: int) -> None:
        """Take note that a mark's rows were never there: the server has refused them."""
        self.possible.pop(mark, None)

    def remove(self, mark: int) -> None:
        """Take note that a mark's rows are not there any more."""
        del self.possible[mark]
        self._moment += 1
        self._gone[mark] = self._moment

    # --- reading -----------------------------------------------------------------------------------------

    def glance(self, *, own: Iterable[int] = (), lagging: bool = False) -> Glance:
        """Return what a read must show that begins now; one that lags only the base and ``own`` marks."""
        if not lagging:
            return Glance(self._moment, dict(self.certain))
        seen = {mark: rows for mark in (BASE, *own) if (rows := self.certain.get(mark))}
        return Glance(self._moment, seen, lagging=True)

    def missing(self, glance: Glance, found: Mapping[int, int]) -> int:
        """Return how many rows an answer lacks, or has twice, of those that were there all the while."""
        certain = self.certain
        return sum(
            abs(rows - found.get(mark, 0))
            for mark, rows in glance.certain.items()
            if certain.get(mark) == rows  # else it was removed meanwhile
        )

    def undone(self, glance: Glance, found: Mapping[int, int]) -> int:
        """Return how many rows an answer has that were not committed, or were removed before it was asked."""
        return sum(rows for mark, rows in found.items() if not self._may_be_seen(mark, glance))

    def _may_be_seen(self, mark: int, glance: Glance) -> bool:
        if mark in self.certain or mark in self.possible:
            return True
        gone = self._gone.get(mark)
        return gone is not None and (glance.lagging or gone > glance.moment)
