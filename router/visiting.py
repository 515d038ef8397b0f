"""A visit of a leak check: a session of one tenant, the account of its rows, and what was seen of them.

Visitors look at what they get, and tell the account what they have written, see :mod:`router.visitors`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from router.belongings import BASE, Belongings, Glance
from router.drivers.driver import Binding
from router.errors import CommitOutcomeUnknown, RouterError
from router.queries import Queries
from router.session import Session
from router.statements import Dialect
from router.transaction import Transaction

_marks = itertools.count(BASE + 1)
_KEPT = 8  # marks of a tenant; past that the oldest is removed, so that reads stay small
_SHOWN = 20  # lines of what went wrong


def new_mark() -> int:
    """Return a mark that nobody else has."""
    return next(_marks)


Visitor = Callable[["Visit"], Awaitable[None]]


@dataclass(slots=True)
class Account:
    """Count what a leak check has seen; ``foreign``, ``missing`` and ``undone`` are rows."""

    reads: int = 0
    rows: int = 0
    foreign: int = 0
    missing: int = 0
    undone: int = 0
    errors: int = 0
    visits: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # errors that are part of the game
    told: list[str] = field(default_factory=list)
    pace: float = 0.005  # seconds that a visit takes, about

    def tell(self, text: str) -> None:
        """Keep the first few words on what went wrong."""
        if len(self.told) < _SHOWN:
            self.told.append(text)


@dataclass(frozen=True, slots=True)
class Place:
    """Say where the visitors' own rows are: a table of this name, the same for each tenant."""

    table: str
    home: str  # the cluster
    dialect: Dialect
    binding: Binding | None

    @classmethod
    def of(cls, session: Session, table: str) -> Place:
        """Return where the rows of a session's tenant are."""
        target = session._target
        backend = target.backend
        return cls(table, backend.cluster.name, backend.driver.dialect, target.binding)

    @property
    def create(self) -> str:
        """Return what makes the table."""
        columns = "tenant VARCHAR(63) NOT NULL, mark BIGINT NOT NULL, n INTEGER NOT NULL"
        return f"CREATE TABLE IF NOT EXISTS {self.table} ({columns}, PRIMARY KEY (tenant, mark, n))"

    @property
    def clear(self) -> str:
        """Return what removes all rows that the tenant may remove."""
        return f"DELETE FROM {self.table}"  # noqa: S608  # checked to be an identifier

    @property
    def drop(self) -> str:
        """Return what removes the table."""
        return f"DROP TABLE {self.table}"

    @property
    def everything(self) -> str:
        """Return the read of all rows."""
        return f"SELECT tenant, mark FROM {self.table}"  # noqa: S608  # checked to be an identifier

    @property
    def base(self) -> str:
        """Return the read of the rows that are always there."""
        return f"{self.everything} WHERE mark = :mark"

    @property
    def insert(self) -> str:
        """Return the write of a row."""
        return f"INSERT INTO {self.table} (tenant, mark, n) VALUES (:tenant, :mark, :n)"  # noqa: S608

    @property
    def delete(self) -> str:
        """Return the removal of a mark's rows."""
        return f"DELETE FROM {self.table} WHERE tenant = :tenant AND mark = :mark"  # noqa: S608


