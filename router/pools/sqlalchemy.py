"""SQLAlchemy over our connections: an engine whose pool lends what a lease already holds.

The text path and SQLAlchemy share the physical connections. SQLAlchemy keeps its own entry (a
``_ConnectionRecord`` with the adapted DBAPI connection and its caches) on each connection the first time
that it meets it; our pool never learns of SQLAlchemy, and SQLAlchemy never opens or closes a connection.

For SQLAlchemy every connection is in autocommit mode, and BEGIN, COMMIT and ROLLBACK are our driver's: one
place knows whether a transaction is open, on every engine, whoever began it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, cast

from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool as SqlalchemyPool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import await_only

from router.drivers.driver import Driver
from router.errors import (
    CommitOutcomeUnknown,
    ConnectionLost,
    RouterError,
    Sent,
    StatementCancelled,
    StatementError,
)
from router.pools.lease import Lease
from router.predicates import router_error
from router.rows import Column, Result, Row, row_class
from router.statements import Dirt

_NOTHING = nullcontext()
_MEETING = 5.0  # seconds for what SQLAlchemy asks a connection when it meets it


class LentPool(SqlalchemyPool):
    """Give SQLAlchemy the connection of the lease that was put at :attr:`lease`, and nothing else."""

    _is_asyncio = True  # makes SQLAlchemy guard its first connect with a lock that fits an event loop

    def __init__(self, creator: Any, **options: Any) -> None:
        super().__init__(creator, **options)
        self.lease: Lease | None = None

    def _do_get(self) -> _ConnectionRecord:
        lease = self.lease  # once: making the first record waits for the server, and others come meanwhile
        if lease is None:
            raise RuntimeError("SQLAlchemy asked for a connection outside of a lease")
        connection = lease.connection
        if connection.record is None:
            connection.record = _ConnectionRecord(self)
        record: _ConnectionRecord = connection.record
        place = connection.binding and connection.binding[:2]  # whose rows: each run of a statement asks anew
        if record.info.get("place") != place:
            # statements prepared where names lead elsewhere would answer from other tables' types
            cache = getattr(record.dbapi_connection, "_prepared_statement_cache", None)
            if cache is not None:
                cache.clear()
            record.info["place"] = place
        record.info["lease"] = lease
        return record

    def _do_return_conn(self, record: Any) -> None:
        """Keep the record where it is: the lease gives the connection back, not SQLAlchemy."""
        record.info.pop("lease", None)

    def status(self) -> str:
        """Describe the pool for SQLAlchemy's log."""
        return "LentPool (connections belong to router)"


class _Connection(AsyncConnection):
    """A connection of SQLAlchemy's that knows when it gives the driver's own away."""

    async def get_raw_connection(self) -> Any:
        """Return what leads to the driver's connection; nobody knows what is done to that."""
        raw = await super().get_raw_connection()
        lease = _lease_of(raw)
        if lease is not None:
            lease.connection.dirt = Dirt.DISCARD
        return raw


