"""Who may open a connection to a node now, and who waits: one budget for all its pools, fairly shared.

Opening is bounded in three ways: by the node's maximum, by a number at the same time (a burst of requests is
served sooner by connections that come back than by fifty handshakes that compete), and by what the server
has refused lately. Where the budget is used up, a pool's idle connection is closed to make room for another
pool; what is in use is never touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from math import inf
from typing import Protocol
from weakref import WeakValueDictionary

from router.config import TenantLimits
from router.drivers.driver import Connection
from router.errors import RouterError
from router.pools.bounds import BudgetStatus, Limits
from router.pools.fairness import Flow, VirtualTime
from router.pools.holders import Holder
from router.pools.refusals import Refusals
from router.pools.waiting import Answer, Leave, Queue

_AT_ONCE = 10  # connections being opened, or closed to make room, at the same time
_TURNS = 4  # times what opening takes, for which a pool may go on before another one's turn
_SHARED = 5  # one part in so many is never held by one tenant alone, unless its limits say so


class Member(Protocol):
    """What a node's admission knows of each of its pools."""

    queue: Queue
    refusals: Refusals
    size: int  # its connections, of the node's

    @property
    def most(self) -> float:
        """Return how many connections it may have by itself."""

    @property
    def oldest(self) -> float:
        """Return when its oldest idle connection was used last; ``inf`` without one."""

    def count(self) -> tuple[int, int]:
        """Return how many connections are idle and how many are lent."""

    def lent(self) -> Iterator[tuple[Connection, Holder]]:
        """Yield what is lent, and to whom."""

    def serve(self) -> bool:
        """Hand an idle connection to who is next in the queue; tell whether that could be done."""

    def lend_to(self, holder: Holder, connection: Connection, charged: float) -> None:
        """Lend a connection that was handed over in the queue."""

    def evict(self, connection: Connection | None = None) -> None:
        """Close an idle connection, the oldest if none is named; its slot is free once it is closed."""


