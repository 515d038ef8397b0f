"""Share one question between all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Ask again and again, one question after the other; who asks meanwhile shares the next one.

    Not the one under way: its answer may have been made before what the caller wants to know of.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    @property
    def tasks(self) -> tuple[asyncio.Task[T], ...]:
        """Return the questions that are under way."""
        return tuple(task for task in (self._running, self._next) if task is not None and not task.done())

    def next(self) -> asyncio.Task[T]:
        """Return the question that is asked next, which nobody has asked yet."""
        if self._next is None:
            turn = self._turn(self._running)
            # In a context of its own: the answer is not part of the one who happens to ask first.
            self._next = asyncio.get_running_loop().create_task(turn, context=Context())
            self._next.add_done_callback(_heard)
        return self._next

    def current(self) -> asyncio.Task[T]:
        """Return the question that is under way, or else the next."""
        return next(iter(self.tasks), None) or self.next()

    async def answer(self) -> T:
        """Return the answer to a question that was not asked before the call."""
        return await asyncio.shield(self.next())  # who is cancelled leaves the answer to the others

    async def _turn(self, before: asyncio.Task[T] | None) -> T:
        if before is not None and not before.done():
            await asyncio.wait((before,))
        self._running, self._next = self._next, None
        return await self._ask()


def _heard(task: asyncio.Task[T]) -> None:
    """Keep asyncio from logging an error whose listeners have all left."""
    if not task.cancelled():
        task.exception()
