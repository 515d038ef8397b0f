"""Metrics of connections, by the names of OpenTelemetry's conventions for database clients.

What the conventions call a pool is here all connections to one node: the router's own pools are as many as
there are databases and logins, which no metric should have as attributes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.context import Context as Surroundings
from opentelemetry.metrics import CallbackOptions, Observation

from router import events
from router.integrations.otel_meters import (
    CONNECTIONS,
    CREATE_TIME,
    MOST,
    PENDING,
    TIMEOUTS,
    USE_TIME,
    WAIT_TIME,
    Meters,
)
from router.pools.bounds import PoolStatus

OPEN: Final = 10_000
"""Transactions under way whose begin is remembered."""

_POOL, _STATE = "db.client.connection.pool.name", "db.client.connection.state"
_FRESH = 0.5  # seconds for which one look at the pools serves all instruments


class Connections:
    """Count connections, and time how long they are waited for, made and used.

    ``status`` returns the pools; the SDK asks for them in a thread of its own.
    """

    def __init__(
        self,
        meters: Meters,
        status: Callable[[], Iterable[PoolStatus]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._clock = clock
        self._looked, self._seen = 0.0, dict[str, list[int]]()
        self._attributes: dict[str, dict[str, str]] = {}
        self._begun: dict[int, float] = {}  # how long the begin of each open transaction took
        self._timeouts = meters.of(TIMEOUTS).create_counter(
            TIMEOUTS, unit="{timeout}", description="Times that a connection was waited for in vain."
        )
        self._create = meters.seconds(CREATE_TIME, "The time it took to create a connection.")
        self._wait = meters.seconds(WAIT_TIME, "The time it took to obtain a connection.")
        self._use = meters.seconds(USE_TIME, "The time between borrowing a connection and returning it.")
        for name, unit, text, observe in (
            (CONNECTIONS, "{connection}", "Connections by state.", self._counts),
            (MOST, "{connection}", "The most connections allowed.", self._most),
            (PENDING, "{request}", "Requests that wait for a connection.", self._pending),
        ):
            meters.of(name).create_observable_up_down_counter(name, [observe], unit=unit, description=text)

    # --- told by events ----------------------------------------------------------------------------------

    def request(self, event: events.RequestEvent, surroundings: Surroundings | None) -> None:
        """Record how a request that is in no transaction came by its connection, and used it."""
        if event.node is None or event.unit or not event.execute:
            return
        pool, waits = self._pool(event.node.label), event.waits
        self._wait.record(waits.queue + waits.connect, pool, surroundings)
        self._use.record(event.execute, pool, surroundings)

    def begun(self, event: events.TransactionBegun) -> None:
        """Record how a transaction came by its connection."""
        self._wait.record(event.waits.queue + event.waits.connect, self._pool(event.node.label))
        if len(self._begun) >= OPEN:
            del self._begun[next(iter(self._begun))]
        self._begun[event.unit] = event.waits.total

    def ended(self, event: events.TransactionEvent) -> None:
        """Record for how long a transaction had its connection."""
        waited = self._begun.pop(event.unit, None)
        if waited is not None:
            self._use.record(max(event.duration - waited, 0.0), self._pool(event.node.label))

    def opened(self, event: events.ConnectionOpened) -> None:
        """Record a new connection."""
        self._create.record(event.duration, self._pool(event.node.label))

    def refused(self, event: events.PoolRefused) -> None:
        """Count who waited in vain."""
        if event.error == "PoolTimeout":
            self._timeouts.add(1, self._pool(event.node.label))

    def _pool(self, label: str) -> dict[str, str]:
        found = self._attributes.get(label)
        if found is None:
            found = self._attributes[label] = {_POOL: label}
        return found

    # --- asked for when they are exported ----------------------------------------------------------------

    def _counts(self, options: CallbackOptions) -> Iterable[Observation]:
        for label, (idle, used, _, _) in self._look().items():
            for state, number in (("idle", idle), ("used", used)):
                yield Observation(number, {**self._pool(label), _STATE: state})

    def _most(self, options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(most, self._pool(label)) for label, (_, _, _, most) in self._look().items()]

    def _pending(self, options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(number, self._pool(label)) for label, (_, _, number, _) in self._look().items()]

    def _look(self) -> dict[str, list[int]]:
        """Return idle, used, waiting and allowed connections of each node, all as of one moment."""
        now = self._clock()
        if not self._seen or now - self._looked > _FRESH:
            seen: dict[str, list[int]] = {}
            for pool in self._status():
                sums = seen.setdefault(pool.node, [0, 0, 0, 0])
                for index, number in enumerate((pool.idle, pool.in_use, pool.waiting, pool.max)):
                    sums[index] += number
            self._looked, self._seen = now, seen
        return self._seen
