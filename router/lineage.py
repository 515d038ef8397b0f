"""The history of a cluster: where its primary was and when, who led it before, and what was handed over."""

from __future__ import annotations

import math
from dataclasses import dataclass

from router.positions import Position
from router.routing import Progress, Reign, reached
from router.servers import Server
from router.standing import History

_REIGNS = 100  # former ones that are remembered


@dataclass(frozen=True, slots=True)
class Turn:
    """Remember how another server became the primary."""

    at: float  # when that was seen
    since: float  # when the reign before had begun
    reign: str | None  # the one before
    had: Position | None  # the last position known of the new primary from before; it may have had more
    began: Position | None  # the first position known of it as the primary; it had no more before
    history: History  # of the old primary


class Lineage:
    """Keep the positions of the primary, and of the one before."""

    def __init__(self) -> None:
        self.history = History()
        self._turn: Turn | None = None
        self._former: set[str] = set()
        self._reign = Reign()

    def turn(self, new: Server, at: float) -> None:
        """Take note that ``new`` is another primary than the one before."""
        seen, before = new.seen, new.before
        # one that did not follow the primary before may show a high number of another history
        followed = before is not None and not before.writable and self.followed_by(new)
        had = before.position if before is not None and followed else None
        began = None if seen is None else seen.position
        self.bury(self._reign.name)
        self._turn = Turn(at, self._began, self._reign.name, had, began, self.history)
        self.history = History()  # the new one may differ
        self._add(new)

    def led_by(self, primary: Server, at: float) -> None:
        """Take note of what the primary, the same server as before, said of itself last; now it is ``at``.

        In another reign it is another primary all the same: behind its address another server was promoted,
        or it went back to a backup.
        """
        seen = primary.seen
        if seen is not None and None not in (seen.reign, self._reign.name) and seen.reign != self._reign.name:
            self.turn(primary, at)
        else:
            self._add(primary)

    def _add(self, primary: Server) -> None:
        seen = primary.seen
        if seen is not None and seen.writable and seen.position is not None:
            self.history.add(seen.at, seen.position)

    def bury(self, reign: str | None) -> None:
        """Take note that a reign is none of the present or of the future."""
        if reign is not None:
            if len(self._former) >= _REIGNS:
                self._former.clear()
            self._former.add(reign)

    def heard_of(self, reign: str | None) -> bool:
        """Tell whether a reign is the present one, or an earlier one; else it may have begun unnoticed."""
        return reign is None or reign == self._reign.name or reign in self._former

    @property
    def _began(self) -> float:
        return -math.inf if self._turn is None else self._turn.at

    def reign(self, primary: Server | None) -> Reign:
        """Return who leads; while nobody does, who did."""
        if primary is not None and primary.seen is not None:
            self._reign = Reign(primary.seen.reign, primary.seen.identity, self._began, self.history.asked)
        return self._reign

    @property
    def position(self) -> Position | None:
        """Return the last known position of the primary."""
        return self.history.last

    def after(self, moment: float) -> Position | None:
        """Return a position that holds all that was committed before ``moment``, if one is known."""
        return self.history.after(moment)

    def beyond(self, goal: Position, since: float) -> bool:
        """Tell whether the primary was asked after ``since`` and had not reached ``goal``: nobody has."""
        last = self.history.last
        return self.history.asked >= since and last is not None and not reached(last, goal)

    def received(self, reign: str | None, goal: Position) -> bool | None:
        """Tell whether what an earlier primary wrote up to ``goal`` is here too; ``None`` if not known."""
        turn, last = self._turn, self.history.last
        if turn is not None and turn.reign == reign:
            if turn.had is not None and reached(turn.had, goal):
                return True
            last = turn.began or last
        # what the new primary had not reached after it took over, it never received
        return False if last is not None and not reached(last, goal) else None

    def survived(self, moment: float) -> bool:
        """Tell whether what an earlier primary committed before ``moment`` is known to be here."""
        turn = self._turn
        if turn is None or turn.had is None or moment < turn.since:
            return False  # nothing is known of what the reign before received
        goal = turn.history.after(moment)
        return goal is not None and reached(turn.had, goal)

    def handed_back(self, last: Server, other: Server) -> bool:
        """Tell whether the ``last`` primary follows ``other`` now: it has more than it had when it led."""
        had, seen, leads = self.history.last, last.seen, other.seen
        if seen is None or leads is None or seen.writable or seen.position is None or had is None:
            return False
        if not reached(seen.position, had) or reached(had, seen.position):
            return False
        if leads.position is not None and leads.position.exact:
            return reached(leads.position, seen.position)
        return leads.reign in seen.follows

    def followed_by(self, server: Server) -> bool:
        """Tell whether a replica is known to follow this primary, so that positions can be compared.

        One that has stayed on the history of an earlier primary may show a higher number, and lack what the
        new one has written. Where nothing is known of it, it is believed unless another has taken over.
        """
        if server.latest is not None and server.latest.position is not None and server.latest.position.exact:
            return True
        if self._reign.name is None or not server.follows:
            return self._reign.began == -math.inf
        return self._reign.name in server.follows

    def progress(self, server: Server) -> Progress:
        """Return how far a replica is known to have come."""
        seen, lag = server.latest, server.standing.lag
        if seen is None or not self.followed_by(server):
            return Progress()
        return Progress(seen.position, self.history.current(seen.position), seen.at, lag.seconds, lag.size)
