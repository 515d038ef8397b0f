"""Whose turn it is when tenants want more of a node than it has: weighted fair queueing.

What is shared is time on a connection. Whoever waits has a start tag, the least goes first, and each grant
moves its tenant's next tag on by the time that it takes, divided by the tenant's weight (start-time fair
queueing; Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM 1996). Nothing is counted while nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

_DEBT = 1.0  # seconds, by weight 1: what one long unit of work can put its tenant behind the others
_SOON = 4  # grants to tenants that have their connection again, for which the first in the queue waits
_WORTH = 0.001  # seconds for which it does at most: not for statements that take longer than to bind
_LONGEST = 0.25  # seconds of an opening that count: a server that hangs makes nobody wait for longer
_SMOOTH = 0.05  # weight of the latest observation in the usual time


class Flow:
    """Hold one tenant on one node: what it may hold, what it holds, and what it has had while others waited.

    ``limit`` is the most connections at once, ``patience`` the most requests that may wait.
    """

    __slots__ = (
        "__weakref__",
        "finish",
        "held",
        "limit",
        "parked",
        "patience",
        "tenant",
        "usual",
        "waiting",
        "weight",
    )

    def __init__(
        self, tenant: str = "", limit: float = inf, patience: float = inf, weight: float = 1.0
    ) -> None:
        self.tenant = tenant
        self.limit = limit
        self.patience = patience
        self.weight = weight
        self.held = 0  # connections, those that are being opened for it included
        self.waiting = 0  # requests
        self.usual = 0.0  # seconds for which it holds a connection; 0.0 while that is not known
        self.finish = 0.0  # virtual time until which it has had its share
        self.parked: list[Callable[[], None]] = []  # what brings its requests back that its limit holds up

    def returned(self) -> None:
        """Take note that it holds one connection less: requests that its limit held up may be served."""
        self.held -= 1
        if self.parked:
            self.resume()

    def resume(self) -> None:
        """Bring back the requests that the limit held up."""
        parked, self.parked = self.parked, []
        for each in parked:
            each()


class VirtualTime:
    """Count what was granted on one node; ``now`` is the start tag of who was served last."""

    def __init__(self) -> None:
        self.now = 0.0
        self.usual = 0.002  # seconds for which a connection is held
        self.opening = 0.005  # seconds that it takes to open one
        self._latest = 0.0

    def begin(self) -> None:
        """Begin a time of want: what was granted before counts no longer, for or against anybody."""
        self.now = self._latest

    def soon(self, connections: int) -> int:
        """Return for how many grants of so many connections the first in the queue waits for others."""
        return int(min(_SOON, connections * _WORTH / self.usual))

    def granted(self, flow: Flow, tag: float) -> float:
        """Charge a flow its usual time for a grant at ``tag``, and return that time."""
        self.now = max(self.now, tag)
        charged = flow.usual or self.usual
        flow.finish = max(tag, flow.finish) + charged / flow.weight
        self._latest = max(self._latest, flow.finish)
        return charged

    def opened(self, seconds: float) -> None:
        """Take note of how long it took to open a connection."""
        self.opening += (min(seconds, _LONGEST) - self.opening) * _SMOOTH

    def returned(self, flow: Flow, held: float, charged: float) -> None:
        """Charge a flow what it has had in ``held`` seconds beyond what it was ``charged`` before."""
        self.usual += (held - self.usual) * _SMOOTH
        flow.usual = flow.usual + (held - flow.usual) * _SMOOTH if flow.usual else held
        owed = flow.finish + (held - charged) / flow.weight
        flow.finish = min(owed, max(self.now, flow.finish) + _DEBT / flow.weight)
        self._latest = max(self._latest, flow.finish)
