"""Bound how often one tenant may ask: so many requests a second, and so many at once after a quiet time.

A token bucket that is filled by the clock. Pure: the clock comes in as an argument.
"""

from __future__ import annotations


class Rate:
    """Hold what one tenant may still send; ``rate`` is by the second, ``burst`` the most at once."""

    __slots__ = ("__weakref__", "_at", "_left", "burst", "given", "rate")

    def __init__(self, rate: float, burst: int | None, now: float) -> None:
        self.rate = rate
        self.given = burst
        self.burst = max(rate, 1.0) if burst is None else float(burst)
        self._left = self.burst
        self._at = now

    def take(self, now: float) -> float:
        """Take one request; return 0.0 if it may be sent, else after how many seconds it could be."""
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self.rate
