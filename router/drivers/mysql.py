"""MySQL and MariaDB through aiomysql."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import uuid
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any, cast

import aiomysql
import pymysql
from pymysql.constants import CLIENT, FIELD_TYPE

from router.drivers.driver import Connection, Driver, Endpoint, Location
from router.drivers.mysql_errors import translate
from router.errors import ConfigurationError, Deadlock, Problem, RouterError, SerializationFailure
from router.rows import Column, Result, Row, row_class
from router.statements import Dialect
from router.tenants import Placement

# Undoes user variables, temporary tables, locks and session settings in one round trip; MySQL 5.7.3 and
# MariaDB 10.2.4 know it. aiomysql has no method for it (MySQL internals manual, COM_RESET_CONNECTION).
_COM_RESET_CONNECTION = 0x1F
_NO_SUCH_THREAD = 1094  # the session has ended by itself
_READ_ONLY = "SET SESSION TRANSACTION READ ONLY"
# Modes under which "x" is a name, or a backslash in a string is itself; the last ones switch those on.
_UNREADABLE = frozenset(
    {"ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI", "ORACLE", "MSSQL", "DB2", "POSTGRESQL", "MAXDB"}
)
_SENDABLE = frozenset(
    {int, float, str, bytes, bytearray, bool, type(None), decimal.Decimal}
    | {datetime.datetime, datetime.date, datetime.time, datetime.timedelta}
)
_TYPE_NAMES = {value: name.lower() for name, value in vars(FIELD_TYPE).items() if isinstance(value, int)}


class MysqlConnection(Connection):
    """A connection of aiomysql."""

    interleaves = False  # a running statement's rows come before anything else on the wire

    __slots__ = ("_initial", "_raw", "_readonly", "_server")

    def __init__(self, raw: aiomysql.Connection, initial: str, readonly: bool) -> None:
        super().__init__()
        self._raw = raw
        self._initial = initial
        self._readonly = readonly
        self._server: tuple[object, ...] = ()  # which server this is, whatever name it was reached by

    @property
    def driver_connection(self) -> aiomysql.Connection:
        return self._raw

    @property
    def closed(self) -> bool:
        reader = self._raw._reader
        return bool(self._raw.closed or reader is None or reader.at_eof() or reader.eof_received)

    async def _run(self, sql: str, args: tuple[object, ...], timeout: float | None) -> aiomysql.Cursor:
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self._run(sql, args, None)
        cursor = await self._raw.cursor()
        await cursor.execute(sql, _adapted(args) or None)
        return cursor

    async def fetch_all(self, sql: str, args: tuple[object, ...], timeout: float | None) -> list[Row]:
        return _rows(await self._run(sql, args, timeout))

    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Row | None:
        rows = _rows(await self._run(sql, args, timeout))
        return rows[0] if rows else None

    async def execute(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Result:
        cursor = await self._run(sql, args, timeout)
        described = cursor.description or ()
        columns = tuple(Column(each[0], _TYPE_NAMES.get(each[1], "unknown")) for each in described)
        # insert_id is 0 where no key was generated
        return Result(cursor.rowcount, cursor.lastrowid or None, columns, _rows(cursor))

    async def execute_many(self, sql: str, args: Sequence[tuple[object, ...]], timeout: float | None) -> int:
        rows = [_adapted(each) for each in args]
        async with asyncio.timeout(timeout):
            if self.in_transaction:
                return await self._batch(sql, rows)
            # the batch may go out as several statements, each of which would commit by itself
            await self._raw.query("START TRANSACTION")
            try:
                changed = await self._batch(sql, rows)
            except Exception:
                await self._undo()
                raise
            await self._raw.query("COMMIT")
        return changed

    async def _undo(self) -> None:
        try:
            await self._raw.query("ROLLBACK")
        except Exception:  # closing undoes it too; the caller raises what went wrong first
            self._raw.close()

    async def _batch(self, sql: str, rows: Sequence[tuple[object, ...]]) -> int:
        cursor = await self._raw.cursor()
        return int(await cursor.executemany(sql, rows) or 0)

    async def execute_raw(self, text: str, timeout: float | None) -> None:
        async with asyncio.timeout(timeout):
            cursor = await self._raw.cursor()
            await cursor.execute(text)
            while await cursor.nextset():
                pass

    async def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncGenerator[list[Row], None]:
        async with asyncio.timeout(timeout):
            cursor = await self._raw.cursor(aiomysql.SSCursor)
            await cursor.execute(sql, _adapted(args) or None)
        made = row_class(tuple(each[0] for each in cursor.description or ()))
        while True:
            async with asyncio.timeout(timeout):
                rows = await cursor.fetchmany(batch)
            if not rows:
                break
            yield cast("list[Row]", list(map(made, rows)))
        await cursor.close()

    async def begin(self, *, readonly: bool, isolation: str | None, timeout: float | None) -> None:
        if isolation is not None:
            await self.control(f"SET TRANSACTION ISOLATION LEVEL {isolation.upper()}", timeout)
        await self.control("START TRANSACTION READ ONLY" if readonly else "START TRANSACTION", timeout)

    async def control(self, text: str, timeout: float | None) -> None:
        async with asyncio.timeout(timeout):
            await self._raw.query(text)

    def survives(self, error: RouterError) -> bool:
        # these roll the whole transaction back, savepoints included (MariaDB manual, "InnoDB Lock Modes")
        return not isinstance(error, Deadlock | SerializationFailure)

    async def bind(self, endpoint: Endpoint, binding: str | None, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._raw.select_db(binding or self._initial)

    async def reset(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._raw._execute_command(_COM_RESET_CONNECTION, b"")
            await self._raw._read_ok_packet()
            await self._raw.set_charset(self._raw.charset)
            # the reset went back to the server's default, which may be off: writes would not be committed
            await self._raw.query("SET SESSION autocommit = 1")
            # aiomysql runs these options of the configuration at connect only
            if self._raw.sql_mode is not None:
                await self._raw.query(f"SET sql_mode={self._raw.sql_mode}")
            if self._raw.init_command is not None:
                await self._raw.query(self._raw.init_command)
        await self.set_up(timeout)

    async def set_up(self, timeout: float) -> None:
        """Set what a fresh session needs: strings as the lexer and the driver read them, and read-only."""
        async with asyncio.timeout(timeout):
            await self._raw.query("SELECT @@SESSION.sql_mode, @@hostname, @@port, @@server_id")
            mode, *server = self._raw._result.rows[0]
            self._server = tuple(server)
            modes = str(mode).split(",")
            if not _UNREADABLE.isdisjoint(modes):
                kept = ",".join(mode for mode in modes if mode not in _UNREADABLE)
                await self._raw.query(f"SET SESSION sql_mode = '{kept}'")
            if self._readonly:
                await self._raw.query(_READ_ONLY)

    @property
    def unfinished(self) -> bool:
        raw = self._raw
        # aiomysql closes when it is cancelled in the middle of an answer. Else: somebody waits for an answer
        # now, or has not read all rows of one.
        return bool(
            raw._close_reason
            or getattr(raw._reader, "_waiter", None) is not None
            or getattr(raw._result, "unbuffered_active", False)
        )

    async def kill(self, other: Connection, age: float) -> None:
        """End the session of ``other``, not only its statement: the next statement of it cannot be hit then.

        Its number means a session of ours only on the server that gave it, and only until that restarts.
        """
        if not isinstance(other, MysqlConnection) or other._server != self._server:
            return
        await self._raw.query("SHOW GLOBAL STATUS LIKE 'Uptime'")
        if float(self._raw._result.rows[0][1]) + 1 < age:  # whole seconds
            return
        try:
            await self._raw.query(f"KILL {int(other._raw.thread_id())}")
        except pymysql.err.MySQLError as exc:
            if exc.args[:1] != (_NO_SUCH_THREAD,):
                raise

    async def close(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._raw.ensure_closed()

    def terminate(self) -> None:
        self._raw.close()


def _adapted(args: tuple[object, ...]) -> tuple[object, ...]:
    """Refuse what the driver would write as something else: it puts any object's ``str()`` into the text.

    A list would become ``(1, 2)``, so that a JSON body could change what a comparison means.
    """
    for value in args:
        if type(value) not in _SENDABLE:
            return tuple([_adapt(each) for each in args])
    return args


def _adapt(value: object) -> object:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, tuple(_SENDABLE - {type(None)})):
        return value  # a subclass, such as an enum of text
    raise TypeError(f"{type(value).__name__} is not a type that MySQL has")


def _escape(raw: aiomysql.Connection, value: object) -> str:
    """Return a value as SQL text.

    aiomysql 0.3.2 has no words for bytes beside a PyMySQL from 1.2 on, and writes a bytearray's ``repr``.
    """
    if isinstance(value, bytes | bytearray):
        return f"_binary X'{value.hex()}'"
    return cast("str", aiomysql.Connection.escape(raw, value))


def _rows(cursor: aiomysql.Cursor) -> list[Row]:
    """Return the rows that the cursor has already received."""
    if cursor.description is None:
        return []
    made = row_class(tuple(each[0] for each in cursor.description))
    return cast("list[Row]", list(map(made, cursor._rows)))


class MysqlDriver(Driver):
    """Serve MySQL and MariaDB: all tenants of a node share its connections, each in its own database."""

    name = "aiomysql"
    dialect = Dialect.MYSQL

    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        if isinstance(endpoint.tls, str):
            raise ConfigurationError(
                [
                    Problem(
                        f"cluster {endpoint.node.cluster}",
                        0,
                        0,
                        f"aiomysql knows no TLS mode {endpoint.tls!r}",
                        "Use disable, require, verify-ca or verify-full.",
                    )
                ]
            )
        node = endpoint.node
        socket = (
            {"unix_socket": node.host}
            if node.host.startswith("/")
            else {"host": node.host, "port": node.port}
        )
        options: dict[str, Any] = {"charset": "utf8mb4", **endpoint.options}
        # FOUND_ROWS: an UPDATE counts the rows that it matched, as on the other engines (SQLAlchemy asks
        # for the same)
        raw = await aiomysql.connect(
            **socket,
            user=endpoint.login.username,
            password=await endpoint.login.password(),
            db=endpoint.database or None,
            autocommit=True,
            client_flag=CLIENT.FOUND_ROWS,
            connect_timeout=timeout,
            ssl=endpoint.tls,
            program_name=endpoint.application,
            **options,
        )
        raw.escape = partial(_escape, raw)  # on the connection: SQLAlchemy's cursors ask it too
        connection = MysqlConnection(raw, endpoint.database, endpoint.readonly)
        try:
            await connection.set_up(timeout)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def translate(self, exc: BaseException) -> RouterError:
        return translate(exc)

    def locate(self, placement: Placement) -> Location:
        # a MySQL schema is a database; one connection serves them all with COM_INIT_DB
        return Location("", placement.physical or placement.database)

    def sqlalchemy_url(self) -> str:
        return "mysql+aiomysql://"

    def sqlalchemy_connection(self, dialect: Any, connection: Connection) -> Any:
        from sqlalchemy.dialects.mysql.aiomysql import AsyncAdapt_aiomysql_connection

        return AsyncAdapt_aiomysql_connection(dialect.loaded_dbapi, connection.driver_connection)
