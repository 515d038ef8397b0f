"""SQLAlchemy's ORM over a unit of work: routed once, timed, and told like everything else."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from router import events
from router.errors import CommitOutcomeUnknown, RouterError, StatementError
from router.outcomes import settle
from router.requests import raw_statement
from router.steering import note
from router.units import Unit

_PLACEHOLDER = re.compile(r"\$\d+|%s|\?")


@lru_cache(maxsize=4096)
def _fingerprint(sql: str) -> str:
    return hashlib.blake2b(sql.encode(errors="surrogatepass"), digest_size=8).hexdigest()


@lru_cache(maxsize=4096)
def _without_placeholders(sql: str) -> str:
    """Return a text with the drivers' placeholders replaced, which only the drivers read."""
    return _PLACEHOLDER.sub("1", sql)


class Watcher:
    """Hear what SQLAlchemy does on a unit's lease, and tell it as events."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def finished(self, sql: str, kind: str, seconds: float, rows: int) -> None:
        """Emit RequestFinished for a statement of the ORM's."""
        unit = self._unit
        unit.statements += 1
        if unit.executor.cache.active and not unit.readonly:
            self._mark(sql)  # reads too: they may call what writes
        done = events.RequestFinished(*self._facts(sql, kind, seconds), rows)  # type: ignore[call-arg]
        unit.executor.teller.emit(done)
        threshold = unit.target.placement.settings.slow_query
        if seconds >= threshold:
            unit.executor.teller.emit(events.SlowRequest(done.at, done, threshold))

    def _mark(self, sql: str) -> None:
        """Mark what a statement has changed in the open transaction; others do not see it before its end."""
        unit = self._unit
        try:
            statement = unit.target.backend.statements.of(_without_placeholders(sql))
        except StatementError:
            statement = raw_statement(sql, unit.target.backend.driver.dialect)
        unit.mark(statement)

    def failed(self, sql: str, kind: str, seconds: float, error: RouterError) -> None:
        """Emit RequestFailed for a statement of the ORM's."""
        self._unit.statements += 1
        facts = self._facts(sql, kind, seconds)
        name = type(error).__name__
        self._unit.executor.teller.emit(
            events.RequestFailed(*facts, error=name, code=error.code, message=error.message)
        )

    def _facts(self, sql: str, kind: str, seconds: float) -> tuple[Any, ...]:
        unit, placement = self._unit, self._unit.target.placement
        role, reason = unit.route.role, unit.route.reason
        asked = (placement.tenant, placement.schema, sql, _fingerprint(sql), kind)
        at = unit.executor.teller.wall()
        return (
            at, *asked, unit.node, role, reason, 1, 0.0, seconds, seconds, unit.context_id, (),
        )  # fmt: skip

    async def settle(self, unknown: CommitOutcomeUnknown) -> RouterError | None:
        """Find out what became of a commit: ``None`` if it was applied, else the error to raise."""
        unit = self._unit
        limit = unit.target.placement.settings.statement_timeout
        failure = await settle(unit, unknown, unit.executor.clock() + limit)
        return None if failure is None else unit.describe(failure)

    def ended(self, committed: bool, error: RouterError | None) -> None:
        """Emit the end of a transaction of the ORM's; the unit goes on, it may begin another."""
        unit = self._unit
        unknown = isinstance(error, CommitOutcomeUnknown)
        if committed and not unit.readonly and (error is None or unknown):
            note(unit.target, unit.seen, unit.node, unit.executor.clock(), wrote=True)
        if error is not None and not unknown:
            unit.tell(events.TransactionRolledBack, error=type(error).__name__)
        elif unknown:
            unit.tell(events.CommitUnknown)
        else:
            unit.tell(events.TransactionCommitted if committed else events.TransactionRolledBack)
        # an open unit of somebody else's goes on, and ends its writes itself
        unit.ended(wrote=committed and not unit.readonly, unknown=unknown)
        unit.began = unit.executor.clock()
        unit.statements = 0


@asynccontextmanager
async def orm_session(unit: Unit, options: dict[str, Any]) -> AsyncIterator[AsyncSession]:
    """Yield an ``AsyncSession`` on a unit's connection; commit at the end of the block, or roll back.

    On a unit that is not open yet, the session's own commits are real, and several may follow one another.
    On the unit of an open transaction the session joins: its commit flushes, and the transaction decides.
    """
    own = not unit.is_open
    if own:
        await unit.open(begin=False)
    lease = unit.lease
    lease.transactional = own
    watcher = lease.watch = Watcher(unit)
    try:
        async with unit.target.backend.bridge.connection(lease) as connection:
            session = AsyncSession(bind=connection, **{"expire_on_commit": False, **options})
            try:
                yield session
                if own and unit.readonly and not (session.new or session.dirty or session.deleted):
                    # nothing to flush: end it without a greenlet, for which SQLAlchemy is done
                    if lease.connection.in_transaction:
                        await lease.commit()
                        watcher.ended(True, None)
                    session.sync_session.close()
                elif session.in_transaction():
                    await session.commit()
            finally:
                # Not "async with session": its close runs in a task of its own, also with nothing to undo.
                if session.in_transaction():
                    await asyncio.shield(session.close())
                else:
                    session.sync_session.close()
    except BaseException as exc:
        if not isinstance(exc, Exception):
            lease.broken = lease.broken or "cancelled"
        raise
    finally:
        lease.transactional = False
        lease.watch = None
        if own:
            unit.close()
