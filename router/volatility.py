"""Ask PostgreSQL which functions are volatile, so that a read which calls them can be proven one.

``pg_proc.provolatile`` is the owner's promise: an immutable or stable function may not change the database
(PostgreSQL manual, "Function Volatility Categories"). A name counts as volatile if any function of that name
in the database is, since a text does not say which overload will run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from router.reasons import Reason
from router.rows import Row
from router.statements import Statement

_FRESH = 300.0  # seconds that an answer is believed
_MOST = 10_000  # databases remembered
_NOT_ASKED = "not asked"

#: All functions outside of the system's own schema, and the named functions and operators inside of it.
QUERY = (
    "SELECT p.proname, bool_or(p.provolatile = 'v') FROM pg_catalog.pg_proc AS p "
    "JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace "
    "WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') OR p.proname = ANY($1) GROUP BY p.proname "
    "UNION ALL SELECT o.oprname, bool_or(p.provolatile = 'v') FROM pg_catalog.pg_operator AS o "
    "JOIN pg_catalog.pg_proc AS p ON p.oid = o.oprcode WHERE o.oprname = ANY($1) GROUP BY o.oprname"
)

Ask = Callable[[tuple[str, ...]], Awaitable[Iterable[Row]]]


@dataclass(frozen=True, slots=True)
class Facts:
    """Hold what one database said of each name (``None``: it has no such function), and for how long."""

    volatile: dict[str, bool | None]
    until: float


class Volatility:
    """Remember per database which functions are volatile."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._facts: dict[str, Facts] = {}

    def known(self, statement: Statement, database: str) -> Reason | None:
        """Return the verdict on a statement that calls functions, or ``None`` if the database must be asked."""
        facts = self._facts.get(database)
        if facts is None or facts.until <= self._clock():
            return None
        volatile = facts.volatile
        for name in statement.functions:
            if volatile.get(name):
                return Reason.VOLATILE_FUNCTION
        unproven = [volatile.get(name, _NOT_ASKED) for name in statement.unproven]
        if _NOT_ASKED in unproven:
            return None
        return Reason.UNKNOWN_FUNCTION if None in unproven else statement.verdict

    async def ask(self, statement: Statement, database: str, ask: Ask) -> Reason:
        """Ask the database and return the verdict; a name that it does not know is not proven."""
        unproven = tuple(sorted(statement.unproven))
        old = self._facts.get(database)
        volatile = dict(old.volatile) if old is not None and old.until > self._clock() else {}
        volatile.update(dict.fromkeys(unproven))
        volatile.update({row[0]: row[1] for row in await ask(unproven)})
        if len(self._facts) >= _MOST and database not in self._facts:
            del self._facts[next(iter(self._facts))]
        self._facts[database] = Facts(volatile, self._clock() + _FRESH)
        return self.known(statement, database) or Reason.UNKNOWN_FUNCTION

    def forget(self, database: str) -> None:
        """Drop what is known of a database, after something that may have changed its functions."""
        self._facts.pop(database, None)
