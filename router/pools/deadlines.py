"""End statements that run too long, with one timer for all of them.

A timer for each statement costs 1.5 to 5 microseconds, much of what a small read costs; nearly all of them
are cancelled. Here a running statement is an entry in a table, which is swept while it is not empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from router.drivers.driver import Connection
from router.topology import Node

_STEP = 0.02  # seconds between sweeps, at the most: a statement that began since may be found so late
_LEAST = 0.005  # seconds between sweeps, however many deadlines there are
_LONG = 0.5  # seconds after which a running statement may mean that its server is frozen


class Deadlines:
    """Watch the statements that run now; what runs too long is cancelled like by ``asyncio.timeout``."""

    def __init__(
        self, clock: Callable[[], float], suspect: Callable[[Node], None] = lambda node: None
    ) -> None:
        self._clock = clock
        self._suspect = suspect  # is told of nodes on which a statement runs for long
        self._loop: asyncio.AbstractEventLoop | None = None  # the one of the first statement
        self._running: dict[Connection, tuple[float, asyncio.Task[Any], int]] = {}
        self._late: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, connection: Connection, deadline: float) -> None:
        """Watch the statement that the current task is about to run on ``connection``.

        ``deadline`` is on the monotonic clock. The caller must call :meth:`leave`, whatever happens.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        # named, the loop need not be looked up, which costs a system call (getpid) on CPython 3.11
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("statements run in tasks of the event loop that the router was opened on")
        self._running[connection] = (deadline, task, task.cancelling())
        if self._timer is None:
            self._timer = loop.call_later(_STEP, self._sweep)

    def leave(self, connection: Connection) -> None:
        """Watch the statement no longer."""
        entry = self._running.pop(connection, None)
        if self._late and entry is not None and connection in self._late:
            # cancelled by us, but the driver has made something else of it: take the cancellation back
            self._late.discard(connection)
            entry[1].uncancel()

    def runs(self, connection: Connection) -> bool:
        """Tell whether a statement runs on a connection now."""
        return connection in self._running

    def is_late(self, connection: Connection) -> bool:
        """Tell whether the statement on ``connection`` is being cancelled by us."""
        return connection in self._late

    def was_late(self, connection: Connection) -> bool:
        """Tell whether a cancellation was ours: call it once for a CancelledError, before :meth:`leave`.

        If it was, the task is not cancelled any more, and the caller raises a timeout instead. If somebody
        else has cancelled the task as well, theirs wins.
        """
        if connection not in self._late:
            return False
        self._late.discard(connection)
        _, task, before = self._running[connection]
        return task.uncancel() <= before

    def watch(self, node: Node) -> asyncio.TimerHandle:
        """Suspect a node unless the timer is cancelled soon: something waits for it, as for a connection."""
        return asyncio.get_running_loop().call_later(_LONG, self._suspect, node)

    def _sweep(self) -> None:
        self._timer = None
        now = self._clock()
        wait = _STEP
        slow: set[Node] = set()
        for connection, (deadline, task, _) in self._running.items():
            if now - connection.lent_at > _LONG and connection.node is not None:
                slow.add(connection.node)
            if connection in self._late:
                continue
            if deadline <= now:
                self._late.add(connection)
                task.cancel()
            elif deadline - now < wait:
                wait = deadline - now
        for node in slow:
            self._suspect(node)
        if self._running and self._loop is not None:
            self._timer = self._loop.call_later(max(wait, _LEAST), self._sweep)

    def close(self) -> None:
        """Stop sweeping."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
