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
from typing import Any

from router import events
from router.drivers.driver import Connection, Driver, Endpoint
from router.errors import ConnectError, RouterClosed, RouterError, TooManyConnections
from router.pools.admission import Admission
from router.pools.bounds import Limits, PoolStatus
from router.pools.creating import Creator
from router.pools.deadlines import Deadlines
from router.pools.holders import ROUTER, Holder, shares
from router.pools.killer import Killer
from router.pools.lent import Lent
from router.pools.opening import Opener
from router.pools.reaper import Reaper, farewell
from router.pools.scarcity import Scarcity
from router.pools.telling import PoolTeller
from router.pools.waiting import Answer, Turn
from router.statements import Dirt
from router.waits import Waits

_CLEANUP = 5.0  # seconds that a reset or an orderly close may take in the background
_WARM = 5.0  # seconds that opening a connection may take that nobody waits for


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
        self.gone: Callable[[], RouterError] | None = None  # set by detach()
        self.leftovers = 0  # connections in use that were cut when the pool was closed
        self.deadlines = deadlines
        self.clock = clock
        self.teller = PoolTeller(endpoint, driver.name, emit, wall)
        self._opener = Opener(endpoint, driver, reaper)
        self._creator = Creator(
            endpoint,
            self._opener,
            limits.lifetime,
            reaper=reaper,
            teller=self.teller,
            clock=clock,
            rng=rng,
        )
        self._killer = Killer(endpoint, driver, reaper, clock, self.teller.left_running)
        self._reaper = reaper
        self._idle: deque[Connection] = deque()  # the most recently used at the right end
        self._used = Lent()
        self._warming = True  # until a connection that nobody waits for could not be opened
        self._admission = Admission(limits.max, self._creator.refusals)
        self._scarcity = Scarcity(
            endpoint.node,
            limits,
            self._admission,
            self._creator,
            self._idle,
            self._used,
            deadlines,
            self.teller,
            clock,
        )

    # --- lending -----------------------------------------------------------------------------------------

    def take(self, binding: str | None, now: float, holder: Holder = ROUTER) -> Connection | None:
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
                connection.lent_at = now
                self._used[connection] = holder
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
        self,
        binding: str | None,
        deadline: float,
        asked: float,
        connect: float,
        holder: Holder = ROUTER,
        waits: Waits | None = None,
    ) -> Connection:
        """Lend a connection: an idle one, a new one, or the next that comes free.

        ``deadline`` is on the monotonic clock; ``asked`` is the caller's own timeout, for the message;
        ``connect`` bounds the opening of a new connection, in seconds. What was waited for is added to
        ``waits``.

        Raises:
            PoolTimeout: none came free in time. PoolFull: too many wait already. PoolDeadlock: none can.
            ConnectError: a new one could not be established.
            RouterClosed: the pool is closed.
        """
        refused = False  # by the server, which is full: what the pool has must do, and our place is kept
        waits = waits or Waits()
        while True:
            if self.closed:
                raise self._closed_error()
            connection = self.take(binding, self.clock(), holder)
            if connection is not None:
                return connection
            if refused or self._admission.queue or not self._admission.reserve():
                began = self.clock()
                try:
                    answer = await self._wait(deadline, asked, holder, first=refused)
                finally:
                    waits.queue += self.clock() - began
                if isinstance(answer, Connection):
                    return answer
            began = self.clock()
            try:
                opened = await self._open(deadline, asked, connect, holder)
            finally:
                waits.connect += self.clock() - began
            if isinstance(opened, Connection):
                return self._lend(opened, holder)
            if not (isinstance(opened, TooManyConnections) and self._admission.size):
                raise opened
            refused = True

    def _lend(self, connection: Connection, holder: Holder) -> Connection:
        connection.lent_at = self.clock()
        self._used[connection] = holder
        return connection

    def hold(self, connection: Connection, holder: Holder) -> None:
        """Say who holds a lent connection now: the unit of work that it was lent for."""
        if connection in self._used:
            self._used[connection] = holder

    async def _wait(self, deadline: float, asked: float, holder: Holder, *, first: bool) -> Answer:
        """Stand in the queue until a connection or a slot is handed over."""
        error = None if first else self._scarcity.refusal(holder)
        if error is not None:
            raise error
        began = self.clock()
        left = deadline - began
        answer = await self._admission.wait(holder, left, first=first, give_back=self.give)
        if isinstance(answer, RouterError):
            raise answer
        if answer is Turn.LATE:
            raise self._scarcity.timed_out(asked, holder, self.clock() - began)
        return answer

    # --- opening -----------------------------------------------------------------------------------------

    async def _open(
        self, deadline: float, asked: float, connect: float, holder: Holder = ROUTER
    ) -> Connection | RouterError:
        """Open a connection in a slot that is reserved for it; give the slot up if that fails."""
        left = deadline - self.clock()
        if left <= 0:
            self._admission.vacate()
            return self._scarcity.too_late(asked, holder)
        watch = self.deadlines.watch(self.endpoint.node)
        try:
            opened = await self._creator.make(min(connect, left))
        except BaseException:
            self._admission.vacate()
            raise
        finally:
            watch.cancel()
        if isinstance(opened, RouterError):
            self._admission.vacate()
            return opened
        self._admission.opened()
        if self.closed:  # meanwhile
            self._retire(opened, "closed")
            return self._closed_error()
        return opened

    # --- taking back -------------------------------------------------------------------------------------

    def give(self, connection: Connection) -> None:
        """Take a connection back; a dirty one is cleaned in the background first, or closed."""
        if connection not in self._used:
            return  # cut by close()
        del self._used[connection]
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
        if self._used.pop(connection, None) is not None:
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
        if self._admission.queue.waiters:
            holder = self._admission.queue.hand(connection)
            if holder is not None:
                self._lend(connection, holder)
                return
        connection.used_at = self.clock()
        self._idle.append(connection)

    def _retire(self, connection: Connection, reason: str) -> None:
        """Close in the background; the slot is free at once."""
        self._forget(connection, reason)
        self._reaper.submit(lambda: farewell(connection, _CLEANUP), connection.terminate)

    def _drop(self, connection: Connection, reason: str = "broken") -> None:
        """Close at once, as for what the server has closed: our end of the socket is still open."""
        self._forget(connection, reason)
        connection.terminate()

    def _forget(self, connection: Connection, reason: str) -> None:
        self._killer.kill(connection)
        self.teller.closed(self.clock() - connection.opened_at, reason)
        self._admission.free()

    # --- the pool as a whole -----------------------------------------------------------------------------

    def sweep(self) -> None:
        """Close idle connections that are broken, expired, or idle for too long; open what ``min`` wants.

        Report units of work that hold a connection for too long.
        """
        now = self.clock()
        for connection in list(self._idle):
            if connection.closed:
                reason = "broken"
            elif connection.expires_at <= now:
                reason = "lifetime"
            elif self._admission.size > self.limits.min and now - connection.used_at > self.limits.idle:
                reason = "idle"
            else:
                continue
            self._idle.remove(connection)
            self._retire(connection, reason)
        if self.limits.leak_after:
            for seconds, holder in self._used.overdue(now, self.limits.leak_after):
                self.teller.held(seconds, holder)
        self._warming = True
        self._fill()

    def _fill(self) -> None:
        """Open what is missing of ``min``, a few at a time."""
        for _ in range(0 if self.closed else self.limits.min - self._admission.size):
            if not self._admission.reserve():
                return
            self._reaper.submit(self._warm, self._admission.vacate)

    async def _warm(self) -> None:
        """Open a connection to keep ready; a failure is told, and tried again at the next sweep."""
        opened = await self._open(self.clock() + _WARM, _WARM, _WARM)
        if isinstance(opened, RouterError):
            self._warming = False
            return
        self._offer(opened)
        if self._warming:
            self._fill()

    def status(self) -> PoolStatus:
        """Return the numbers of this moment."""
        endpoint = self.endpoint
        return PoolStatus(
            endpoint.node.label,
            endpoint.database,
            endpoint.login.username,
            self._admission.size,
            len(self._idle),
            len(self._used),
            len(self._admission.queue),
            self.limits.max,
            shares(self._used.values(), (each.holder for each in self._admission.queue.waiters.values())),
        )

    def drain(self) -> None:
        """Close idle connections now and lent ones when they come back: the server has another role."""
        self._leave()
        for connection in self._used:
            connection.dirt = Dirt.DISCARD

    def abort(self) -> None:
        """Cut all connections, so that who waits for the server's answer need not: it does not answer."""
        self._leave()
        self._opener.cancel(self._left_error())
        for connection in self._used:
            connection.terminate()

    def relocate(self, addresses: frozenset[str]) -> None:
        """Let go of connections to an address that the server's name does not lead to any more."""
        for connection in [each for each in self._idle if each.peer not in (None, *addresses)]:
            self._idle.remove(connection)
            self._retire(connection, "moved")
        for connection in self._used:
            if connection.peer not in (None, *addresses):
                connection.dirt = Dirt.DISCARD

    def _leave(self) -> None:
        while self._idle:
            self._retire(self._idle.pop(), "left")
        self._admission.dismiss(self._left_error)

    def _left_error(self) -> ConnectError:
        node = self.endpoint.node
        return ConnectError(f"{node.label} does not answer, or has another role than {node.role} now").at(
            cluster=node.cluster, node=node.name
        )

    def _closed_error(self) -> RouterClosed:
        return RouterClosed(f"the pool of {self.endpoint.node.label} is closed. Open a new router")

    def drop_idle(self) -> None:
        """Close idle connections at once."""
        while self._idle:
            self._drop(self._idle.pop(), "closed")

    def shut(self) -> None:
        """Refuse new work; close what is idle, give up on what is being opened, and tell who waits."""
        self.closed = True
        self._admission.dismiss(self._closed_error)
        while self._idle:
            self._retire(self._idle.pop(), "closed")
        self._opener.cancel(self._closed_error())

    async def close(self, timeout: float) -> int:
        """Refuse new work, wait for lent connections, cut what is left; return how many were cut."""
        self.shut()
        if self._admission.size:
            try:
                async with asyncio.timeout(timeout):
                    await self._admission.empty()
            except TimeoutError:
                return self.cut()
            except BaseException:
                self.cut()
                raise
        return 0

    def cut(self) -> int:
        """Close all lent connections, whatever runs on them; return how many there were."""
        left = list(self._used)
        if left:
            self.teller.cut(self._used.held(self.clock()))
        self.leftovers += len(left)
        for connection in left:
            del self._used[connection]
            self._retire(connection, "closed")  # not cut at once: the server is to end its statement too
        return len(left)

    def detach(self, gone: Callable[[], RouterError]) -> list[Any]:
        """Give up all connections without touching server or event loop; return what ``close()`` ends.

        Whoever still holds one learns why by the error that ``gone`` makes.
        """
        self.closed = True
        self.gone = gone
        left = [*self._idle, *self._used]
        self._idle.clear()
        self._used.clear()
        return [found for connection in left if (found := connection.detach()) is not None]
