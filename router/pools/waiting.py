"""Who waits for a connection of one pool: fair between tenants, and in order for each of them.

Nothing is lost when who waits is cancelled.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Any

from router.drivers.driver import Connection
from router.errors import RouterError
from router.pools.fairness import Flow, VirtualTime
from router.pools.holders import Holder


class Late(Enum):
    """Tell a waiter that its time is up."""

    LATE = "late"


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell a waiter that it may open a connection in a slot; its tenant was ``charged`` so many seconds."""

    charged: float


Answer = Connection | Leave | Late | RouterError
Place = asyncio.Future[Answer]


@dataclass(frozen=True, slots=True)
class _Waiter:
    holder: Holder
    task: asyncio.Task[Any] | None


class _Line:
    """The requests of one flow, first come, first served."""

    __slots__ = ("flow", "passed", "ranked", "waiters")

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.waiters: OrderedDict[Place, _Waiter] = OrderedDict()
        self.ranked = False  # whether it stands in the ranking
        self.passed = 0  # how often others went before at its turn

    def may_go(self, latest: float) -> bool:
        """Tell whether its turn comes at the latest then, and nothing holds it up."""
        flow = self.flow
        return self.ranked and flow.finish <= latest and flow.held < flow.limit


class Queue:
    """Hold who waits; ``time`` is the node's, which the queues of its pools share."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self._lines: dict[Flow, _Line] = {}
        self._at: dict[Place, _Line] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        # by start tag; a tag may have risen since, and a line may have run empty: seen at its turn
        self._ranking: list[tuple[float, int, _Line]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._at)

    def holders(self) -> list[Holder]:
        """Return who waits; any thread may ask."""
        lines = list(self._lines.values())
        return [waiter.holder for line in lines for waiter in list(line.waiters.values())]

    def flows(self) -> Iterator[Flow]:
        """Yield the flows that wait."""
        return iter(self._lines)

    def holds(self, task: asyncio.Task[Any] | None) -> bool:
        """Tell whether a task stands in the queue."""
        return task in self._tasks

    # --- joining and waiting -----------------------------------------------------------------------------

    def join(self, holder: Holder, *, first: bool) -> Place:
        """Take a place, at the head of the holder's flow if ``first``; it must be waited for at once."""
        loop = asyncio.get_running_loop()
        place: Place = loop.create_future()
        waiter = _Waiter(holder, asyncio.current_task(loop))
        flow = holder.flow
        line = self._lines.get(flow)
        if line is None:
            line = self._lines[flow] = _Line(flow)
        line.waiters[place] = waiter
        if first:
            line.waiters.move_to_end(place, last=False)
        self._at[place] = line
        flow.waiting += 1
        if waiter.task is not None:
            self._tasks.add(waiter.task)
        if len(line.waiters) == 1 and not line.ranked:
            self._rank(line)
        return place

    async def wait(self, place: Place, seconds: float, give_back: Callable[[Answer], None]) -> Answer:
        """Wait on a place until something is handed over or time is up.

        ``give_back`` takes what was handed over to a waiter that was cancelled before it could run.
        """
        timer = place.get_loop().call_later(max(seconds, 0), _resolve, place, Late.LATE)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                give_back(place.result())
            raise
        finally:
            timer.cancel()
            self._leave(place)

    def _leave(self, place: Place) -> _Waiter | None:
        line = self._at.pop(place, None)
        if line is None:
            return None
        waiter = line.waiters.pop(place)
        line.flow.waiting -= 1
        if waiter.task is not None:
            self._tasks.discard(waiter.task)
        if not line.waiters:
            self._lines.pop(line.flow, None)
        return waiter

    # --- serving -----------------------------------------------------------------------------------------

    def _rank(self, line: _Line) -> None:
        line.ranked = True
        heappush(self._ranking, (max(self._time.now, line.flow.finish), next(self._number), line))

    def _resume(self, line: _Line) -> None:
        if line.waiters and not line.ranked:
            self._rank(line)

    def first(self) -> float | None:
        """Return the start tag of who is next; ``None`` if nobody waits whom its limit lets have more."""
        ranking = self._ranking
        while ranking:
            tag, _, line = ranking[0]
            flow = line.flow
            if not line.waiters:
                heappop(ranking)
                line.ranked = False
            elif flow.held >= flow.limit:
                heappop(ranking)
                line.ranked = False
                flow.parked.append(partial(self._resume, line))
            elif flow.finish > tag:  # what it had before took longer than usual
                heapreplace(ranking, (flow.finish, next(self._number), line))
            else:
                return tag
        return None

    def hand(
        self, connection: Connection | None = None, last: Flow | None = None, soon: int = 0
    ) -> tuple[Holder, float] | None:
        """Hand a connection over to who is next, or leave to open one; return who, and what it is charged.

        The flow then holds one connection more. ``None``: nobody is next. The ``last`` flow, to which the
        connection is still bound, has it again before who is first, but no one waits for more than ``soon``
        such grants. To bind it to another costs as much as a small statement.
        """
        while (tag := self.first()) is not None:
            line = self._again(last, tag + soon * self._time.usual, soon) if last is not None else None
            if line is None:
                line = heappop(self._ranking)[2]
                line.ranked = False
            line.passed = 0
            place = next(iter(line.waiters))
            waiter, taken, charged = self._leave(place), not place.done(), 0.0
            if taken:
                charged = self._time.granted(line.flow, tag)
                place.set_result(Leave(charged) if connection is None else connection)
            self._resume(line)
            if taken and waiter is not None:
                line.flow.held += 1
                return waiter.holder, charged
        return None

    def _again(self, last: Flow, latest: float, soon: int) -> _Line | None:
        """Return the line of the last flow if it goes before the first one."""
        first, line = self._ranking[0][2], self._lines.get(last)
        if line is None or line is first or first.passed >= soon or not line.may_go(latest):
            return None
        first.passed += 1
        return line

    def drop(self, flow: Flow, error: RouterError) -> None:
        """Refuse the request of a flow that came last."""
        line = self._lines.get(flow)
        if line is not None:
            place = next(reversed(line.waiters))
            self._leave(place)
            _resolve(place, error)

    def dismiss(self, error: Callable[[], RouterError]) -> None:
        """Tell all who wait that nothing will come."""
        for place in list(self._at):
            self._leave(place)
            _resolve(place, error())


def _resolve(place: Place, answer: Answer) -> bool:
    if place.done():
        return False
    place.set_result(answer)
    return True
