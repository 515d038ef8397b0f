"""How long the event loop stands still: told by a task that sleeps for a millisecond again and again.

On a busy machine it wakes late because other programs run: what counts is how much of that time this process
has computed meanwhile.
"""

import asyncio
from time import perf_counter, process_time
from types import TracebackType
from typing import Self

_STEP = 0.001  # seconds that the task sleeps


class Pause:
    """Watch the loop in the block; times in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0  # of the block
        self.late = 0.0  # at most, by the clock
        self.longest = 0.0  # of that, what this process has computed

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._look())
        await asyncio.sleep(2 * _STEP)
        self.late = self.longest = 0.0
        self._began = perf_counter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = perf_counter() - self._began
        await asyncio.sleep(2 * _STEP)
        self._watch.cancel()

    async def _look(self) -> None:
        while True:
            began, computed = perf_counter(), process_time()
            await asyncio.sleep(_STEP)
            late = perf_counter() - began - _STEP
            self.late = max(self.late, late)
            self.longest = max(self.longest, min(late, process_time() - computed))
