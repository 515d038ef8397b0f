"""Consistency levels: what a read promises about earlier writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from router.errors import UsageError
from router.positions import Position


class Consistency(StrEnum):
    """Say how fresh a read must be."""

    EVENTUAL = "eventual"  # any replica within the lag limits; a later one only while nothing else is up
    BOUNDED = "bounded"  # rows no older than the bounds that the tenant's settings or a Bounded give
    SESSION = "session"  # a session sees its own writes (default)
    STRONG = "strong"  # the primary, always


@dataclass(frozen=True, slots=True)
class Bounded:
    """Bound how old the rows of a read may be: in seconds, in bytes of log behind the primary, or in both.

    Only PostgreSQL counts bytes. Raises :class:`router.errors.UsageError` for no bound, or one that is not
    above zero.
    """

    seconds: float | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.size is None:
            raise UsageError("Bounded without a bound. Give seconds=, size= (bytes), or both")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise UsageError(f"Bounded by {self.seconds} seconds. Give a number above zero, such as 1.5")
        if self.size is not None and (not isinstance(self.size, int) or self.size <= 0):
            raise UsageError(f"Bounded by {self.size} bytes. Give a whole number above zero")

    def moment(self, now: float) -> float:
        """Return the moment whose state a read at ``now`` must include."""
        return -math.inf if self.seconds is None else now - self.seconds

    def allows(self, position: Position, primary: Position | None) -> bool:
        """Tell whether a replica at ``position`` is near enough to the ``primary``'s, in bytes."""
        if self.size is None:
            return True
        behind = None if primary is None else position.behind(primary)
        return behind is not None and behind <= self.size


class Otherwise(StrEnum):
    """Say what becomes of a read when no replica has what it must see, after the wait for one."""

    PRIMARY = "primary"  # the primary answers it
    ERROR = "error"  # it fails with StaleReadError
