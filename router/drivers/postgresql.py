"""PostgreSQL through asyncpg."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import asyncpg

from router.drivers import postgresql_outcomes, postgresql_plans
from router.drivers.driver import Connection, Driver, Endpoint, Location, Mark, Outcome, Reading
from router.drivers.postgresql_errors import translate
from router.drivers.sockets import detached, keep_alive, peer_of
from router.errors import ConnectionLost, DatabaseNotFound, RouterError, Sent, TransactionAborted
from router.identifiers import quote
from router.positions import Lsn, Position
from router.rows import Column, Result, Row
from router.statements import Dialect, Statement
from router.tenants import Placement

# DISCARD ALL without DEALLOCATE ALL and DISCARD PLANS: those would pull the prepared statements from under
# asyncpg's and SQLAlchemy's caches (error 26000 on the next use). RESET ALL leaves the role alone, hence
# SESSION AUTHORIZATION. Startup settings such as default_transaction_read_only return to what they were.
_RESET = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)
# One round trip sets the path and proves that the schema exists: PostgreSQL skips a missing schema in a
# search path silently, and an unqualified name would then fall through to the next entry.
_BIND = (
    "SELECT pg_catalog.set_config('search_path', $1, false), "
    "EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $2)"
)
# One text for both roles. A replica's timelines: the one it receives, which only pg_monitor sees, and those
# of its last restart point and of its last flush, which may be minutes old.
_PROBE = (
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
    "ELSE pg_current_wal_insert_lsn() END - '0/0', CASE WHEN pg_is_in_recovery() "
    "THEN ARRAY[(SELECT received_tli FROM pg_stat_wal_receiver), "
    "(SELECT timeline_id FROM pg_control_checkpoint()), "
    "(SELECT min_recovery_end_timeline FROM pg_control_recovery())] "
    "ELSE ARRAY[('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int] END, "
    "(SELECT system_identifier FROM pg_control_system()), "
    "current_setting('wal_block_size')::int, pg_size_bytes(current_setting('wal_segment_size'))"
)
_WAITS = 19  # the first major version that has WAIT FOR LSN
_PREPARED = 200  # prepared statements kept per connection
# How often a server at work looks whether its client is still there (PostgreSQL 14 and later).
_CHECK = {"client_connection_check_interval": "5s"}
_STALE = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.OutdatedSchemaCacheError,
)


class PostgresqlRow(asyncpg.Record):
    """asyncpg's own record with attribute access added: rows cost what the driver's cost."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the row has no column {name!r}; it has {list(self.keys())}") from None

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={value!r}' for name, value in self.items())})"


def _rowcount(status: bytes | None) -> int:
    """Return the number at the end of a command tag such as ``UPDATE 3``, or -1."""
    tail = (status or b"").rpartition(b" ")[2]
    return int(tail) if tail.isdigit() else -1


class _Prepared:
    """Hold what is known of a statement that one connection has prepared."""

    __slots__ = ("_statement", "columns", "state")

    def __init__(self, statement: Any) -> None:
        self._statement = statement  # asyncpg closes it on the server once nothing refers to it
        self.state = statement._state
        self.columns = tuple(Column(each.name, each.type.name) for each in statement.get_attributes())


