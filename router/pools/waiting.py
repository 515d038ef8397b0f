"""The queue for a connection: first come, first served, and nothing is lost when who waits is cancelled."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from router.drivers.driver import Connection
from router.errors import RouterError
from router.pools.holders import Holder


class Turn(Enum):
    """What a waiter is told when it gets no connection."""

    OPEN = "open"  # a slot is reserved for it, to open a connection of its own
    LATE = "late"  # its time is up


Answer = Connection | Turn | RouterError


@dataclass(frozen=True, slots=True)
class _Waiter:
    holder: Holder
    task: asyncio.Task[Any] | None


class Queue:
    """Hold who waits, in order."""

    def __init__(self) -> None:
        self.waiters: OrderedDict[asyncio.Future[Answer], _Waiter] = OrderedDict()  # read by each request
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self.waiters)

    def holds(self, task: asyncio.Task[Any] | None) -> bool:
        """Tell whether a task stands in the queue."""
        return task in self._tasks

    def join(self, holder: Holder, *, first: bool) -> asyncio.Future[Answer]:
        """Take a place in the queue, at its head if ``first``; it must be waited for at once."""
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Answer] = loop.create_future()
        waiter = self.waiters[place] = _Waiter(holder, asyncio.current_task(loop))
        if first:
            self.waiters.move_to_end(place, last=False)
        if waiter.task is not None:
            self._tasks.add(waiter.task)
        return place

    async def wait(
        self, place: asyncio.Future[Answer], seconds: float, give_back: Callable[[Answer], None]
    ) -> Answer:
        """Wait on a place until something is handed over or time is up.

        ``give_back`` takes what was handed over to a waiter that was cancelled before it could run.
        """
        timer = place.get_loop().call_later(max(seconds, 0), _resolve, place, Turn.LATE)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                give_back(place.result())
            raise
        finally:
            timer.cancel()
            self._leave(place)

    def hand(self, answer: Answer) -> Holder | None:
        """Hand something over to the first who still waits; return who that is, ``None`` if nobody does."""
        while self.waiters:
            place = next(iter(self.waiters))
            waiter = self._leave(place)
            if waiter is not None and _resolve(place, answer):
                return waiter.holder
        return None

    def _leave(self, place: asyncio.Future[Answer]) -> _Waiter | None:
        waiter = self.waiters.pop(place, None)
        if waiter is not None and waiter.task is not None:
            self._tasks.discard(waiter.task)
        return waiter


def _resolve(place: asyncio.Future[Answer], answer: Answer) -> bool:
    if place.done():
        return False
    place.set_result(answer)
    return True
