"""How late the event loop itself is: what a busy machine adds to every time that is measured on it."""

import asyncio
import time
from types import TracebackType
from typing import Self

_STEP = 0.005  # seconds


class Lateness:
    """Measure it by a task beside the block; ``worst`` and ``total`` are in seconds."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.total = 0.0
        self._slept = time.monotonic()  # since when the task sleeps

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
            self._slept = time.monotonic()
            await asyncio.sleep(_STEP)
            self._count()

    def _count(self) -> None:
        late = max(time.monotonic() - self._slept - _STEP, 0.0)
        self.worst, self.total = max(self.worst, late), self.total + late
