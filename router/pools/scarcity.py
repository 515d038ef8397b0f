"""Say and tell why there is no connection to be had: who holds them, for how long, what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.errors import PoolDeadlock, PoolFull, PoolTimeout, RouterError, TenantBusy
from router.pools.admission import Admission
from router.pools.creating import Creator
from router.pools.deadlines import Deadlines
from router.pools.fairness import Flow
from router.pools.holders import Holder, listed
from router.pools.lent import all_wait
from router.pools.telling import PoolTeller
from router.topology import Node

_SOONEST = 0.05  # seconds, of what is told of when to try again


class Scarcity:
    """Judge one pool's want of connections; ``clock`` is monotonic, in seconds."""

    def __init__(
        self,
        node: Node,
        admission: Admission,
        creator: Creator,
        deadlines: Deadlines,
        teller: PoolTeller,
        clock: Callable[[], float],
    ) -> None:
        self._node = node
        self._admission = admission
        self._creator = creator
        self._deadlines = deadlines
        self._teller = teller
        self._clock = clock

    def refusal(self, holder: Holder, size: int) -> RouterError | None:
        """Return why it makes no sense to wait: nothing can come free, or too many wait already.

        ``size`` is how many connections the pool has. Where the node's queues are full, the tenant whose
        requests fill them gives way to one that has fewer.
        """
        if not size:  # nothing may be opened now either
            self._creator.look_at_password()
            error = self._creator.refusals.error()
            if error is not None:
                return error
        flow, admission = holder.flow, self._admission
        if self._stuck(flow):
            return self._refused(self._deadlocked(flow), holder, 0.0)
        if flow.waiting >= flow.patience:
            return self._refused(self._busy(flow), holder, 0.0)
        if admission.waiting < admission.limits.waiting:
            return None
        longest = admission.longest()
        if longest is None or longest.waiting <= flow.waiting + 1:
            return self._refused(self._full(), holder, 0.0)
        if longest is flow:
            return self._refused(self._busy(flow), holder, 0.0)
        self._give_way(longest)
        return None

    def _give_way(self, flow: Flow) -> None:
        """Refuse the latest request of the flow that fills the queue."""
        for pool in list(self._admission.queued):
            if flow in pool.queue.flows():
                pool.queue.drop(flow, self._busy(flow))
                return

    def _stuck(self, flow: Flow) -> bool:
        if not self._admission.held_by_units(flow):
            return False
        lent = self._admission.lent()
        if flow.held >= flow.limit:
            lent = [each for each in lent if each[1].flow is flow]
            most = float(flow.held)
        else:
            most = self._admission.limits.max
        if len(lent) < most:  # some are being opened, or cleaned
            return False
        return all_wait(lent, asyncio.current_task(), self._admission.holds, self._deadlines)

    def _deadlocked(self, flow: Flow) -> PoolTimeout:
        whose = f"that tenant {flow.tenant!r} may have " if flow.held >= flow.limit else ""
        number = flow.held if whose else self._admission.limits.max
        return self._at(
            PoolDeadlock(
                f"each of the {number} connections {whose}to {self._node.label} is held by a task that "
                "waits for another one, so none can come free. Run the inner statement in the transaction "
                f"that is open already, or end that one first. Held by {self._held_by()}"
            )
        )

    def _busy(self, flow: Flow) -> PoolTimeout:
        error = TenantBusy(
            f"{flow.waiting} requests of tenant {flow.tenant!r} wait for a connection to {self._node.label} "
            f"already, and it holds {flow.held}. Send fewer at once, or raise its limits. Other tenants are "
            "served meanwhile"
        )
        served = max(flow.held, 1) / max(self._admission.time.usual, 0.001)  # in a second
        error.retry_after = max(flow.waiting / served, _SOONEST)
        return self._at(error)

    def _full(self) -> PoolTimeout:
        return self._at(
            PoolFull(
                f"{self._admission.waiting} tasks wait for a connection to {self._node.label} already, "
                f"and {self._in_use()}. Send fewer requests at once, or raise connections.max "
                f"or connections.waiting. Held by {self._held_by()}"
            )
        )

    def too_late(self, asked: float, holder: Holder) -> PoolTimeout:
        """Return the error of who got leave to open a connection when none of ``asked`` seconds was left."""
        error = PoolTimeout(f"no time was left of {asked:.3g} s to open a connection")
        return self._refused(error, holder, asked)

    def timed_out(self, asked: float, holder: Holder, waited: float) -> PoolTimeout:
        """Return the error of who waited in vain, of ``asked`` seconds in all, and has left the queue."""
        flow = holder.flow
        if flow.held >= flow.limit:
            return self._refused(self._exhausted(asked, flow), holder, waited)
        text = (
            f"no connection to {self._node.label} came free within {asked:.3g} s: {self._in_use()}, "
            f"{self._admission.waiting + 1} waiting. Raise connections.max, or find who holds them for so "
            f"long. Held by {self._held_by()}"
        )
        refusal = self._creator.refusals.error()
        if refusal is not None:
            text += f". No more can be opened: {refusal.message}"
        error = PoolTimeout(text, code=None if refusal is None else refusal.code)
        return self._refused(self._at(error), holder, waited)

    def _exhausted(self, asked: float, flow: Flow) -> PoolTimeout:
        now = self._clock()
        held = [
            (now - each.lent_at, holder) for each, holder in self._admission.lent() if holder.flow is flow
        ]
        error = TenantBusy(
            f"tenant {flow.tenant!r} holds all {flow.limit:g} connections to {self._node.label} that it may, "
            f"and gave none back within {asked:.3g} s. Find who holds them for so long, or raise "
            f"limits.connections. Held by {listed(held)}"
        )
        error.retry_after = asked
        return self._at(error)

    def _refused(self, error: PoolTimeout, holder: Holder, waited: float) -> PoolTimeout:
        admission = self._admission
        self._teller.refused(
            error, holder.tenant, waited, self._used(), admission.waiting, admission.limits.max
        )
        return error

    def _used(self) -> int:
        admission = self._admission
        return admission.size - sum(pool.count()[0] for pool in admission.members)

    def _in_use(self) -> str:
        return f"{self._used()} of {self._admission.limits.max} in use"

    def _held_by(self) -> str:
        now = self._clock()
        return listed((now - connection.lent_at, holder) for connection, holder in self._admission.lent())

    def _at(self, error: PoolTimeout) -> PoolTimeout:
        error.at(cluster=self._node.cluster, node=self._node.name)
        return error
