"""Put the records of a transaction's writes into the transaction itself, as rows of the audit's table."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress

from router.audit.outbox import Outbox, Strand, found, insert, latest
from router.audit.records import Facts, Outcome
from router.errors import AuditUnavailable, DatabaseError, RouterError, Sent, TransactionConflict, UsageError
from router.reasons import Reason
from router.requests import Request
from router.statements import Dialect, Kind, Statement
from router.units import Unit

_SOON = 1.0  # seconds that a server has to come to a commit whose sender is gone
_PAUSE = 0.05  # seconds between two questions whether it has

_PLAIN = frozenset({Kind.READ, Kind.WRITE})
#: What PostgreSQL does not run inside of a transaction, as far as it is DDL.
_ALONE = re.compile(r"\b(concurrently|database|tablespace|subscription|alter system)\b")


async def enclose(unit: Unit) -> None:
    """Insert the rows of what the unit's open transaction has written; call it right before the commit.

    Raises:
        AuditUnavailable: the table does not take them.
        RouterError: as any statement of the transaction would.
    """
    audit = unit.audit
    if audit is None or audit.outbox is None:
        return
    pending = audit.trail.pending(unit.number)
    if pending is not None and len(pending):
        # rows are there if the transaction is committed, and only then
        await put(unit, pending.end(Outcome.COMMITTED))


async def put(unit: Unit, records: Sequence[Facts]) -> None:
    """Insert rows of records in the unit's open transaction."""
    audit = unit.audit
    if audit is None or audit.outbox is None or audit.config.outbox is None:
        return
    outbox, table, target = audit.outbox, audit.config.outbox.table, unit.target
    strand = outbox.strand((target.placement.cluster.name, target.database, target.schema))
    failure: RouterError
    try:
        if not strand.known:
            await _look(unit, outbox, strand, table)
        rows = outbox.box(unit.number, strand, records)
        statement = target.backend.statements.of(insert(table))
        args = statement.bind_many([row.parameters for row in rows])
        if len(args) == 1:
            await _send(unit, "execute", statement, args[0])
        else:
            await _send(unit, "execute_many", statement, args)
        return
    except RouterError as error:
        failure = error
    outbox.ended(unit.number, committed=False)
    if isinstance(failure, DatabaseError) and not isinstance(failure, TransactionConflict):
        failure = AuditUnavailable(
            f"the table {table} does not take the audit's rows ({failure.message}), so nothing was written. "
            "Create it as router audit schema shows, and let this user insert into it",
            code=failure.code,
            sent=Sent.ANSWERED,
            cause=failure,
        ).at(cluster=failure.cluster, node=failure.node)
    raise unit.describe(failure)


async def landed(unit: Unit, deadline: float) -> str:
    """Return the name of the transaction's rows once they are seen to be committed; "" if they are not seen.

    That they are not seen proves nothing: the server may not have come to the commit yet.
    """
    audit, executor = unit.executor.audit, unit.executor
    if audit is None or audit.outbox is None or audit.config.outbox is None:
        return ""
    batch, end = audit.outbox.batch(unit.number), min(deadline, executor.clock() + _SOON)
    text = found(audit.config.outbox.table)
    while batch and executor.clock() < end:
        with suppress(RouterError):
            if await _seen(unit, text, batch, end):
                return batch
        await asyncio.sleep(_PAUSE)
    return ""


async def _seen(unit: Unit, text: str, batch: str, end: float) -> bool:
    """Ask the primary of now whether it has the rows of a batch."""
    backend = unit.target.backend
    primary = backend.health.snapshot().primary
    if primary is None:
        return False
    statement = backend.statements.of(text)
    lease = await unit.target.lease(primary, end)
    try:
        limit = max(end - backend.clock(), 0.001)
        rows = await lease.run(
            "fetch_all", statement.sql, statement.bind({"batch": batch}), None, limit=limit
        )
    finally:
        lease.release()
    return bool(rows[0][0])


async def _look(unit: Unit, outbox: Outbox, strand: Strand, table: str) -> None:
    """Read where the table ends, once in a process."""
    rows = await _send(unit, "fetch_all", unit.target.backend.statements.of(latest(table)), ())
    if not strand.known:  # another transaction may have been faster
        outbox.look(strand, [row[0] for row in rows])


async def _send(unit: Unit, verb: str, statement: Statement, args: object) -> list[tuple[str]]:
    lease, limit = unit.lease, unit.target.placement.settings.statement_timeout
    found: list[tuple[str]] = await lease.run(verb, statement.sql, args, None, limit=limit)
    return found


def admit(unit: Unit, statement: Statement) -> None:
    """Refuse a write of a transaction that could not be recorded, or whose rows could not be undone with it.

    Raises:
        AuditUnavailable: the journal cannot be written.
        UsageError: MySQL commits at this statement.
    """
    audit = unit.audit
    if audit is None:
        return
    audit.admit()
    mysql = unit.target.backend.driver.dialect is Dialect.MYSQL
    if mysql and audit.outbox is not None and statement.kind is Kind.DDL:
        raise UsageError(
            "this statement commits the transaction that it is in, so the audit's rows could not be undone "
            "with it. Run it outside of the transaction"
        ).at(tenant=unit.target.placement.tenant, fingerprint=statement.fingerprint)


def alone(request: Request) -> bool:
    """Tell whether a request cannot run in a transaction, or would end it."""
    statement = request.statement
    if request.verb == "execute_raw":
        return True
    if statement.kind in _PLAIN:
        return False
    if statement.kind is not Kind.DDL or statement.dialect is Dialect.MYSQL:
        return True
    return statement.dialect is Dialect.POSTGRESQL and _ALONE.search(statement.normalized.lower()) is not None


def harmless(reason: Reason) -> bool:
    """Tell whether what is known of a statement outside of a transaction says that nothing remains of it."""
    return reason in (Reason.READ, Reason.SESSION_STATE, Reason.TRANSACTION_CONTROL)