@dataclass(slots=True)
class Visit:
    """Give a visitor its tenant, a session of it, and where to say what it has seen.

    A visitor of your own reads with ``visit.session`` what each tenant has, and hands the tenants that the
    rows name to :meth:`see`.
    """

    tenant: str
    session: Session
    rng: Random
    place: Place
    owned: Belongings
    account: Account
    other: Place  # where a tenant's rows are on the same cluster, as a rule another's
    again: Callable[[], Visit]  # the same tenant's, with another session
    own: dict[int, int] = field(default_factory=dict)  # marks that this session has written

    # --- looking -----------------------------------------------------------------------------------------

    def see(self, owners: Iterable[object], *, owner: object = None, least: int = 0) -> None:
        """Take note of an answer: ``owners`` are whose its rows are, one for each row.

        All must be the tenant, or what ``owner`` says the tenant is called in them. An answer that has less
        than ``least`` rows was not the tenant's either.
        """
        expected = self.tenant if owner is None else owner
        found = list(owners)
        account = self.account
        account.reads += 1
        account.rows += len(found)
        foreign = [each for each in found if each != expected]
        if foreign:
            account.foreign += len(foreign)
            account.tell(f"{self.tenant}: saw {len(foreign)} of {len(found)} rows of {foreign[0]!r}")
        if len(found) < least:
            account.missing += least - len(found)
            account.tell(f"{self.tenant}: saw {len(found)} of its {least} rows")

    def refuse(self, error: Exception) -> None:
        """Take note of a refusal that belongs to the check."""
        self.account.refused[type(error).__name__] += 1

    def judge(self, rows: Sequence[Any], glance: Glance) -> None:
        """Take note of an answer from the visitors' own table."""
        self.see([row.tenant for row in rows])
        found = Counter(row.mark for row in rows if row.tenant == self.tenant)
        account = self.account
        if missing := self.owned.missing(glance, found):
            account.missing += missing
            account.tell(f"{self.tenant}: {missing} rows too few or too many: {dict(found)} for {glance}")
        if undone := self.owned.undone(glance, found):
            account.undone += undone
            account.tell(f"{self.tenant}: {undone} rows that were not committed: {dict(found)} for {glance}")

    def glance(self, *, primary: bool) -> Glance:
        """Return what a read must show that begins now."""
        return self.owned.glance(own=self.own, lagging=not primary)

    async def read(
        self, source: Queries | None = None, *, text: str = "", primary: bool = False, **given: Any
    ) -> None:
        """Read all rows and look at each."""
        glance = self.glance(primary=primary)
        asked = (source or self.session).fetch_all(text or self.place.everything, primary=primary, **given)
        self.judge(await asked, glance)

    async def read_base(self, source: Queries | None = None, **given: Any) -> None:
        """Read the rows that are always there."""
        base = Glance(0, {BASE: self.owned.certain[BASE]}, lagging=True)
        rows = await (source or self.session).fetch_all(self.place.base, {"mark": BASE}, **given)
        self.judge(rows, base)

    # --- writing -----------------------------------------------------------------------------------------

    def row(self, mark: int, number: int = 0) -> dict[str, object]:
        """Return the values of a row."""
        return {"tenant": self.tenant, "mark": mark, "n": number}

    @asynccontextmanager
    async def writing(self, rows: int = 1) -> AsyncIterator[int]:
        """Give a mark to write so many rows of in one statement that commits by itself."""
        mark = new_mark()
        self.owned.attempt(mark, rows)
        try:
            yield mark
        except RouterError as error:
            if not isinstance(error, CommitOutcomeUnknown):
                self.owned.undo(mark)
            raise
        self.owned.keep(mark)
        self.own[mark] = rows

    @asynccontextmanager
    async def committing(self, rows: int) -> AsyncIterator[tuple[Transaction, int]]:
        """Give a transaction, and a mark to write so many rows of in it."""
        mark = new_mark()
        try:
            async with self.session.transaction() as tx:
                yield tx, mark
                self.owned.attempt(mark, rows)
        except RouterError as error:
            if not isinstance(error, CommitOutcomeUnknown):
                self.owned.undo(mark)
            raise
        self.owned.keep(mark)
        self.own[mark] = rows

    async def trim(self) -> None:
        """Remove the oldest rows, if there are many."""
        oldest = [mark for mark in self.owned.certain if mark != BASE]
        if len(oldest) <= _KEPT:
            return
        mark = oldest[0]
        self.owned.attempt(mark, self.owned.certain[mark])
        try:
            await self.session.execute(self.place.delete, {"tenant": self.tenant, "mark": mark})
        except RouterError as error:
            if not isinstance(error, CommitOutcomeUnknown):
                self.owned.keep(mark)
            raise
        self.owned.remove(mark)
