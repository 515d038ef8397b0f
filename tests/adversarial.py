"""Statements that a router may get wrong, with the truth decided by hand, one listing per dialect.

``primary`` must never go to a replica. ``replica`` is a read that a good classifier proves; sending it to
the primary costs time only. ``either`` may go anywhere: it is a matter of taste, or not valid at all.
A line is ``expect | statement | note``, with ``\\n`` and ``\\t`` for a line break and a tab.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from router.statements import Dialect

_DATA = Path(__file__).parent / "data"


class Case(NamedTuple):
    """Hold one statement and where it may go."""

    dialect: Dialect
    expect: str  # primary, replica, either
    sql: str
    note: str


def _cases(dialect: Dialect) -> list[Case]:
    cases = []
    for line in (_DATA / f"adversarial_{dialect}.txt").read_text().splitlines():
        expect, rest = line.split(" | ", 1)
        sql, note = rest.rsplit(" | ", 1)
        cases.append(Case(dialect, expect, sql.replace(r"\n", "\n").replace(r"\t", "\t"), note))
    return cases


CASES = [case for dialect in Dialect for case in _cases(dialect)]

# What the PostgreSQL statements name. Of its functions these are stable or immutable in the catalog; the
# others are volatile.
POSTGRESQL_OBJECTS = (_DATA / "adversarial_postgresql.sql").read_text()
STABLE = frozenset(("stable_one", "stable_rows", "f"))
