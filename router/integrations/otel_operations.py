"""Metrics of requests, by the names of OpenTelemetry's conventions for database clients."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.context import Context as Surroundings

from router import events
from router.integrations.otel_meters import DURATION, ROWS, Meters
from router.integrations.otel_places import Places
from router.integrations.otel_texts import Shown
from router.topology import Role

BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""Upper bounds of numbers of rows, as the conventions advise."""

SETS: Final = 1_000
"""Sets of attributes of a metric; further ones say only what has few values. The SDK takes 2,000."""

_CACHE = Role.CACHE
_Key = tuple[object, ...]


class Operations:
    """Time requests, and count the rows that they return."""

    def __init__(self, meters: Meters, places: Places) -> None:
        self._places = places
        self._sets: dict[_Key, dict[str, Any]] = {}
        self._duration = meters.seconds(DURATION, "Duration of database client operations.")
        self._rows = meters.of(ROWS).create_histogram(
            ROWS,
            unit="{row}",
            description="The actual number of records returned by the database operation.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def request(self, event: events.RequestEvent, shown: Shown, surroundings: Surroundings | None) -> None:
        """Record a request that was sent to a server, or should have been."""
        if event.role is _CACHE:
            return
        known = self._attributes(event, shown)
        self._duration.record(event.total, known, surroundings)
        if isinstance(event, events.RequestFinished) and event.rows >= 0 and event.kind == "read":
            self._rows.record(event.rows, known, surroundings)

    def _attributes(self, event: events.RequestEvent, shown: Shown) -> dict[str, Any]:
        """Return the attributes of a request, made once for each set of them."""
        error, code = (event.error, event.code) if isinstance(event, events.RequestFailed) else (None, None)
        place, node = self._places.of(event.tenant, event.schema), event.node
        fine = place.get("db.namespace"), node, shown.operation, error, shown.collection, code
        known = self._sets.get(fine)
        if known is not None:
            return known
        more = {"db.collection.name": shown.collection, "db.response.status_code": code}
        key: _Key = fine
        if len(self._sets) >= SETS:  # systems, nodes, verbs and errors are few
            place = {name: value for name, value in place.items() if name == "db.system.name"}
            more, key = {}, (place.get("db.system.name"), node, shown.operation, error)
        known = self._sets.get(key)
        if known is None:
            where = {} if node is None else self._places.server(node)
            given = {"db.operation.name": shown.operation, "error.type": error, **more}
            known = self._sets[key] = {
                **place,
                **{name: value for name, value in where.items() if name.startswith("server.")},
                **{name: value for name, value in given.items() if value is not None},
            }
        return known
