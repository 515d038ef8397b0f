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
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from router import events
from router.drivers.driver import Connection, Driver, Endpoint
from router.errors import PoolTimeout, RouterClosed, RouterError
from router.pools.deadlines import Deadlines
from router.pools.killer import Killer
from router.pools.opening import Opener
from router.pools.reaper import Reaper
from router.statements import Dirt

_CLEANUP = 5.0  # seconds that a reset or an orderly close may take in the background
_WARM = 5.0  # seconds that opening a connection may take that nobody waits for


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
    """What a waiter is told when it gets no connection."""

    OPEN = "open"  # a slot is reserved for it, to open a connection of its own
    LATE = "late"  # its time is up
    CLOSED = "closed"  # the pool is


class Pool:
    """Lend connections of one endpoint; first come, first served."""

    def __init__(
        self,
        endpoint: Endpoint,
        driver: Driver,
        limits: Limits,
        *,
        reaper: Reaper,
        deadlines: Deadlines,
        emit: Callable[[events.Event], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.endpoint = endpoint
        self.driver = driver
        self.limits = limits
        self.closed = False
        self.deadlines = deadlines
        self.clock = clock
        self._opener = Opener(endpoint, driver, reaper)
        self._killer = Killer(endpoint, driver, reaper, clock, self._left_running)
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

    def take(self, binding: str | None, now: float) -> Connection | None:
        """Lend an idle connection at once, one with this binding if there is any; else return ``None``."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if idle and connection.binding != binding:
                connection = self._prefer(binding, connection)
            if connection.closed:
                self._drop(connection)
            elif connection.expires_at <= now:
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

    async def acquire(self, binding: str | None, deadline: float, asked: float, connect: float) -> Connection:
        """Lend a connection: an idle one, a new one, or the next that comes free.

        ``deadline`` is on the monotonic clock; ``asked`` is the caller's own timeout, for the message;
        ``connect`` bounds the opening of a new connection, in seconds.

        Raises:
            PoolTimeout: none came free in time.
            ConnectError: a new one could not be established.
            RouterClosed: the pool is closed.
        """
        if self.closed:
            raise self._closed_error()
        connection = self.take(binding, self._clock())
        if connection is not None:
            return connection
        if self._size < self.limits.max:
            self._size += 1
            return await self._open(deadline, asked, connect)
        turn = await self._wait(deadline, asked)
        return turn if isinstance(turn, Connection) else await self._open(deadline, asked, connect)

    async def _wait(self, deadline: float, asked: float) -> Connection | _Turn:
        """Stand in the queue until a connection or a slot is handed over."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | _Turn] = loop.create_future()
        timer = loop.call_later(max(deadline - self._clock(), 0), _resolve, waiter, _Turn.LATE)
        self._waiting.append(waiter)
        try:
            turn = await waiter
            if turn is _Turn.LATE:
                raise self._timeout(asked)
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._pass_on(waiter.result())
            raise
        finally:
            timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if turn is _Turn.CLOSED:
            raise self._closed_error()
        return turn

    def _pass_on(self, turn: Connection | _Turn) -> None:
        """Give away what was handed over to a waiter that was cancelled just then, or it would be lost."""
        if isinstance(turn, Connection):
            self.give(turn)
        elif turn is _Turn.OPEN:
            self._free()

    def _timeout(self, asked: float) -> PoolTimeout:
        node, most = self.endpoint.node, self.limits.max
        return PoolTimeout(
            f"no connection to {node.label} came free within {asked:.3g} s: "
            f"{self._size - len(self._idle)} of {most} in use, {len(self._waiting)} waiting. "
            "Raise connections.max, or find who holds them for so long"
        ).at(cluster=node.cluster, node=node.name)

    async def _open(self, deadline: float, asked: float, connect: float) -> Connection:
        """Open a connection in a slot that is reserved for it; give the slot up if that fails."""
        left = deadline - self._clock()
        if left <= 0:
            self._free()
            raise PoolTimeout(f"no time was left of {asked:.3g} s to open a connection")
        connection = await self._connect(min(connect, left))
        self._used.add(connection)
        return connection

    async def _connect(self, timeout: float) -> Connection:
        started = self._clock()
        try:
            opened = await self._opener.open(timeout)
        except BaseException:
            self._free()
            raise
        now = self._clock()
        if isinstance(opened, RouterError):
            self._free()
            if not isinstance(opened, RouterClosed):
                self._tell(
                    events.ConnectionFailed,
                    now - started,
                    error=type(opened).__name__,
                    code=opened.code,
                    message=opened.message,
                )
            raise opened
        self._opened += 1
        opened.id = self._opened
        opened.opened_at = opened.used_at = now
        # jittered, or all connections of a burst would expire at the same moment
        opened.expires_at = now + self.limits.lifetime * (1 - self._rng.uniform(0, 0.1))
        self._tell(events.ConnectionOpened, now - started)
        if self.closed:  # meanwhile
            self._retire(opened, "closed")
            raise self._closed_error()
        return opened

    def _tell(self, kind: type[events.ConnectionEvent], duration: float, **more: str | None) -> None:
        """Emit an event about one connection."""
        endpoint = self.endpoint
        login, name = endpoint.login, self.driver.name
        self._emit(
            kind(self._wall(), endpoint.node, name, endpoint.database, login.username, duration, **more)
        )

    # --- taking back -------------------------------------------------------------------------------------

    def give(self, connection: Connection) -> None:
        """Take a connection back; a dirty one is cleaned in the background first, or closed."""
        if connection not in self._used:
            return  # cut by close()
        self._used.remove(connection)
        if connection.closed:
            self._drop(connection)
        elif self.closed:
            self._retire(connection, "closed")
        elif not connection.dirt and not connection.in_transaction:
            self._offer(connection)
        elif connection.in_transaction or connection.dirt >= Dirt.DISCARD:
            self._retire(connection, "dirty")
        else:
            self._reaper.submit(lambda: self._clean(connection), lambda: self._retire(connection, "dirty"))

    def discard(self, connection: Connection, reason: str) -> None:
        """Take a connection back that nobody may use again; its slot is free at once."""
        if connection in self._used:
            self._used.remove(connection)
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
            if _resolve(self._waiting.popleft(), connection):
                self._used.add(connection)
                return
        connection.used_at = self._clock()
        self._idle.append(connection)

    def _retire(self, connection: Connection, reason: str) -> None:
        """Close in the background; the slot is free at once."""
        self._forget(connection, reason)
        self._reaper.submit(lambda: _close(connection), connection.terminate)

    def _drop(self, connection: Connection) -> None:
        """Let go of a connection that the server has closed; our end of the socket is still open."""
        self._forget(connection, "broken")
        connection.terminate()

    def _left_running(self, error: RouterError, count: int) -> None:
        """Tell of sessions that the server could not be asked to end."""
        self._emit(events.StatementsLeft(self._wall(), self.endpoint.node, count, type(error).__name__))

    def _forget(self, connection: Connection, reason: str) -> None:
        self._killer.kill(connection)
        self._tell(events.ConnectionClosed, self._clock() - connection.opened_at, reason=reason)
        self._free()

    def _free(self) -> None:
        """Give a slot up: to the first in the queue, so that nobody new gets it before."""
        while self._waiting:
            if _resolve(self._waiting.popleft(), _Turn.OPEN):
                return
        self._size -= 1
        if self._empty is not None and not self._size:
            self._empty.set()

    # --- the pool as a whole -----------------------------------------------------------------------------

    def sweep(self) -> None:
        """Close idle connections that are broken, expired, or idle for too long; open what ``min`` wants."""
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
        for _ in range(0 if self.closed else self.limits.min - self._size):
            self._size += 1
            self._reaper.submit(self._warm, self._free)

    async def _warm(self) -> None:
        """Open a connection to keep ready; a failure is told, and tried again at the next sweep."""
        with suppress(RouterError):
            self._offer(await self._connect(_WARM))

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

    def _closed_error(self) -> RouterClosed:
        return RouterClosed(f"the pool of {self.endpoint.node.label} is closed. Open a new router")

    def shut(self) -> None:
        """Refuse new work; close what is idle, give up on what is being opened, and tell who waits."""
        self.closed = True
        while self._waiting:
            _resolve(self._waiting.popleft(), _Turn.CLOSED)
        while self._idle:
            self._retire(self._idle.pop(), "closed")
        self._opener.cancel()

    async def close(self, timeout: float) -> int:
        """Refuse new work, wait for lent connections, cut what is left; return how many were cut."""
        self.shut()
        if self._size:
            self._empty = self._empty or asyncio.Event()
            try:
                async with asyncio.timeout(timeout):
                    await self._empty.wait()
            except TimeoutError:
                return self.cut()
            except BaseException:
                self.cut()
                raise
        return 0

    def cut(self) -> int:
        """Close all lent connections, whatever runs on them; return how many there were."""
        left = list(self._used)
        for connection in left:
            self._used.discard(connection)
            self._retire(connection, "closed")  # not cut at once: the server is to end its statement too
        return len(left)


async def _close(connection: Connection) -> None:
    try:
        await connection.close(_CLEANUP)
    except BaseException as exc:
        connection.terminate()
        if not isinstance(exc, Exception):
            raise


def _resolve(waiter: asyncio.Future[Connection | _Turn], turn: Connection | _Turn) -> bool:
    """Tell a waiter its turn, unless it has left the queue."""
    if waiter.done():
        return False
    waiter.set_result(turn)
    return True
