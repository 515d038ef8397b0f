"""Tell other processes what was written, and hear it from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from router.cache.notices import Notice


@dataclass(slots=True)
class BroadcastCounts:
    """Count since the start."""

    published: int = 0  # notices that this process had to tell
    said: int = 0  # that went out; merged ones count once
    heard: int = 0  # of others
    malformed: int = 0  # messages that no process of ours has written
    joined: int = 0  # how often hearing began
    parted: int = 0  # how often it ended, by whatever fault


class Broadcast(Protocol):
    """Tell and hear which tables were written.

    ``on_message`` is called with each notice of another process and the moment it came; ``on_lost`` whenever
    notices may have been missed: when hearing ends, and when it begins (again). What was read before that
    call may be out of date. Both are called on the event loop, never for what this process has published.

    What is promised: a process whose ``heard()`` has reached a moment has had every notice that went out
    before it. What is not: a writer that is cut off from the server cannot tell anybody. It keeps what it has
    to say, merged, and says it when it is back; until then, and where it dies before, others are as far
    behind as the time to live of their entries allows.
    """

    kind: str
    counts: BroadcastCounts
    speaks: bool  # whether there is anybody to be told
    slack: float  # seconds from the commit of a write to its notice, at most, as far as is counted on

    async def start(self, patience: float = 1.0) -> None:
        """Begin to hear; return when it does, at the latest after ``patience`` seconds."""

    def publish(self, place: str | None, tables: Iterable[str] | None = None) -> None:
        """Tell others soon that tables were written; never wait and never raise.

        Without ``tables`` all tables of the place are meant, without a place everything.
        """

    async def all_told(self, patience: float) -> bool:
        """Wait until all that was published has gone out; tell whether it has after ``patience`` seconds."""

    def heard(self) -> float:
        """Return the moment up to which all notices have certainly come."""

    def age(self, now: float) -> float:
        """Return the seconds since the moment that ``heard`` returns, without asking for a younger one."""

    def healthy(self) -> bool:
        """Tell whether others are heard at present."""

    def renew(self) -> None:
        """Take note that another server leads the cluster."""

    def cancel(self) -> None:
        """End, without waiting for it; nothing more is told."""

    async def close(self) -> None:
        """Tell what is left to be told if that is quick, and end."""


class Nobody:
    """Hear nobody: others may write, and nothing is known of it."""

    kind = "none"
    speaks = False
    slack = 0.0

    def __init__(self) -> None:
        self.counts = BroadcastCounts()

    async def start(self, patience: float = 1.0) -> None:
        """Return at once."""

    def publish(self, place: str | None, tables: Iterable[str] | None = None) -> None:
        """Tell nobody."""
        self.counts.published += 1

    async def all_told(self, patience: float) -> bool:
        """Return True: there is nobody to wait for."""
        return True

    def heard(self) -> float:
        """Return that nothing was ever heard."""
        return -math.inf

    def age(self, now: float) -> float:
        """Return that nothing was ever heard."""
        return math.inf

    def healthy(self) -> bool:
        """Return True: nothing is missing that was asked for."""
        return True

    def renew(self) -> None:
        """Do nothing."""

    def cancel(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Return at once."""


class Alone(Nobody):
    """Know that no other process writes: all there is to hear has always been heard."""

    kind = "alone"

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock

    def heard(self) -> float:
        """Return the present moment."""
        return self._clock()

    def age(self, now: float) -> float:
        """Return that all is known now."""
        return 0.0


OnMessage = Callable[[Notice, float], None]
OnLost = Callable[[], None]
