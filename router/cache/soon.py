"""Write values in the background, one after the other, so that no reader waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

_COUNT = 1000  # values that may wait
_BYTES = 16 * 1024 * 1024  # that they may have together


class Soon:
    """Hold values until the one task has written them; there is no task while there is nothing to do."""

    def __init__(self, write: Callable[[str, bytes, float], Awaitable[bool]]) -> None:
        self._write = write
        self._left: dict[str, tuple[bytes, float]] = {}  # a newer value takes the place of an older one
        self._size = 0
        self._task: asyncio.Task[None] | None = None

    def put(self, key: str, value: bytes, ttl: float) -> bool:
        """Take a value; return False where there is no room."""
        before = self._left.get(key)
        size = self._size + len(value) - (len(before[0]) if before else 0)
        if size > _BYTES or (before is None and len(self._left) >= _COUNT):
            return False
        self._left[key], self._size = (value, ttl), size
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._work(), name="cache writes", context=Context()
            )
        return True

    async def close(self) -> None:
        """Forget what is left and end the task; the write under way has its own limit."""
        self._left.clear()
        self._size = 0
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=1)

    async def _work(self) -> None:
        try:
            while self._left:
                key = next(iter(self._left))
                value, ttl = self._left.pop(key)
                self._size -= len(value)
                await self._write(key, value, ttl)
        finally:
            self._task = None