class Bridge:
    """Hold the SQLAlchemy engine of one cluster; it costs nothing until the ORM or Core is used."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._pool = LentPool(self._create)
        # hide_parameters: bound values must not appear in SQLAlchemy's messages
        self._engine: AsyncEngine = create_async_engine(
            driver.sqlalchemy_url(), pool=self._pool, hide_parameters=True, isolation_level="AUTOCOMMIT"
        )
        dialect: Any = self._engine.dialect
        dialect.do_begin, dialect.do_commit, dialect.do_rollback = _begin, _commit, _rollback
        # After a cancellation SQLAlchemy closes the connection, in a task that outlives the request.
        dialect.do_close = dialect.do_terminate = _leave
        # What is lost the lease judges. SQLAlchemy would distrust every other connection of its pool as well,
        # and connect anew where it cannot.
        dialect.is_disconnect = _never
        # Not by SQLAlchemy's events: with a single listener every statement takes the slower of its two ways.
        dialect.do_execute = self._watched(dialect.do_execute)
        dialect.do_executemany = self._watched(dialect.do_executemany)
        dialect.do_execute_no_params = self._watched_bare(dialect.do_execute_no_params)
        self._named = type(dialect)(paramstyle="named")

    def text_of(self, construct: Any) -> str:
        """Return a Core construct as SQL text with ``:name`` parameters, for the classifier only."""
        options = {"render_postcompile": True}  # write IN lists out; the placeholder is not SQL
        return str(construct.compile(dialect=self._named, compile_kwargs=options))

    def _create(self) -> Any:
        if self._pool.lease is None:
            raise RuntimeError("SQLAlchemy asked for a new connection outside of a lease")
        return self._driver.sqlalchemy_connection(self._engine.dialect, self._pool.lease.connection)

    def _watched(self, run: Callable[..., None]) -> Callable[..., None]:
        """Return a way to run a cursor that tells the lease's watch, and puts our error on the driver's.

        SQLAlchemy raises its error from the driver's, where the predicates of ``router.errors`` find ours.
        """

        def watched(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            lease = None if context is None else _lease_of(context._dbapi_connection)
            if lease is None:  # SQLAlchemy asks the server's version
                run(cursor, statement, parameters, context)
                return
            lease.check_transaction()
            watch, kind = lease.watch, _kind(context)
            if watch is not None:
                watch.started(statement, kind)
            started = time.monotonic()
            try:
                run(cursor, statement, parameters, context)
            except Exception as exc:
                if isinstance(exc, RouterError):
                    raise
                error = lease.judge(exc.__cause__ or exc)
                if watch is not None:
                    watch.failed(statement, kind, time.monotonic() - started, error)
                told = self._told(exc, error)
                told.router_error = error
                if told is exc:
                    raise
                raise told from exc
            except BaseException:
                lease.broken = "cancelled"
                raise
            if watch is not None:
                watch.finished(statement, kind, time.monotonic() - started, cursor.rowcount)

        return watched

    def _told(self, exc: Exception, error: RouterError) -> Any:
        """Return what SQLAlchemy makes its own error of: for a lost connection always one of the driver's.

        aiomysql trips over itself where a connection is closed between two packets.
        """
        dbapi: Any = self._engine.dialect.loaded_dbapi
        if isinstance(exc, dbapi.Error) or not isinstance(error, ConnectionLost):
            return exc
        return dbapi.OperationalError(error.message)

    def _watched_bare(self, run: Callable[..., None]) -> Callable[..., None]:
        """Return the same for a way to run a cursor that takes no parameters."""
        watched = self._watched(lambda cursor, statement, _, context: run(cursor, statement, context))
        return lambda cursor, statement, context=None: watched(cursor, statement, None, context)

    async def run(self, construct: Any, params: Any, verb: str, lease: Lease, timeout: float) -> Any:
        """Run a Core construct on a lease and return what ``verb`` returns for text.

        Raises our error for SQLAlchemy's, with SQLAlchemy's as its cause.
        """
        failure: RouterError
        try:
            enclosed = lease.enclosed() if lease.connection.encloses else _NOTHING
            async with asyncio.timeout(timeout), enclosed, self.connection(lease) as connection:
                result = await connection.execute(construct, params)
                return _RESULTS[verb](result)
        except SQLAlchemyError as exc:
            failure = router_error(exc) or StatementError(
                f"SQLAlchemy refused the statement: {type(exc).__name__}", cause=exc
            )
        except TimeoutError as exc:
            failure = lease.judge(exc)
        except Exception:
            raise
        except BaseException:
            lease.broken = "cancelled"
            raise
        raise failure

    @asynccontextmanager
    async def connection(self, lease: Lease) -> AsyncIterator[AsyncConnection]:
        """Lend a lease's connection to SQLAlchemy for the length of the block."""
        connection = await self.connect(lease)
        try:
            yield connection
        finally:
            await self.disconnect(lease, connection)

    async def connect(self, lease: Lease) -> AsyncConnection:
        """Lend a lease's connection to SQLAlchemy until :meth:`disconnect`."""
        # No await between setting and taking: SQLAlchemy asks its pool synchronously, first thing.
        self._pool.lease = lease
        if lease.connection.record is not None:
            # SQLAlchemy has met this connection: nothing awaits on the way, so it needs no greenlet
            return _Connection(self._engine, self._engine.sync_engine.connect())
        connection = _Connection(self._engine)
        failure: RouterError
        try:
            async with asyncio.timeout(_MEETING):
                await connection.start()
            return connection
        except Exception as exc:
            failure = lease.judge(_vendor_s(exc))
            failure.sent = Sent.NO  # nothing of what the connection is wanted for
            lease.broken = lease.broken or "broken"  # half met
        except BaseException:
            lease.broken = "cancelled"
            raise
        raise failure

    async def disconnect(self, lease: Lease, connection: AsyncConnection) -> None:
        """Take the connection back from SQLAlchemy, rolling back what it left open."""
        known = connection.sync_connection
        if known is not None and not (lease.transactional and lease.connection.in_transaction):
            known.close()  # nothing to roll back, so nothing awaits
        else:
            await connection.close()


