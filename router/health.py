"""What is known of a cluster's nodes now. The one writer of node state; everyone else reads a snapshot."""

from __future__ import annotations

from collections.abc import Callable

from router.balancing import Load
from router.errors import AuthenticationFailed, ConnectError, ConnectionLost, DatabaseNotFound, RouterError
from router.routing import Snapshot
from router.topology import Cluster, Node

_OUT = 5.0  # seconds that a replica which failed to answer is left alone
_SMOOTHING = 0.2  # weight of the newest latency in the mean


class Health:
    """Keep the usable nodes of one cluster and how busy they are.

    Requests are the evidence: a replica that cannot be reached, or breaks a connection, is left out for
    five seconds. The primary is never left out: there is no other.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._out: dict[Node, float] = {}  # when each may come back
        self._snapshot = Snapshot(cluster.primary, cluster.replicas)
        self.load: dict[Node, Load] = {node: Load() for node in cluster.nodes}

    def snapshot(self) -> Snapshot:
        """Return the usable nodes; an attribute read while all is well."""
        if self._out:
            self._readmit()
        return self._snapshot

    def _readmit(self) -> None:
        now = self._clock()
        back = [node for node, until in self._out.items() if until <= now]
        for node in back:
            del self._out[node]
        if back:
            self._replace()

    def _replace(self) -> None:
        replicas = tuple(node for node in self._cluster.replicas if node not in self._out)
        self._snapshot = Snapshot(self._cluster.primary, replicas, self._snapshot.generation + 1)

    def succeeded(self, node: Node, latency: float) -> None:
        """Take note of an answer after ``latency`` seconds."""
        load = self.load[node]
        load.latency += (latency - load.latency) * (_SMOOTHING if load.latency else 1.0)

    def failed(self, node: Node, error: RouterError) -> None:
        """Take note of a failure; only one that speaks of the node itself counts."""
        if node is self._cluster.primary or not isinstance(error, ConnectError | ConnectionLost):
            return
        if isinstance(error, AuthenticationFailed | DatabaseNotFound):
            return
        self._out[node] = self._clock() + _OUT
        self._replace()

    def out(self) -> tuple[str, ...]:
        """Return the names of the nodes that are left out now."""
        self.snapshot()
        return tuple(node.name for node in self._out)
