"""Ask the server behind a lease whether it has what a read must see, and give it a moment to get there."""

from __future__ import annotations

from contextlib import suppress
from math import inf

from router.backend import Backend, Target
from router.consistency import Bounded, Consistency
from router.errors import RouterError
from router.frontier import Frontier
from router.health import Health
from router.pools.lease import Lease
from router.positions import Position
from router.probing import observation
from router.reasons import Reason
from router.routing import reached

_SHARE = 4  # of a pool's connections: only one in so many may be held by a read that waits
_REST = 0.5  # seconds in which a session does not wait again after it waited in vain


def trusted(lease: Lease, health: Health, since: float) -> bool:
    """Tell whether a connection's server is known not to have restarted since something was known of it."""
    return lease.connection.opened_at <= since or health.steady(lease.pool.endpoint.node.name) <= since


async def catch_up(
    lease: Lease,
    target: Target,
    seen: Frontier,
    consistency: Consistency | Bounded,
    began: float,
    deadline: float,
) -> Reason | None:
    """Return CHECKED or WAITED once the server has what a read must see; ``None`` if it has not in time.

    ``began`` and ``deadline`` are those of the request. Raises what asking raises.
    """
    backend, clock = target.backend, lease.pool.clock
    health, node = backend.health, lease.pool.endpoint.node
    bounded = isinstance(consistency, Bounded)
    moment = consistency.moment(began) if isinstance(consistency, Bounded) else seen.restarted()
    goals = _goals(None if bounded else seen.goal, health, moment)
    if goals is None:
        await _ask_primary(backend, deadline)
        goals = _goals(None if bounded else seen.goal, health, moment)
        if goals is None:  # there is no primary, or it does not say, or it is none any more
            return None
    asked = clock()
    limit = max(min(health.rules.timeout, deadline - asked), 0.001)
    reading = await lease.run("probe", limit=limit)
    health.noted(node.name, observation(reading, asked, clock() - asked))
    position = reading.position
    if reading.writable or position is None or not health.follows(node):
        return None  # promoted, or not known to follow the primary
    if isinstance(consistency, Bounded) and not consistency.allows(position, health.lineage.position):
        return None
    ahead = [goal for goal in goals if not reached(position, goal)]
    if not ahead:
        return Reason.CHECKED
    until = min(asked + target.placement.settings.wait, deadline)
    reign = health.snapshot().reign.began
    if await _wait(lease, health, ahead, until, limit):
        # under another primary what was waited for may be lost: whoever comes back here looks at that first
        return Reason.WAITED if health.snapshot().reign.began == reign else None
    seen.rests_until = clock() + _REST
    return None


async def _ask_primary(backend: Backend, deadline: float) -> None:
    """Have the primary asked how far it is, if there is one; its failure is no fault of the replica's."""
    primary = backend.health.snapshot().primary
    if primary is not None:
        with suppress(RouterError):
            await backend.ask(primary, deadline)


async def _wait(lease: Lease, health: Health, goals: list[Position], until: float, limit: float) -> bool:
    """Wait until the server has reached all ``goals``; not with too many at once, since each has a lease."""
    load, clock = health.load[lease.pool.endpoint.node], lease.pool.clock
    if load.waiting >= max(lease.pool.limits.max // _SHARE, 1):
        return False
    load.waiting += 1
    try:
        for goal in goals:
            left = until - clock()
            if left <= 0 or not await lease.run("reach", goal, left, limit=left + limit):
                return False
    finally:
        load.waiting -= 1
    return True


def _goals(goal: Position | None, health: Health, moment: float) -> tuple[Position, ...] | None:
    """Return the positions that a read must have reached; ``None`` if that is not known."""
    goals = () if goal is None else (goal,)
    if moment == -inf:
        return goals
    position = health.lineage.after(moment)
    return None if position is None else (*goals, position)
