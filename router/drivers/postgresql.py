"""PostgreSQL through asyncpg."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

import asyncpg

from router.drivers import postgresql_outcomes, postgresql_plans, postgresql_progress
from router.drivers.driver import (
    UNSURE,
    Binding,
    Connection,
    Driver,
    Endpoint,
    Location,
    Mark,
    Outcome,
    Reading,
)
from router.drivers.postgresql_along import WORKS, Trust
from router.drivers.postgresql_binding import Bound, place_of, shares
from router.drivers.postgresql_errors import translate
from router.drivers.postgresql_opening import session
from router.drivers.postgresql_prepared import DOUBTFUL, Kept, Prepared, Trial
from router.drivers.postgresql_shapes import Shapes
from router.drivers.sockets import Answer, corkable, detached, peer_of, together
from router.errors import (
    DatabaseNotFound,
    PermissionDenied,
    RouterError,
    Sent,
    TransactionAborted,
)
from router.positions import Lsn, Position
from router.rows import Result, Row
from router.statements import Dialect
from router.tenants import Placement
from router.topology import Node

# DISCARD ALL without DEALLOCATE ALL and DISCARD PLANS: those would pull the prepared statements from under
# asyncpg's and SQLAlchemy's caches (error 26000 on the next use). RESET ALL leaves the role alone, hence
# SESSION AUTHORIZATION. Startup settings such as default_transaction_read_only return to what they were.
_RESET = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)
_WAITS = 19  # the first major version that has WAIT FOR LSN
_PREPARED = 200  # prepared statements kept per connection


def _rowcount(status: bytes | None) -> int:
    """Return the number at the end of a command tag such as ``UPDATE 3``, or -1."""
    tail = (status or b"").rpartition(b" ")[2]
    return int(tail) if tail.isdigit() else -1


class PostgresqlConnection(Connection):
    """A connection of asyncpg."""

    __slots__ = (
        "_ahead", "_bare", "_bound", "_here", "_history", "_kept", "_link", "_raw", "_run", "_scope", "_sent",
    )  # fmt: skip

    def __init__(self, raw: asyncpg.Connection, kept: Kept, bound: Bound) -> None:
        super().__init__()
        self._raw = raw
        self._bound = bound
        self._history: tuple[str, ...] | None = None  # of the server; None: transactions are not marked
        self._scope = ""  # follows each BEGIN
        # What asyncpg's fetch() does in the end. Called with a prepared statement of our own it saves four
        # coroutines and a look-up by three keys for each request, a quarter of what a small read costs.
        self._run: Any = cast("Any", raw)._protocol.bind_execute
        self._bare = self._run
        self._ahead: tuple[Endpoint, Binding, bytes] | None = None  # what the next statement binds to
        self._sent: tuple[Endpoint, Binding] | None = None  # the same, under way: no statement has run since
        self._link = corkable(cast("Any", raw)._transport)
        self._kept = kept
        self._here = kept.here

    @property
    def driver_connection(self) -> asyncpg.Connection:
        if self._ahead is not None:
            raise RuntimeError("the session has yet to be bound: who sends something else would miss that")
        return self._raw

    @property
    def closed(self) -> bool:
        raw: Any = self._raw
        return raw._aborted or not raw._protocol.is_connected()  # its is_closed(), asked twice a request

    @property
    def peer(self) -> str | None:
        raw: Any = self._raw
        return peer_of(raw._transport)

    async def fetch_all(self, sql: str, args: tuple[object, ...], timeout: float | None) -> list[Row]:
        statement = self._here.get(sql) or await self._prepare(sql, args, timeout)
        try:
            rows: list[Row] = await self._run(statement.state, args, "", 0, False, timeout)
        except DOUBTFUL as exc:
            await self._kept.doubt(sql, exc)
            raise
        return rows

    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Row | None:
        statement = self._here.get(sql) or await self._prepare(sql, args, timeout)
        try:
            rows: list[Row] = await self._run(statement.state, args, "", 1, False, timeout)
        except DOUBTFUL as exc:
            await self._kept.doubt(sql, exc)
            raise
        return rows[0] if rows else None

    async def execute(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Result:
        statement = self._here.get(sql) or await self._prepare(sql, args, timeout)
        try:
            rows, status, _ = await self._run(statement.state, args, "", 0, True, timeout)
        except DOUBTFUL as exc:
            await self._kept.doubt(sql, exc)
            raise
        return Result(_rowcount(status), None, statement.columns, rows)

    async def _prepare(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Prepared:
        found = self._kept.ready(sql, self.dirt)
        if found is not None:
            return found
        failure: Exception
        try:
            found = await self._behind(self._kept.prepare(sql, args, timeout, self.dirt))
        except Exception as exc:
            failure = exc
        else:
            if self._kept.trial is not None:
                self._run = partial(self._try, self._kept.trial, self._run)
            return found
        await self._bind_anew()
        raise failure

    async def _try(self, trial: Trial, run: Any, state: Any, *rest: Any) -> Any:
        """Run a statement of another place; if it does not fit it has not run, and one of this place does."""
        self._run, fits = self._bare, True
        try:
            answer = await run(state, *rest)
        except asyncpg.InvalidCachedStatementError:
            fits = False
        found = await self._kept.tried(trial, fits, rest[-1])
        return answer if fits else await self._bare(found.state, *rest)

    async def execute_many(self, sql: str, args: Sequence[tuple[object, ...]], timeout: float | None) -> int:
        if not args:
            return 0
        await self._bind_now(timeout)
        await self._raw.executemany(self._kept.text(sql), args, timeout=timeout)
        return -1  # the protocol answers once for the whole batch, without a count

    async def execute_raw(self, text: str, timeout: float | None) -> None:
        await self._bind_now(timeout)
        await self._raw.execute(text, timeout=timeout)

    async def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncGenerator[list[Row], None]:
        await self._bind_now(timeout)
        cursor = await self._raw.cursor(self._kept.text(sql), *args, timeout=timeout)
        while rows := await cursor.fetch(batch, timeout=timeout):
            yield cast("list[Row]", rows)

    async def begin(self, *, readonly: bool, isolation: str | None, timeout: float | None) -> None:
        text = "BEGIN"
        if isolation is not None:
            text += f" ISOLATION LEVEL {isolation.upper()}"
        self.mark = None
        await self._bind_now(timeout)
        if readonly or self._history is None:
            text += " READ ONLY" if readonly else ""
            await self._begin(text + self._scope, timeout)
            return
        await self._begin(text + self._scope + postgresql_outcomes.TELL, timeout)
        told = postgresql_outcomes.told(self._raw.get_settings().application_name)
        self.mark = Mark(told, self._history) if told else None

    async def _begin(self, text: str, timeout: float | None) -> None:
        """Begin, also behind a statement that was prepared and never run, as one with a value that is wrong.

        asyncpg prepares without a Sync. Until the next one all is a transaction, which has its level already.
        """
        try:
            await self._raw.execute(text, timeout=timeout)
        except asyncpg.ActiveSQLTransactionError:
            await self._raw.execute("ROLLBACK", timeout=timeout)
            await self._raw.execute(text, timeout=timeout)

    async def mark_transactions(self, timeout: float) -> None:
        """Learn the number of each transaction that begins from now on, for :meth:`outcome`."""
        self._history = await postgresql_outcomes.history(self._raw, timeout)

    async def outcome(self, mark: Mark, timeout: float | None) -> Outcome:
        return await postgresql_outcomes.outcome(self._raw, mark, timeout)

    async def plan(self, sql: str, parameters: int, timeout: float) -> str:
        return await postgresql_plans.plan(self._raw, sql, parameters, timeout)

    async def control(self, text: str, timeout: float | None) -> None:
        await self._bind_now(timeout)
        await self._raw.execute(text, timeout=timeout)

    async def commit(self, timeout: float | None) -> None:
        # a transaction that an error has aborted answers COMMIT with ROLLBACK, and with no error
        if await self._raw.execute("COMMIT", timeout=timeout) == "ROLLBACK":
            raise TransactionAborted(
                "the commit was answered with a rollback, since a statement of the transaction had failed. "
                "Put a statement that may fail inside of savepoint()"
            )

    async def bind(self, endpoint: Endpoint, binding: Binding | None, timeout: float | None) -> None:
        self._unbind()
        await self._bound.bind(self._raw, endpoint, binding, timeout)
        self._kept.move(place_of(binding), shares=shares(binding))

    async def reset(self, timeout: float) -> None:
        await self._raw.execute(_RESET, timeout=timeout)
        self._unbind()
        self._bound.reset()

    def _unbind(self) -> None:
        self._run, self._ahead, self._sent = self._bare, None, None
        self._kept.move()

    def bind_along(self, endpoint: Endpoint, binding: Binding | None) -> bool:
        if not WORKS or self.dirt or self.closed or self._raw.is_in_transaction():
            return False
        messages = self._bound.along(endpoint, binding)
        if binding is None or messages is None:
            return False
        self.binding = UNSURE
        self._kept.move(place_of(binding), shares=shares(binding))
        self._run, self._ahead = self._run_behind, (endpoint, binding, messages)
        return True

    def _behind(self, then: Awaitable[Answer]) -> Awaitable[Answer]:
        """Let what asyncpg sends at once go behind what binds the session, if that was left to it."""
        if self._ahead is None:
            return then
        endpoint, binding, messages = self._ahead
        self._ahead, self._sent = None, (endpoint, binding)
        return together(cast("Any", self._raw)._transport, self._link, messages, then)

    async def _run_behind(self, *statement: Any) -> Any:
        """Run the statement that ends the transaction in which the session is bound."""
        self._run = self._bare
        failure: Exception
        try:
            answer = await self._behind(self._bare(*statement))
        except Exception as exc:
            failure = exc
        else:
            if self._sent is not None:
                endpoint, self.binding = self._sent
                self._bound.confirm(endpoint, self.binding)
                self._sent = None
            return answer
        await self._bind_anew()
        raise failure

    async def _bind_anew(self) -> None:
        """See how the session is bound after an error behind what has bound it.

        Raises:
            RouterError: the server has undone both, and the place is not the tenant's any more.
        """
        sent, self._sent, self._run = self._sent, None, self._bare
        if sent is None or self.closed:
            return
        endpoint, binding = sent
        try:
            self._bound.distrust(binding)
            await self._bind_first(endpoint, binding, None)
        except (DatabaseNotFound, PermissionDenied):
            raise
        except (RouterError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return  # the session stays unsure; what became of the statement is told by its own failure

    async def _bind_now(self, timeout: float | None) -> None:
        """Bind the session with a round trip of its own, if that was left to a statement."""
        if self._ahead is not None:
            endpoint, binding, _ = self._ahead
            await self._bind_first(endpoint, binding, timeout)

    async def _bind_first(self, endpoint: Endpoint, binding: Binding | None, timeout: float | None) -> None:
        """Bind the session with a statement's own round trip; its failure is that of the statement."""
        try:
            await self.bind(endpoint, binding, timeout)
        except RouterError as exc:
            exc.sent = Sent.NO
            raise
        self.binding = binding

    async def probe(self) -> Reading:
        return await postgresql_progress.reading(self._raw)

    async def reach(self, goal: Position, seconds: float) -> bool:
        if not isinstance(goal, Lsn):
            return False
        if self._raw.get_server_version().major < _WAITS:
            return await super().reach(goal, seconds)
        # A position is syntax there, not a parameter; ours is made of two numbers. It must not run inside of
        # a transaction that holds a snapshot, and does not: reads ask before they begin.
        limit = max(int(seconds * 1000), 1)
        answer = await self._raw.fetchval(f"WAIT FOR LSN '{goal}' WITH (TIMEOUT '{limit}ms', NO_THROW)")
        return bool(answer == "success")

    async def close(self, timeout: float) -> None:
        await self._raw.close(timeout=timeout)

    def terminate(self) -> None:
        self._raw.terminate()

    def detach(self) -> Any:
        raw: Any = self._raw
        raw._aborted = True  # now it counts as closed, for asyncpg too
        self._run = self._bare = _refuse
        return detached(raw._transport)


