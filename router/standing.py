"""What a server's answers make of it: who is the primary, which replicas may be read. Pure.

Lag is measured by our own clock against what was seen on the primary: a replica that still lacks what the
primary had two seconds ago is two seconds late. No clock of a server is asked, no privilege is needed, and an
idle primary makes no replica look late.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from router.positions import Position

_BACK = 0.5  # of its limits: what a late replica must get under to be read again


class Out(StrEnum):
    """Say why a node is not used."""

    UNKNOWN = "unknown"  # no answer yet, or none for too long: its lag is not known
    UNREACHABLE = "unreachable"  # it cannot be connected to
    SILENT = "silent"  # it takes connections and does not answer
    LOSING = "losing"  # its connections break again and again
    LATE = "late"  # further behind the primary than the limit
    WENT_BACK = "went_back"  # it had more before, as after a restore from an old backup
    DIVERGED = "diverged"  # it has what the primary does not have
    STRANGER = "stranger"  # a server of another cluster
    UNPROVEN = "unproven"  # another server has become the primary, and it is not known to follow that one
    OBSOLETE = "obsolete"  # takes writes although another has been promoted after it
    RIVAL = "rival"  # takes writes, and so does another: neither is known to be the newer
    REMOVED = "removed"  # no longer configured


@dataclass(frozen=True, slots=True)
class Observation:
    """Hold one answer of a server to a probe.

    ``at`` is when it was asked, on the monotonic clock; ``timeline`` counts promotions where the engine does.
    """

    at: float
    writable: bool  # takes writes: a primary, or what thinks it is one
    position: Position | None = None  # of all it has: written on a primary, replayed on a replica
    timeline: int | None = None
    identity: str | None = None  # of the cluster that its data comes from
    reign: str | None = None  # of a primary: names its time as the primary
    follows: frozenset[str] = frozenset()  # of a replica: reigns of which it is known to have something
    took: float = 0.0  # seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound how late a replica may be; ``size`` decides while the time is not known yet."""

    seconds: float = 10.0
    size: int = 8 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Lag:
    """Say how late a replica is.

    ``seconds`` is a lower bound while not ``known``, ``inf`` if nothing is; ``size`` is in bytes, ``None``
    where the engine does not count them.
    """

    seconds: float = math.inf
    size: int | None = None
    known: bool = False

    def unsure(self, limits: Limits) -> bool:
        """Tell whether it is neither known nor more than the limit for certain."""
        return not self.known and self.seconds <= limits.seconds

    def over(self, limits: Limits, share: float = 1.0) -> bool:
        """Tell whether the limit, or ``share`` of it, is exceeded; what is not known is."""
        if self.known or self.seconds > limits.seconds * share:
            return self.seconds > limits.seconds * share
        return self.size is None or self.size > limits.size * share


class History:
    """Remember where the primary was, and when: what replicas are measured against.

    What a position of the primary stands for: it holds all that was committed before it was asked for.
    """

    def __init__(self, span: float = 120.0, most: int = 240) -> None:
        self._span = span  # seconds
        # each position, when it was asked for the first time that it was the answer, and the last time
        self._seen: deque[tuple[float, float, Position]] = deque(maxlen=most)
        self.asked = -math.inf  # when the last known position was asked for

    def add(self, at: float, position: Position) -> None:
        """Take note that the primary had this position at ``at`` or a little later."""
        if at <= self.asked:
            return
        self.asked = at
        first = at
        if self._seen and position == self._seen[-1][2]:  # it has stood there since
            first = self._seen.pop()[0]
        self._seen.append((first, at, position))
        while len(self._seen) > 1 and at - self._seen[1][0] >= self._span:
            self._seen.popleft()

    @property
    def last(self) -> Position | None:
        """Return the last known position of the primary."""
        return self._seen[-1][2] if self._seen else None

    def after(self, moment: float) -> Position | None:
        """Return a position that holds all that was committed before ``moment``, the least one known."""
        if moment > self.asked:
            return None
        found = next((position for _, last, position in self._seen if last >= moment), None)
        return found if found is not None and found.counts else None

    def current(self, position: Position | None) -> float:
        """Return up to which moment a replica at ``position`` has all that was committed; -inf if unknown."""
        if position is not None:
            for _, last, seen in reversed(self._seen):
                if position.reached(seen):
                    return last if seen.counts else -math.inf
        return -math.inf

    def lag(self, position: Position | None, at: float) -> Lag:
        """Return how late a replica was that had got to ``position`` at ``at``.

        Only what the primary had before that is counted, so that the order of probes makes nobody late.
        """
        known = [each for each in self._seen if each[0] <= at] or list(self._seen)[:1]
        if position is None or not known:
            return Lag()
        size = position.behind(known[-1][2])
        lacking = [first for first, _, seen in known if not position.reached(seen)]
        if not lacking:
            return Lag(0.0, size, known=True)
        return Lag(max(at - lacking[0], 0.0), size, known=len(lacking) < len(known))


