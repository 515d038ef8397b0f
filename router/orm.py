"""SQLAlchemy's ORM over a unit of work: routed once, timed, and told like everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from router import events
from router.enclosing import admit, enclose
from router.errors import CommitOutcomeUnknown, RouterError, StatementError
from router.outcomes import settle
from router.placeholders import without_placeholders
from router.proving import known
from router.reasons import Reason
from router.requests import raw_statement
from router.statements import Kind, Statement
from router.steering import note
from router.units import NOTHING, Point, Unit
from router.waits import NO_WAITS

_CONTROL = Kind.TRANSACTION
_SAVEPOINTS = ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")  # SQLAlchemy's; they end with it


class Watcher:
    """Hear what SQLAlchemy does on a unit's lease, and tell it as events."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._context = unit.context  # of the statement that runs, with what listeners have added
        self._points: dict[str, Point] = {}  # by the name of the savepoint

    def begun(self, seconds: float) -> None:
        """Emit TransactionBegun; the first transaction had to wait for the unit's connection too."""
        unit = self._unit
        unit.begun(seconds + unit.waits.total)
        unit.waits = NO_WAITS

    def started(self, sql: str, kind: str) -> None:
        """Note what a statement of the ORM's may leave behind; emit RequestStarted if anybody listens."""
        unit, placement = self._unit, self._unit.target.placement
        self._context = unit.context
        self._refuse(sql)
        self._leave_behind(self._statement(sql))
        if unit.executor.audit is not None:
            statement = self._statement(sql)
            if known(statement, unit.target) is not Reason.READ:
                admit(unit, statement)
        if not unit.executor.dispatcher.announces:
            return
        statement = self._statement(sql)
        event = events.RequestStarted(
            unit.executor.teller.wall(),
            placement.tenant,
            placement.schema,
            sql,
            statement.fingerprint,
            kind,
            statement.tables,
        )
        event.context = unit.context
        unit.executor.teller.emit(event)
        self._context = event.context

    def _leave_behind(self, statement: Statement) -> None:
        """Note what a statement may change in the session, before it runs: it may fail and change it."""
        connection = self._unit.lease.connection
        if statement.dirt > connection.dirt and not (
            connection.in_transaction and statement.text.rpartition(" ")[0] in _SAVEPOINTS
        ):
            connection.dirt = statement.dirt

    def _refuse(self, sql: str) -> None:
        """Refuse what would change the session, as for text."""
        unit = self._unit
        refusal = unit.target.refusal
        if refusal is not None and (
            why := refusal(self._statement(sql), unit.lease.connection.in_transaction)
        ):
            raise unit.describe(StatementError(why))

    def finished(self, sql: str, kind: str, seconds: float, rows: int) -> None:
        """Emit RequestFinished for a statement of the ORM's."""
        unit = self._unit
        unit.statements += 1
        statement = self._statement(sql)
        if unit.executor.cache.active and not unit.readonly:
            # others do not see it before the transaction's end; reads too: they may call what writes
            unit.mark(statement)
        if not unit.readonly:
            self._note(statement)
        done = events.RequestFinished(**self._facts(sql, statement, kind, seconds), rows=rows)
        done.context = self._context
        unit.executor.teller.emit(done)
        unit.executor.teller.slow(done, unit.target.placement.settings)

    def _note(self, statement: Statement) -> None:
        """Take note of what a statement has written, or of a savepoint that takes it back."""
        if statement.kind is not _CONTROL:
            self._unit.note(statement)
            return
        verb, _, name = statement.text.rpartition(" ")
        if verb == "SAVEPOINT":
            self._points[name] = self._unit.point()
        elif verb == "ROLLBACK TO SAVEPOINT" and name in self._points:
            self._unit.back_to(self._points[name])

    def _statement(self, sql: str) -> Statement:
        backend = self._unit.target.backend
        try:
            return backend.statements.of(without_placeholders(sql))
        except StatementError:
            return raw_statement(sql, backend.driver.dialect)

    def failed(self, sql: str, kind: str, seconds: float, error: RouterError) -> None:
        """Emit RequestFailed for a statement of the ORM's."""
        unit = self._unit
        unit.statements += 1
        failed = events.RequestFailed(
            **self._facts(sql, self._statement(sql), kind, seconds),
            error=type(error).__name__,
            code=error.code,
            message=error.message,
        )
        failed.context = self._context
        unit.executor.teller.emit(failed)
        unit.executor.teller.slow(failed, unit.target.placement.settings)

    def _facts(self, sql: str, statement: Statement, kind: str, seconds: float) -> dict[str, Any]:
        unit, placement = self._unit, self._unit.target.placement
        return {
            "at": unit.executor.teller.wall(),
            "tenant": placement.tenant,
            "schema": placement.schema,
            "sql": sql,
            "fingerprint": statement.fingerprint,
            "kind": kind,
            "tables": statement.tables,
            "node": unit.node,
            "role": unit.route.role,
            "reason": unit.route.reason,
            "attempts": 1,
            # the unit has waited, and nothing was looked up
            "lookup": 0.0,
            "waits": NO_WAITS,
            "fetch": 0.0,
            "execute": seconds,
            "total": seconds,
            "unit": unit.number,
            "normalized": statement.normalized,
            "writes": not unit.readonly and known(statement, unit.target) is not Reason.READ,
        }

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
        unit.ended(wrote=committed and not unit.readonly, unknown=unknown)
        if unknown:
            unit.tell(events.CommitUnknown)
        elif error is not None or not committed:
            unit.tell(events.TransactionRolledBack, error=None if error is None else type(error).__name__)
        else:
            unit.committed()
        unit.back_to(NOTHING)
        unit.began = unit.executor.clock()
        unit.statements = 0

    def enclosing(self) -> Awaitable[None] | None:
        """Return what puts the audit's rows into the transaction, ``None`` for nothing."""
        audit = self._unit.audit
        return None if audit is None or audit.outbox is None else enclose(self._unit)

    def recorded(self) -> Awaitable[None] | None:
        """Return what to wait for until the writes are recorded, ``None`` for nothing."""
        audit = self._unit.audit
        return None if audit is None or audit.trail.recorded != self._unit.number else audit.kept()


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
                # Where this one is cancelled meanwhile, that one would go on using a connection given back.
                if session.in_transaction():
                    await session.close()
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
            if unit.audit is not None:
                unit.audit.trail.left(unit.number)
