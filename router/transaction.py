"""A transaction: one connection from BEGIN to COMMIT, with savepoints. Nothing is retried inside of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NoReturn, Self

from router import events, leased, proving
from router.cache.tally import add
from router.enclosing import admit, enclose
from router.errors import CommitOutcomeUnknown, RouterError, TransactionStateError, UsageError
from router.outcomes import settle
from router.pools.lease import Lease
from router.queries import Options, Params, PreparedStatement, Queries, seconds
from router.reasons import Reason
from router.requests import Request, request_for
from router.rows import Row
from router.units import Unit

_READ = Reason.READ  # looking a member up on its enum costs 70 ns on CPython 3.11


class Transaction(Queries):
    """Run statements on one connection, all or none.

    ``async with session.transaction() as tx`` commits at the end of the block and rolls back on an error.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._begun = False
        self._savepoints = 0

    @property
    def unit(self) -> Unit:
        """Return the unit of work behind the transaction."""
        return self._unit

    @property
    def is_open(self) -> bool:
        """Tell whether the transaction has begun and not ended."""
        return self._unit.is_open

    def __repr__(self) -> str:
        state = (
            f"open on {self._unit.node.label}" if self.is_open else "ended" if self._begun else "not begun"
        )
        return f"<Transaction {self._unit.target.placement.tenant} {state}>"

    # --- begin and end -----------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Lease a connection and begin; a begin that fails has had no effect and is tried again."""
        if self._begun:
            raise TransactionStateError("the transaction has begun already. Begin a new one")
        self._begun = True
        await self._unit.open(begin=True)

    async def commit(self) -> None:
        """Commit.

        Raises:
            CommitOutcomeUnknown: the server did not answer; the transaction may have been applied.
            TransactionLost: the server did not answer, but was asked and has rolled it back.
            TransactionStateError: the transaction is not open.
        """
        unit, lease = self._unit, self._unit.lease
        unit.executor.check_loop()
        if unit.executor.audit is not None:
            await self._enclose()
        limit = unit.target.placement.settings.statement_timeout
        deadline = unit.executor.clock() + limit
        failure: BaseException | None = None
        try:
            await lease.commit(limit)
        except BaseException as exc:
            failure = exc
        committed = failure is None or not lease.connection.in_transaction  # or cancelled after the answer
        if isinstance(failure, CommitOutcomeUnknown):
            failure = await self._settled(failure, deadline)
            committed = failure is None
        if not committed and failure is not None:
            await self._commit_failed(lease, failure)
        unit.close(wrote=not unit.readonly)
        unit.committed()
        audit = unit.executor.audit
        if audit is not None and failure is None and audit.trail.recorded == unit.number:
            await audit.kept()
        if failure is not None:
            raise failure

    async def _enclose(self) -> None:
        """Put the audit's rows into the transaction; without them it is rolled back."""
        try:
            await enclose(self._unit)
        except BaseException as exc:
            await self.rollback(exc)
            raise

    async def _settled(self, unknown: CommitOutcomeUnknown, deadline: float) -> BaseException | None:
        """Return what is left of an unknown outcome once the server was asked about it."""
        try:
            return await settle(self._unit, unknown, deadline)
        except BaseException as exc:  # cancelled while asking: as unknown as before
            return exc

    async def _commit_failed(self, lease: Lease, failure: BaseException) -> NoReturn:
        unit = self._unit
        refused = isinstance(failure, RouterError)
        unknown = isinstance(failure, CommitOutcomeUnknown) if refused else bool(lease.broken)
        if refused and not unknown:
            await _undo(lease)  # SQLite leaves a transaction open whose commit found the file busy
        elif not unknown:
            lease.broken = "cancelled"
        unit.close(wrote=unknown and not unit.readonly, unknown=unknown)
        if unknown:
            unit.tell(events.CommitUnknown)
        else:
            unit.tell(events.TransactionRolledBack, error=type(failure).__name__)
        raise unit.describe(failure) if isinstance(failure, RouterError) else failure

    async def rollback(self, error: BaseException | None = None) -> None:
        """Roll back; a connection that cannot do that is closed, which has the same effect."""
        unit, lease = self._unit, self._unit.lease
        unit.executor.check_loop()
        try:
            await _undo(lease)
        finally:
            unit.close()
            unit.tell(events.TransactionRolledBack, error=type(error).__name__ if error else None)

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_open:
            return  # ended inside of the block, by commit() or rollback()
        if exc is None:
            await self.commit()
        else:
            await self.rollback(exc)

    def after_commit(self, call: Callable[[], object]) -> None:
        """Call ``call`` once, when this transaction is committed for certain; never if it is not.

        The place for what the rest of the application must learn of the change: domain events, messages,
        jobs. Calls are made in order, without arguments, when the connection is free again. A plain function
        runs before ``commit()`` returns and must be quick. From the first that returns an awaitable on, they
        run beside, each for at most ten seconds; closing the router gives them time to finish. What fails is
        counted under the name ``after_commit`` in :meth:`router.dispatcher.Dispatcher.stats` and logged; the
        commit stands. It is not called after a rollback, also one to a savepoint, nor after a commit whose
        outcome is unknown, nor if the process dies before: what must not be lost belongs in a table that the
        same transaction writes.

        Raises:
            TransactionStateError: the transaction is not open.
        """
        if not callable(call):
            raise UsageError(f"after_commit() takes a callable, not a {type(call).__qualname__}")
        _ = self._unit.lease  # raises if it is not open
        self._unit.afterwards += (call,)

    # --- statements --------------------------------------------------------------------------------------

    def _run(self, verb: str, sql: Any, params: Any, given: Options) -> Coroutine[Any, Any, Any]:
        lease, request = self._request(verb, sql, params, given.timeout)
        if given.cache:
            add(self._unit.executor.scope(self._unit.target).tally.bypasses, "transaction")
        return leased.run(self._unit.executor, lease, request)

    def _request(self, verb: str, sql: Any, params: Any, timeout: float | None) -> tuple[Lease, Request]:
        unit = self._unit
        lease = unit.lease
        now = unit.executor.clock()
        request = request_for(unit.target, unit.seen, verb, sql, params, now, inside=True)
        limit = timeout or unit.timeout or unit.target.placement.settings.statement_timeout
        request.deadline = now + limit
        request.context = unit.context
        self.join(request)
        return lease, request

    def join(self, request: Request) -> None:
        """Make a request one of this transaction's."""
        unit, statement = self._unit, request.statement
        request.unit, route = unit.number, unit.route
        request.node, request.role, request.reason = unit.node, route.role, route.reason
        known = proving.known(statement, unit.target)
        request.verdict = Reason.READ if unit.readonly else known or Reason.UNKNOWN_FUNCTION
        unit.statements += 1
        if unit.executor.audit is not None and request.writes:
            admit(unit, statement)
        if (statement.verdict is not _READ or statement.functions) and not unit.readonly:
            request.note = unit.note
        if unit.executor.cache.active and not unit.readonly:
            unit.mark(statement)

    async def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        batch: int = 500,
        readonly: bool = False,
        timeout: float | None = None,
    ) -> AsyncGenerator[Row, None]:
        """Iterate over the rows of a query with a cursor on the server."""
        lease, request = self._request("stream", sql, params, seconds(timeout))
        async for row in leased.stream(self._unit.executor, lease, request, batch):
            yield row

    async def prepare(self, sql: str) -> PreparedStatement:
        """Return a statement to run many times in this transaction."""
        self._unit.target.backend.statements.of(sql)
        return PreparedStatement(self, sql)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[Self]:
        """Undo only the block if it fails; the transaction goes on."""
        lease = self._unit.lease
        self._unit.executor.check_loop()
        self._savepoints += 1
        name, point = f"router_{self._savepoints}", self._unit.point()
        await self._control(lease, f"SAVEPOINT {name}")
        try:
            yield self
        except BaseException:
            if self._unit.is_open and not lease.broken and not lease.over:
                await self._control(lease, f"ROLLBACK TO SAVEPOINT {name}")
                await self._control(lease, f"RELEASE SAVEPOINT {name}")
                self._unit.back_to(point)
            raise
        if self._unit.is_open:
            await self._control(lease, f"RELEASE SAVEPOINT {name}")

    async def _control(self, lease: Lease, text: str) -> None:
        failure: RouterError
        try:
            limit = self._unit.target.placement.settings.statement_timeout
            await lease.run("control", text, None, limit=limit)
            if self._unit.audit is not None:
                self._unit.audit.trail.control(self._unit.number, text)
            return
        except RouterError as error:
            failure = self._unit.describe(error)
        raise failure


async def _undo(lease: Lease) -> None:
    """Roll back if that is possible; if not, make sure that the connection is closed."""
    if lease.broken or not lease.connection.in_transaction:
        return
    try:
        await lease.rollback()
    except RouterError:
        lease.broken = lease.broken or "rollback_failed"