async def _refuse(*args: object) -> Any:
    raise asyncpg.InterfaceError("connection is closed")


class PostgresqlDriver(Driver):
    """Serve PostgreSQL: a database has its pool, a schema is a search path."""

    name = "asyncpg"
    dialect = Dialect.POSTGRESQL
    probes = True
    plans = True

    def __init__(self) -> None:
        # For as long as there are connections. Each server knows its own: a replica may be behind with a
        # change of a schema.
        self._shapes: WeakValueDictionary[tuple[Node, str], Shapes] = WeakValueDictionary()
        self._trust: WeakValueDictionary[tuple[Node, str, str], Trust] = WeakValueDictionary()

    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        pooled = endpoint.setup.pooled
        options: dict[str, Any] = {**endpoint.options, **({"statement_cache_size": 0} if pooled else {})}
        raw = await session(endpoint, timeout, options)
        if pooled:
            from router.drivers.postgresql_pooled import PooledConnection  # is built on this module

            connection: PostgresqlConnection = PooledConnection(raw)
        else:
            node, database, user = endpoint.node, endpoint.database, endpoint.login.username
            shapes = self._shapes.setdefault((node, database), Shapes())
            trust = self._trust.setdefault((node, database, user), Trust())
            kept = Kept(raw, options.get("statement_cache_size", _PREPARED), shapes)
            connection = PostgresqlConnection(raw, kept, Bound(trust))
        if endpoint.setup.resolve and not endpoint.readonly:
            try:
                await connection.mark_transactions(timeout)
            except BaseException:
                connection.terminate()
                raise
        return connection

    def translate(self, exc: BaseException) -> RouterError:
        return translate(exc)

    def locate(self, placement: Placement) -> Location:
        setting, value = placement.row or (None, None)
        bound = Binding(placement.physical, placement.role, setting, value)
        return Location(placement.database, bound if any(bound) else None)

    def sqlalchemy_url(self) -> str:
        return "postgresql+asyncpg://"

    def sqlalchemy_connection(self, dialect: Any, connection: Connection) -> Any:
        from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection

        adapt: Any = AsyncAdapt_asyncpg_connection
        return adapt(dialect.loaded_dbapi, connection.driver_connection)
