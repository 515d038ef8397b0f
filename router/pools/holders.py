"""Who holds a connection, since when, and from where it was asked for: what to say when a pool is empty.

A statement's checkout costs nothing here: it names its tenant by a value that is made once for the tenant. A
unit of work (a transaction, a stream, the ORM, ``connection()``) is held by the application's own code,
which can forget it, so it is named in full: task and call stack, taken when the unit opens.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

_SHOWN = 5  # holders that a message names; the rest is a number
_FRAMES = 5  # of the application's own, the innermost first
_OWN = str(Path(__file__).parents[1])
_LOOP = str(Path(asyncio.__file__).parent)


@dataclass(frozen=True, slots=True)
class Holder:
    """Name who holds a connection: a statement of ``tenant``, or with ``task`` a unit of work.

    ``owner`` is the task itself, weakly: who leaks a connection shall not keep the task's frames alive too.
    """

    tenant: str  # "" for the router's own work, such as a ping
    task: str = ""
    owner: weakref.ref[asyncio.Task[Any]] | None = None
    places: tuple[tuple[CodeType, int], ...] = ()
    told: bool = False  # whether it was reported as held for too long

    def stack(self) -> tuple[str, ...]:
        """Return the application's frames as ``file:line function``, the innermost first."""
        return tuple(f"{code.co_filename}:{line} {code.co_qualname}" for code, line in self.places)

    def describe(self, seconds: float) -> str:
        """Return who it is and for how long, as words."""
        whose = self.tenant or "the router itself"
        what = f"in task {self.task!r}" if self.task else "for one statement"
        return f"{whose} for {seconds:.3g} s {what}"


#: who holds a connection for the router's own work
ROUTER = Holder("")


def unit_of(tenant: str) -> Holder:
    """Return the holder of a unit of work that the running task opens now.

    1.5 to 2.5 microseconds, most of it for the line numbers; a unit costs two round trips.
    """
    task = asyncio.current_task()
    if task is None:
        return Holder(tenant, "(no task)", None, _callers())
    return Holder(tenant, task.get_name(), weakref.ref(task), _callers())


def _callers() -> tuple[tuple[CodeType, int], ...]:
    """Return the frames that lead here, without the router's own and those of context managers."""
    found: list[tuple[CodeType, int]] = []
    frame = sys._getframe(2).f_back
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if not file.startswith(_OWN) and file != contextlib.__file__:
            if file.startswith(_LOOP):
                break  # what started the loop explains nothing
            found.append((code, frame.f_lineno))
            if len(found) == _FRAMES:
                break
        frame = frame.f_back
    return tuple(found)


def listed(held: Iterable[tuple[float, Holder]]) -> str:
    """Return holders and their seconds as words, the longest first, at most five by name."""
    ordered = sorted(held, key=lambda each: -each[0])
    if not ordered:
        return "nobody"
    shown = "; ".join(holder.describe(seconds) for seconds, holder in ordered[:_SHOWN])
    more = len(ordered) - _SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown
