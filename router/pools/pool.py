"""One pool: the connections to one node, one database, as one user.

Taking an idle connection and giving a clean one back are plain calls without an await, so nothing can be
cancelled half-way there. Whatever needs the network (reset, close) is handed to the reaper. A connection
returns to the idle ones only if it is known to be as it was; every doubt closes it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from router import errors, events
from router.drivers.driver import Connection, Driver, Endpoint
from router.errors import ConnectionLost, PoolTimeout, RouterClosed, RouterError, StatementTimeout
from router.pools.reaper import Reaper
from router.statements import Dirt

_CLEANUP = 5.0  # seconds that a reset or an orderly close may take in the background


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound a pool. ``idle`` and ``lifetime`` are in seconds; ``min`` connections are kept when idle."""

    min: int = 0
    max: int = 10
    idle: float = 600.0
    lifetime: float = 1800.0


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """Show a pool at one moment."""

    node: str
    database: str
    user: str
    size: int
    idle: int
    in_use: int
    waiting: int
    max: int


class _Turn(Enum):
    """What a waiter is told when it gets no connection: there is room to open one."""

    OPEN = "open"


class Pool:
    """Lend connections of one endpoint; first come, first served."""

    def __init__(
        self,
        endpoint: Endpoint,
        driver: Driver,
        limits: Limits,
        *,
        reaper: Reaper,
        emit: Callable[[events.Event], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.endpoint = endpoint
        self.driver = driver
        self.limits = limits
        self.closed = False
        self._reaper = reaper
        self._emit = emit
        self._clock = clock
        self._wall = wall
        self._rng = rng
        self._idle: deque[Connection] = deque()  # the most recently used at the right end
        self._used: set[Connection] = set()
        self._waiting: deque[asyncio.Future[Connection | _Turn]] = deque()
        self._size = 0  # idle, lent, being opened, being cleaned
        self._opened = 0
        self._empty: asyncio.Event | None = None

    # --- lending -----------------------------------------------------------------------------------------

    def take(self, binding: str | None) -> Connection | None:
        """Lend an idle connection at once, one with this binding if there is any; else return ``None``."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if idle and connection.binding != binding:
                connection = self._prefer(binding, connection)
            if connection.closed:
                self._forget(connection, "broken")
            elif connection.expires_at <= self._clock():
                self._retire(connection, "lifetime")
            else:
                self._used.add(connection)
                return connection
        return None

    def _prefer(self, binding: str | None, last: Connection) -> Connection:
        """Swap ``last`` for an idle connection that has the binding, if there is one."""
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].binding == binding:
                found = self._idle[index]
                self._idle[index] = last
                return found
        return last

    async def acquire(
        self, binding: str | None, deadline: float, asked: float, connect: float
    ) -> Connection:
        """Lend a connection: an idle one, a new one, or the next that comes free.

        ``deadline`` is on the monotonic clock; ``asked`` is the caller's own timeout, for the message;
        ``connect`` bounds the opening of a new connection, in seconds.

        Raises:
            PoolTimeout: none came free in time.
            ConnectError: a new one could not be established.
            RouterClosed: the pool is closed.
        """
        while True:
            self._check_open()
            if not self._waiting and (connection := self.take(binding)) is not None:
                return connection
            if self._size < self.limits.max:
                return await self._open(deadline, asked, connect)
            turn = await self._wait(deadline, asked)
            if isinstance(turn, Connection):
                return turn

    async def _wait(self, deadline: float, asked: float) -> Connection | _Turn:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | _Turn] = loop.create_future()
        timer = loop.call_later(max(deadline - self._clock(), 0), waiter.cancel)
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # cancelled after the connection was handed over: pass it on, or it would be lost
                self._pass_on(waiter.result())
                raise
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._timeout(asked) from None
        finally:
            timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _pass_on(self, turn: Connection | _Turn) -> None:
        if isinstance(turn, Connection):
            self.give(turn)
        else:
            self._wake()

    def _timeout(self, asked: float) -> PoolTimeout:
        status = self.status()
        return PoolTimeout(
            f"no connection to {status.node} came free within {asked:g} s: {status.in_use} of {status.max} in "
            f"use, {status.waiting} waiting. Raise connections.max, or find who holds them for so long"
        )

    async def _open(self, deadline: float, asked: float, connect: float) -> Connection:
        """Open a connection in a slot of its own; give the slot up if that fails."""
        self._size += 1
        try:
            connection, error = await self._connect(min(connect, deadline - self._clock()))
        except BaseException:
            self._free()
            raise
        if connection is None or error is not None:
            self._free()
            raise error or PoolTimeout(f"no time was left of {asked:g} s to open a connection")
        self._used.add(connection)
        return connection

    async def _connect(self, timeout: float) -> tuple[Connection | None, RouterError | None]:
        """Return a connection or the error: raising here would chain frames that hold the password."""
        if timeout <= 0:
            return None, None
        started = self._clock()
        endpoint = self.endpoint
        try:
            async with asyncio.timeout(timeout):
                connection = await self.driver.connect(endpoint, timeout)
        except Exception as exc:
            error = connect_error(self.driver.translate(exc), endpoint, timeout)
            self._tell_failed(error, self._clock() - started)
            return None, error
        now = self._clock()
        self._opened += 1
        connection.id = self._opened
        connection.opened_at = connection.used_at = now
        # jittered, or all connections of a burst would expire at the same moment
        connection.expires_at = now + self.limits.lifetime * (1 - self._rng.uniform(0, 0.1))
        self._emit(
            events.ConnectionOpened(
                self._wall(),
                endpoint.node,
                self.driver.name,
                endpoint.database,
                endpoint.login.username,
                now - started,
            )
        )
        return connection, None

    def _tell_failed(self, error: RouterError, duration: float) -> None:
        endpoint = self.endpoint
        self._emit(
            events.ConnectionFailed(
                self._wall(),
                endpoint.node,
                self.driver.name,
                endpoint.database,
                endpoint.login.username,
                duration,
                error=type(error).__name__,
                code=error.code,
                message=error.message,
            )
        )

    # --- taking back -------------------------------------------------------------------------------------

    def give(self, connection: Connection) -> None:
        """Take a connection back; a dirty one is cleaned in the background first, or closed."""
        self._used.discard(connection)
        if connection.closed:
            self._forget(connection, "broken")
        elif self.closed:
            self._retire(connection, "closed")
        elif connection.in_transaction or connection.dirt >= Dirt.DISCARD:
            self._retire(connection, "dirty")
        elif connection.dirt:
            self._reaper.submit(lambda: self._clean(connection), lambda: self._retire(connection, "dirty"))
        else:
            self._offer(connection)

    def discard(self, connection: Connection, reason: str) -> None:
        """Take a connection back that nobody may use again; its slot is free at once."""
        self._used.discard(connection)
        self._retire(connection, reason)

    async def _clean(self, connection: Connection) -> None:
        try:
            await connection.reset(_CLEANUP)
        except Exception:  # any failure means the same: the state is unknown, so the connection goes
            self._retire(connection, "reset_failed")
            return
        except BaseException:
            self._retire(connection, "closed")
            raise
        connection.dirt = Dirt.NONE
        connection.binding = None
        self._offer(connection)

    def _offer(self, connection: Connection) -> None:
        """Hand a clean connection to the first in the queue, or keep it idle."""
        if self.closed:
            self._retire(connection, "closed")
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._used.add(connection)
                waiter.set_result(connection)
                return
        connection.used_at = self._clock()
        self._idle.append(connection)

    def _retire(self, connection: Connection, reason: str) -> None:
        """Close in the background; the slot is free at once."""
        self._forget(connection, reason)
        self._reaper.submit(lambda: _close(connection), connection.terminate)

    def _forget(self, connection: Connection, reason: str) -> None:
        endpoint = self.endpoint
        self._emit(
            events.ConnectionClosed(
                self._wall(),
                endpoint.node,
                self.driver.name,
                endpoint.database,
                endpoint.login.username,
                self._clock() - connection.opened_at,
                reason=reason,
            )
        )
        self._free()

    def _free(self) -> None:
        self._size -= 1
        if self._empty is not None and not self._size:
            self._empty.set()
        self._wake()

    def _wake(self) -> None:
        """Tell the first in the queue that there is room to open a connection."""
        while self._waiting and self._size < self.limits.max:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(_Turn.OPEN)
                return

    # --- the pool as a whole -----------------------------------------------------------------------------

    def sweep(self) -> None:
        """Close idle connections that are broken, expired, or idle for too long."""
        now = self._clock()
        for connection in list(self._idle):
            if connection.closed:
                reason = "broken"
            elif connection.expires_at <= now:
                reason = "lifetime"
            elif self._size > self.limits.min and now - connection.used_at > self.limits.idle:
                reason = "idle"
            else:
                continue
            self._idle.remove(connection)
            self._retire(connection, reason)

    def status(self) -> PoolStatus:
        """Return the numbers of this moment."""
        endpoint = self.endpoint
        return PoolStatus(
            endpoint.node.label,
            endpoint.database,
            endpoint.login.username,
            self._size,
            len(self._idle),
            len(self._used),
            len(self._waiting),
            self.limits.max,
        )

    def _check_open(self) -> None:
        if self.closed:
            raise RouterClosed(f"the pool of {self.endpoint.node.label} is closed")

    async def close(self, timeout: float) -> int:
        """Refuse new work, wait for lent connections, cut what is left; return how many were cut."""
        self.closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(_Turn.OPEN)  # the waiter looks again and finds the pool closed
        while self._idle:
            self._retire(self._idle.pop(), "closed")
        if self._size:
            self._empty = asyncio.Event()
            try:
                async with asyncio.timeout(timeout):
                    await self._empty.wait()
            except TimeoutError:
                return self._cut()
        return 0

    def _cut(self) -> int:
        left = list(self._used)
        for connection in left:
            self._used.discard(connection)
            self._forget(connection, "closed")
            connection.terminate()
        return len(left)


async def _close(connection: Connection) -> None:
    try:
        await connection.close(_CLEANUP)
    except BaseException as exc:
        connection.terminate()
        if not isinstance(exc, Exception):
            raise


def connect_error(error: RouterError, endpoint: Endpoint, timeout: float) -> RouterError:
    """Say of an error that it happened while connecting, so that nothing was sent."""
    if isinstance(error, StatementTimeout):
        error = errors.ConnectError(f"no answer within {timeout:g} s", cause=error.cause)
    elif isinstance(error, ConnectionLost):
        error = errors.ConnectError(error.message, code=error.code, cause=error.cause)
    error.sent = errors.Sent.NO
    node = endpoint.node
    error.message = (
        f"cannot connect to {node.label} at {node.address} as {endpoint.login.username}: {error.message}"
    )
    error.args = (error.message,)
    return error.at(cluster=node.cluster, node=node.name)
