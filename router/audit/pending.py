"""The writes of an open transaction, until it is known what becomes of them. Pure.

A transaction may hold millions of writes. The first thousand have records of their own; of those after them,
equal ones share a record that counts them.
"""

from __future__ import annotations

from itertools import count
from typing import Final, NamedTuple

from router.audit.records import Facts, Outcome

SINGLE: Final = 1_000
"""Writes of a transaction that have records of their own."""

_SHARED = 1_000  # records that count several; what is none of these is counted in one more
_Key = tuple[str, str, str | None, int]


class _Savepoint(NamedTuple):
    name: str
    first: int  # of the first record after it
    number: int


class Pending:
    """Hold the records of one transaction's writes."""

    __slots__ = ("_numbers", "_records", "_savepoints", "_shared", "over")

    def __init__(self) -> None:
        self._records: list[Facts] = []
        self._shared: dict[_Key, tuple[int, Facts]] = {}  # with the index of the record
        self._savepoints: list[_Savepoint] = []
        self._numbers = count(1)
        self.over = False  # the server has committed it unasked; what follows commits by itself

    def __len__(self) -> int:
        return len(self._records)

    def add(self, facts: Facts) -> None:
        """Take note of a write."""
        if len(self._records) < SINGLE:
            self._records.append(facts)
            return
        # by savepoint too: what one undoes must not be counted with what came before it
        inner = self._savepoints[-1].number if self._savepoints else 0
        key: _Key = (facts["fingerprint"], facts["outcome"], facts["actor"], inner)
        if key not in self._shared and len(self._shared) >= _SHARED:
            facts = {**facts, "fingerprint": "", "text": "(many)", "tables": [], "actor": None}
            key = ("", facts["outcome"], None, 0)
        if key not in self._shared:
            self._shared[key] = len(self._records), {**facts, "times": 0, "rows": 0}
            self._records.append(self._shared[key][1])
        shared = self._shared[key][1]
        shared["times"] += 1
        shared["rows"] += max(facts.get("rows", 0), 0)
        shared["until"] = facts["at"]

    def save(self, name: str) -> None:
        """Take note of a savepoint."""
        self._savepoints.append(_Savepoint(name, len(self._records), next(self._numbers)))

    def undo(self, name: str) -> None:
        """Take note that what was written since a savepoint is undone; the savepoint itself stays."""
        found = self._last(name)
        if found is None:
            return
        savepoint = self._savepoints[found]
        del self._savepoints[found + 1 :]
        _end(self._records[savepoint.first :], Outcome.ROLLED_BACK)
        self._shared = {key: each for key, each in self._shared.items() if each[0] < savepoint.first}

    def release(self, name: str) -> None:
        """Take note that a savepoint is gone, and what was written since stays."""
        found = self._last(name)
        if found is not None:
            del self._savepoints[found:]

    def _last(self, name: str) -> int | None:
        at = [index for index, each in enumerate(self._savepoints) if each.name == name]
        return at[-1] if at else None

    def clear(self) -> None:
        """Forget what was told."""
        self._records, self._shared, self._savepoints = [], {}, []

    def end(self, outcome: Outcome) -> list[Facts]:
        """Return the records with what became of the transaction."""
        if outcome is not Outcome.COMMITTED:
            _end(self._records, outcome)
        return self._records


def _end(records: list[Facts], outcome: Outcome) -> None:
    """Say of writes that had succeeded what has become of them since."""
    for each in records:
        if each["outcome"] == Outcome.COMMITTED:
            each["outcome"] = str(outcome)
