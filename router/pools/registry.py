"""Which pool serves which (node, database, user): opened on first use, swept, closed together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context
from typing import Any

from router import events
from router.drivers.driver import Driver, Endpoint
from router.errors import RouterClosed, RouterError
from router.pools.admission import Admission
from router.pools.bounds import BudgetStatus, Limits, PoolStatus
from router.pools.deadlines import Deadlines
from router.pools.pool import Pool
from router.pools.reaper import Reaper
from router.topology import Node

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
        suspect: Callable[[Node], None] = lambda node: None,
    ) -> None:
        self._emit = emit
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self.reaper = Reaper()
        self._deadlines = Deadlines(clock, suspect)
        self._pools: dict[tuple[Node, str, str], Pool] = {}
        self._leaving: dict[Pool, asyncio.Task[None]] = {}  # those that are gone, but for what is lent
        self._admissions: dict[str, Admission] = {}  # by node
        self._sweeper: asyncio.Task[None] | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._closed = False
        self._told = False  # that all pools are closed
        self._kept: list[Any] = []  # what a forked child must not finalize

    def pool(self, endpoint: Endpoint, driver: Driver, limits: Limits) -> Pool:
        """Return the pool of an endpoint; no connection is opened before the first request.

        Raises RouterClosed after close: a pool made then would never be closed.
        """
        node = endpoint.node
        key = (node, endpoint.database, endpoint.login.username)  # in another role it is another node
        found = self._pools.get(key)
        if found is None:
            if self._closed:
                raise RouterClosed("the router is closed. Open a new one")
            found = self._pools[key] = Pool(
                endpoint,
                driver,
                limits,
                admission=self.admission(node, limits),
                reaper=self.reaper,
                deadlines=self._deadlines,
                emit=self._emit,
                clock=self._clock,
                wall=self._wall,
                rng=self._rng,
            )
            found.teller.pool_opened()
            if self._sweeper is None:
                # In a context of its own: what it does is not part of the request that comes first.
                loop = asyncio.get_running_loop()
                self._sweeper = loop.create_task(self._sweep(), context=Context())
        return found

    def admission(self, node: Node, limits: Limits) -> Admission:
        """Return what counts the connections to a node, over all its pools and in whatever role it is."""
        found = self._admissions.get(node.label)
        if found is None:
            found = self._admissions[node.label] = Admission(limits)
        return found

    def beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run what uses connections by itself, in no request; it is cancelled before the pools close."""
        self._beside.append(asyncio.get_running_loop().create_task(work, name=name, context=Context()))

    async def _sweep(self) -> None:
        try:
            while True:
                await asyncio.sleep(_SWEEP * self._rng.uniform(0.8, 1.2))
                self.sweep()
        except asyncio.CancelledError:
            # Not by close(): the event loop is about to end under a router that is still open. Idle
            # connections can be closed now; later nobody could do that but the garbage collector.
            if not self._closed:
                for pool in self._pools.values():
                    pool.drop_idle()
            raise

    def sweep(self) -> None:
        """Close what is idle for too long, open what is missing, and forget pools that are empty."""
        for key, pool in list(self._pools.items()):
            pool.sweep()
            if pool.unused:
                del self._pools[key]
                pool.retire()

    def part(self, nodes: Collection[Node], why: Callable[[], RouterError]) -> None:
        """Forget the pools of these nodes: what is idle is closed now, what is lent when it comes back.

        ``why`` makes the error for those who wait there for a connection, or ask for one later.
        """
        loop = asyncio.get_running_loop()
        for key, pool in list(self._pools.items()):
            if pool.endpoint.node in nodes:
                del self._pools[key]
                pool.part(why)
                self._leaving[pool] = loop.create_task(self._see_off(pool), context=Context())

    async def _see_off(self, pool: Pool) -> None:
        await pool.parted()
        del self._leaving[pool]
        pool.teller.pool_closed(0)

    async def parted(self, nodes: Collection[Node]) -> None:
        """Return when nobody has a connection any more of a pool of these nodes that is gone."""
        while tasks := [task for pool, task in self._leaving.items() if pool.endpoint.node in nodes]:
            await asyncio.wait(tasks)

    def forget(self, nodes: Collection[Node]) -> None:
        """Forget what was counted of nodes that are no more, unless there are others by their names."""
        used = {pool.endpoint.node.label for pool in self.each()}
        for label in {node.label for node in nodes} - used:
            self._admissions.pop(label, None)

    def leave(self, node: Node) -> None:
        """Give up what is open to a server in its role; what runs there comes to its end."""
        for pool in self.each():
            if pool.endpoint.node is node:
                pool.drain()

    def abort(self, node: Node) -> None:
        """Cut all that is open to a server, in whatever role it was opened."""
        for pool in self.each():
            if pool.endpoint.node.label == node.label:
                pool.abort()

    def relocate(self, node: Node, addresses: frozenset[str]) -> None:
        """Let go of connections to where the server's name does not lead any more."""
        for pool in self.each():
            if pool.endpoint.node.label == node.label:
                pool.relocate(addresses)

    def each(self) -> list[Pool]:
        """Return all pools; any thread may ask."""
        return [*list(self._pools.values()), *list(self._leaving)]

    def budgets(self) -> tuple[BudgetStatus, ...]:
        """Return the numbers of all nodes that were ever connected to; any thread may ask."""
        return tuple(each.status(node) for node, each in list(self._admissions.items()))

    def status(self) -> tuple[PoolStatus, ...]:
        """Return the numbers of all pools."""
        return tuple(pool.status() for pool in self.each())

    async def close(self, grace: float) -> int:
        """Close all pools within ``grace`` seconds; return how many connections had to be cut.

        Cancelled, it cuts all that is left, and waits for nothing any more.
        """
        self._closed = True
        for pool in self.each():
            pool.shut()
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        try:
            await self._stop_tasks()
            await asyncio.gather(*(pool.close(end - loop.time()) for pool in self.each()))
            await self.reaper.drain(max(end - loop.time(), _FAREWELL))
            self._deadlines.close()
            self._tell_closed()
        except BaseException:
            self.cut()
            raise
        return self.leftovers

    def _tell_closed(self) -> None:
        """Tell of each pool that it is closed, once."""
        told, self._told = self._told, True
        for pool in () if told else self.each():
            pool.teller.pool_closed(pool.leftovers)

    async def _stop_tasks(self) -> None:
        tasks = [*self._beside, *self._leaving.values(), *([] if self._sweeper is None else [self._sweeper])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._sweeper = None
        self._beside.clear()

    @property
    def leftovers(self) -> int:
        """Return how many connections were in use still when they were closed."""
        return sum(pool.leftovers for pool in self.each())

    def cut(self) -> None:
        """Close all connections without waiting for it.

        For a moment the reaper goes on, so that the servers are told to end what runs there.
        """
        self._closed = True
        for pool in self.each():
            pool.shut()
            pool.cut()
        self._tell_closed()
        asyncio.get_running_loop().call_later(_FAREWELL, self.reaper.cancel)
        self._deadlines.close()
        for task in (*self._beside, *self._leaving.values(), self._sweeper):
            if task is not None:
                task.cancel()

    def detach(self, gone: Callable[[], RouterError]) -> None:
        """Give up all connections where their event loop does not run: close this process's end of them.

        ``gone`` makes the error for those who still hold one.
        """
        self._closed = True
        self._kept = [each for pool in self.each() for each in pool.detach(gone)]
        for each in self._kept:
            each.close()
