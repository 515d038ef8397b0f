"""Find out what became of a commit that got no answer, by asking the primary over another connection."""

from __future__ import annotations

import asyncio

from router import events
from router.drivers.driver import Mark, Outcome
from router.enclosing import landed
from router.errors import CommitOutcomeUnknown, RouterError, TransactionLost
from router.retries import Policy, delay
from router.units import Unit

_MOST = 5.0  # seconds to ask for, at most, of what is left of the caller's time
_PAUSES = Policy(min_wait=0.02, max_wait=0.25)


async def settle(unit: Unit, unknown: CommitOutcomeUnknown, deadline: float) -> RouterError | None:
    """Return what became of a commit: ``None`` if it was applied, else the error to raise.

    ``deadline`` is the caller's, on the monotonic clock. The error is TransactionLost if the server has
    rolled the transaction back, and ``unknown`` itself where nobody can tell. The unit's connection is given
    up before anybody is asked: in a small pool it may have the only slot.
    """
    mark, executor = unit.lease.connection.mark, unit.executor
    unit.lease.release()
    began = executor.clock()
    outcome = Outcome.UNKNOWN if mark is None else await _found(unit, mark, min(deadline, began + _MOST))
    if outcome is Outcome.UNKNOWN and (batch := await landed(unit, deadline)):
        _tell(unit, batch, began, committed=True)
        return None
    if mark is None or outcome is Outcome.UNKNOWN:
        return unknown
    _tell(unit, mark.transaction_id, began, committed=outcome is Outcome.COMMITTED)
    if outcome is Outcome.COMMITTED:
        return None
    lost = TransactionLost(
        f"the commit got no answer, and the server says that it has rolled transaction {mark.transaction_id} "
        "back: nothing of it was applied. Run it again",
        code=unknown.code,
        cause=unknown.cause,  # not unknown itself: what is known now may be run again
    )
    lost.transaction_id = mark.transaction_id
    return lost.at(cluster=unknown.cluster, node=unknown.node)


def _tell(unit: Unit, transaction_id: str, began: float, *, committed: bool) -> None:
    executor = unit.executor
    executor.teller.emit(
        events.CommitResolved(
            executor.teller.wall(),
            unit.target.placement.tenant,
            unit.node,
            transaction_id,
            committed,
            executor.clock() - began,
        )
    )


async def _found(unit: Unit, mark: Mark, deadline: float) -> Outcome:
    """Ask until the server knows, or time is up; UNKNOWN if it never did."""
    executor, attempt = unit.executor, 0
    while True:
        attempt += 1
        outcome = await _ask(unit, mark, deadline)
        if outcome is not Outcome.OPEN:
            return outcome
        pause = delay(attempt, _PAUSES, executor.rng)
        if executor.clock() + pause >= deadline:
            return Outcome.UNKNOWN
        await asyncio.sleep(pause)


async def _ask(unit: Unit, mark: Mark, deadline: float) -> Outcome:
    """Ask once, on whatever node is the primary now; OPEN also while there is nobody to ask."""
    backend, clock = unit.target.backend, unit.executor.clock
    if clock() >= deadline:
        return Outcome.UNKNOWN
    primary = backend.health.snapshot().primary
    if primary is None:
        return Outcome.OPEN
    pool, _ = unit.target.pool(primary)
    connect = unit.target.placement.settings.connect_timeout
    try:
        lease = await backend.lease_unbound(pool, deadline, connect)
        try:
            limit = max(deadline - clock(), 0.001)
            answer: Outcome = await lease.run("outcome", mark, None, limit=limit)
        finally:
            lease.release()
    except RouterError:
        return Outcome.OPEN
    return answer
