"""How late the event loop itself is: what a busy machine adds to every time that is measured on it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

_STEP = 0.005  # seconds


class Lateness:
    """Measure it by a task beside the block; ``worst`` and ``total`` are in seconds.

    ``stood`` is what of it this process has not computed in: it was not its turn.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self.total = 0.0
        self.stood = 0.0
        self._slept = time.monotonic()  # since when the task sleeps
        self._computed = time.process_time()

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._beside())
        await asyncio.sleep(0)  # it runs now
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count()  # it may be late now and not have woken yet
        self._watch.cancel()

    async def _beside(self) -> None:
        while True:
            self._slept, self._computed = time.monotonic(), time.process_time()
            await asyncio.sleep(_STEP)
            self._count()

    def _count(self) -> None:
        late = max(time.monotonic() - self._slept - _STEP, 0.0)
        self.worst, self.total = max(self.worst, late), self.total + late
        stood = late - (time.process_time() - self._computed)
        if stood > _STEP:  # less than that is how timers are
            self.stood += stood


@asynccontextmanager
async def taking(most: float, *, least: float = 0.0) -> AsyncIterator[None]:
    """Assert that the block takes so many seconds; those are not counted in which the machine ran others."""
    began = time.monotonic()
    async with Lateness() as late:
        yield
    taken = time.monotonic() - began
    assert least <= taken, f"it took {taken:.3f} s, and at least {least} is right"
    assert taken - late.stood < most, f"it took {taken:.3f} s less {late.stood:.3f}, of {most}"
