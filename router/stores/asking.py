"""Ask in a thread of its own, which nobody waits for when time is up.

The event loop's own threads are few, and look up names for every connect: a store that hangs must not take
them. A daemon's thread does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from router.stores.store import Unanswered

T = TypeVar("T")


class Asking(threading.Thread, Generic[T]):
    """Run ``work`` and give its result to an event loop; what it raises is told by its class only."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(name="router secrets", daemon=True)
        self._work = work
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[T | Unanswered] = self._loop.create_future()
        self.finished = False  # with its work: it is alive a moment longer

    def run(self) -> None:
        """Work; called in the thread."""
        result: T | Unanswered
        try:
            result = self._work()
        except BaseException as exc:  # no text: it may hold what it was about
            result = Unanswered(f"asking for it raised {type(exc).__name__}")
        self.finished = True
        try:
            self._loop.call_soon_threadsafe(self._give, result)
        except RuntimeError:  # the loop is closed: there is nobody to tell
            return

    def _give(self, result: T | Unanswered) -> None:
        if not self.answer.done():
            self.answer.set_result(result)


class Threads:
    """Ask in threads, for each question in one at a time: a store that hangs gathers no more of them."""

    def __init__(self) -> None:
        self._asking: dict[str, Asking[Any]] = {}

    async def ask(self, question: str, work: Callable[[], T]) -> T | Unanswered:
        """Return the result of ``work``, unless the same question is still unanswered."""
        last = self._asking.get(question)
        if last is not None and not last.finished:
            return Unanswered("it has not answered the last time yet")
        thread = self._asking[question] = Asking(work)
        thread.start()
        return await thread.answer


class _Hushed(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG or not isinstance(threading.current_thread(), Asking)


_HUSHED = _Hushed()


def hush(names: Iterable[str]) -> None:
    """Drop what these loggers say at DEBUG in our threads: clients log whole requests and answers there."""
    for name in names:
        logging.getLogger(name).addFilter(_HUSHED)  # adds the same one once
