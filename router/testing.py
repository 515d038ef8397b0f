"""What users need for tests of their own: a clock that obeys, a record of events, a router on SQLite.

``record`` shows what really happened; nothing here pretends to be a database. ``leak_check`` looks for rows
of other tenants, on the servers that a router is for.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from router.config import parse
from router.dispatcher import Dispatcher
from router.errors import UsageError
from router.events import Event, RequestEvent, RequestFailed
from router.leaks import LeakReport as LeakReport
from router.leaks import leak_check as leak_check
from router.reasons import Reason
from router.router import Router
from router.topology import Role
from router.visiting import Visit as Visit

E = TypeVar("E", bound=Event)

_SHOWN = 60  # characters of a statement that a failed assertion shows


class ManualClock:
    """Stand still until advanced: ``Router(config, clock=clock)``. Times in seconds."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on; raises UsageError for a step backwards, which no monotonic clock makes."""
        if seconds < 0:
            raise UsageError(f"a monotonic clock does not go back ({seconds} s). Advance it by 0 or more")
        self.now += seconds

    def __repr__(self) -> str:
        return f"<ManualClock {self.now}>"


class Recorded:
    """Hold the events that were told while recording, in order, and check what they say.

    The ``assert_`` methods raise AssertionError with a list of what happened instead.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def of(self, event_type: type[E]) -> list[E]:
        """Return the events of a class or its subclasses."""
        return [event for event in self.events if isinstance(event, event_type)]

    @property
    def requests(self) -> list[RequestEvent]:
        """Return one event for each request, finished or failed."""
        return self.of(RequestEvent)

    def assert_count(self, expected: int) -> None:
        """Assert how many requests were made: a loop that asks once per row shows here."""
        __tracebackhide__ = True
        if len(self.requests) != expected:
            raise AssertionError(f"expected {expected} requests, but there were {self._described()}")

    def assert_role(self, expected: Role | str) -> None:
        """Assert that every request, and at least one, went to ``"primary"`` or ``"replica"``."""
        __tracebackhide__ = True
        role = Role(expected)
        if {event.role for event in self.requests} != {role}:
            raise AssertionError(f"expected requests to the {role} only, but there were {self._described()}")

    def assert_reason(self, expected: Reason | str) -> None:
        """Assert that every request, and at least one, was routed for this reason."""
        __tracebackhide__ = True
        reason = Reason(expected)
        if {event.reason for event in self.requests} != {reason}:
            raise AssertionError(
                f"expected requests routed for {reason} only, but there were {self._described()}"
            )

    def _described(self) -> str:
        requests = self.requests
        return "\n  ".join([f"{len(requests)}:" if requests else "none", *map(_line, requests)])

    def __repr__(self) -> str:
        return f"<Recorded {len(self.events)} events, {len(self.requests)} requests>"


def _line(event: RequestEvent) -> str:
    """Return one request as a line; SQL has no values in it, see router.events."""
    sql = " ".join(event.sql.split())
    sql = sql if len(sql) <= _SHOWN else f"{sql[:_SHOWN]}..."
    node = "no node" if event.node is None else event.node.label
    failed = f" failed with {event.error}" if isinstance(event, RequestFailed) else ""
    schema = f"/{event.schema}" if event.schema else ""
    return f"{event.tenant}{schema} {event.role} ({event.reason}) on {node}{failed}: {sql}"


@contextmanager
def record(source: Router | Dispatcher, *event_types: type[Event]) -> Iterator[Recorded]:
    """Record the events of the given classes, all if none is given, until the block ends.

    ``with record(router) as recorded: ...`` and then ``recorded.assert_role("replica")``.
    """
    dispatcher = source.dispatcher if isinstance(source, Router) else source
    recorded = Recorded()

    def listen(event: Event) -> None:
        if not event_types or isinstance(event, event_types):
            recorded.events.append(event)

    # one subscription: an event of two of the classes is still one event
    subscription = dispatcher.subscribe(Event, listen)
    try:
        yield recorded
    finally:
        subscription.cancel()


@asynccontextmanager
async def sqlite_router(
    tenants: Iterable[str] = ("acme",),
    folder: str | Path | None = None,
    *,
    schemas: Iterable[str] = (),
) -> AsyncIterator[Router]:
    """Yield an open router over SQLite with these tenants, each with a database and the logical ``schemas``.

    Reads go to two readers and writes to the writer, as on servers. The files are in ``folder``, where they
    stay, or in a temporary one. Raises ConfigurationError for names that no configuration may have.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="router-") as temporary:
            async with sqlite_router(tenants, temporary, schemas=schemas) as router:
                yield router
        return
    names = tuple(schemas)
    config = parse(
        {
            "version": 1,
            "clusters": {"main": {"engine": "sqlite", "primary": {"path": str(folder)}, "readers": 2}},
            "tenants": {tenant: _tenant(tenant, number, names) for number, tenant in enumerate(tenants, 1)},
        }
    )
    async with Router.open(config) as router:
        yield router


def _tenant(tenant: str, number: int, schemas: tuple[str, ...]) -> dict[str, object]:
    # a tenant's id may have a hyphen or begin with a digit, the name of a database may not
    database = tenant if tenant.isidentifier() else f"tenant_{number}"
    return {
        "cluster": "main",
        "isolation": "database",
        "database": database,
        "schemas": {name: f"{database}_{name.replace('-', '_')}" for name in schemas},
    }