class PostgresqlConnection(Connection):
    """A connection of asyncpg."""

    __slots__ = ("_history", "_kept", "_old", "_raw", "_run", "_young", "pooled")

    def __init__(self, raw: asyncpg.Connection, kept: int = _PREPARED, pooled: bool = False) -> None:
        super().__init__()
        self._raw = raw
        self._history: tuple[str, ...] | None = None  # of the server; None: transactions are not marked
        self.pooled = pooled
        # What asyncpg's fetch() does in the end. Called with a prepared statement of our own it saves four
        # coroutines and a look-up by three keys for each request, a quarter of what a small read costs.
        self._run: Any = cast("Any", raw)._protocol.bind_execute
        self._kept = kept // 2
        self._young: dict[str, _Prepared] = {}
        self._old: dict[str, _Prepared] = {}

    @property
    def driver_connection(self) -> asyncpg.Connection:
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
        statement = self._young.get(sql) or await self._prepare(sql, timeout)
        try:
            rows: list[Row] = await self._run(statement.state, args, "", 0, False, timeout)
        except _STALE:
            await self._forget()
            raise
        return rows

    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Row | None:
        statement = self._young.get(sql) or await self._prepare(sql, timeout)
        try:
            rows: list[Row] = await self._run(statement.state, args, "", 1, False, timeout)
        except _STALE:
            await self._forget()
            raise
        return rows[0] if rows else None

    async def execute(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Result:
        statement = self._young.get(sql) or await self._prepare(sql, timeout)
        try:
            rows, status, _ = await self._run(statement.state, args, "", 0, True, timeout)
        except _STALE:
            await self._forget()
            raise
        return Result(_rowcount(status), None, statement.columns, rows)

    async def _prepare(self, sql: str, timeout: float | None) -> _Prepared:
        """Return a prepared statement; two generations, so that a hit is one look-up."""
        statement = self._old.pop(sql, None) or _Prepared(await self._parse(sql, timeout))
        if not self._kept:
            return statement  # unnamed on the server, the next one takes its place
        if len(self._young) >= self._kept:
            self._old, self._young = self._young, {}
        self._young[sql] = statement
        return statement

    async def _parse(self, sql: str, timeout: float | None) -> Any:
        """Let the server prepare a statement; what is lost here has not run."""
        try:
            return await self._raw.prepare(sql, timeout=timeout)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError) as exc:
            error = translate(exc)
        if isinstance(error, ConnectionLost):
            error.sent = Sent.NO
        raise error

    async def _forget(self) -> None:
        """Drop what was prepared, and the types known, before a schema change; the next try starts anew."""
        self._young, self._old = {}, {}
        await self._raw.reload_schema_state()

    async def execute_many(self, sql: str, args: Sequence[tuple[object, ...]], timeout: float | None) -> int:
        if not args:
            return 0
        await self._raw.executemany(sql, args, timeout=timeout)
        return -1  # the protocol answers once for the whole batch, without a count

    async def execute_raw(self, text: str, timeout: float | None) -> None:
        await self._raw.execute(text, timeout=timeout)

    async def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncGenerator[list[Row], None]:
        if self.pooled:  # unnamed: what asyncpg names would stay in a session that others get next
            statement = await self._raw.prepare(sql, name="", timeout=timeout)
            cursor = await statement.cursor(*args, timeout=timeout)
        else:
            cursor = await self._raw.cursor(sql, *args, timeout=timeout)
        while rows := await cursor.fetch(batch, timeout=timeout):
            yield cast("list[Row]", rows)

    async def begin(self, *, readonly: bool, isolation: str | None, timeout: float | None) -> None:
        text = "BEGIN"
        if isolation is not None:
            text += f" ISOLATION LEVEL {isolation.upper()}"
        self.mark = None
        if readonly or self._history is None:
            await self._raw.execute(text + (" READ ONLY" if readonly else ""), timeout=timeout)
            return
        await self._raw.execute(text + postgresql_outcomes.TELL, timeout=timeout)
        told = postgresql_outcomes.told(self._raw.get_settings().application_name)
        self.mark = Mark(told, self._history) if told else None

    async def mark_transactions(self, timeout: float) -> None:
        """Learn the number of each transaction that begins from now on, for :meth:`outcome`."""
        self._history = await postgresql_outcomes.history(self._raw, timeout)

    async def outcome(self, mark: Mark, timeout: float | None) -> Outcome:
        return await postgresql_outcomes.outcome(self._raw, mark, timeout)

    async def plan(self, sql: str, parameters: int, timeout: float) -> str:
        return await postgresql_plans.plan(self._raw, sql, parameters, timeout)

    async def control(self, text: str, timeout: float | None) -> None:
        await self._raw.execute(text, timeout=timeout)

    async def commit(self, timeout: float | None) -> None:
        # a transaction that an error has aborted answers COMMIT with ROLLBACK, and with no error
        if await self._raw.execute("COMMIT", timeout=timeout) == "ROLLBACK":
            raise TransactionAborted(
                "the commit was answered with a rollback, since a statement of the transaction had failed. "
                "Put a statement that may fail inside of savepoint()"
            )

    async def bind(self, endpoint: Endpoint, binding: str | None, timeout: float) -> None:
        if binding is None:
            await self._raw.execute("RESET search_path", timeout=timeout)
            return
        path = ", ".join(quote(schema, '"') for schema in (binding, *endpoint.extensions))
        row = await self._raw.fetchrow(_BIND, path, binding, timeout=timeout)
        if row is None or not row[1]:
            raise DatabaseNotFound(
                f"schema {binding!r} does not exist in database {endpoint.database!r}. "
                "Create it, or correct the tenant's configuration"
            )

    async def reset(self, timeout: float) -> None:
        if not self.pooled:  # there the session is no longer ours, and nothing was changed in it
            await self._raw.execute(_RESET, timeout=timeout)

    async def probe(self) -> Reading:
        row = await self._raw.fetchrow(_PROBE)
        if row is None:
            raise ConnectionLost("the server answered a probe with nothing")
        standby, position, timelines, identity, block, segment = row
        where: Lsn | None = None
        if position is not None:
            where = Lsn(int(position)) if standby else Lsn.of_insert(int(position), block, int(segment))
        name = None if identity is None else str(identity)
        if standby:
            return Reading(
                False, where, None, name, follows=frozenset(str(each) for each in timelines if each)
            )
        return Reading(True, where, timelines[0], name, str(timelines[0]))

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
        self._run = _refuse
        return detached(raw._transport)


