"""Show a running router live: asking for a picture makes it record requests, until nobody asks any more."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from router.developing import DIGESTS, Moment, develop
from router.picture import Picture
from router.recording import Recorder
from router.router import Router

PATIENCE = 30.0
"""Seconds after the last picture for which requests are still recorded."""


class Live:
    """Make pictures of ``router``; requests are recorded from the first until half a minute after the last.

    Belongs to the router's event loop, as the router does.
    """

    def __init__(
        self,
        router: Router,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._router, self._clock, self._wall = router, clock, wall
        self._recorder = Recorder(router.dispatcher, clock, wall)
        self._began = self._asked = clock()
        self._timer: asyncio.TimerHandle | None = None

    async def picture(self) -> Picture:
        """Return the router as it is now, and go on recording requests for a while.

        The loop only takes note of what there is: with ten thousand tenants the rest takes a while.
        """
        self._watch()
        return await asyncio.to_thread(develop, self._moment())

    def _moment(self) -> Moment:
        router, now = self._router, self._clock()
        status = router.status(tenants=False)
        return Moment(
            pid=os.getpid(),
            at=self._wall(),
            now=now,
            up=now - self._began,
            status=status,
            recorded=self._recorder.recorded(),
            digests=router.slowlog.digests(DIGESTS),
            tallies=tuple if status.cache is None else router.cache.tallies,
        )

    def close(self) -> None:
        """Listen to the router no more."""
        self._recorder.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        self._asked = self._clock()
        self._recorder.start()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._look)

    def _look(self) -> None:
        """Stop recording if nobody has asked for a while."""
        left = self._asked + PATIENCE - self._clock()
        self._timer = None
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._look)
        else:
            self._recorder.stop()
