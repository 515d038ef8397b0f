"""Ask every server of a cluster, again and again, who it is and how far it has come.

Each server has a task and a connection of its own, so that neither a full pool nor another server's silence
keeps it from being asked. An answer that comes too late is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from router.drivers.driver import Connection, Driver, Endpoint
from router.errors import ConnectionLost, RouterError, StatementTimeout
from router.health import Health
from router.pools.opening import Opener
from router.pools.reaper import Reaper
from router.standing import Observation

T = TypeVar("T")


class Prober:
    """Probe the servers of one cluster and tell its health."""

    def __init__(
        self,
        health: Health,
        driver: Driver,
        endpoint: Callable[[str], Endpoint],
        reaper: Reaper,
        clock: Callable[[], float],
    ) -> None:
        self._health = health
        self._driver = driver
        self._endpoint = endpoint  # of a server, by its name
        self._reaper = reaper
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._wake: dict[str, asyncio.Event] = {}

    @property
    def running(self) -> bool:
        """Tell whether the servers are being probed."""
        return bool(self._tasks)

    def start(self) -> None:
        """Begin to probe; a cluster that nobody uses is not probed."""
        if self._tasks:
            return
        self._wake = {server.node.name: asyncio.Event() for server in self._health.servers}
        self._health.poke = self.poke
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch(name)) for name in self._wake]

    def poke(self, name: str) -> None:
        """Probe a server now rather than when its turn comes."""
        self._wake[name].set()

    async def stop(self) -> None:
        """Stop probing and close the connections; the reaper waits for what does not end at once."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _watch(self, name: str) -> None:
        wake = self._wake[name]
        probe = _Probe(self._driver, self._endpoint, name, self._reaper, self._clock)
        try:
            while True:
                wake.clear()
                outcome = await probe.ask(self._health.rules.timeout)
                if isinstance(outcome, Observation):
                    self._health.observed(name, outcome)
                else:
                    self._health.missed(name, outcome)
                # evidence that comes in a swarm asks for one probe, not for a swarm of them
                await asyncio.sleep(min(self._health.rules.quick, self._health.rules.interval) / 2)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._health.interval):
                        await wake.wait()
        finally:
            probe.drop()


class _Probe:
    """Hold the connection over which one server is asked."""

    def __init__(
        self,
        driver: Driver,
        endpoint: Callable[[str], Endpoint],
        name: str,
        reaper: Reaper,
        clock: Callable[[], float],
    ) -> None:
        self._driver, self._endpoint, self._name = driver, endpoint, name
        self._reaper, self._clock = reaper, clock
        self._connection: Connection | None = None

    async def ask(self, timeout: float) -> Observation | RouterError | None:
        """Return the answer, the error, or ``None`` for no answer within ``timeout`` seconds."""
        deadline = self._clock() + timeout
        kept = self._connection is not None and not self._connection.closed
        outcome = await self._once(deadline)
        if kept and isinstance(outcome, ConnectionLost):
            # what broke may have been this one session; a new connection tells
            outcome = await self._once(deadline)
        return outcome

    async def _once(self, deadline: float) -> Observation | RouterError | None:
        connection = await self._connected(deadline)
        if not isinstance(connection, Connection):
            return connection
        asked = self._clock()
        outcome = await self._in_time(connection.probe(), deadline)
        if outcome is None or isinstance(outcome, RouterError):
            self.drop()
            return None if isinstance(outcome, StatementTimeout) else outcome
        took = self._clock() - asked
        return Observation(
            asked, outcome.writable, outcome.position, outcome.timeline, outcome.identity, took
        )

    async def _connected(self, deadline: float) -> Connection | RouterError | None:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self.drop()
        opener = Opener(self._endpoint(self._name), self._driver, self._reaper)
        opened = await opener.open(max(deadline - self._clock(), 0.001))
        if isinstance(opened, Connection):
            self._connection = opened
        elif self._clock() >= deadline:
            return None  # it took the connection, or swallowed it, and said nothing
        return opened

    async def _in_time(self, work: Coroutine[Any, Any, T], deadline: float) -> T | RouterError | None:
        """Return the result of ``work``, our error, or ``None`` if it is not there in time."""
        task = asyncio.get_running_loop().create_task(work)
        try:
            await asyncio.wait((task,), timeout=max(deadline - self._clock(), 0))
            for _ in range(3):
                # If our own loop was busy for long, the answer lies there unread: give it a chance.
                if not task.done():
                    await asyncio.sleep(0)
        finally:
            if not task.done():
                task.cancel()
                self._reaper.adopt(task)
        if not task.done() or task.cancelled():
            return None
        exc = task.exception()
        return task.result() if exc is None else self._driver.translate(exc)

    def drop(self) -> None:
        """Let go of the connection without a word."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
