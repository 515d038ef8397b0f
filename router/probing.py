"""Ask every server of a cluster, again and again, who it is and how far it has come.

Each server has a task and a connection of its own, so that neither a full pool nor another server's silence
keeps it from being asked. An answer that comes too late is none.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from router.drivers.driver import Connection, Driver, Endpoint, Reading
from router.errors import ConnectionLost, RouterClosed, RouterError, ServerRemoved, StatementTimeout
from router.health import Health
from router.pools.opening import Opener
from router.pools.reaper import Reaper
from router.sharing import Shared
from router.standing import Observation

T = TypeVar("T")
_CLOSED = "the router is closed. Open a new one"
_REMOVED = "the server was taken out of the configuration"


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
        self._tasks: dict[str, asyncio.Task[None]] = {}  # each by the server's name
        self._probes: dict[str, _Probe] = {}
        self._shared: dict[str, Shared[Observation | RouterError | None]] = {}
        self._wake: dict[str, asyncio.Event] = {}

    @property
    def running(self) -> bool:
        """Tell whether the servers are being probed."""
        return bool(self._tasks)

    def start(self) -> None:
        """Begin to probe; a cluster that nobody uses is not probed."""
        if self._tasks:
            return
        self._health.poke, self._health.steady = self.poke, self.steady
        for server in self._health.servers:
            self._begin(server.node.name)

    def renew(self, anew: Collection[str]) -> None:
        """Probe the servers that there are now; connect anew to those that are connected to otherwise."""
        if not self._tasks:
            return
        names = {server.node.name: server for server in self._health.servers}
        for name in self._tasks.keys() - names.keys():
            self._end(name)
        for name, server in names.items():
            if name not in self._tasks:
                self._begin(name)
            elif not server.asked:  # another one by the same name
                self._end(name)
                self._begin(name)
            elif name in anew:
                self._probes[name].renew()
                self.poke(name)

    def _begin(self, name: str) -> None:
        probe = _Probe(self._driver, self._endpoint, name, self._reaper, self._clock)
        self._probes[name], self._wake[name] = probe, asyncio.Event()
        self._shared[name] = Shared(partial(self._ask, probe))
        # In a context of its own: what it finds out is not part of the request that comes first.
        watch = self._watch(probe, self._wake[name])
        self._tasks[name] = asyncio.get_running_loop().create_task(watch, context=Context())

    def _end(self, name: str) -> None:
        self._probes.pop(name).end()
        self._wake.pop(name)
        watch = self._tasks.pop(name)
        watch.cancel()
        for task in (watch, *self._shared.pop(name).tasks):  # who waits for an answer now gets none, soon
            self._reaper.adopt(task)

    async def ask(self, name: str) -> Observation | RouterError | None:
        """Return what a server says now; as a probe does, an error, or ``None`` for no answer in time."""
        shared = self._shared.get(name)
        outcome = None if shared is None else await shared.answer()
        return outcome if self._shared.get(name) is shared is not None else ServerRemoved(_REMOVED)

    async def _ask(self, probe: _Probe) -> Observation | RouterError | None:
        async with probe.lock:
            outcome = await probe.ask(self._health.rules.timeout)
        if probe.ended:
            return outcome
        if isinstance(outcome, Observation):
            self._health.observed(probe.name, outcome)
        else:
            self._health.missed(probe.name, outcome)
        return outcome

    def poke(self, name: str) -> None:
        """Probe a server now rather than when its turn comes."""
        if name in self._wake:
            self._wake[name].set()

    def steady(self, name: str) -> float:
        """Return since when a server is known not to have restarted; inf if that is not known.

        A connection does not outlive its server's process, and its end is noticed at once unless the whole
        machine or network is gone.
        """
        return self._probes[name].since if name in self._probes else math.inf

    def cancel(self) -> None:
        """Stop probing, soon; the connections are closed then."""
        for probe in self._probes.values():
            probe.end()
        for task in self._tasks.values():
            task.cancel()

    def detach(self) -> None:
        """Give up the connections in a forked child, without touching them."""
        for probe in self._probes.values():
            probe.detach()

    async def stop(self) -> None:
        """Stop probing and close the connections; the reaper waits for what does not end at once."""
        self.cancel()
        asked = [task for shared in self._shared.values() for task in shared.tasks]
        if self._tasks:
            await asyncio.wait((*self._tasks.values(), *asked))

    async def _watch(self, probe: _Probe, wake: asyncio.Event) -> None:
        try:
            while True:
                wake.clear()
                await self._ask(probe)
                # evidence that comes in a swarm asks for one probe, not for a swarm of them
                await asyncio.sleep(min(self._health.rules.quick, self._health.rules.interval) / 2)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._health.interval):
                        await wake.wait()
        finally:
            probe.drop()


def observation(reading: Reading, asked: float, took: float) -> Observation:
    """Return what a server said of itself, with the times of the question."""
    return Observation(
        asked,
        reading.writable,
        reading.position,
        reading.timeline,
        reading.identity,
        reading.reign,
        reading.follows,
        took,
    )


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
        self.name = name
        self.lock = asyncio.Lock()  # one question at a time
        self.ended = False
        self._driver, self._endpoint = driver, endpoint
        self._reaper, self._clock = reaper, clock
        self._connection: Connection | None = None
        self._turn = 0  # how often the server is connected to otherwise since

    async def ask(self, timeout: float) -> Observation | RouterError | None:
        """Return the answer, the error, or ``None`` for no answer within ``timeout`` seconds."""
        error = await self._no_login()
        if error is not None:
            return error
        deadline = self._clock() + timeout
        kept = self._connection is not None and not self._connection.closed
        outcome = await self._once(deadline)
        if kept and isinstance(outcome, ConnectionLost):
            # what broke may have been this one session; a new connection tells
            outcome = await self._once(deadline)
        return outcome

    async def _no_login(self) -> RouterError | None:
        """Have the login ready, if one is needed: the time of who keeps its password is not the server's."""
        account = None if self._usable() else self._endpoint(self.name).login.account
        try:
            if account is not None:
                await account.fetch()
        except RouterError as error:
            return error.with_traceback(None)
        return None

    def _usable(self) -> bool:
        kept = self._connection
        return kept is not None and not kept.closed and self._clock() < kept.expires_at

    async def _once(self, deadline: float) -> Observation | RouterError | None:
        connection = RouterClosed(_CLOSED) if self.ended else await self._connected(deadline)
        if not isinstance(connection, Connection):
            return connection
        asked = self._clock()
        outcome = await self._in_time(connection.probe(), deadline)
        if outcome is None or isinstance(outcome, RouterError):
            self.drop()
            return None if isinstance(outcome, StatementTimeout) else outcome
        took = self._clock() - asked
        return observation(outcome, asked, took)

    async def _connected(self, deadline: float) -> Connection | RouterError | None:
        if self._connection is not None and self._usable():
            return self._connection
        self.drop()
        while True:
            turn = self._turn
            opener = Opener(self._endpoint(self.name), self._driver, self._reaper)
            opened = await opener.open(max(deadline - self._clock(), 0.001))
            if turn == self._turn and not self.ended:
                break
            if isinstance(opened, Connection):
                opened.terminate()  # it has the login of before, and would keep it for good
            if self.ended:
                return RouterClosed(_CLOSED)
        if isinstance(opened, Connection):
            self._connection = opened
            opened.opened_at = self._clock()
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
            elif not task.cancelled():
                task.exception()  # looked at, also where a cancellation leaves nobody to be told
        if not task.done() or task.cancelled():
            return None
        exc = task.exception()
        return task.result() if exc is None else self._driver.translate(exc)

    @property
    def since(self) -> float:
        """Return since when the connection has been open; inf if it is not."""
        connection = self._connection
        return math.inf if connection is None or connection.closed else connection.opened_at

    def end(self) -> None:
        """Let go of the connection, and open no other; who waits for an answer now gets none."""
        self.ended = True
        self.drop()

    def renew(self) -> None:
        """Connect anew: neither what is open nor what is being opened is used any more."""
        self._turn += 1
        self.drop()

    def drop(self) -> None:
        """Let go of the connection without a word."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def detach(self) -> None:
        """Give the connection up where its event loop does not run."""
        socket = None if self._connection is None else self._connection.detach()
        if socket is not None:
            socket.close()
