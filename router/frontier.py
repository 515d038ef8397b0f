"""What a session has seen of its cluster: the point that its further reads must not fall behind.

Moments are on the router's monotonic clock and cost nothing to take. What was committed before a moment is in
every position that the primary gives when it is asked after it; see :class:`router.standing.History`.
"""

from __future__ import annotations

from math import inf, nextafter
from typing import TYPE_CHECKING, Any

from router.positions import Position
from router.reasons import Reason
from router.topology import Node, Role

if TYPE_CHECKING:
    from router.tokens import Point

_OWN_WRITE, _SEEN, _AHEAD = Reason.OWN_WRITE, Reason.SEEN_ON_PRIMARY, Reason.READ_AHEAD
_NOTHING = (None, None)


class Frontier:
    """Hold what a session has written and read, as far as its next reads depend on it."""

    __slots__ = (
        "adopted_at",
        "carried",
        "cause",
        "former",
        "goal",
        "moment",
        "older",
        "owed",
        "pending",
        "read_at",
        "reign",
        "replica",
        "rests_until",
        "shown",
        "vetted",
        "wrote_at",
    )

    def __init__(self) -> None:
        self.moment = -inf  # reads must see all that was committed before
        self.cause = _OWN_WRITE  # why
        self.owed = -inf  # why cached answers from before do not do: a write of its own, or a lost token
        self.older = inf  # what one of the sessions that it follows had seen before, the first of it
        self.former = -inf  # and the last of it, before the present primary took over
        self.wrote_at = -inf  # when the last write was answered
        self.replica: Node | None = None  # that it reads from
        self.read_at = inf  # when it last read from there; inf: not yet
        #: the last picture of the cluster, and the route that was found good enough in it
        self.vetted: tuple[object, object] = _NOTHING
        self.rests_until = -inf  # it does not wait for a replica before
        self.goal: Position | None = None  # that reads must have reached, because of a token
        self.reign: str | None = None  # that the goal was reached in
        self.adopted_at = -inf  # when tokens were looked at
        self.pending: tuple[Point, ...] = ()  # of tokens, to be looked at once the cluster is known
        self.carried: tuple[Point, ...] = ()  # of tokens, to be handed on
        self.shown: Any = None  # of each table: a Shown of router.cache, where reads are cached

    @property
    def wrote(self) -> bool:
        """Tell whether the session has written, or may have."""
        return self.wrote_at > -inf

    def note_write(self, at: float) -> None:
        """Take note of a write that was answered at ``at``."""
        self.owed = max(self.owed, at)
        if at < self.moment:  # by who is no primary any more, see steering.note
            self._note_older(at)
            return
        self.moment = self.wrote_at = at
        self.cause, self.vetted = _OWN_WRITE, _NOTHING

    def note_primary(self, at: float) -> None:
        """Take note of a read on the primary, answered at ``at``: it saw what replicas may not have yet."""
        if at > self.moment:
            self.moment, self.cause, self.vetted = at, _SEEN, _NOTHING
        elif at < self.moment:
            self._note_older(at)

    def _note_older(self, at: float) -> None:
        self.older, self.former = min(self.older, at), max(self.former, at)

    def note_replica(self, node: Node, at: float, sent: float, began: float) -> None:
        """Take note of a read on a replica, answered at ``at``.

        What was sent before ``began``, when the present primary took over, may show what that has lost: it
        counts as seen then as well.
        """
        if self.replica is node:
            self.read_at = at
        elif at > self.moment:  # of two reads at the same time that went different ways
            self.moment, self.cause, self.vetted = at, _AHEAD, _NOTHING
        if began > sent:
            self._note_older(nextafter(began, -inf))
            self.vetted = _NOTHING

    def note_cached(self, node: Node, at: float, current: float) -> None:
        """Take note of an answer from memory that ``node`` gave at ``at``.

        All replicas have what was committed before ``current``.
        """
        if at <= self.moment:
            return
        if node.role is Role.REPLICA and at > current:
            if self.replica is None:  # it has what it gave; the others may not yet
                self.replica, self.read_at = node, at
                return
            if self.replica is node:
                self.read_at = at if self.read_at == inf else max(self.read_at, at)
                return
        self.moment, self.cause, self.vetted = at, _AHEAD, _NOTHING

    def require(self, at: float, cause: Reason) -> None:
        """See from now on all that was committed before ``at``, wherever it was written."""
        self.moment = at
        self.owed = max(self.owed, at)
        self.cause = cause

    def move(self, node: Node) -> None:
        """Read from another replica from now on; it must not be behind the one before."""
        if self.replica is not None and self.read_at < inf and self.read_at > self.moment:
            self.moment, self.cause = self.read_at, _AHEAD
        self.replica, self.read_at, self.vetted = node, inf, _NOTHING

    def required(self, node: Node) -> float:
        """Return the moment whose state a read on ``node`` must include."""
        if self.replica is None or self.replica is node or self.read_at == inf:
            return self.moment
        return max(self.moment, self.read_at)

    def restarted(self) -> float:
        """Return the moment to include if the session's replica may have gone back meanwhile."""
        return self.moment if self.read_at == inf else max(self.moment, self.read_at)

    @property
    def since(self) -> float:
        """Return when it last saw something that a failover may have lost; inf if it has seen nothing."""
        return min(inf if self.moment == -inf else self.moment, self.read_at, self.older)

    def before(self, began: float) -> float:
        """Return when it last saw something of the reign that ended at ``began``."""
        return max(each for each in self._moments() if -inf < each < began)

    def _moments(self) -> tuple[float, ...]:
        return self.moment, self.read_at, self.older, self.former

    def start_over(self, began: float) -> None:
        """Go on with what another primary has had since ``began``, when it took over."""
        if self.restarted() < began:
            self.require(began, Reason.OLD_REIGN)
        else:
            self.moment = self.restarted()
        if self.wrote_at < began:
            self.wrote_at = -inf
        self.replica, self.read_at, self.older, self.vetted = None, inf, inf, _NOTHING
        self.former = -inf

    def follow(self, other: Frontier, began: float = -inf) -> None:
        """See from now on what another session of the same cluster has seen as well.

        ``began`` is when the present primary took over: what either had seen last before must stay known.
        """
        self.vetted = _NOTHING
        moments = (*self._moments(), *other._moments())
        self.former = max((each for each in moments if each < began), default=-inf)
        self.older = min(self.older, self.since, other.since)
        if other.moment > self.moment:
            self.moment, self.cause = other.moment, other.cause
        self.wrote_at = max(self.wrote_at, other.wrote_at)
        self.owed = max(self.owed, other.owed)
        if self.shown is not None:
            if other.shown is None:
                self.shown.everything(other.restarted())
            else:
                self.shown.follow(other.shown)
        self.pending += (*other.pending, *other.carried)
        if other.replica is not None and other.read_at < inf:
            if self.replica is None:
                self.replica, self.read_at = other.replica, other.read_at
            elif other.read_at > self.moment:
                self.moment, self.cause = other.read_at, _AHEAD
