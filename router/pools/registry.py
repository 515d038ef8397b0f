"""Which pool serves which (node, database, user): opened on first use, swept, closed together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from router import events
from router.drivers.driver import Driver, Endpoint
from router.errors import RouterClosed
from router.pools.deadlines import Deadlines
from router.pools.pool import Limits, Pool, PoolStatus
from router.pools.reaper import Reaper

_FAREWELL = 1.0  # seconds for orderly good-byes when the grace is used up
_SWEEP = 5.0  # seconds between sweeps for idle connections, jittered


class Pools:
    """Own every pool of a router."""

    def __init__(
        self,
        *,
        emit: Callable[[events.Event], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._emit = emit
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._reaper = Reaper()
        self._deadlines = Deadlines(clock)
        self._pools: dict[tuple[str, str, str], Pool] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    def pool(self, endpoint: Endpoint, driver: Driver, limits: Limits) -> Pool:
        """Return the pool of an endpoint; no connection is opened before the first request.

        Raises RouterClosed after close: a pool made then would never be closed.
        """
        key = (endpoint.node.label, endpoint.database, endpoint.login.username)
        found = self._pools.get(key)
        if found is None:
            if self._closed:
                raise RouterClosed("the router is closed. Open a new one")
            found = self._pools[key] = Pool(
                endpoint,
                driver,
                limits,
                reaper=self._reaper,
                deadlines=self._deadlines,
                emit=self._emit,
                clock=self._clock,
                wall=self._wall,
                rng=self._rng,
            )
            if self._sweeper is None:
                self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        return found

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP * self._rng.uniform(0.8, 1.2))
            for pool in list(self._pools.values()):
                pool.sweep()

    def status(self) -> tuple[PoolStatus, ...]:
        """Return the numbers of all pools."""
        return tuple(pool.status() for pool in self._pools.values())

    async def close(self, grace: float) -> int:
        """Close all pools within ``grace`` seconds; return how many connections had to be cut.

        Cancelled, it cuts all that is left at once.
        """
        self._closed = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        try:
            await self._stop_sweeping()
            left = await asyncio.gather(*(pool.close(grace) for pool in self._pools.values()))
            await self._reaper.drain(max(end - loop.time(), _FAREWELL))
        except BaseException:
            for pool in self._pools.values():
                pool.shut()
                pool.cut()
            raise
        finally:
            self._deadlines.close()
        return sum(left)

    async def _stop_sweeping(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait((self._sweeper,))
            self._sweeper = None
