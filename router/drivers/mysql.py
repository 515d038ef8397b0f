"""MySQL and MariaDB through aiomysql."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import aiomysql
from pymysql import err
from pymysql.constants import CLIENT, CR

from router.drivers import mysql_plans
from router.drivers.driver import Binding, Connection, Driver, Endpoint, Location, Reading
from router.drivers.mysql_errors import translate
from router.drivers.mysql_roles import Roles
from router.drivers.mysql_values import adapted, columns_of, rows_of
from router.drivers.mysql_wall import Wall
from router.drivers.sockets import NO_TLS, detached, keep_alive, peer_of
from router.errors import (
    ConfigurationError,
    Deadlock,
    LockTimeout,
    Problem,
    RouterError,
    SerializationFailure,
)
from router.positions import MariadbGtid, MysqlGtids, Position, servers_in
from router.rows import Result, Row, row_class
from router.statements import Dialect
from router.tenants import Placement

# Undoes user variables, temporary tables, locks and session settings in one round trip; MySQL 5.7.3 and
# MariaDB 10.2.4 know it. aiomysql has no method for it (MySQL internals manual, COM_RESET_CONNECTION).
_COM_RESET_CONNECTION = 0x1F
_NO_SUCH_THREAD = 1094  # the session has ended by itself
# Modes under which "x" is a name, or a backslash in a string is itself; the last ones switch those on.
_UNREADABLE = frozenset(
    {"ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI", "ORACLE", "MSSQL", "DB2", "POSTGRESQL", "MAXDB"}
)
_LOCK_WAIT_TIMEOUT = 1205
# MariaDB answers these with 1205 at once, as if the time for waiting were up; MySQL has a code for them.
_UNWAITING = re.compile(r"\b(NOWAIT|WAIT\s+0)\b", re.IGNORECASE)
_MARIADB_PROBE = (
    "SELECT @@global.read_only, @@global.server_id, @@global.gtid_slave_pos, @@global.gtid_binlog_pos"
)
_MYSQL_PROBE = (
    "SELECT @@global.read_only OR @@global.super_read_only, @@global.server_uuid, @@global.gtid_executed"
)


class _Raw(aiomysql.Connection):  # type: ignore[misc]  # aiomysql has no types
    """aiomysql's own connection, with what it gets wrong put right."""

    async def _request_authentication(self) -> None:
        # aiomysql goes on in plain text where the server does not offer TLS, and shows the login to whoever
        # stands between and took the offer away
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise err.OperationalError(CR.CR_SSL_CONNECTION_ERROR, NO_TLS)
        await super()._request_authentication()

    def escape(self, obj: object) -> str:
        """Return a value as SQL text.

        aiomysql 0.3.2 has no words for bytes beside a PyMySQL from 1.2 on, and writes a bytearray's ``repr``.
        """
        if isinstance(obj, bytes | bytearray):
            return f"_binary X'{obj.hex()}'"
        return cast("str", super().escape(obj))


