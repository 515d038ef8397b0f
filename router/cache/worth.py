"""Judge whether the cache is worth it for a tenant's reads, from what became of the last ones."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from router.cache.tally import Tally

_UNANSWERED: Final = 1_000  # reads that the database answered between two looks at the tally
_PAUSE: Final = 3_600.0  # seconds between two tellings
# A look-up in vain costs some 30 µs (see docs/cache.md), as much as a tenth of the fastest query: the 70 %
# that pgpool recommends for its own cache would be a false alarm here. Below this most of what is copied and
# kept is never asked for again, whatever the rest saves.
_LEAST: Final = 0.3
_IN_VAIN: Final = 30e-6  # seconds: the key, the copy and its place in memory
_MEANT: Final = frozenset(("primary", "strong", "bound"))  # bypasses that the caller has asked for
ABSENT: Final = "absent"
"""The reason where nothing was there: the first read of its kind, or what was kept had to go."""


class Verdict(NamedTuple):
    """Say how little the cache did for a tenant's reads, and mainly why."""

    lookups: int
    ratio: float  # of them the cache has answered
    saved: float  # seconds of database time
    spent: float  # seconds
    reason: str


class Worth:
    """Look at a tally after each thousand reads that the database answered; hits never come here."""

    __slots__ = ("_before", "_left", "_silent")

    def __init__(self) -> None:
        self._before: Tally | None = None  # before the first look: most tenants never get there
        self._left = _UNANSWERED
        self._silent = -inf

    def unanswered(self, tally: Tally, now: float) -> Verdict | None:
        """Take note of a read that the database answers; return what is to be told of it all, if anything."""
        self._left -= 1
        if self._left > 0:
            return None
        self._left = _UNANSWERED
        window = tally.since(self._before or Tally())
        self._before = tally.since(Tally())
        verdict = judge(window)
        if verdict is None or now < self._silent:
            return None
        self._silent = now + _PAUSE
        return verdict


def judge(tally: Tally) -> Verdict | None:
    """Return why the cache is not worth it; ``None`` if it is."""
    vain = tally.misses + sum(count for why, count in tally.bypasses.items() if why not in _MEANT)
    lookups = tally.answered + vain
    spent = vain * _IN_VAIN + tally.waited
    if not lookups or (tally.answered >= _LEAST * lookups and tally.saved >= spent):
        return None
    return Verdict(lookups, tally.answered / lookups, tally.saved, spent, main_reason(tally) or ABSENT)


def main_reason(tally: Tally) -> str | None:
    """Return why most of the reads that might have been answered were not; ``None`` if all were."""
    counts = {why: count for why, count in tally.bypasses.items() if why not in _MEANT}
    for reasons in (tally.refused, tally.unstored):
        for why, count in reasons.items():
            counts[why] = counts.get(why, 0) + count
    counts[ABSENT] = tally.misses - sum(tally.refused.values()) - sum(tally.unstored.values())
    why = max(counts, key=lambda each: counts[each])
    return why if counts[why] > 0 else None
