"""The metrics that OpenTelemetry's conventions name for database clients, and which of them are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from opentelemetry.metrics import Histogram, Meter, NoOpMeter

from router.errors import UsageError

BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Upper bounds of durations in seconds, as the conventions advise."""

DURATION: Final = "db.client.operation.duration"
ROWS: Final = "db.client.response.returned_rows"
CONNECTIONS: Final = "db.client.connection.count"
MOST: Final = "db.client.connection.max"
PENDING: Final = "db.client.connection.pending_requests"
TIMEOUTS: Final = "db.client.connection.timeouts"
CREATE_TIME: Final = "db.client.connection.create_time"
WAIT_TIME: Final = "db.client.connection.wait_time"
USE_TIME: Final = "db.client.connection.use_time"
METRICS: Final = frozenset(
    (DURATION, ROWS, CONNECTIONS, MOST, PENDING, TIMEOUTS, CREATE_TIME, WAIT_TIME, USE_TIME)
)


class Meters:
    """Give each metric the application's meter, or one that does nothing for those that nobody wants."""

    def __init__(self, meter: Meter, without: Iterable[str] = ()) -> None:
        self._meter = meter
        self._without = frozenset(without)
        self._nothing = NoOpMeter("router")
        if unknown := sorted(self._without - METRICS):
            raise UsageError(
                f"there is no metric {unknown[0]!r} to leave out; there are: {', '.join(sorted(METRICS))}"
            )

    def of(self, name: str) -> Meter:
        """Return the meter that makes a metric."""
        return self._nothing if name in self._without else self._meter

    def seconds(self, name: str, description: str) -> Histogram:
        """Return a histogram of durations."""
        return self.of(name).create_histogram(
            name, unit="s", description=description, explicit_bucket_boundaries_advisory=BUCKETS
        )
