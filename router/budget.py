"""Bound retries by what a cluster is asked to do: in an outage every retry is load that keeps it down.

After Finagle's RetryBudget and with its numbers (twitter.github.io/finagle, "Retries"; its blog post of
8 February 2016): retries may add 20 % to the requests of the last ten seconds, and 10 a second to that so
that a quiet application may retry at all. Pure: the clock and the count of requests come in as arguments.
"""

from __future__ import annotations

_SHARE = 0.2  # retries for each request
_FLOOR = 10.0  # retries a second, whatever the traffic
_WINDOW = 10.0  # seconds that what was not used stays usable


class RetryBudget:
    """Hold how many retries one cluster may still make; not used for a first attempt."""

    __slots__ = ("_earned", "_floor", "_now", "_seen")

    def __init__(self, now: float, requests: int = 0) -> None:
        self._now = now
        self._seen = requests
        self._earned = 0.0  # by requests
        self._floor = _FLOOR * _WINDOW  # by time

    def take(self, now: float, requests: int) -> bool:
        """Take one retry and tell whether there was one left.

        ``now`` is in seconds of the monotonic clock; ``requests`` counts all there ever were. The count is
        read only here, so that a request which succeeds costs no more than counting it.
        """
        self._fill(now, requests)
        if self._earned >= 1.0:
            self._earned -= 1.0
            return True
        if self._floor >= 1.0:
            self._floor -= 1.0
            return True
        return False

    def left(self, now: float, requests: int) -> float:
        """Return how much is left, from 0 to 1: all that a quiet cluster may have, or more; takes nothing."""
        copy = RetryBudget(self._now, self._seen)
        copy._earned, copy._floor = self._earned, self._floor
        copy._fill(now, requests)
        return min((copy._earned + copy._floor) / (_FLOOR * _WINDOW), 1.0)

    def _fill(self, now: float, requests: int) -> None:
        passed = max(now - self._now, 0.0)
        kept = max(1.0 - passed / _WINDOW, 0.0)
        # of requests spread over a long time, only those of the last window count
        recent = (requests - self._seen) * (min(1.0, _WINDOW / passed) if passed else 1.0)
        self._earned = self._earned * kept + _SHARE * recent
        self._floor = min(self._floor + _FLOOR * passed, _FLOOR * _WINDOW)
        self._now, self._seen = max(now, self._now), requests

    def __repr__(self) -> str:
        return f"<RetryBudget {int(self._earned + self._floor)} left>"
