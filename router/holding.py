"""Hold requests while their cluster has no primary: in their own time, and not without end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from router.errors import NoPrimary
from router.health import Health


@dataclass(frozen=True, slots=True)
class Patience:
    """Bound the waiting: ``longest`` in seconds for one request, ``most`` requests of a cluster at once."""

    longest: float = 10.0
    most: int = 1_000


class Holding:
    """Make requests of one cluster wait for a primary; none of them has been sent anywhere.

    Nobody waits before a primary was seen at all: an address that is wrong should be told at once.
    """

    def __init__(self, health: Health, patience: Patience, clock: Callable[[], float]) -> None:
        self._health = health
        self.patience = patience
        self._clock = clock
        self.waiting = 0

    async def primary(self, deadline: float) -> None:
        """Return when there is a primary; ``deadline`` is on the monotonic clock.

        Raises NoPrimary when the time is up, or at once if too many wait already.
        """
        if not self._health.led and self._health.snapshot().primary is None:
            raise self._error("it had none since this router was opened")  # a mistake more than a failover
        if self.waiting >= self.patience.most:
            raise self._error(f"{self.waiting} requests wait for one already")
        began = self._clock()
        until = min(deadline, began + self.patience.longest)
        self.waiting += 1
        try:
            async with asyncio.timeout(max(until - began, 0)):
                while self._health.snapshot().primary is None:
                    await self._health.change()
            return
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
        raise self._error(f"waited {self._clock() - began:.3g} s for one")

    def _error(self, fact: str) -> NoPrimary:
        cluster, problem = self._health.cluster.name, self._health.snapshot().problem
        return NoPrimary(
            f"cluster {cluster} has no primary ({fact}): {problem}. "
            "Promote a replica, or bring the primary back"
        ).at(cluster=cluster)
