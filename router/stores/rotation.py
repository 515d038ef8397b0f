"""When a secret is read anew, how long it may be used, and what to do while it cannot be read.

Pure decisions over what is known of one secret; times are on the monotonic clock, in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from router.stores.store import Answer

_RENEWED = 2 / 3  # of a lease, after which it is read anew
_USED = 0.9  # of a lease, up to which what it gave is used: the server forgets it at the end
_AGAIN = 1.0  # between two questions while nothing is known
_AGAIN_KEPT = 10.0  # and while the last good answer serves


@dataclass(frozen=True, slots=True)
class Held:
    """Hold what is known of a secret."""

    answer: Answer | None = None  # the last good one
    read_at: float = -math.inf  # when it was asked for
    due_at: float = -math.inf  # from when it is asked for again
    end_at: float = math.inf  # from when it is of no use
    failed_at: float | None = None  # since the last good one
    why: str = ""  # it failed

    def usable(self, now: float) -> bool:
        """Tell whether there is an answer that the database still takes, as far as is known."""
        return self.answer is not None and now < self.end_at


class Turn(Enum):
    """Say what to do for who needs the secret now."""

    USE = "what is known is new enough"
    LOOK = "ask, but use what is known if the answer is not there at once"
    ASK = "ask, and wait for the answer"
    REFUSE = "it could not be read a moment ago, and nothing is known"


def turn(held: Held, now: float, oldest: float = math.inf) -> Turn:
    """Return what to do now; what was read more than ``oldest`` seconds ago is due as well."""
    if held.usable(now):
        if now < min(held.due_at, held.read_at + oldest) or _rests(held, now, _AGAIN_KEPT):
            return Turn.USE
        return Turn.LOOK
    return Turn.REFUSE if _rests(held, now, _AGAIN) else Turn.ASK


def _rests(held: Held, now: float, pause: float) -> bool:
    return held.failed_at is not None and now - held.failed_at < pause


def read(answer: Answer, asked_at: float, refresh: float, jitter: float) -> Held:
    """Return what is known after a good answer; ``jitter`` of 0 to 1 keeps processes from asking together."""
    lease = math.inf if answer.lease is None else answer.lease
    due = min(refresh * (1 - 0.1 * jitter), lease * _RENEWED)
    return Held(answer, asked_at, asked_at + due, asked_at + lease * _USED)


def failed(held: Held, now: float, why: str) -> Held:
    """Return what is known after a question that went wrong: the last good answer is kept."""
    return replace(held, failed_at=now, why=why)
