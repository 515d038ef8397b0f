"""Hear of every write, and record it once it is known what became of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol, TypeVar

from router.audit.pending import Pending
from router.audit.records import ENDS, Facts, Outcome, Place, record
from router.events import Event, RequestEvent, TransactionBegun, TransactionEvent
from router.topology import Role

E = TypeVar("E", bound=Event)

_SAVEPOINT = re.compile(r"(savepoint|rollback to savepoint|rollback to|release savepoint|release) (\w+)")


class Source(Protocol):
    """Describe where events come from; ``router.dispatcher.Dispatcher`` is one."""

    def subscribe(
        self, event_type: type[E], listener: Callable[[E], object], *, mute_after: int | None
    ) -> object:
        """Call ``listener`` with every event of the type; ``None``: however often it fails."""
        ...


class Trail:
    """Turn the events of writes into records; ``keep`` takes those that are complete.

    ``place`` says where a request's tenant is, or ``None`` for a tenant whose writes are not recorded;
    ``lose`` hears of a write that no record could be made of.
    """

    def __init__(
        self,
        place: Callable[[RequestEvent], Place | None],
        keep: Callable[[list[Facts]], None],
        lose: Callable[[Exception], None],
        longest: int,
    ) -> None:
        self._place = place
        self._keep = keep
        self._lose = lose
        self._longest = longest
        self._open: dict[int, Pending] = {}
        self.recorded = 0  # the last transaction whose writes were recorded
        self._last: Facts | None = None  # of the last write outside of a transaction

    def attach(self, dispatcher: Source) -> None:
        """Listen to a dispatcher."""
        dispatcher.subscribe(RequestEvent, self.on_request, mute_after=None)
        dispatcher.subscribe(TransactionEvent, self.on_transaction, mute_after=None)

    def on_request(self, event: RequestEvent) -> None:
        """Take note of a write; outside of a transaction its record is complete."""
        if not event.writes or event.role is Role.CACHE:
            return
        place = self._place(event)
        if place is None:
            return
        try:
            self._take(event, place)
        except Exception as exc:  # the write has happened: what is missing must at least be known
            self._lose(exc)

    def _take(self, event: RequestEvent, place: Place) -> None:
        if not event.unit:
            self._last = record(event, place, self._longest)
            self._keep([self._last])
        elif not self.control(event.unit, event.normalized):
            pending = self._open.setdefault(event.unit, Pending())
            pending.add(record(event, place, self._longest))
            pending.over = pending.over or (place.ddl_commits and event.kind == "ddl")
            if pending.over:
                self._keep(pending.end(Outcome.COMMITTED))
                pending.clear()

    def control(self, unit: int, text: str) -> bool:
        """Take note of a command about a savepoint; tell whether it is one."""
        found = _SAVEPOINT.fullmatch(text.lower())
        if found is None:
            return False
        verb, name = found.groups()
        pending = self._open.setdefault(unit, Pending())
        if verb == "savepoint":
            pending.save(name)
        elif verb.startswith("rollback"):
            pending.undo(name)
        else:
            pending.release(name)
        return True

    def take_last(self) -> Facts | None:
        """Return the record of the last write outside of a transaction, once."""
        last, self._last = self._last, None
        return last

    def pending(self, unit: int) -> Pending | None:
        """Return the writes of a transaction that is still open; ``None`` if there are none."""
        return self._open.get(unit)

    def on_transaction(self, event: TransactionEvent) -> None:
        """Complete the records of a transaction's writes."""
        if isinstance(event, TransactionBegun):
            return
        self._end(event.unit, ENDS.get(type(event), Outcome.ROLLED_BACK))

    def left(self, unit: int) -> None:
        """Complete what is open of a unit of work that has ended without a word about its transaction."""
        self._end(unit, Outcome.UNKNOWN)

    def _end(self, unit: int, outcome: Outcome) -> None:
        pending = self._open.pop(unit, None)
        if pending is not None and len(pending):
            self.recorded = unit
            self._keep(pending.end(outcome))
