"""Steer a session's reads past replicas that are behind it, and note what it has seen where."""

from __future__ import annotations

from collections.abc import Collection
from math import inf, nextafter

from router.backend import Target
from router.causality import Causality
from router.consistency import Bounded, Consistency, Otherwise
from router.errors import StaleReadError
from router.frontier import Frontier
from router.reasons import Reason
from router.requests import Request
from router.routing import Route, Snapshot, decide, decide_transaction, since, to_primary
from router.topology import Node, Role

# Looking a member up on its enum costs 70 ns on CPython 3.11; every request passes here.
_PRIMARY, _REPLICA, _SESSION = Role.PRIMARY, Role.REPLICA, Consistency.SESSION
_CAUGHT_UP = Reason.CAUGHT_UP


def route_of(request: Request, causality: Causality) -> Route:
    """Return the route of a request, from what is known of its cluster now; set its ``since``.

    Raises:
        StaleReadError: no replica is known to have what the read must see, and the tenant's reads are not to
            go to the primary for that.
    """
    target, seen, consistency = request.target, request.seen, request.consistency
    snapshot = target.backend.health.snapshot()
    if seen.vetted[0] is not snapshot:
        settle(target, seen, snapshot, causality)
    route = decide(
        request.verdict,
        snapshot,
        intent=request.intent,
        consistency=consistency,
        seen=seen,
        now=request.started,
        patience=target.placement.settings.wait,
        without=request.tried,
    )
    if route.behind:
        return fall_back(target, seen, route.reason, causality)
    if route.role is _REPLICA:
        request.since = since(route, snapshot, seen, consistency)
        if route.reason is _CAUGHT_UP and not request.tried:
            seen.vetted = (snapshot, route)
    return route


def settle(target: Target, seen: Frontier, snapshot: Snapshot, causality: Causality) -> None:
    """Look at tokens, and at what a change of the primary has made of what the session has seen."""
    began = snapshot.reign.began
    if seen.goal is not None or seen.pending or (began > -inf and seen.since < began):
        causality.settle(seen, target, snapshot)


def route_again(request: Request, causality: Causality) -> Route:
    """Return the route to the primary of a request that failed there; another may lead by now."""
    target, seen = request.target, request.seen
    snapshot = target.backend.health.snapshot()
    settle(target, seen, snapshot, causality)
    return to_primary(snapshot, request.reason)


def route_of_unit(
    target: Target,
    seen: Frontier,
    consistency: Consistency | Bounded,
    causality: Causality,
    *,
    readonly: bool,
    began: float,
    without: Collection[Node],
) -> tuple[Route, float]:
    """Return the route of a unit of work, and from when on its replicas are known to be far enough.

    Raises StaleReadError as :func:`route_of` does.
    """
    snapshot = target.backend.health.snapshot()
    settle(target, seen, snapshot, causality)
    route = decide_transaction(
        snapshot,
        readonly=readonly,
        consistency=consistency,
        seen=seen,
        now=began,
        patience=target.placement.settings.wait,
        without=without,
    )
    if route.behind:
        route = fall_back(target, seen, route.reason, causality)
    return route, since(route, snapshot, seen, consistency) if route.role is _REPLICA else inf


def fall_back(target: Target, seen: Frontier, reason: Reason, causality: Causality) -> Route:
    """Return a route to the primary for want of news of the replicas, which are asked soon.

    Raises:
        StaleReadError: the tenant's reads are not to go to the primary for that.
    """
    health, placement = target.backend.health, target.placement
    health.wanted()
    if placement.settings.otherwise is Otherwise.ERROR:
        raise StaleReadError(
            f"no replica of cluster {placement.cluster.name} is known to have what the read must see "
            f"({reason}), and freshness.otherwise is error. Try again later, or read with primary=True"
        )
    snapshot = health.snapshot()
    settle(target, seen, snapshot, causality)  # another may lead since the read began to wait
    return to_primary(snapshot, reason)


def choose(route: Route, target: Target, seen: Frontier) -> Node:
    """Return the node to use: the session's replica while it is a candidate, else a choice by load.

    There must be a candidate.
    """
    candidates = route.candidates
    if route.role is _PRIMARY:
        return candidates[0]
    node = seen.replica
    if node is None or node not in candidates:
        node = candidates[0] if len(candidates) == 1 else target.backend.choose(candidates)
        seen.move(node)
    return node


def note(target: Target, seen: Frontier, node: Node, at: float, *, wrote: bool) -> None:
    """Take note of what the primary ``node`` answered at ``at``: the session's next reads must see it."""
    snapshot = target.backend.health.snapshot()
    if node is not snapshot.primary and snapshot.primary is not None:
        at = nextafter(min(at, snapshot.reign.began), -inf)  # it is of the reign before
    if wrote:
        seen.note_write(at)
    else:
        seen.note_primary(at)
