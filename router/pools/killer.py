"""End on the server what closing a connection leaves running there.

MySQL notices that a client has gone only when it next writes to it: a statement that was cancelled or ran out
of time would go on for as long as it takes. It is ended from a second connection. One such connection at a
time serves a pool, and works off a queue: a storm of cancellations opens one, not thousands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from router.drivers.connecting import connect
from router.drivers.driver import Connection, Driver, Endpoint
from router.errors import RouterError
from router.pools.reaper import Reaper

_LIMIT = 5.0  # seconds for one side connection, connecting included
_MOST = 10_000  # sessions in the queue; past that the oldest is left to the server


class Killer:
    """Kill the sessions of one endpoint that were left running; nobody waits for it.

    ``failed`` is told the error and the number of sessions left, if the server cannot be asked to end them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        driver: Driver,
        reaper: Reaper,
        clock: Callable[[], float],
        failed: Callable[[RouterError, int], None],
    ) -> None:
        self._endpoint = endpoint
        self._driver = driver
        self._reaper = reaper
        self._clock = clock
        self._failed = failed
        self._left: deque[Connection] = deque(maxlen=_MOST)
        self._busy = False

    def kill(self, connection: Connection) -> None:
        """End what a connection that is being closed still runs on the server, if anything, soon."""
        if not connection.unfinished:
            return
        self._left.append(connection)
        if not self._busy:
            self._busy = True
            self._reaper.submit(self._work, self._stop)

    def _stop(self) -> None:
        self._busy = False
        self._left.clear()

    async def _work(self) -> None:
        try:
            async with asyncio.timeout(_LIMIT):
                await self._kill_all()
        except Exception as exc:  # the caller has long had its answer: there is nobody to raise it to
            self._failed(self._driver.translate(exc), len(self._left))
        finally:
            self._stop()

    async def _kill_all(self) -> None:
        side = await connect(self._driver, self._endpoint, _LIMIT)
        try:
            while self._left:
                left = self._left[0]  # counted as left until it is done
                await side.kill(left, self._clock() - left.opened_at)
                self._left.popleft()
            await side.close(_LIMIT)
        finally:
            side.terminate()