class MysqlConnection(Connection):
    """A connection of aiomysql."""

    interleaves = False  # a running statement's rows come before anything else on the wire

    __slots__ = ("_initial", "_raw", "_readonly", "_roles", "_server", "_transport", "_unwaiting", "_wall")

    def __init__(
        self, raw: aiomysql.Connection, initial: str, readonly: bool, wall: float | None = None
    ) -> None:
        super().__init__()
        self._raw = raw
        self._transport: asyncio.Transport = raw._writer.transport  # aiomysql forgets it when it closes
        self._initial = initial
        self._readonly = readonly
        self._roles = Roles()
        self._wall = Wall.of(raw, wall)
        self._unwaiting = False  # the last statement that met a lock had asked not to wait
        self._server: tuple[object, ...] = ()  # which server this is, whatever name it was reached by

    @property
    def driver_connection(self) -> aiomysql.Connection:
        return self._raw

    @property
    def closed(self) -> bool:
        reader = self._raw._reader
        return bool(self._raw.closed or reader is None or reader.at_eof() or reader.eof_received)

    @property
    def peer(self) -> str | None:
        writer = self._raw._writer
        return None if writer is None else peer_of(writer.transport)

    async def _run(self, sql: str, args: tuple[object, ...], timeout: float | None) -> aiomysql.Cursor:
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self._run(sql, args, None)
        cursor = await self._raw.cursor()
        try:
            await cursor.execute(sql, adapted(args) or None)
        except err.OperationalError as exc:
            self._unwaiting = exc.args[0] == _LOCK_WAIT_TIMEOUT and _UNWAITING.search(sql) is not None
            raise
        return cursor

    async def fetch_all(self, sql: str, args: tuple[object, ...], timeout: float | None) -> list[Row]:
        return rows_of(await self._run(sql, args, timeout))

    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Row | None:
        rows = rows_of(await self._run(sql, args, timeout))
        return rows[0] if rows else None

    async def execute(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Result:
        cursor = await self._run(sql, args, timeout)
        # insert_id is 0 where no key was generated
        return Result(cursor.rowcount, cursor.lastrowid or None, columns_of(cursor), rows_of(cursor))

    async def execute_many(self, sql: str, args: Sequence[tuple[object, ...]], timeout: float | None) -> int:
        rows = [adapted(each) for each in args]
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
            if self._wall is not None:  # the statement runs until its last row is read, however late that is
                await self._raw.query(f"SET SESSION {self._wall.at(0)}")
            cursor = await self._raw.cursor(aiomysql.SSCursor)
            await cursor.execute(sql, adapted(args) or None)
        made = row_class(tuple(each[0] for each in cursor.description or ()))
        while True:
            async with asyncio.timeout(timeout):
                rows = await cursor.fetchmany(batch)
            if not rows:
                break
            yield cast("list[Row]", list(map(made, rows)))
        await cursor.close()
        if self._wall is not None:
            await self.control(f"SET SESSION {self._wall.at(self._wall.limit)}", timeout)

    async def begin(self, *, readonly: bool, isolation: str | None, timeout: float | None) -> None:
        if isolation is not None:
            await self.control(f"SET TRANSACTION ISOLATION LEVEL {isolation.upper()}", timeout)
        await self.control("START TRANSACTION READ ONLY" if readonly else "START TRANSACTION", timeout)

    async def control(self, text: str, timeout: float | None) -> None:
        async with asyncio.timeout(timeout):
            await self._raw.query(text)

    async def plan(self, sql: str, parameters: int, timeout: float) -> str:
        async with asyncio.timeout(timeout):
            # not with a cursor: it makes Python warnings of what the server says of a made-up value
            await self._raw.query(mysql_plans.question(sql, parameters))
        result = self._raw._result
        names = [field[0] for field in result.description]
        return "\n".join(mysql_plans.line(dict(zip(names, row, strict=True))) for row in result.rows)

    def survives(self, error: RouterError) -> bool:
        # these roll the whole transaction back, savepoints included (MariaDB manual, "InnoDB Lock Modes")
        if isinstance(error, Deadlock | SerializationFailure):
            return False
        # This one rolls only the statement back, unless innodb_rollback_on_timeout is set: a commit would
        # keep half of the transaction. A refusal to a statement that would not wait is no accident.
        late = isinstance(error, LockTimeout) and error.code == str(_LOCK_WAIT_TIMEOUT)
        return not late or self._unwaiting

    async def bind(self, endpoint: Endpoint, binding: Binding | None, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            role = None if binding is None else binding.role
            if role != self._roles.taken:
                await self._roles.take(self._raw, role, self._mariadb)
            await self._raw.select_db((binding and binding.schema) or self._initial)

    async def reset(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            await self._raw._execute_command(_COM_RESET_CONNECTION, b"")
            await self._raw._read_ok_packet()
            if self._roles.taken is not None:
                await self._roles.take(self._raw, None, self._mariadb)
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
        wall, changes = self._wall, []
        async with asyncio.timeout(timeout):
            await self._raw.query(
                f"SELECT @@SESSION.sql_mode, {wall.name if wall else 0}, @@hostname, @@port, @@server_id"
            )
            mode, found, *server = self._raw._result.rows[0]
            self._server = tuple(server)
            modes = str(mode).split(",")
            if not _UNREADABLE.isdisjoint(modes):
                changes.append(f"sql_mode = '{','.join(each for each in modes if each not in _UNREADABLE)}'")
            if wall is not None and 0 < float(found) < wall.limit:
                self._wall = None  # whoever runs the server has set a nearer one
            elif wall is not None:
                changes.append(wall.at(wall.limit))
            if self._readonly:
                changes.append("tx_read_only = 1" if self._mariadb else "transaction_read_only = 1")
            if changes:
                await self._raw.query(f"SET SESSION {', SESSION '.join(changes)}")

    @property
    def _mariadb(self) -> bool:
        return "mariadb" in self._raw.server_version.lower()

    async def probe(self) -> Reading:
        """Ask what any user may: the state of replication itself needs a privilege."""
        await self._raw.query(_MARIADB_PROBE if self._mariadb else _MYSQL_PROBE)
        readonly, name, *positions = self._raw._result.rows[0]
        reign = None if readonly else str(name)
        if not self._mariadb:
            return Reading(not readonly, MysqlGtids.parse(positions[0]), reign=reign)
        # on a replica only what came from the primary: its own transactions are nobody's progress
        shown = positions[0 if readonly else 1]
        return Reading(not readonly, MariadbGtid.parse(shown), reign=reign, follows=servers_in(shown))

    async def reach(self, goal: Position, seconds: float) -> bool:
        if not isinstance(goal, MariadbGtid if self._mariadb else MysqlGtids):
            return False
        # On a primary MariaDB's would wait in vain: it looks at what came from elsewhere. 0 is "reached",
        # -1 and 1 are "not in time".
        wait = "MASTER_GTID_WAIT" if self._mariadb else "WAIT_FOR_EXECUTED_GTID_SET"
        await self._raw.query(f"SELECT {wait}('{goal}', {seconds:.3f})")
        return bool(self._raw._result.rows[0][0] == 0)

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
        except err.MySQLError as exc:
            if exc.args[:1] != (_NO_SUCH_THREAD,):
                raise

    async def close(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._raw.ensure_closed()
        finally:
            self.terminate()

    def terminate(self) -> None:
        writer = self._raw._writer
        if writer is not None:
            writer.transport.abort()  # close() would first wait for a frozen server to take what is queued
        self._raw.close()
        # aiomysql's way waits until all is sent, without an end if the server does not take it
        self._transport.abort()

    def detach(self) -> Any:
        writer, self._raw._writer, self._raw._reader = self._raw._writer, None, None
        return None if writer is None else detached(writer.transport)


class MysqlDriver(Driver):
    """Serve MySQL and MariaDB: all tenants of a node share its connections, each in its own database."""

    name = "aiomysql"
    dialect = Dialect.MYSQL
    probes = True
    plans = True

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
        raw = _Raw(
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
        try:
            await raw._connect()
            connection = MysqlConnection(raw, endpoint.database, endpoint.readonly, endpoint.setup.wall)
            keep_alive(connection._transport)
            await connection.set_up(timeout)
        except BaseException:
            raw.close()
            raise
        return connection

    def translate(self, exc: BaseException) -> RouterError:
        return translate(exc)

    def locate(self, placement: Placement) -> Location:
        # a MySQL schema is a database; one connection serves them all with COM_INIT_DB
        return Location("", Binding(placement.physical or placement.database, placement.role))

    def sqlalchemy_url(self) -> str:
        return "mysql+aiomysql://"

    def sqlalchemy_connection(self, dialect: Any, connection: Connection) -> Any:
        from sqlalchemy.dialects.mysql.aiomysql import AsyncAdapt_aiomysql_connection

        return AsyncAdapt_aiomysql_connection(dialect.loaded_dbapi, connection.driver_connection)
