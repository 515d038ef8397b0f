"""Which tenants have series of their own: those that are configured to, and those that ask most.

All others are counted together, so that the number of series has a bound whatever the number of tenants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import nlargest
from threading import Lock

from router.metrics.families import Family, Numbers
from router.metrics.ledger import Ledger
from router.pacing import paced

MOST = 200
"""Tenants that have series of their own, beside those that are configured to."""

_EVERY = 60.0  # seconds between two choices, unless there is room
_KEPT = 0.9  # of what a tenant asked before, each time: what was ten minutes ago counts a third
_LOYALTY = 2.0  # who has series keeps them until another asks twice as much: series should not come and go
_SILENCE = 3600.0  # seconds without a request after which a tenant is gone


class Cell:
    """Add up the requests of one tenant, and remember how much it asks."""

    __slots__ = ("at", "errors", "heat", "ok", "rows", "seconds", "seen", "slow", "waited")

    def __init__(self) -> None:
        self.heat = 0.0
        self.seen = 0  # requests at the last look
        self.at = 0.0  # when a look last found new ones
        self.ok = 0
        self.errors = 0
        self.seconds = 0.0
        self.waited = 0.0
        self.rows = 0
        self.slow = 0

    def same(self, other: Cell) -> bool:
        """Tell whether both have counted the same."""
        return (
            self.ok == other.ok
            and self.errors == other.errors
            and self.seconds == other.seconds
            and self.slow == other.slow
        )

    def include(self, other: Cell) -> None:
        """Add what another one has counted."""
        self.ok += other.ok
        self.errors += other.errors
        self.seconds += other.seconds
        self.waited += other.waited
        self.rows += other.rows
        self.slow += other.slow

    def since(self, before: Cell) -> Cell:
        """Return what was counted after ``before`` was: an earlier copy."""
        found = Cell()
        found.ok = self.ok - before.ok
        found.errors = self.errors - before.errors
        found.seconds = self.seconds - before.seconds
        found.waited = self.waited - before.waited
        found.rows = self.rows - before.rows
        found.slow = self.slow - before.slow
        return found

    def look(self, now: float) -> None:
        """Take note of how much was asked since the last look."""
        count = self.ok + self.errors
        fresh = count - self.seen
        self.heat = self.heat * _KEPT + fresh
        if fresh or not self.at:
            self.at, self.seen = now, count


class Tenants:
    """Count by tenant, and choose who has series of their own; ``shown`` are the chosen.

    The event loop counts in ``cells``; the rest belongs to whoever renders, one at a time. Not ``alone``, all
    processes must choose the same, or their sums would go back: everybody, or who is always shown.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        most: int = MOST,
        always: Iterable[str] = (),
        *,
        alone: bool = True,
    ) -> None:
        self.cells: dict[str, Cell] = {}
        self.shown: frozenset[str] = frozenset()
        self._clock = clock
        self._most = most
        self._always = frozenset(always)
        self._known: Collection[str] | None = None  # who is configured; None: not told
        self._alone = alone
        self._chosen_at = 0.0
        self._lock = Lock()
        self._ledger = Ledger(Cell)

    def configured(self, known: Collection[str]) -> None:
        """Take note of who the tenants are; the series of all others end."""
        self._known = known
        self._chosen_at = -_EVERY

    def choose(self) -> frozenset[str]:
        """Return who has series of their own now."""
        with self._lock:
            now = self._clock()
            due = now - self._chosen_at >= _EVERY
            if due or (len(self.cells) > len(self.shown) and self._room):
                self._choose(now, cool=due)
            return self.shown

    @property
    def _room(self) -> bool:
        return len(self.shown - self._always) < self._most

    def _choose(self, now: float, cool: bool) -> None:
        if cool:
            self._chosen_at = now
        everybody = self._known is not None and len(self._known) <= self._most
        most = nlargest(self._most if self._alone or everybody else 0, self._asking(now, cool))
        always = (name for name in self._always if name in self.cells)  # only now are those gone that are
        self.shown = frozenset([*always, *(name for _, name in most)])

    def _asking(self, now: float, cool: bool) -> Iterator[tuple[float, str]]:
        """Yield how much each tenant asks that is not gone, and not shown anyway."""
        for name in paced(list(self.cells)):
            cell = self.cells[name]
            if cool or not cell.at:
                cell.look(now)
            if self._known is not None and name not in self._known:
                self._ledger.settle(name, self.cells.pop(name))
            elif (now - cell.at < _SILENCE or not self._alone) and name not in self._always:
                yield cell.heat * (_LOYALTY if name in self.shown else 1.0), name

    def families(self, prefix: str) -> Iterable[Family]:
        """Yield the metrics by tenant."""
        shown = self.choose()
        rows = self._ledger.fold(self.cells, shown)

        def family(name: str, text: str, of: Callable[[Cell], float]) -> Numbers:
            return Numbers(
                f"{prefix}tenant_{name}",
                text,
                "counter",
                ("tenant",),
                (((tenant,), of(cell)) for tenant, cell in rows.items()),
            )

        outcomes = (
            ((tenant, outcome), count)
            for tenant, cell in rows.items()
            for outcome, count in (("ok", cell.ok), ("error", cell.errors))
        )
        yield Numbers(
            f"{prefix}tenant_requests", "Requests of a tenant", "counter", ("tenant", "outcome"), outcomes
        )
        yield family("request_seconds", "Time of a tenant's requests", lambda cell: cell.seconds)
        yield family(
            "wait_seconds", "Time that a tenant's requests waited for a connection", lambda cell: cell.waited
        )
        yield family("rows", "Rows that a tenant's requests returned or changed", lambda cell: cell.rows)
        yield family("slow_requests", "Requests of a tenant over its threshold", lambda cell: cell.slow)
        yield Numbers(
            f"{prefix}tenants_folded",
            "Tenants that are counted together as _other",
            "gauge",
            (),
            [((), len(self.cells) - len(shown))],
        )
