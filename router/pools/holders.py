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
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from router.pools.bounds import Share
from router.pools.fairness import Flow

_SHOWN = 5  # holders that a message names; the rest is a number
_FRAMES = 5  # of the application's own, the innermost first
_OWN = str(Path(__file__).parents[1])
_LOOP = str(Path(asyncio.__file__).parent)


class _Part(Enum):
    """Tell whose code a file is."""

    APPLICATION = "application"
    BETWEEN = "between"  # the router, and what it runs through to the application
    LOOP = "loop"


# a look-up on an enum takes 70 ns on CPython 3.11, and a stack has many frames
_APPLICATION, _STARTER = _Part.APPLICATION, _Part.LOOP


#: the flow of the router's own work, which has no limit
UNBOUND = Flow()


class Holder(NamedTuple):  # made for each unit of work, where a frozen dataclass would cost thrice as much
    """Name who holds a connection: a statement of ``tenant``, or with ``task`` a unit of work.

    ``owner`` is the task itself, weakly: who leaks a connection shall not keep the task's frames alive too.
    """

    tenant: str  # "" for the router's own work, such as a ping
    task: str = ""
    owner: weakref.ref[asyncio.Task[Any]] | None = None
    places: tuple[tuple[CodeType, int], ...] = ()  # code, and the offset of the instruction in it
    told: bool = False  # whether it was reported as held for too long
    flow: Flow = UNBOUND  # of the tenant on the node

    def stack(self) -> tuple[str, ...]:
        """Return the application's frames as ``file:line function``, the innermost first."""
        return tuple(f"{code.co_filename}:{_line(code, at)} {code.co_qualname}" for code, at in self.places)

    def describe(self, seconds: float) -> str:
        """Return who it is and for how long, as words."""
        whose = self.tenant or "the router itself"
        what = f"in task {self.task!r}" if self.task else "for one statement"
        return f"{whose} for {seconds:.3g} s {what}"


#: who holds a connection for the router's own work
ROUTER = Holder("")


def unit_of(tenant: str, loop: asyncio.AbstractEventLoop | None = None) -> Holder:
    """Return the holder of a unit of work that the running task opens now.

    About 4 microseconds, half of it for the walk over the frames; a unit costs two round trips. To name the
    running ``loop`` saves looking it up, a system call on CPython 3.11.
    """
    task = asyncio.current_task(loop)
    if task is None:
        return Holder(tenant, "(no task)", None, _callers())
    return Holder(tenant, task.get_name(), weakref.ref(task), _callers())


def _callers() -> tuple[tuple[CodeType, int], ...]:
    """Return the frames that lead here, without the router's own and those of context managers."""
    found: list[tuple[CodeType, int]] = []
    frame = sys._getframe(2).f_back
    while frame is not None and len(found) < _FRAMES:
        code = frame.f_code
        part = _part(code.co_filename)
        if part is _APPLICATION:
            found.append((code, frame.f_lasti))  # which line that is takes longer to say
        elif part is _STARTER:
            break  # what started the loop explains nothing
        frame = frame.f_back
    return tuple(found)


@lru_cache(maxsize=1024)
def _part(file: str) -> _Part:
    if file.startswith(_LOOP):
        return _Part.LOOP
    if file.startswith(_OWN) or file == contextlib.__file__:
        return _Part.BETWEEN
    return _Part.APPLICATION


def _line(code: CodeType, at: int) -> int:
    """Return the line of the instruction at an offset in the code."""
    for start, end, line in code.co_lines():
        if start <= at < end and line is not None:
            return line
    return code.co_firstlineno


def shares(lent: Iterable[Holder], waiting: Iterable[Holder]) -> tuple[Share, ...]:
    """Return what each tenant holds and waits for; mostly nobody does."""
    held, wanted = (Counter(holder.tenant for holder in each) for each in (lent, waiting))
    return tuple(Share(tenant, held[tenant], wanted[tenant]) for tenant in held | wanted)


def listed(held: Iterable[tuple[float, Holder]]) -> str:
    """Return holders and their seconds as words, the longest first, at most five by name."""
    ordered = sorted(held, key=lambda each: -each[0])
    if not ordered:
        return "nobody"
    shown = "; ".join(holder.describe(seconds) for seconds, holder in ordered[:_SHOWN])
    more = len(ordered) - _SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown
