"""Let a thread that makes much text give way to the event loop's thread, again and again.

Python hands its lock over only every five milliseconds unless a thread lets go of it: without this a scrape
would hold the loop up for as long, each time that the loop wakes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_SLICE = 0.0005  # seconds of work ...
_PAUSE = 0.0001  # ... then of sleep: long enough for a thread that waits to take over


class _Polite:
    """Sleep for a moment whenever a slice of work is over."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.perf_counter() + _SLICE

    def __call__(self) -> None:
        if time.perf_counter() >= self._until:
            time.sleep(_PAUSE)
            self._until = time.perf_counter() + _SLICE


def _hasty() -> None:
    """Go on: nobody waits, or it is the loop itself that asks."""


_pace: ContextVar[Callable[[], None]] = ContextVar("router.pace", default=_hasty)


def paced(items: Iterable[T]) -> Iterator[T]:
    """Yield what there is, giving way in between where that is asked for."""
    pace = _pace.get()
    for item in items:
        pace()
        yield item


@contextmanager
def politely() -> Iterator[None]:
    """Give way in the block; for a thread that is not the event loop's."""
    token = _pace.set(_Polite())
    try:
        yield
    finally:
        _pace.reset(token)
