"""What a session has been shown of each table, so that no cached answer takes it back in time there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from router.cache.entries import Entry
from router.cache.marks import Place


class Shown:
    """Remember for each table the last answer, or when it came, of one session.

    A session that reads more than a hundred tables is as if it had read them all.
    """

    __slots__ = ("_all", "_tables", "last")

    MOST = 100

    def __init__(self) -> None:
        self._all = -inf
        self._tables: dict[Place, float | Entry] = {}
        #: the entry that was shown last, if it may be shown again and nothing new is to be noted of that
        self.last: Entry | None = None

    @property
    def some(self) -> bool:
        """Tell whether anything was shown at all."""
        return self._all > -inf or bool(self._tables)

    def everything(self, at: float) -> None:
        """Take note that any table may have been shown as it was at ``at``."""
        self._all, self.last = max(self._all, at), None

    def tables(self, places: Iterable[Place], at: float) -> None:
        """Take note that tables were shown as they were at ``at`` at the latest."""
        known, self.last = self._tables, None
        for place in places:
            before = known.get(place)
            if before is None or _moment(before) < at:
                known[place] = at
        self._bound()

    def _bound(self) -> None:
        if len(self._tables) > self.MOST:
            self._all, self.last = max(self._all, *map(_moment, self._tables.values())), None
            self._tables.clear()

    def entry(self, entry: Entry) -> None:
        """Take note that an entry was shown: the same one may be shown again, whatever became known since."""
        self.own(entry, entry.as_of)

    def own(self, entry: Entry, sent: float) -> None:
        """Take note of an entry that the session has read: it has all that was shown before ``sent``."""
        if not entry.places:  # it is not known of which
            self.everything(entry.until)
            return
        known = self._tables
        self.last = entry if self._all <= entry.as_of else None
        for place in entry.places:
            before = known.get(place)
            if before is entry:
                continue
            if before is None or _moment(before) <= sent:
                known[place] = entry
            else:
                # of two that were read at the same time nobody knows which one is newer
                known[place], self.last = max(_moment(before), entry.until), None
        self._bound()

    def allows(self, entry: Entry, heard: Callable[[], float]) -> bool:
        """Tell whether an entry is no older than what was shown of its tables.

        ``heard`` tells up to which moment all writes are known.
        """
        newest, known = self._all, self._tables
        for place in entry.places:
            before = known.get(place)
            if before is not None and before is not entry:
                newest = max(newest, _moment(before))
        return newest <= entry.as_of or newest <= entry.high(heard())

    def follow(self, other: Shown) -> None:
        """Take note of what another session has been shown."""
        self._all, self.last = max(self._all, other._all), None
        for place, before in other._tables.items():
            mine = self._tables.get(place)
            if mine is None or _moment(mine) < _moment(before):
                self._tables[place] = before


def _moment(shown: float | Entry) -> float:
    return shown.until if isinstance(shown, Entry) else shown