async def _refuse(*args: object) -> Any:
    raise asyncpg.InterfaceError("connection is closed")


class PostgresqlDriver(Driver):
    """Serve PostgreSQL: a database has its pool, a schema is a search path."""

    name = "asyncpg"
    dialect = Dialect.POSTGRESQL
    probes = True
    plans = True

    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        pooled = endpoint.setup.pooled
        options: dict[str, Any] = {**endpoint.options, **({"statement_cache_size": 0} if pooled else {})}
        settings = {**_settings(endpoint), **options.pop("server_settings", {})}
        try:
            raw = await _connect(endpoint, timeout, settings, options)
        except (asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError):
            # an older server or a relative of PostgreSQL's does not have it, another system cannot do it
            without = {name: value for name, value in settings.items() if name not in _CHECK}
            raw = await _connect(endpoint, timeout, without, options)
        connection = PostgresqlConnection(raw, options.get("statement_cache_size", _PREPARED), pooled)
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
        return Location(placement.database, placement.physical)

    def text_for(self, statement: Statement, binding: str | None) -> str:
        # A prepared statement remembers types and plans of the schema it was prepared under. The same text
        # under two search paths would be planned anew at each change, and fails where the schemas have
        # enums of their own. The comment gives each schema its own prepared statement; it stands last so that
        # positions in error messages stay right, on a line of its own in case the text ends in a comment.
        return statement.sql if binding is None else f"{statement.sql}\n/*{binding}*/"

    def sqlalchemy_url(self) -> str:
        return "postgresql+asyncpg://"

    def sqlalchemy_connection(self, dialect: Any, connection: Connection) -> Any:
        from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection

        adapt: Any = AsyncAdapt_asyncpg_connection
        return adapt(dialect.loaded_dbapi, connection.driver_connection)


def _settings(endpoint: Endpoint) -> dict[str, str]:
    """Return the settings that a session starts with; a reset of it returns to them."""
    # the lexer reads a backslash in a plain string as itself
    settings = {"application_name": endpoint.application, "standard_conforming_strings": "on"}
    if endpoint.setup.pooled:
        return settings  # PgBouncer keeps track of these two, and refuses a client that asks for others
    if endpoint.readonly:
        settings["default_transaction_read_only"] = "on"
    if endpoint.setup.wall is not None:
        settings["statement_timeout"] = f"{endpoint.setup.wall * 1000:.0f}"
    return {**settings, **_CHECK}


async def _connect(
    endpoint: Endpoint, timeout: float, settings: dict[str, str], options: dict[str, Any]
) -> asyncpg.Connection:
    connect: Any = asyncpg.connect  # its stubs know neither record_class nor a TLS mode as text
    raw: asyncpg.Connection = await connect(
        host=endpoint.node.host,
        port=endpoint.node.port,
        user=endpoint.login.username,
        password=await endpoint.login.password(),
        database=endpoint.database,
        # False, not None: asyncpg reads None as "prefer", which may fall back to plain text
        ssl=False if endpoint.tls is None else endpoint.tls,
        timeout=timeout,
        server_settings=settings,
        record_class=PostgresqlRow,
        **options,
    )
    keep_alive(cast("Any", raw)._transport)
    return raw
