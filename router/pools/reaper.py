"""Clean-up that outlives the caller: resets and closes run here, bounded in number and time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, cast

from router.drivers.driver import Connection

_MOST = 1_000  # clean-ups under way at once; past that connections are cut without a good-bye


class Reaper:
    """Run clean-up coroutines in the background, so that nobody waits for a frozen server.

    A shielded close measured 2.3 s of a caller's 0.3 s deadline; handing it over costs the caller nothing.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._tasks: dict[asyncio.Task[Any], Callable[[], None]] = {}  # and what to do instead
        self._ended = False

    def submit(self, work: Callable[[], Coroutine[Any, Any, None]], instead: Callable[[], None]) -> None:
        """Start ``work`` in the background, or call ``instead`` at once if too much is under way."""
        if self._ended or len(self._tasks) >= self._most:
            instead()
            return
        task = asyncio.get_running_loop().create_task(work(), context=Context())
        self.adopt(task, instead)

    def adopt(self, task: asyncio.Task[Any], instead: Callable[[], None] = lambda: None) -> None:
        """Wait for ``task`` too when draining: work that its caller has given up on."""
        self._tasks[task] = instead
        task.add_done_callback(self._bury)

    def _bury(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it any more; unasked for, asyncio would log it

    def __len__(self) -> int:
        return len(self._tasks)

    def cancel(self) -> set[asyncio.Task[Any]]:
        """Cancel all that is under way and return it; each task then takes the short way by itself.

        One that has not begun never runs at all: the short way is taken for it. So is any later work's.
        """
        self._ended = True
        late = dict(self._tasks)
        for task, instead in late.items():
            begun = inspect.getcoroutinestate(cast("Any", task.get_coro())) != inspect.CORO_CREATED
            task.cancel()
            if not begun:
                instead()
        return set(late)

    async def drain(self, timeout: float) -> int:
        """Wait for what is under way, at most ``timeout`` seconds; cancel the rest and return its number."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while self._tasks and (left := end - loop.time()) > 0:  # one clean-up may hand over another
            await asyncio.wait(set(self._tasks), timeout=left)
        late = self.cancel() if self._tasks else set()
        if late:
            await asyncio.wait(late, timeout=1)
        return len(late)


async def farewell(connection: Connection, timeout: float) -> None:
    """Close a connection in order, or if that fails or takes too long, at once."""
    try:
        await connection.close(timeout)
    except BaseException as exc:
        connection.terminate()
        if not isinstance(exc, Exception):
            raise
