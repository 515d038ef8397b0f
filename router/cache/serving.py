"""Decide whether a cached answer may be given to a session. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from math import inf

from router.cache.entries import Entry
from router.consistency import Bounded, Consistency
from router.frontier import Frontier
from router.routing import reached

_SESSION, _EVENTUAL = Consistency.SESSION, Consistency.EVENTUAL


class Refusal(StrEnum):
    """Say why an answer that is there is not given."""

    OLD = "old"  # older than the call or the rule allows
    WRITTEN = "written"  # one of its tables was written since
    FAILOVER = "failover"  # another server has become the primary since
    OWN_WRITE = "own_write"  # the session has written since
    TOKEN = "token"  # a token of the session stands for something newer  # noqa: S105
    SHOWN = "shown"  # the session has been shown something newer of the same tables
    BOUND = "bound"  # older than the tenant's bound
    UNKNOWN = "unknown_tables"  # the catalog could not be asked which tables it reads


def refusal(
    entry: Entry,
    seen: Frontier,
    consistency: Consistency | Bounded,
    ttl: float,
    now: float,
    reign: float,
    heard: Callable[[], float],
    *,
    fresh: bool = False,
) -> Refusal | None:
    """Return why an entry must not be given to a session now; ``None`` if it may.

    ``reign`` is when the present primary took over, ``heard`` tells up to which moment all writes of other
    processes are known. What the session has written or a token stands for must be in the entry itself. What
    it was merely shown may be in a table that was not written since. ``fresh`` says that the entry was read
    after the session had asked, as it would have read itself.
    """
    as_of = entry.as_of
    if not fresh:
        if now - entry.born > ttl:
            return Refusal.OLD
        for mark in entry.marks:
            if mark.moment > as_of:
                return Refusal.WRITTEN
    elif not entry.alive:
        heard = _unheard  # whatever is heard of, it lacks a write: it was read from a replica that lags
    if entry.reign != reign:
        return Refusal.FAILOVER
    if consistency is _SESSION:
        if seen.owed > as_of:
            return Refusal.OWN_WRITE
        if seen.goal is not None and (entry.position is None or not reached(entry.position, seen.goal)):
            return Refusal.TOKEN
        shown = seen.shown
        if shown is None:
            known = seen.restarted()
            if known > as_of and known > entry.high(heard()):
                return Refusal.SHOWN
        elif shown.last is not entry and shown.some and not shown.allows(entry, heard):
            return Refusal.SHOWN
    elif (
        consistency is not _EVENTUAL and isinstance(consistency, Bounded) and as_of < consistency.moment(now)
    ):
        return Refusal.BOUND
    return None


def _unheard() -> float:
    return -inf
