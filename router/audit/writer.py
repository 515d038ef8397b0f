"""The thread that writes the journal: in order, many records at once, and off the event loop.

A local disk takes a record within microseconds, but may also stand still for seconds (a full write-back, a
network file system), and a sync waits for the device. Only who has written waits for that, never the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final

from router.audit.journal import Journal
from router.config import TrailConfig

MOST: Final = 10_000
"""Records that wait in memory while the journal cannot be written."""

_BATCH = 512  # records written at once
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0  # seconds between attempts at a journal that cannot be written

Facts = Mapping[str, Any]


class Writer:
    """Take records on the event loop and write them in one thread.

    ``tell`` is called on the loop when the journal begins to fail, with why, and with "" when it works again.
    """

    def __init__(
        self,
        journal: Journal,
        config: TrailConfig,
        tell: Callable[[str], None],
        wall: Callable[[], float],
        *,
        most: int = MOST,
    ) -> None:
        self.journal = journal
        self.failing = ""  # why the journal cannot be written; "" while it can
        self.failures = 0
        self.lost = 0  # records that are in no file
        self.late = 0  # writes that were answered before their record was in a file
        self.written = asyncio.Event()  # set at each progress; who waits clears it
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._tell = tell
        self._wall = wall
        self._most = most
        self._put = 0
        self._done = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._queue: SimpleQueue[Facts | None] = SimpleQueue()
        self._confessed = 0  # of ``lost``: those that the chain tells of
        self._given_up = 0  # when it was closed
        self._stopping = threading.Event()
        # a daemon: an application that forgets to close must still be able to end
        self._thread = threading.Thread(target=self._run, name="router audit", daemon=True)
        self._thread.start()

    # --- on the loop -------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Return how many records wait to be written."""
        return self._put - self._done

    @property
    def records(self) -> int:
        """Return how many records were written."""
        return self._done

    def put(self, record: Facts) -> None:
        """Have a record written after all that were put before it."""
        if self.queued >= self._most:
            self.lost += 1
            return
        self._put += 1
        self._queue.put(record)

    async def kept(self) -> bool:
        """Wait until all that was put so far is in the journal; tell whether it is, in time."""
        mine = self._put
        if self._done >= mine:
            return True
        if self.failing and self._config.when_full == "continue":
            self.late += 1
            return False
        future = self._loop.create_future()
        self._waiting.append((mine, future))
        try:
            async with asyncio.timeout(self._config.wait):
                await future
        except TimeoutError:
            self.late += 1
            return False
        return True

    async def close(self, grace: float) -> None:
        """Write what is left for ``grace`` seconds, then count it as lost."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, grace)
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, grace)

    def stop(self) -> None:
        """End the thread without waiting for it."""
        self._queue.put(None)
        self._stopping.set()

    def abandon(self) -> None:
        """Let go of the files in a forked child, which has no such thread."""
        self.journal.abandon()

    def _progress(self, done: int, failing: str, lost: int) -> None:
        self._done += done
        self.lost += lost
        if failing and not self.failing:
            self.failing = failing
            self._tell(failing)
        elif self.failing and not failing:
            self.failing = ""
            self._tell("")
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._done:
            future = waiting.popleft()[1]
            if not future.done():
                future.set_result(None)
        self.written.set()

    # --- in the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        synced, going = monotonic(), True
        while going:
            batch, going = self._batch(synced)
            if batch and not self._keep(batch):
                break
            if self._config.fsync == "interval" and monotonic() - synced >= self._config.interval:
                with suppress(OSError):
                    self.journal.sync()
                synced = monotonic()
        self.journal.close(self.lost - self._confessed + self._given_up)

    def _batch(self, synced: float) -> tuple[list[Facts], bool]:
        """Return what waits to be written, at least one record if there is one in time; False at the end."""
        limit = None
        if self._config.fsync == "interval":
            limit = max(synced + self._config.interval - monotonic(), 0.001) if self.journal.dirty else None
        batch: list[Facts] = []
        try:
            record = self._queue.get(timeout=limit)
            while record is not None:
                batch.append(record)
                if len(batch) >= _BATCH:
                    return batch, True
                record = self._queue.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _keep(self, batch: list[Facts]) -> bool:
        """Write records, again and again if need be; False when it was told to give up."""
        pause = _FIRST_PAUSE
        while True:
            lost = self.lost - self._confessed
            confession = [{"at": round(self._wall(), 6), "type": "lost", "count": lost}] if lost else []
            try:
                self.journal.add([*confession, *batch])
                if self._config.fsync == "each":
                    self.journal.sync()
            except OSError as exc:
                self.failures += 1
                self._report(0, exc.strerror or type(exc).__name__)
            else:
                self._confessed += lost
                self._report(len(batch), "")
                return True
            if self._stopping.wait(pause):
                self._given_up = len(batch) + max(self._queue.qsize() - 1, 0)
                self._report(0, self.failing, lost=self._given_up)
                return False
            pause = min(pause * 2, _LAST_PAUSE)

    def _report(self, done: int, failing: str, *, lost: int = 0) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._progress, done, failing, lost)
