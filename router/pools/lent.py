"""The connections that are lent, each with who holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from router.drivers.driver import Connection
from router.pools.deadlines import Deadlines
from router.pools.holders import Holder


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


def all_wait(
    lent: Iterable[tuple[Connection, Holder]],
    asking: asyncio.Task[Any] | None,
    waits: Callable[[asyncio.Task[Any]], bool],
    deadlines: Deadlines,
) -> bool:
    """Tell whether the tasks that hold connections all stand in a queue, or are about to.

    A unit of work that runs a statement is not stuck: another task uses it than the one that opened it.
    """
    for connection, holder in lent:
        task = None if holder.owner is None else holder.owner()
        if task is None or deadlines.runs(connection):
            return False
        if task is not asking and not waits(task):
            return False
    return True
