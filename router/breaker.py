"""When a replica is left out after failures, for how long, and when it may come back. Pure transitions.

A replica that cannot be reached is left out at once; one whose connections break only if that happens
again and again, since an administrator may end a session of a healthy server. It comes back after its ban
*and* a good probe, never by time alone: a server that accepts connections may still not answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

_FIRST = 1.0  # seconds of the first ban; doubled each time that the node fails again soon after
_LONGEST = 60.0
_CALM = 60.0  # seconds without a failure after which a node's past no longer counts
_LOSSES = 3  # connections lost ...
_WITHIN = 10.0  # ... in these seconds mean the node, not a session


@dataclass(frozen=True, slots=True)
class Breaker:
    """Hold what is remembered of a node's failures; replaced, never changed."""

    banned: bool = False
    until: float = 0.0  # of the ban, on the monotonic clock
    reason: str = ""  # why it is banned
    bans: int = 0  # one soon after the other
    ended: float = 0.0  # when the last ban ended
    losses: tuple[float, ...] = ()  # when connections were lost


def tripped(breaker: Breaker, reason: str, now: float, rng: random.Random) -> Breaker:
    """Return the state after a failure that speaks of the node itself."""
    if breaker.banned:
        return breaker
    bans = breaker.bans + 1 if now - breaker.ended < _CALM else 1
    ban = min(_LONGEST, _FIRST * 2.0 ** min(bans - 1, 30)) * rng.uniform(0.8, 1.2)
    return Breaker(True, now + ban, reason, bans)


def lost(breaker: Breaker, reason: str, now: float, rng: random.Random) -> Breaker:
    """Return the state after a connection broke; enough of them in a short time are a failure of the node."""
    recent = (*(at for at in breaker.losses if now - at < _WITHIN), now)
    if len(recent) >= _LOSSES:
        return tripped(breaker, reason, now, rng)
    return replace(breaker, losses=recent)


def probed(breaker: Breaker, now: float, *, needed: bool = False) -> Breaker:
    """Return the state after a good probe; ``needed`` waives the rest of a ban: nobody else is left."""
    if not breaker.banned or (now < breaker.until and not needed):
        return breaker
    return Breaker(bans=breaker.bans, ended=now)
