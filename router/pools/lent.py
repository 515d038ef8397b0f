"""The connections that are lent, each with who holds it."""

from __future__ import annotations

import asyncio
from typing import Any

from router.drivers.driver import Connection
from router.pools.deadlines import Deadlines
from router.pools.holders import Holder
from router.pools.waiting import Queue


class Lent(dict[Connection, Holder]):
    """Map each lent connection to its holder; a plain dict where requests pass, since that costs least."""

    def held(self, now: float) -> list[tuple[float, Holder]]:
        """Return who holds the connections, with the seconds that each has had its own."""
        return [(now - connection.lent_at, holder) for connection, holder in self.items()]

    def overdue(self, now: float, after: float) -> list[tuple[float, Holder]]:
        """Return the units of work that have held a connection for ``after`` seconds, each of them once."""
        found = []
        for connection, holder in list(self.items()):
            seconds = now - connection.lent_at
            if holder.task and not holder.told and seconds >= after:
                self[connection] = holder._replace(told=True)
                found.append((seconds, holder))
        return found

    def all_wait(self, asking: asyncio.Task[Any] | None, queue: Queue, deadlines: Deadlines) -> bool:
        """Tell whether the tasks that hold the connections all stand in the queue, or are about to.

        A unit of work that runs a statement is not stuck: another task uses it than the one that opened it.
        """
        for connection, holder in self.items():
            task = None if holder.owner is None else holder.owner()
            if task is None or deadlines.runs(connection):
                return False
            if task is not asking and not queue.holds(task):
                return False
        return True
