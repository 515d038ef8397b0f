"""Hold a cancellation back for a moment, while an answer is awaited that nothing else can tell.

``asyncio.shield`` would need a task for each commit. Here the coroutine runs in the caller's own task, and
what the task waits for is a stand-in: cancelling that leaves the driver's own future alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Patience(Generic[T]):
    """Await a coroutine; a cancellation reaches it ``seconds`` later, if it has not ended by then.

    Awaiting returns what the coroutine returns, and the cancellation that was held back, to be raised by the
    caller. One for which ``at_once()`` is true is not held back. Cancel scopes of anyio cancel again at each
    turn of the event loop: until the answer is there they keep it busy, but nobody from running.
    """

    def __init__(self, work: Coroutine[Any, Any, T], seconds: float, at_once: Callable[[], bool]) -> None:
        self._work = work
        self._seconds = seconds
        self._at_once = at_once
        self._first: asyncio.CancelledError | None = None
        self._awaited: asyncio.Future[Any] | None = None  # what the coroutine waits for
        self._instead: asyncio.Future[None] | None = None  # what the task waits for
        self._timer: asyncio.TimerHandle | None = None

    def __await__(self) -> Generator[Any, None, tuple[T, asyncio.CancelledError | None]]:
        try:
            value = yield from self._drive()
        except asyncio.CancelledError:
            if self._first is None:
                raise
            raise self._first from None  # the first one: anyio knows its own by their message
        finally:
            if self._timer is not None:
                self._timer.cancel()
        return value, self._first

    def _drive(self) -> Generator[Any, None, T]:
        thrown: BaseException | None = None
        while True:
            try:
                awaited = self._work.send(None) if thrown is None else self._work.throw(thrown)
            except StopIteration as stop:
                value: T = stop.value
                return value
            thrown = None
            try:
                if awaited is None:  # a bare turn of the loop
                    yield None
                else:
                    yield from self._wait(awaited)
            except asyncio.CancelledError as exc:
                if not self._hold_back(exc):
                    thrown = exc
            except BaseException as exc:
                thrown = exc

    def _wait(self, awaited: asyncio.Future[Any]) -> Generator[Any, None, None]:
        awaited._asyncio_future_blocking = False  # the task, which would take the mark away, never sees it
        self._awaited = awaited
        awaited.add_done_callback(self._answered)
        while not awaited.done():
            self._instead = awaited.get_loop().create_future()
            try:
                yield from self._instead
            except asyncio.CancelledError as exc:
                if not self._hold_back(exc):
                    awaited.cancel()
        self._awaited = self._instead = None

    def _answered(self, _: asyncio.Future[Any]) -> None:
        if self._instead is not None and not self._instead.done():
            self._instead.set_result(None)

    def _hold_back(self, exc: asyncio.CancelledError) -> bool:
        """Tell whether the coroutine is not to know of a cancellation yet."""
        if self._at_once():
            return False
        if self._first is None:
            self._first = exc
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._give_up)
        return True

    def _give_up(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
