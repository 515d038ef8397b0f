"""What a transaction wants done once it is committed, too late to change anything: it never fails it.

Plain calls run at once, before ``commit()`` returns. From the first that has to be awaited on, the rest runs
in a task of its own, in order, so that nobody waits for a message broker with a response in hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

from router.listeners import ListenerStats, name_of
from router.logs import log_of

NAME: Final = "after_commit"
"""Under which the counts are shown, beside those of the listeners."""

TIMEOUT: Final = 10.0
"""Seconds that an async call may take; then it is cancelled, and has failed."""

MOST: Final = 1_000
"""Committed transactions whose async calls may run at the same time; those of further ones are dropped."""

Call = Callable[[], object]

_log = log_of("dispatcher")


class Afterwards:
    """Run what committed transactions have asked for; ``tasks`` holds what runs, for who closes."""

    def __init__(self, tasks: set[asyncio.Task[None]]) -> None:
        self._tasks = tasks
        self._running = 0
        self._delivered = self._failed = self._dropped = 0
        self._logged: set[str] = set()
        self.closed = False

    def run(self, calls: Sequence[Call]) -> None:
        """Make the calls in order, each once; never raise."""
        for index, call in enumerate(calls):
            result = self._made(call)
            if inspect.isawaitable(result):
                self._beside(result, calls[index:])
                return

    def _made(self, call: Call) -> object:
        """Make a call and count it, unless what it returns is to be awaited still."""
        try:
            result = call()
        except (Exception, asyncio.CancelledError) as error:
            self._count_failure(call, error)
            return None
        if not inspect.isawaitable(result):
            self._delivered += 1
        return result

    def _beside(self, begun: Awaitable[object], calls: Sequence[Call]) -> None:
        """Await what the first of the calls has begun, then make the others, in a task."""
        if self.closed or self._running >= MOST:
            if inspect.iscoroutine(begun):
                begun.close()
            self._drop(len(calls), "the router is closed" if self.closed else f"{MOST} commits' calls run")
            return
        self._running += 1
        task = asyncio.get_running_loop().create_task(self._rest(begun, calls), name="router after_commit")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running -= 1
        self._tasks.discard(task)

    async def _rest(self, begun: Awaitable[object], calls: Sequence[Call]) -> None:
        for index, call in enumerate(calls):
            result: Any = begun if index == 0 else self._made(call)
            if not inspect.isawaitable(result):
                continue
            try:
                async with asyncio.timeout(TIMEOUT):
                    await result
            except asyncio.CancelledError as error:
                task = cast("asyncio.Task[None]", asyncio.current_task())
                if task.cancelling():
                    self._drop(len(calls) - index, "the router is closed")
                    raise
                self._count_failure(call, error)
            except Exception as error:
                self._count_failure(call, error)
            else:
                self._delivered += 1

    def _drop(self, number: int, why: str) -> None:
        first, self._dropped = not self._dropped, self._dropped + number
        if first:
            self._log("%d calls after a commit were dropped: %s; further ones are counted only", number, why)

    def _count_failure(self, call: Call, error: BaseException) -> None:
        self._failed += 1
        name = name_of(call)
        if name not in self._logged:
            self._logged.add(name)  # there are as many names as the program has functions
            text = "%s failed after a commit, which stands; further failures of it are counted only"
            self._log(text, name, exc_info=error)

    def _log(self, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        with contextlib.suppress(Exception):  # a broken log handler must not fail the commit either
            _log.error(text, *args, exc_info=exc_info)

    def stats(self) -> ListenerStats | None:
        """Return the counts; ``None`` if nothing was ever to be called."""
        if not (self._delivered or self._failed or self._dropped or self._running):
            return None
        return ListenerStats(NAME, self._delivered, self._failed, self._dropped, self._running, muted=False)
