"""A session: one tenant's conversation. It remembers what it wrote and which replica it reads from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from router import proving
from router.auditing import note
from router.backend import Target
from router.cache.shown import Shown
from router.caching import read
from router.causality import After
from router.consistency import Bounded, Consistency
from router.context import Context, named, renewed
from router.errors import (
    RouterClosed,
    TransactionStateError,
    UsageError,
)
from router.execution import Executor
from router.frontier import Frontier
from router.pools.lease import Lease
from router.queries import Level, Options, Params, PreparedStatement, Queries, level, seconds
from router.reasons import Reason
from router.repeating import whole
from router.requests import Request, raw_statement, request_for
from router.rows import Row
from router.statements import Statement
from router.transaction import Transaction
from router.units import Unit

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

_BOUNDED = Consistency.BOUNDED
_FETCHES = frozenset({"fetch_all", "fetch_one"})
P = ParamSpec("P")
T = TypeVar("T")


class Session(Frontier, Queries):
    """Run a tenant's statements; make one for each request of the application, in the task that uses it.

    Outside of a transaction each statement commits by itself. Reads go to one replica, until the session
    writes: from then on it reads where its writes are seen. Inside of ``begin()`` or ``transaction()`` the
    session's own methods run in the transaction.
    """

    __slots__ = ("_closed", "_consistency", "_executor", "_said", "_target", "_timeout", "_transaction")

    def __init__(
        self,
        executor: Executor,
        target: Target,
        *,
        consistency: Level = None,
        timeout: float | None = None,
        context_id: str | None = None,
        after: After = None,
    ) -> None:
        Frontier.__init__(self)
        self._executor = executor
        self._target = target
        settings = target.placement.settings
        if consistency is None:
            consistency = settings.consistency
            if consistency is _BOUNDED:
                consistency = settings.bounded
        else:
            consistency = level(consistency, settings.bounded)
        self._consistency: Consistency | Bounded = consistency
        self._timeout = None if timeout is None else seconds(timeout)
        self._said = named(context_id)
        self._transaction: Transaction | None = None
        self._closed = False
        if executor.cache.active:
            self.shown = Shown()
        if after is not None:
            executor.causality.follow(self, target, after)

    @property
    def tenant(self) -> str:
        """Return the tenant's id."""
        return self._target.placement.tenant

    @property
    def schema(self) -> str | None:
        """Return the logical schema, ``None`` for the tenant's main one."""
        return self._target.placement.schema

    @property
    def _context(self) -> Context | None:
        """Return what to stamp events with; ``None`` leaves it to who tells them."""
        return None if self._said is None else renewed(self._said)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "in a transaction" if self._current() is not None else "open"
        place = self.tenant if self.schema is None else f"{self.tenant}/{self.schema}"
        return f"<Session {place} {state}{', wrote' if self.wrote else ''}>"

    # --- life --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        open_ = self._current()
        self._closed = True
        self._transaction = None
        if open_ is None:
            return
        # begin() without commit(): the block decides, as everywhere
        if exc is None:
            await open_.commit()
        else:
            await open_.rollback(exc)

    async def close(self) -> None:
        """Roll back what is open and refuse further use; closing twice is harmless."""
        open_ = self._current()
        self._closed = True
        self._transaction = None
        if open_ is not None:
            await open_.rollback()

    def _current(self) -> Transaction | None:
        """Return the open transaction, if there is one."""
        transaction = self._transaction
        return transaction if transaction is not None and transaction.is_open else None

    def _check_open(self) -> None:
        if self._closed:
            raise RouterClosed("the session is closed. Open a new one").at(tenant=self.tenant)

    async def token(self) -> str:
        """Return a token of all that the session has written and read, for ``after=`` in another process.

        It takes one round trip at most, none if a probe since then knows. It is text for a header, a cookie
        or a message, see :mod:`router.carrying`. Within the process ``after=session`` does the same for free.

        Raises:
            TransactionStateError: a transaction is open; what it writes has no position before its commit.
            UsageError: no key to sign with is configured.
            NoPrimary, ConnectError, StatementTimeout: the server could not be asked.
        """
        self._check_open()
        open_ = self._current()
        if open_ is not None and not open_.unit.readonly:
            raise TransactionStateError(
                "a transaction is open, whose writes no token can stand for. Take the token after its commit"
            ).at(tenant=self.tenant)
        executor = self._executor
        executor.check_loop()
        limit = self._timeout or self._target.placement.settings.acquire_timeout
        return await executor.causality.token(self, self._target, executor.clock() + limit)

    # --- statements --------------------------------------------------------------------------------------

    def _run(self, verb: str, sql: Any, params: Any, given: Options) -> Coroutine[Any, Any, Any]:
        if self._closed:
            self._check_open()
        if self._transaction is not None and (open_ := self._current()) is not None:
            return open_._run(verb, sql, params, given)
        if given.cache is not None or self._target.caches:
            if verb in _FETCHES and sql.__class__ is str:
                return read(
                    self._executor,
                    self._target,
                    self,
                    verb,
                    sql,
                    params,
                    given,
                    self._consistency,
                    self._context,
                    self._request,
                )
            if given.cache and verb not in _FETCHES:
                raise UsageError(f"cache= is for what fetches rows, not for {verb}()").at(tenant=self.tenant)
        return self._executor.run(self._request(verb, sql, params, given))

    def _request(self, verb: str, sql: Any, params: Any, given: Options) -> Request:
        target = self._target
        request = request_for(target, self, verb, sql, params, self._executor.clock())
        settings = target.placement.settings
        limit = given.timeout or self._timeout or settings.acquire_timeout + settings.statement_timeout
        request.deadline += limit
        request.intent = given.intent
        request.consistency = self._consistency
        if given.consistency is not None:
            request.consistency = level(given.consistency, settings.bounded)
        request.idempotent = given.idempotent
        request.context = self._context
        return request

    async def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        batch: int = 500,
        readonly: bool = False,
        timeout: float | None = None,
    ) -> AsyncGenerator[Row, None]:
        """Iterate over the rows of a query with a cursor on the server; memory stays constant.

        Outside of a transaction it runs in one of its own, on a replica if ``readonly`` or a proven read.
        """
        self._check_open()
        open_ = self._current()
        if open_ is None:
            request = self._request("stream", sql, params, Options(timeout=seconds(timeout)))
            proven = readonly or proving.known(request.statement, self._target) is Reason.READ
            # not the session's own transaction: the loop's body may write through the session
            async with Transaction(self._unit(proven, None, timeout)) as own:
                async for row in own.stream(sql, params, batch=batch, timeout=timeout):
                    yield row
        else:
            async for row in open_.stream(sql, params, batch=batch, timeout=timeout):
                yield row

    async def prepare(self, sql: str) -> PreparedStatement:
        """Return a statement to run many times."""
        self._check_open()
        self._target.backend.statements.of(sql)
        return PreparedStatement(self, sql)

    # --- transactions ------------------------------------------------------------------------------------

    def transaction(
        self, *, readonly: bool = False, isolation: str | None = None, timeout: float | None = None
    ) -> Transaction:
        """Return a transaction to use with ``async with``; ``readonly`` may use one replica.

        Raises:
            TransactionStateError: the session is in a transaction already; use ``savepoint()`` there.
        """
        self._check_open()
        if self._current() is not None:
            raise TransactionStateError(
                "the session is in a transaction already. Use its savepoint() for a part that may fail"
            ).at(tenant=self.tenant)
        unit = self._unit(readonly, isolation, timeout)
        self._transaction = Transaction(unit)
        return self._transaction

    def _unit(self, readonly: bool, isolation: str | None, timeout: float | None) -> Unit:
        return Unit(
            self._executor,
            self._target,
            self,
            self._consistency,
            readonly,
            isolation,
            seconds(timeout) or self._timeout,
            self._context,
        )

    async def begin(self, *, readonly: bool = False, isolation: str | None = None) -> Transaction:
        """Begin a transaction; until ``commit()`` or ``rollback()`` the session's statements run in it."""
        transaction = self.transaction(readonly=readonly, isolation=isolation)
        await transaction.begin()
        return transaction

    async def commit(self) -> None:
        """Commit the transaction that ``begin()`` opened."""
        await self._open("commit").commit()

    async def rollback(self) -> None:
        """Roll back the transaction that ``begin()`` opened."""
        await self._open("roll back").rollback()

    def _raw(self, text: str) -> Statement:
        return raw_statement(text, self._target.backend.driver.dialect)

    def _open(self, verb: str) -> Transaction:
        self._check_open()
        open_ = self._current()
        if open_ is None:
            raise TransactionStateError(f"there is no transaction to {verb}. Call begin() first").at(
                tenant=self.tenant
            )
        return open_

    async def run(
        self, function: Callable[Concatenate[Transaction, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function(tx, ...)`` in a transaction; run it whole again after a conflict.

        A deadlock, a serialization failure, a lock that did not come free, a connection lost before the
        commit was sent, or a commit that the server says it has rolled back undo everything that the
        transaction did, so running it again is safe. What the function does outside of the database is done
        again as well. Never repeated: an unknown outcome.
        """

        async def once() -> T:
            async with self.transaction() as transaction:
                transaction.unit.retried = False
                return await function(transaction, *args, **kwargs)

        return await whole(self._executor, self._target, once, self._timeout)

    @asynccontextmanager
    async def orm(self, *, readonly: bool = False, **options: Any) -> AsyncIterator[AsyncSession]:
        """Yield SQLAlchemy's ``AsyncSession`` on one connection of the router's pools.

        On the primary, or with ``readonly`` on one replica; in the session's transaction if one is open.
        Commits at the end of the block, rolls back on an error. ``options`` go to ``AsyncSession``.
        """
        from router.orm import orm_session

        self._check_open()
        open_ = self._current()
        unit = open_.unit if open_ is not None else self._unit(readonly, None, None)
        async with orm_session(unit, options) as session:
            yield session

    @asynccontextmanager
    async def connection(self, *, readonly: bool = False) -> AsyncIterator[Lease]:
        """Lend one connection; ``lease.connection.driver_connection`` is the driver's own.

        Bound to the tenant. Closed afterwards rather than reused, since its session may have been changed.
        """
        self._check_open()
        unit = self._unit(readonly, None, None)
        if self._target.backend.pooled and self._target.binding is not None:
            raise UsageError(
                "the cluster's pooler gives each transaction another session, so a connection by itself is "
                "not the tenant's. Use transaction(): unit.lease.connection.driver_connection is the driver's"
            ).at(tenant=self.tenant)
        if unit.audit is not None:
            unit.audit.admit()
            await note(self._executor, self._target, self._raw("(lent)"), self._context)
        await unit.open(begin=False)
        unit.lease.broken = "lent"
        if self._executor.cache.active and not readonly:
            unit.mark(self._raw("(lent)"))
        try:
            yield unit.lease
        finally:
            unit.close(wrote=not readonly)
