"""Hand records from the journal to a listener: in order, each at least once, across restarts.

What was taken is noted in the lane after the listener has returned, so a record may come twice and is never
left out. Chain and number name a record: who must not take one twice remembers those.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from router.audit.chain import Record, read
from router.audit.lanes import segments

Sink = Callable[[Sequence[dict[str, Any]]], Awaitable[object]]

TIMEOUT: Final = 30.0
"""Seconds that a listener has for a batch; then it counts as failed and gets it again."""

_RECORDS, _BYTES = 500, 1 << 20  # of a batch, at most
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 30.0  # seconds after a failure of the listener
_IDLE = 1.0  # seconds between two looks at a lane that nobody tells of
_NOTE = "delivered"


class Spot(NamedTuple):
    """Name a place in a lane: a file by its number, and a byte in it."""

    number: int
    offset: int


class Batch(NamedTuple):
    """Hold records and the place after them."""

    records: list[Record]
    after: Spot


def noted(lane: Path) -> Spot:
    """Return up to where a lane was delivered."""
    try:
        number, offset = json.loads((lane / _NOTE).read_text())
        return Spot(int(number), int(offset))
    except (FileNotFoundError, ValueError, TypeError):
        return Spot(0, 0)  # from the start: rather twice than never


def note(lane: Path, spot: Spot) -> None:
    """Remember up to where a lane was delivered; there is always a whole note."""
    fresh = lane / f"{_NOTE}.new"
    fresh.write_text(json.dumps(list(spot)))
    os.replace(fresh, lane / _NOTE)


def next_batch(lane: Path, spot: Spot) -> Batch:
    """Return what comes after a place.

    Half of a line at the end of a file may be whole soon, unless there is a later file: nothing follows then.
    """
    for number, path in segments(lane):
        if number < spot.number:
            continue
        offset = spot.offset if number == spot.number else 0
        while True:
            lines = _lines(path, offset)
            if not lines:
                break
            # what is no record, router audit verify tells of
            records = [each for each in map(read, lines) if each is not None]
            offset += sum(map(len, lines)) + len(lines)
            if records:
                return Batch(records, Spot(number, offset))
        spot = Spot(number, offset)
    return Batch([], spot)


def _lines(path: Path, offset: int) -> list[bytes]:
    """Return some whole lines of a file after a place, without their ends."""
    with path.open("rb") as file:
        file.seek(offset)
        found = file.read(_BYTES)
        if len(found) == _BYTES and b"\n" not in found:  # one line that is longer than a batch
            found += file.readline()
    return found.split(b"\n")[:-1][:_RECORDS]


def left(lane: Path, spot: Spot) -> int:
    """Return how many bytes of a lane come after a place."""
    sizes = [(number, path.stat().st_size) for number, path in segments(lane) if number >= spot.number]
    return sum(size - (spot.offset if number == spot.number else 0) for number, size in sizes)


class Delivery:
    """Deliver one lane to a listener until it is stopped; with ``last`` until nothing is left."""

    def __init__(
        self,
        lane: Path,
        sink: Sink,
        *,
        wake: asyncio.Event | None = None,
        passed: Callable[[Spot], Awaitable[None]] | None = None,
        tell: Callable[[str], None] = lambda error: None,
        wall: Callable[[], float] = time.time,
        last: bool = False,
    ) -> None:
        self.lane = lane
        self.spot = noted(lane)
        self.delivered = 0
        self.failures = 0
        self.failing = ""
        self.lag = 0.0  # seconds between a write and its delivery, of the last batch
        self._last = last  # nothing more will be written
        self._sink = sink
        self._wake = wake
        self._passed = passed
        self._tell = tell
        self._wall = wall
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"audit delivery {lane.name}")

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            if self._wake is not None:
                self._wake.clear()  # before looking: what is written meanwhile wakes us again
            try:
                batch = await asyncio.to_thread(next_batch, self.lane, self.spot)
                if batch.records:
                    async with asyncio.timeout(TIMEOUT):
                        await self._sink([{**each.facts, "hash": each.hash} for each in batch.records])
                if batch.after != self.spot:
                    await asyncio.to_thread(note, self.lane, batch.after)
            except (
                Exception,
                asyncio.CancelledError,
            ) as exc:  # of the listener or the disk; it is tried again
                task = asyncio.current_task()
                if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise  # not the listener's own, such as a future of its that was cancelled
                self._fail(type(exc).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            moved = batch.after.number != self.spot.number
            self._took(batch)
            if moved and self._passed is not None:
                await self._passed(batch.after)
            if not batch.records:
                if self._last:
                    return
                await self._news()

    async def _news(self) -> None:
        """Wait until the lane may have more."""
        if self._wake is None:
            await asyncio.sleep(_IDLE)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_IDLE):
                await self._wake.wait()

    def _took(self, batch: Batch) -> None:
        if self.failing:
            self.failing = ""
            self._tell("")
        self.spot = batch.after
        self.delivered += len(batch.records)
        if batch.records:
            self.lag = max(self._wall() - batch.records[-1].facts.get("at", self._wall()), 0.0)

    def _fail(self, error: str) -> None:
        self.failures += 1
        if not self.failing:
            self.failing = error
            self._tell(error)

    async def close(self, grace: float) -> None:
        """Deliver what is left for ``grace`` seconds, then stop; a listener that resists is left behind."""
        self._last = True
        if self._wake is not None:
            self._wake.set()
        await asyncio.wait([self.task], timeout=0.0 if self.failing else grace)
        self.task.cancel()
        await asyncio.wait([self.task], timeout=1.0)

    def cancel(self) -> None:
        """Stop at once."""
        self.task.cancel()
