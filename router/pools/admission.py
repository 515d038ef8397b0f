"""Who may open a connection now, and who waits: slots, the queue, and the server's patience.

Opening is bounded in three ways: by the pool's maximum, by a number at the same time (a burst of requests is
served sooner by connections that come back than by fifty handshakes that compete), and by what the server
has refused lately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.drivers.driver import Connection
from router.errors import RouterError
from router.pools.holders import Holder
from router.pools.refusals import Refusals
from router.pools.waiting import Answer, Queue, Turn

_AT_ONCE = 10  # connections being opened at the same time


class Admission:
    """Count the slots of a pool of at most ``most`` connections, and keep its queue."""

    def __init__(self, most: int, refusals: Refusals) -> None:
        self._most = most
        self._refusals = refusals
        self._opening = 0
        self._timer: asyncio.TimerHandle | None = None  # until the server may be asked again
        self._empty: asyncio.Event | None = None
        self.queue = Queue()
        self.size = 0  # connections that are idle, lent, being opened, being cleaned

    def reserve(self) -> bool:
        """Reserve a slot to open a connection in, if one may be opened now."""
        at_once = 1 if self._refusals.probing else _AT_ONCE
        if self.size >= self._most or self._opening >= at_once or self._refusals.pause():
            return False
        self.size += 1
        self._opening += 1
        return True

    def opened(self) -> None:
        """Turn a reserved slot into that of a connection; another may be opened now."""
        self._opening -= 1
        self.advance()

    def vacate(self) -> None:
        """Give up a reserved slot: nothing was opened in it."""
        self._opening -= 1
        self.free()
        if not self.size and self._refusals.pause():
            self._refuse_all()

    def free(self) -> None:
        """Give a slot up: to the first in the queue, so that nobody new gets it before."""
        self.size -= 1
        self.advance()
        if self._empty is not None and not self.size:
            self._empty.set()

    def advance(self) -> None:
        """Let the first in the queue open connections, as many as may be opened now."""
        while self.queue and self.reserve():
            if self.queue.hand(Turn.OPEN) is None:
                self.size -= 1
                self._opening -= 1
        if self.queue and self._timer is None and (pause := self._refusals.pause()):
            self._timer = asyncio.get_running_loop().call_later(pause, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self.advance()

    def _refuse_all(self) -> None:
        """Tell all who wait that the server takes no connection: there is none that could come free."""
        while self.queue:
            error = self._refusals.error()
            if error is None or self.queue.hand(error) is None:
                return

    async def wait(
        self, holder: Holder, seconds: float, *, first: bool, give_back: Callable[[Connection], None]
    ) -> Answer:
        """Stand in the queue, at its head if ``first``; ``give_back`` takes what came too late."""

        def pass_on(answer: Answer) -> None:
            if isinstance(answer, Connection):
                give_back(answer)
            elif answer is Turn.OPEN:
                self.vacate()

        place = self.queue.join(holder, first=first)
        self.advance()  # the server may have room by now; if not, this sets the timer
        return await self.queue.wait(place, seconds, pass_on)

    def dismiss(self, error: Callable[[], RouterError]) -> None:
        """Tell all who wait that nothing will come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.queue.hand(error()) is not None:
            pass

    async def empty(self) -> None:
        """Return when there is no connection left."""
        self._empty = self._empty or asyncio.Event()
        if self.size:
            await self._empty.wait()
