"""What is noted of a read while it runs, so that its answer can be kept."""

from __future__ import annotations

from math import inf

from router.backend import Target
from router.drivers.driver import Connection
from router.positions import Position
from router.routing import Snapshot, reached
from router.topology import Node, Role

_PRIMARY = Role.PRIMARY


class Fill:
    """Note how new the answer to a read is at least, and at most."""

    __slots__ = ("_history", "_snapshot", "as_of", "node", "position", "reign", "sent", "until")

    def __init__(self) -> None:
        self.sent = self.until = inf
        self.as_of = -inf  # it holds all that was committed before
        self.position: Position | None = None  # and what had been reached here
        self.node: Node | None = None  # None: it was not answered, or by one that is not believed
        self.reign = -inf
        self._snapshot: Snapshot | None = None
        self._history: Position | None = None

    def asks(self, target: Target, now: float) -> None:
        """Take note of what is known just before the statement is sent."""
        self.sent = now
        health = target.backend.health
        self._snapshot, self._history = health.snapshot(), health.lineage.position

    def answered(self, target: Target, node: Node, connection: Connection, until: float) -> None:
        """Take note of who has answered, and conclude what its answer includes."""
        snapshot, health = self._snapshot, target.backend.health
        if snapshot is None:
            return
        if target.backend.cluster.replicas_current:
            self.as_of = self.sent
        elif node.role is _PRIMARY:
            if node is not snapshot.primary or node is not health.snapshot().primary:
                return  # one that is primary no more is not believed, and nobody else is given its answer
            self.as_of, self.position = self.sent, self._history
        else:
            progress = snapshot.progress.get(node)
            # a server that has restarted since it was asked may show less than it said
            if progress is not None and (
                connection.opened_at <= progress.at or health.steady(node.name) <= progress.at
            ):
                self.as_of, self.position = progress.current, progress.position
        self.node, self.until, self.reign = node, until, snapshot.reign.began

    def includes(self, goal: Position | None) -> None:
        """Take note that whoever answered had reached ``goal``, because the read had to see it."""
        if goal is None or self.as_of == -inf:
            return
        if self.position is None:
            self.position = goal
        elif type(self.position) is type(goal) and not reached(self.position, goal):
            self.position = self.position.union(goal)
