"""Say and tell why there is no connection to be had: who holds them, for how long, what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized

from router.errors import PoolDeadlock, PoolFull, PoolTimeout, RouterError
from router.pools.admission import Admission
from router.pools.bounds import Limits
from router.pools.creating import Creator
from router.pools.deadlines import Deadlines
from router.pools.holders import Holder, listed
from router.pools.lent import Lent
from router.pools.telling import PoolTeller
from router.topology import Node


class Scarcity:
    """Judge one pool's want of connections; ``clock`` is monotonic, in seconds."""

    def __init__(
        self,
        node: Node,
        limits: Limits,
        admission: Admission,
        creator: Creator,
        idle: Sized,
        lent: Lent,
        deadlines: Deadlines,
        teller: PoolTeller,
        clock: Callable[[], float],
    ) -> None:
        self._node = node
        self._limits = limits
        self._admission = admission
        self._creator = creator
        self._idle = idle
        self._lent = lent
        self._deadlines = deadlines
        self._teller = teller
        self._clock = clock

    def refusal(self, holder: Holder) -> RouterError | None:
        """Return why it makes no sense to wait: nothing can come free, or too many wait already."""
        limits, queue = self._limits, self._admission.queue
        if not self._admission.size:  # nothing may be opened now either
            self._creator.look_at_password()
            return self._creator.refusals.error()
        if len(self._lent) == limits.max and self._lent.all_wait(
            asyncio.current_task(), queue, self._deadlines
        ):
            return self._refused(self._deadlocked(), holder, 0.0)
        return self._refused(self._full(), holder, 0.0) if len(queue) >= limits.waiting else None

    def _deadlocked(self) -> PoolTimeout:
        return self._at(
            PoolDeadlock(
                f"each of the {self._limits.max} connections to {self._node.label} is held by a task that "
                "waits for another one, so none can come free. Run the inner statement in the transaction "
                f"that is open already, or end that one first. Held by {self._held_by()}"
            )
        )

    def _full(self) -> PoolTimeout:
        return self._at(
            PoolFull(
                f"{len(self._admission.queue)} tasks wait for a connection to {self._node.label} already, "
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
        text = (
            f"no connection to {self._node.label} came free within {asked:.3g} s: {self._in_use()}, "
            f"{len(self._admission.queue) + 1} waiting. Raise connections.max, or find who holds them for so "
            f"long. Held by {self._held_by()}"
        )
        refusal = self._creator.refusals.error()
        if refusal is not None:
            text += f". No more can be opened: {refusal.message}"
        error = PoolTimeout(text, code=None if refusal is None else refusal.code)
        return self._refused(self._at(error), holder, waited)

    def _refused(self, error: PoolTimeout, holder: Holder, waited: float) -> PoolTimeout:
        in_use, waiting = self._admission.size - len(self._idle), len(self._admission.queue)
        self._teller.refused(error, holder.tenant, waited, in_use, waiting, self._limits.max)
        return error

    def _in_use(self) -> str:
        return f"{self._admission.size - len(self._idle)} of {self._limits.max} in use"

    def _held_by(self) -> str:
        return listed(self._lent.held(self._clock()))

    def _at(self, error: PoolTimeout) -> PoolTimeout:
        error.at(cluster=self._node.cluster, node=self._node.name)
        return error
