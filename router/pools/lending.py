"""Lend the connections to one node, one database, as one user, and take them back.

How many there may be, and who is served first, is the node's business: see :mod:`router.pools.admission`.
Taking an idle connection and giving a clean one back are plain calls without an await, so nothing can be
cancelled half-way there. Whatever needs the network (reset, close) is handed to the reaper. A connection
returns to the idle ones only if it is known to be as it was; every doubt closes it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Protocol
from weakref import WeakSet

from router import events
from router.drivers.driver import Binding, Connection, Driver, Endpoint
from router.errors import RouterClosed, RouterError, TooManyConnections
from router.pools.admission import Admission
from router.pools.bounds import Limits
from router.pools.creating import Creator
from router.pools.deadlines import Deadlines
from router.pools.fairness import Flow
from router.pools.holders import ROUTER, Holder
from router.pools.killer import Killer
from router.pools.lent import Lent
from router.pools.opening import Opener
from router.pools.reaper import Reaper, farewell
from router.pools.scarcity import Scarcity
from router.pools.telling import PoolTeller
from router.pools.waiting import Late, Leave, Queue
from router.statements import Dirt
from router.waits import Waits

_CLEANUP = 5.0  # seconds that a reset or an orderly close may take in the background
_ROOM = 1.0  # seconds that an orderly close may take whose slot somebody waits for


class Lessee(Protocol):
    """Remember a pool, until told otherwise."""

    def forget(self, pool: Lending) -> None:
        """Forget a pool that is no more."""


class Lending:
    """Lend connections of one endpoint, and take them back."""

    def __init__(
        self,
        endpoint: Endpoint,
        driver: Driver,
        limits: Limits,
        *,
        admission: Admission,
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
        self.lessees: WeakSet[Lessee] = WeakSet()  # who remembers the pool
        self.gone: Callable[[], RouterError] | None = None  # set by detach()
        self._why: Callable[[], RouterError] = self._closed_error  # it is closed
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
        self._admission = admission
        self.refusals = self._creator.refusals
        self.queue = Queue(admission.time)
        self.size = 0  # connections that are idle, lent, being opened, being cleaned, closed to make room
        self.most = limits.each
        self._empty: asyncio.Event | None = None
        self._scarcity = Scarcity(endpoint.node, admission, self._creator, deadlines, self.teller, clock)

    # --- lending -----------------------------------------------------------------------------------------

    def take(self, binding: Binding | None, now: float, holder: Holder = ROUTER) -> Connection | None:
        """Lend an idle connection at once, one with this binding if there is any; else return ``None``.

        So it does where the holder's tenant has as many as it may.
        """
        idle, flow = self._idle, holder.flow
        if flow.held >= flow.limit:
            return None
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
                flow.held += 1
                return connection
        return None

    def _prefer(self, binding: Binding | None, last: Connection) -> Connection:
        """Swap ``last`` for an idle connection that has the binding, if there is one."""
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].binding == binding:
                found = self._idle[index]
                self._idle[index] = last
                return found
        return last

    async def acquire(
        self,
        binding: Binding | None,
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
        charged = 0.0
        while True:
            if self.closed:
                raise self._why()
            connection = self.take(binding, self.clock(), holder)
            if connection is not None:
                return connection
            admission, flow = self._admission, holder.flow
            # Where others of its tenant wait it goes behind them; if it may go by now, it is told so at once.
            if refused or flow.waiting or admission.contended() or not admission.reserve(self, flow):
                began = self.clock()
                try:
                    answer = await self._wait(deadline, asked, holder, first=refused)
                finally:
                    waits.queue += self.clock() - began
                if isinstance(answer, Connection):
                    return answer
                charged = answer.charged
            began = self.clock()
            try:
                opened = await self._open(deadline, asked, connect, holder)
            finally:
                waits.connect += self.clock() - began
            if isinstance(opened, Connection):
                self._lend(opened, holder)
                # its tenant pays for the opening too, once it gives the connection back
                self._admission.time.opened(opened.lent_at - began)
                opened.charged = opened.lent_at, charged - (opened.lent_at - began)
                return opened
            if not (isinstance(opened, TooManyConnections) and self.size):
                raise opened
            refused = True

    def _lend(self, connection: Connection, holder: Holder) -> Connection:
        connection.lent_at = self.clock()
        self._used[connection] = holder
        return connection

    def hold(self, connection: Connection, holder: Holder) -> None:
        """Say who holds a lent connection now: the unit of work that it was lent for."""
        before = self._used.get(connection)
        if before is not None:
            self._used[connection] = holder._replace(flow=before.flow)

    async def _wait(
        self, deadline: float, asked: float, holder: Holder, *, first: bool
    ) -> Connection | Leave:
        """Stand in the queue until a connection, or leave to open one, is handed over."""
        error = None if first else self._scarcity.refusal(holder, self.size)
        if error is not None:
            raise error
        began = self.clock()
        left = deadline - began
        answer = await self._admission.wait(self, holder, left, first=first, give_back=self.give)
        if isinstance(answer, RouterError):
            raise answer
        if isinstance(answer, Late):
            raise self._scarcity.timed_out(asked, holder, self.clock() - began)
        return answer

    # --- opening -----------------------------------------------------------------------------------------

    async def _open(
        self, deadline: float, asked: float, connect: float, holder: Holder = ROUTER
    ) -> Connection | RouterError:
        """Open a connection in a slot that is reserved for it; give the slot up if that fails."""
        left = deadline - self.clock()
        if left <= 0:
            self._vacate(holder.flow)
            return self._scarcity.too_late(asked, holder)
        watch = self.deadlines.watch(self.endpoint.node)
        try:
            opened = await self._creator.make(min(connect, left))
        except BaseException:
            self._vacate(holder.flow)
            raise
        finally:
            watch.cancel()
        if isinstance(opened, RouterError):
            self._vacate(holder.flow)
            return opened
        self._admission.opened()
        if self.closed:  # meanwhile
            holder.flow.returned()
            self._retire(opened, "closed")
            return self._why()
        return opened

    def _vacate(self, flow: Flow) -> None:
        """Give up a reserved slot: nothing was opened in it."""
        self._admission.vacate(self, flow)
        self._see_empty()

    # --- taking back -------------------------------------------------------------------------------------

    def give(self, connection: Connection) -> None:
        """Take a connection back; a dirty one is cleaned in the background first, or closed."""
        holder = self._used.pop(connection, None)
        if holder is None:
            return  # cut by close()
        flow = holder.flow
        if self._admission.queued:
            self._admission.returned(flow, connection, self.clock())
        flow.held -= 1  # not by its method: each request passes here
        if flow.parked:
            flow.resume()
        if connection.closed:
            self._drop(connection)
        elif self.closed:
            self._retire(connection, "closed")
        elif not connection.dirt and not connection.in_transaction:
            self._offer(connection, flow)
        elif connection.in_transaction or connection.dirt >= Dirt.DISCARD:
            self._retire(connection, "dirty")
        else:
            self._reaper.submit(lambda: self._clean(connection), lambda: self._retire(connection, "dirty"))
            self._admission.advance()  # the tenant may have more now than its limit let it have before

    def discard(self, connection: Connection, reason: str) -> None:
        """Take a connection back that nobody may use again; its slot is free at once."""
        holder = self._used.pop(connection, None)
        if holder is not None:
            holder.flow.returned()
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

    def _offer(self, connection: Connection, last: Flow | None = None) -> None:
        """Hand a clean connection to who is next, or keep it idle; ``last`` is who had it just now."""
        if self.closed:
            self._retire(connection, "closed")
            return
        if self._admission.queued:
            if connection.expires_at <= self.clock():  # as take() does: a busy pool has no idle ones
                self._retire(connection, "lifetime")
                return
            if self._admission.offer(self, connection, last):
                return
        connection.used_at = self.clock()
        self._idle.append(connection)

    # --- what the node's admission asks for --------------------------------------------------------------

    @property
    def oldest(self) -> float:
        """Return when the connection that is idle for longest was used last; ``inf`` without one."""
        return self._idle[0].used_at if self._idle else inf

    def count(self) -> tuple[int, int]:
        """Return how many connections are idle and how many are lent."""
        return len(self._idle), len(self._used)

    def lent(self) -> Iterator[tuple[Connection, Holder]]:
        """Yield what is lent, and to whom."""
        yield from self._used.items()

    def lend_to(self, holder: Holder, connection: Connection, charged: float) -> None:
        """Lend a connection that was handed over in the queue."""
        self._lend(connection, holder)
        connection.charged = connection.lent_at, charged

    def serve(self) -> bool:
        """Hand an idle connection to who is next in the queue; tell whether that could be done."""
        now = self.clock()
        while self._idle:
            connection = self._idle.pop()
            if connection.closed or connection.expires_at <= now:
                self._retire(connection, "lifetime")
                continue
            handed = self.queue.hand(connection)
            if handed is None:
                self._idle.append(connection)
                return False
            self.lend_to(handed[0], connection, handed[1])
            return True
        return False

    def evict(self, connection: Connection | None = None) -> None:
        """Close an idle connection, the oldest if none is named; its slot is free once it is closed.

        Not before: the server would see one connection more than the node's maximum.
        """
        leaving = connection or self._idle.popleft()
        self._tell_closed(leaving, "evicted")
        self._reaper.submit(lambda: self._see_off(leaving), partial(self._cut_off, leaving))

    async def _see_off(self, connection: Connection) -> None:
        try:
            await farewell(connection, _ROOM)
        finally:
            self._left()

    def _cut_off(self, connection: Connection) -> None:
        connection.terminate()
        self._left()

    def _left(self) -> None:
        self._admission.left(self)
        self._see_empty()

    def _see_empty(self) -> None:
        if self._empty is not None and not self.size:
            self._empty.set()

    # --- closing -----------------------------------------------------------------------------------------

    def _retire(self, connection: Connection, reason: str) -> None:
        """Close in the background; the slot is free at once."""
        self._forget(connection, reason)
        self._reaper.submit(lambda: farewell(connection, _CLEANUP), connection.terminate)

    def _drop(self, connection: Connection, reason: str = "broken") -> None:
        """Close at once, as for what the server has closed: our end of the socket is still open."""
        self._forget(connection, reason)
        connection.terminate()

    def _forget(self, connection: Connection, reason: str) -> None:
        self._tell_closed(connection, reason)
        self._admission.free(self)
        self._see_empty()

    def _tell_closed(self, connection: Connection, reason: str) -> None:
        self._killer.kill(connection)
        self.teller.closed(self.clock() - connection.opened_at, reason)

    def _closed_error(self) -> RouterClosed:
        return RouterClosed(f"the pool of {self.endpoint.node.label} is closed. Open a new router")