def _lease_of(connection: Any) -> Lease | None:
    """Return the lease behind SQLAlchemy's connection; ``None`` while it asks the server's version."""
    record = getattr(connection, "_connection_record", None)
    return None if record is None else record.info.get("lease")


def _vendor_s(exc: BaseException) -> BaseException:
    """Return the exception of the vendor's driver below SQLAlchemy's."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return exc


def _never(*_: object) -> bool:
    """See no lost connection."""
    return False


def _leave(connection: Any) -> None:
    """Leave a connection as it is: the lease gives it back, or has it closed."""


def _begin(connection: Any) -> None:
    lease = _lease_of(connection)
    if lease is not None and lease.transactional:
        started = time.monotonic()
        await_only(lease.begin())
        if lease.watch is not None:
            lease.watch.begun(time.monotonic() - started)


def _commit(connection: Any) -> None:
    lease = _lease_of(connection)
    if lease is None or not lease.transactional or not lease.connection.in_transaction:
        return
    enclosing = None if lease.watch is None else lease.watch.enclosing()
    if enclosing is not None:
        await_only(enclosing)
    failure: BaseException | None = None
    try:
        await_only(lease.commit())
    except BaseException as exc:
        failure = exc
    if lease.watch is not None:
        if isinstance(failure, CommitOutcomeUnknown):
            failure = await_only(lease.watch.settle(failure))
        lease.watch.ended(True, None if failure is None else _refusal(lease, failure))
        recorded = lease.watch.recorded()
        if recorded is not None:
            await_only(recorded)
    if failure is not None:
        raise failure


def _refusal(lease: Lease, exc: BaseException) -> RouterError | None:
    """Return what a commit that raised ended with; a cancelled one may have been applied, or not be known."""
    if isinstance(exc, RouterError):
        return exc
    if not lease.connection.in_transaction:
        return None
    if lease.broken:
        return CommitOutcomeUnknown("cancelled before the server answered the commit")
    return StatementCancelled("cancelled after the server had refused the commit")


def _rollback(connection: Any) -> None:
    lease = _lease_of(connection)
    if lease is not None and lease.transactional and lease.connection.in_transaction:
        if not lease.broken:  # else it is closed soon, which undoes the transaction as well
            await_only(lease.rollback())
        if lease.watch is not None:
            lease.watch.ended(False, None)


def _kind(context: Any) -> str:
    """Return the kind of a statement that SQLAlchemy built; text counts as other."""
    if context.isinsert or context.isupdate or context.isdelete:
        return "write"
    if context.isddl:
        return "ddl"
    return "read" if context.compiled is not None and not context.is_text else "other"


def _all(result: CursorResult[Any]) -> list[Row]:
    if not result.returns_rows:
        return []
    return cast("list[Row]", list(map(row_class(tuple(result.keys())), result.fetchall())))


def _one(result: CursorResult[Any]) -> Row | None:
    rows = _all(result)
    return rows[0] if rows else None


def _summary(result: CursorResult[Any]) -> Result:
    columns = tuple(Column(name, "unknown") for name in result.keys()) if result.returns_rows else ()  # noqa: SIM118
    key = result.inserted_primary_key if result.context.isinsert and not result.context.executemany else None
    number = key[0] if key and isinstance(key[0], int) else None
    rows = _all(result)
    return Result(result.rowcount if result.rowcount >= 0 else len(rows), number, columns, rows)


_RESULTS: dict[str, Callable[[CursorResult[Any]], Any]] = {
    "fetch_all": _all,
    "fetch_one": _one,
    "execute": _summary,
    "execute_many": lambda result: result.rowcount,
}