def late(lag: Lag, limits: Limits, was_late: bool) -> bool:
    """Tell whether a replica is too late; once it was, it must get well under a limit to be read again."""
    return lag.over(limits, _BACK if was_late else 1.0)


@dataclass(frozen=True, slots=True)
class Leadership:
    """Name the primary, or say why there is none, and which servers wrongly take writes."""

    primary: str | None
    problem: str = ""
    out: Mapping[str, Out] | None = None


def leadership(
    claims: Mapping[str, Observation], *, newest: int, superseded: Collection[str], expected: str | None
) -> Leadership:
    """Decide who the primary is among the servers that take writes now.

    ``newest`` is the highest timeline ever seen: a server that still lives on an older one was the primary
    before somebody else was promoted. ``superseded`` are servers that another has replaced as the primary
    and that have taken writes ever since, for engines without timelines. ``expected`` restricts it to one
    server, where following a promotion is switched off.
    """
    if expected is not None:
        return _only(expected, claims)
    valid = [
        name
        for name, seen in claims.items()
        if (name not in superseded if seen.timeline is None else seen.timeline >= newest)
    ]
    out = {name: Out.OBSOLETE for name in claims if name not in valid}
    if len(valid) == 1:
        return Leadership(valid[0], out=out)
    if not valid:
        return Leadership(None, _nobody(out), out)
    names = " and ".join(sorted(valid))
    return Leadership(
        None,
        f"{names} both take writes, and neither is known to be the newer one. Stop one of them, or make it "
        "read-only",
        out | dict.fromkeys(valid, Out.RIVAL),
    )


def _only(expected: str, claims: Collection[str]) -> Leadership:
    """Let only the configured primary take writes, whatever the others say."""
    out = {name: Out.RIVAL for name in claims if name != expected}
    if expected in claims:
        return Leadership(expected, out=out)
    if not out:
        return Leadership(None, _nobody(out))
    names = ", ".join(sorted(out))
    return Leadership(None, f"{names} takes writes, but only {expected} may (failover.follow is off)", out)


def _nobody(out: Mapping[str, Out]) -> str:
    if not out:
        return "no server of it takes writes"
    return f"only {', '.join(sorted(out))} takes writes, which must not: another server was promoted after it"


@dataclass(frozen=True, slots=True)
class Standing:
    """Say whether a replica may be read; ``out`` is why not, ``quarantine`` what it must make up for."""

    out: Out | None
    lag: Lag
    quarantine: Out | None = None


def standing(
    seen: Observation, before: Observation | None, primary: History, limits: Limits, was: Standing
) -> Standing:
    """Judge a replica by its last answer ``seen``, the one ``before`` it, and what is known of the primary.

    ``before`` equals ``seen`` when only the primary has been heard of since.
    """
    lag = primary.lag(seen.position, seen.at)
    quarantine = was.quarantine
    last = primary.last
    if seen.position is not None:
        if quarantine is not None and last is not None and seen.position.reached(last):
            quarantine = None  # it has all that the primary has
        if before is not None and before.position is not None and not seen.position.reached(before.position):
            quarantine = Out.WENT_BACK
        if last is not None and primary.asked >= seen.at + seen.took and not last.reached(seen.position):
            return Standing(Out.DIVERGED, lag, Out.DIVERGED)
    if quarantine is not None:
        return Standing(quarantine, lag, quarantine)
    return Standing(Out.LATE if late(lag, limits, was.out is Out.LATE) else None, lag)
