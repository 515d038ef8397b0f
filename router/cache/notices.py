"""What processes tell each other: which tables of which place were written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_PLACES = 1000  # told apart while nobody can be told; past that all that is said is: everything


@dataclass(frozen=True, slots=True)
class Notice:
    """Say that tables of a place were written: all of them where ``tables`` is None, no place: everywhere."""

    place: str | None
    tables: frozenset[str] | None = None


EVERYTHING = Notice(None)
NOTHING = Notice("", frozenset())  # says only that somebody is there


def encode(sender: str, notice: Notice) -> str:
    """Return a notice as text, of ASCII letters only."""
    tables = None if notice.tables is None else sorted(notice.tables)
    return json.dumps([sender, notice.place, tables], separators=(",", ":"))


def encode_within(sender: str, notice: Notice, size: int) -> list[str]:
    """Return a notice as texts of at most ``size`` letters; what does not fit is said more broadly."""
    text = encode(sender, notice)
    if len(text) <= size:
        return [text]
    if notice.tables is not None and len(notice.tables) > 1:
        tables = sorted(notice.tables)
        half = len(tables) // 2
        parts = (Notice(notice.place, frozenset(some)) for some in (tables[:half], tables[half:]))
        return [text for part in parts for text in encode_within(sender, part, size)]
    wider = Notice(notice.place) if notice.tables is not None else EVERYTHING
    return encode_within(sender, wider, size)


def decode(text: str) -> tuple[str, Notice] | None:
    """Return the sender and the notice; None for a text that no process of ours has written."""
    try:
        sender, place, tables = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    if not isinstance(sender, str) or not isinstance(place, str | None):
        return None
    if tables is None:
        return sender, Notice(place)
    if not isinstance(tables, list) or not all(isinstance(table, str) for table in tables):
        return None
    return sender, Notice(place, frozenset(tables))


class Unsaid:
    """Hold what is to be told, merged by place, so that it stays small however long it takes."""

    def __init__(self) -> None:
        self._places: dict[str, set[str] | None] = {}
        self._everything = False

    def __len__(self) -> int:
        return 1 if self._everything else len(self._places)

    def add(self, notices: Iterable[Notice]) -> None:
        """Take notices to be told."""
        for notice in notices:
            if notice.place is None or len(self._places) >= _PLACES:
                self._places.clear()
                self._everything = True
            if not self._everything and notice.place is not None:
                self._merge(notice.place, notice.tables)

    def take(self) -> list[Notice]:
        """Return all that is to be told, and forget it."""
        found = [EVERYTHING] if self._everything else list(self._notices())
        self._places.clear()
        self._everything = False
        return found

    def _merge(self, place: str, tables: frozenset[str] | None) -> None:
        known = self._places.setdefault(place, set())
        if tables is None or known is None:
            self._places[place] = None
        else:
            known |= tables

    def _notices(self) -> Iterator[Notice]:
        for place, tables in self._places.items():
            yield Notice(place, None if tables is None else frozenset(tables))
