"""One read at a time for each key: who asks meanwhile gets the same answer, or the same error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

from router.cache.entries import Entry
from router.errors import RouterError

_SHARED = 0.05  # seconds in which a failed read is not made again
_MOST = 10_000  # failures remembered


class Flight:
    """Hold one read under way."""

    __slots__ = ("_done", "entry", "error", "followers", "sent")

    def __init__(self, now: float) -> None:
        self.sent = now  # its answer holds at least what a read that was sent then would have found
        self.entry: Entry | None = None
        self.error: RouterError | None = None
        self.followers = 0
        self._done: asyncio.Future[None] | None = None

    async def wait(self, timeout: float) -> None:
        """Return when the read has ended, whatever its end; raises TimeoutError."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        self.followers += 1
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._done)
        finally:
            self.followers -= 1

    def end(self) -> None:
        """Let the followers go on."""
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


class Flights:
    """Hold the reads under way, and for a moment those that failed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running: dict[Hashable, Flight] = {}
        self._failed: dict[Hashable, tuple[float, RouterError]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def running(self, key: Hashable) -> Flight | None:
        """Return the flight of a key, if there is one."""
        return self._running.get(key)

    def begin(self, key: Hashable) -> Flight:
        """Return a new flight of a key; its leader ends it by :meth:`end`, whatever happens."""
        flight = self._running[key] = Flight(self._clock())
        return flight

    def end(self, key: Hashable, flight: Flight) -> None:
        """End a flight, so that its followers go on with its answer, its error, or by themselves."""
        if self._running.get(key) is flight:
            del self._running[key]
        if flight.error is not None and flight.followers:
            if len(self._failed) >= _MOST:
                self._failed.clear()
            self._failed[key] = (self._clock() + _SHARED, flight.error)
        flight.end()

    def failed(self, key: Hashable) -> RouterError | None:
        """Return the error of a read that many waited for and that failed just now."""
        if not self._failed:
            return None
        found = self._failed.get(key)
        if found is None or found[0] > self._clock():
            return None if found is None else found[1]
        del self._failed[key]
        return None


def again(error: RouterError) -> RouterError:
    """Return an error like another one, to be raised to somebody else."""
    made: Any = type(error).__new__(type(error))
    made.__dict__.update(error.__dict__)
    made.args = error.args
    return made  # type: ignore[no-any-return]