class Admission:
    """Count the connections to a node over all its pools, and give what comes free to who is next."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.size = 0  # connections that are idle, lent, being opened, being cleaned
        self.time = VirtualTime()
        self.members: dict[Member, None] = {}  # the pools that have connections
        self.queued: dict[Member, None] = {}  # the pools that somebody waits for; read by each request
        self._flows: WeakValueDictionary[str, Flow] = WeakValueDictionary()
        self._opening = 0
        self._leaving = 0  # connections being closed to make room
        self._timer: asyncio.TimerHandle | None = None  # until the server may be asked again

    # --- tenants -----------------------------------------------------------------------------------------

    def flow(self, tenant: str, limits: TenantLimits, *, alone: bool) -> Flow:
        """Return the flow of a tenant, with its limits as they are now; ``alone`` on the cluster or not."""
        flow = self._flows.get(tenant)
        if flow is None:
            flow = self._flows[tenant] = Flow(tenant)
        most = self.limits.max
        flow.limit = limits.connections or (most if alone else most - most // _SHARED)
        flow.patience = inf if limits.waiting is None else limits.waiting
        flow.weight = limits.weight
        if flow.parked:
            flow.resume()
        return flow

    def returned(self, flow: Flow, connection: Connection, now: float) -> None:
        """Charge a flow for a connection that it gives back while somebody waits."""
        granted, charged = connection.charged
        self.time.returned(flow, now - connection.lent_at, charged if granted == connection.lent_at else 0.0)

    # --- slots -------------------------------------------------------------------------------------------

    def reserve(self, pool: Member, flow: Flow) -> bool:
        """Reserve a slot to open a connection in, if one may be opened now; the flow then holds it."""
        if flow.held >= flow.limit or not self._has_room(pool):
            return False
        self._enter(pool)
        flow.held += 1
        return True

    def _has_room(self, pool: Member) -> bool:
        at_once = 1 if pool.refusals.probing else _AT_ONCE
        return self.size < self.limits.max and self._opening < at_once and self._may_open(pool)

    @staticmethod
    def _may_open(pool: Member) -> bool:
        return pool.size < pool.most and not pool.refusals.pause()

    def _enter(self, pool: Member) -> None:
        self.size += 1
        self._opening += 1
        pool.size += 1
        self.members[pool] = None

    def opened(self) -> None:
        """Turn a reserved slot into that of a connection; another may be opened now."""
        self._opening -= 1
        self.advance()

    def vacate(self, pool: Member, flow: Flow) -> None:
        """Give up a reserved slot: nothing was opened in it."""
        self._opening -= 1
        flow.returned()
        self.free(pool)
        if not pool.size and pool.refusals.pause():
            refused = pool.refusals.error
            # there is no connection that could come free: all who wait are told so
            pool.queue.dismiss(lambda: refused() or RouterError("the server takes no connection"))

    def free(self, pool: Member) -> None:
        """Give a slot up: to who is next, so that nobody new gets it before."""
        self.size -= 1
        pool.size -= 1
        if not pool.size:
            self.members.pop(pool, None)
        self.advance()

    def left(self, pool: Member) -> None:
        """Give up the slot of a connection that was closed to make room."""
        self._leaving -= 1
        self.free(pool)

    # --- whose turn it is --------------------------------------------------------------------------------

    def _first(self, without: Member | None = None) -> tuple[float, Member] | None:
        """Return who is next of those that a slot would help, with its start tag."""
        best: tuple[float, Member] | None = None
        for pool in self.queued:
            if pool is without or not (self._may_open(pool) or pool.oldest < inf):
                continue
            tag = pool.queue.first()
            if tag is not None and (best is None or tag < best[0]):
                best = tag, pool
        return best

    def contended(self) -> bool:
        """Tell whether somebody waits whom a slot would help: nobody new goes before."""
        return bool(self.queued) and self._first() is not None

    def advance(self) -> None:
        """Serve who waits, as many as may be served now."""
        while self.queued and (found := self._first()) is not None:
            pool = found[1]
            if pool.serve():
                continue
            if not self._has_room(pool):
                break
            self._enter(pool)
            if pool.queue.hand() is None:
                self._opening -= 1
                self.size -= 1
                pool.size -= 1
        if self.queued:
            self._make_room()
            self._come_back()

    def offer(self, pool: Member, connection: Connection, last: Flow | None) -> bool:
        """Give a connection that came back to who is next, or its slot; ``False`` if nobody is.

        ``last`` is who had it just now, and may have it again before others.
        """
        own, other = pool.queue.first(), None
        if len(self.queued) > 1 or pool not in self.queued:
            other = self._first(without=pool)
        # to close a connection and open another one for each request would be all that is done
        if own is not None and (other is None or own <= other[0] + _TURNS * self.time.opening):
            handed = pool.queue.hand(connection, last, self.time.soon(self.size))
            if handed is not None:
                pool.lend_to(handed[0], connection, handed[1])
                return True
        if other is not None and self._wants_room():
            self._leaving += 1
            pool.evict(connection)
            return True
        return False

    def _wants_room(self) -> bool:
        under_way = self._leaving + self._opening
        return self.size >= self.limits.max and under_way < min(self.waiting, _AT_ONCE)

    def _make_room(self) -> None:
        """Close idle connections of other pools, the one that was used longest ago first."""
        while self._wants_room() and self._first() is not None:
            oldest = min(self.members, key=_oldest, default=None)
            if oldest is None or oldest.oldest == inf:
                return
            self._leaving += 1
            oldest.evict()

    def _come_back(self) -> None:
        """Try again when a server that has refused may be asked again."""
        if self._timer is None:
            pauses = [pause for pool in self.queued if (pause := pool.refusals.pause())]
            if pauses:
                self._timer = asyncio.get_running_loop().call_later(min(pauses), self._resume)

    def _resume(self) -> None:
        self._timer = None
        self.advance()

    async def wait(
        self,
        pool: Member,
        holder: Holder,
        seconds: float,
        *,
        first: bool,
        give_back: Callable[[Connection], None],
    ) -> Answer:
        """Stand in the queue, at the head of the tenant's if ``first``.

        ``give_back`` takes what came too late.
        """

        def pass_on(answer: Answer) -> None:
            if isinstance(answer, Connection):
                give_back(answer)
            elif isinstance(answer, Leave):
                self.vacate(pool, holder.flow)

        if not self.queued:
            self.time.begin()
        place = pool.queue.join(holder, first=first)
        self.queued[pool] = None
        try:
            if holder.flow.held < holder.flow.limit:  # else it waits for what its tenant holds
                self.advance()  # the server may have room by now; if not, this sets the timer
            return await pool.queue.wait(place, seconds, pass_on)
        finally:
            if not pool.queue:
                self.queued.pop(pool, None)

    def stop(self) -> None:
        """Come back to nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what is told ------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return sum(len(pool.queue) for pool in self.queued)

    def longest(self) -> Flow | None:
        """Return the flow with the most requests that wait, by its weight."""
        flows = {flow for pool in self.queued for flow in pool.queue.flows()}
        return max(flows, key=lambda flow: flow.waiting / flow.weight, default=None)

    def lent(self) -> list[tuple[Connection, Holder]]:
        """Return all that is lent, and to whom."""
        return [each for pool in self.members for each in pool.lent()]

    def held_by_units(self, flow: Flow) -> bool:
        """Tell whether units of work hold all that a flow may have, or all there is; mostly some do not."""
        limited = flow.held >= flow.limit
        return not any(
            holder.owner is None
            for pool in self.members
            for _, holder in pool.lent()
            if not limited or holder.flow is flow
        )

    def holds(self, task: asyncio.Task[object] | None) -> bool:
        """Tell whether a task stands in one of the node's queues."""
        return any(pool.queue.holds(task) for pool in self.queued)

    def status(self, node: str) -> BudgetStatus:
        """Return the numbers of this moment."""
        counts = [pool.count() for pool in list(self.members)]
        return BudgetStatus(
            node,
            self.size,
            sum(idle for idle, _ in counts),
            sum(used for _, used in counts),
            self._opening,
            self.waiting,
            self.limits.max,
            len(counts),
        )


def _oldest(pool: Member) -> float:
    return pool.oldest
