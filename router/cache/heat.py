"""Tell which reads are hot: made often enough in a window of time."""

from __future__ import annotations

from collections.abc import Hashable

_MOST = 20_000  # keys counted in each half of a window


class Heat:
    """Count reads by key, in two halves of a window, so that forgetting costs nothing for each key."""

    __slots__ = ("_before", "_ends", "_half", "_now", "_reads")

    def __init__(self, reads: int, window: float) -> None:
        self._reads = reads
        self._half = window / 2
        self._now: dict[Hashable, int] = {}
        self._before: dict[Hashable, int] = {}
        self._ends = 0.0

    def hot(self, key: Hashable, now: float) -> bool:
        """Count a read, and tell whether there were enough of its kind in the window."""
        if now >= self._ends or len(self._now) >= _MOST:
            # after a pause longer than the window nothing of before counts
            self._before = self._now if now < self._ends + self._half else {}
            self._now, self._ends = {}, now + self._half
        count = self._now.get(key, 0) + 1
        self._now[key] = count
        return count + self._before.get(key, 0) >= self._reads
