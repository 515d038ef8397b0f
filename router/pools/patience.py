"""Hold a cancellation back for a moment, while an answer is awaited that nothing else can tell.

``asyncio.shield`` would need a task for each commit. Here the coroutine runs in the caller's own task, and
what the task waits for is a stand-in: cancelling that leaves the driver's own future alone. It is no future
of its own, which would be made, and cost a turn of the event loop, for every answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
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
        instead = _StandIn(awaited)
        while not awaited.done():
            instead._asyncio_future_blocking = True
            try:
                yield instead
            except asyncio.CancelledError as exc:
                if not self._hold_back(exc):
                    awaited.cancel()
        self._awaited = None

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


class _StandIn:
    """Be to a task what a future is: wake it when the future ``awaited`` is done, or when it is cancelled.

    A task takes for a future what has the mark of one (see ``Task.__step`` of asyncio), and then calls
    ``get_loop``, ``add_done_callback``, ``cancel`` and, through the callback, ``result``.
    """

    __slots__ = ("_asyncio_future_blocking", "_awaited", "_cancelled", "_context", "_wake")

    def __init__(self, awaited: asyncio.Future[Any]) -> None:
        self._asyncio_future_blocking = True
        self._awaited = awaited
        self._cancelled: asyncio.CancelledError | None = None  # what the task has yet to be told
        self._context: Context | None = None
        self._wake: Callable[[Any], object] | None = None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._awaited.get_loop()

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context | None = None) -> None:
        if self._context is None:  # the first time: it is one task that waits, in its one context
            self._awaited.add_done_callback(self._pass_on, context=context)
        self._wake, self._context = wake, context

    def cancel(self, msg: Any = None) -> bool:
        if self._cancelled is not None or self._awaited.done():
            return False  # the task is about to wake up; it then cancels itself
        self._cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self.get_loop().call_soon(self._pass_on, context=self._context)
        return True

    def _pass_on(self, _: object = None) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:  # else the task is at work again
            wake(self)

    def result(self) -> None:
        """Raise the cancellation; what became of ``awaited`` the coroutine asks by itself."""
        cancelled, self._cancelled = self._cancelled, None
        if cancelled is not None:
            raise cancelled
