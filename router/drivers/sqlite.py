"""SQLite through aiosqlite: one writer and several read-only readers over a write-ahead log."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import itertools
import re
import sqlite3
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote as percent

import aiosqlite

from router.drivers.driver import Binding, Connection, Driver, Endpoint, Location
from router.drivers.sqlite_errors import translate
from router.drivers.sqlite_threads import NOTHING, DatabaseFile, DatabaseFiles, Work, end, send, started, stop
from router.errors import ConnectionLost, DatabaseNotFound, LockTimeout, RouterError, Sent
from router.rows import Column, Result, Row, row_class
from router.statements import Dialect
from router.tenants import Placement

_NATIVE = frozenset({int, float, str, bytes, type(None), bool})
_INSERT = re.compile(r"\b(?:insert(?:\s+or\s+\w+)?|replace)\s+into\b", re.IGNORECASE)
_AGAIN = 0.05  # seconds between interrupts of a connection that is being closed
_SEEN = 0.02  # seconds for which a reader takes it that the file is still there; a writer looks each time
_plans = itertools.count()
_BUSY = 5.0  # seconds that SQLite itself waits for a lock of another process, unless options say otherwise


def _adapt(value: object) -> object:
    """Return a value that SQLite can store; sqlite3's own adapters for dates are deprecated (3.12)."""
    if type(value) in _NATIVE:
        return value
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    return value


def _adapted(args: tuple[object, ...]) -> tuple[object, ...]:
    return tuple([_adapt(value) for value in args]) if args else args


def _fetch(raw: sqlite3.Connection, sql: str, args: tuple[object, ...], limit: int) -> list[Row]:
    cursor = raw.execute(sql, args)
    try:
        rows = cursor.fetchmany(limit) if limit else cursor.fetchall()
        if not rows:
            return []
        return cast("list[Row]", list(map(row_class(tuple([d[0] for d in cursor.description])), rows)))
    finally:
        cursor.close()


def _execute(raw: sqlite3.Connection, sql: str, args: tuple[object, ...]) -> Result:
    before = raw.total_changes
    cursor = raw.execute(sql, args)
    try:
        described = cursor.description
        if described is None:
            changed = max(cursor.rowcount, 0)
            return Result(changed, _generated(cursor, sql, changed), (), [])
        names = tuple([each[0] for each in described])
        rows = list(map(row_class(names), cursor.fetchall()))
        first = rows[0] if rows else ()
        types = [type(value).__name__ for value in first] or ["unknown"] * len(names)
        changed = raw.total_changes - before
        columns = tuple(map(Column, names, types))
        key = _generated(cursor, sql, changed)
        return Result(changed or len(rows), key, columns, cast("list[Row]", rows))
    finally:
        cursor.close()


def _generated(cursor: sqlite3.Cursor, sql: str, changed: int) -> int | None:
    """Return the key that an INSERT generated; after anything else SQLite repeats the one before."""
    return cursor.lastrowid if changed and _INSERT.search(sql) else None


def _execute_many(raw: sqlite3.Connection, sql: str, args: Sequence[tuple[object, ...]]) -> int:
    own = not raw.in_transaction
    if own:
        raw.execute("BEGIN IMMEDIATE")
    try:
        changed = raw.executemany(sql, args).rowcount
    except BaseException:
        if own and raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    if own:
        raw.execute("COMMIT")
    return changed


def _plan(raw: sqlite3.Connection, sql: str, parameters: int) -> str:
    """Return the plan as lines that are indented as its steps are nested."""
    # To explain is not to run, so nothing looks whether the schema is still the one that was read, or that
    # the explanation in sqlite3's cache was made for: a statement that runs, and a text that is new, do.
    raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").close()
    asked = f"EXPLAIN QUERY PLAN {sql}\n-- {next(_plans)}"
    depths = {0: -1}
    lines = []
    for step, within, _, detail in raw.execute(asked, (None,) * parameters).fetchall():
        depths[step] = depths[within] + 1
        lines.append(f"{'  ' * depths[step]}{detail}")
    return "\n".join(lines)


class SqliteConnection(Connection):
    """A connection of aiosqlite: a thread that owns one sqlite3 connection.

    Each method crosses to that thread once, hence the private ``_execute`` of aiosqlite: its public methods
    cross once for the statement, once for the rows and once to close the cursor.
    """

    __slots__ = ("_file", "_left", "_loop", "_raw", "_within")

    def __init__(self, raw: aiosqlite.Connection, file: DatabaseFile, *, reader: bool) -> None:
        super().__init__()
        self._raw = raw
        self._file = file
        self._within = _SEEN if reader else 0.0
        self._left = False  # nobody wants the connection any more
        self._loop = asyncio.get_running_loop()

    @property
    def driver_connection(self) -> aiosqlite.Connection:
        return self._raw

    @property
    def closed(self) -> bool:
        return not self._raw._running or self._raw._connection is None or self._file.gone

    async def _call(self, timeout: float | None, function: Any, *args: Any) -> Any:
        raw: Any = self._raw
        if self.closed:
            raise ValueError("the connection is closed")
        future = self._loop.create_future()  # not by _send: that would look the loop up
        work = (raw._connection, function, args)
        raw._tx.put_nowait((None, Work(future, self._there, work, NOTHING)))
        try:
            if timeout is None:
                return await future
            async with asyncio.timeout(timeout):
                return await future
        except (TimeoutError, asyncio.CancelledError):
            # the thread runs on after a cancellation; the interrupt makes the statement stop and undo
            self._raw._conn.interrupt()
            raise

    def _there(self, raw: sqlite3.Connection, function: Any, args: tuple[Any, ...]) -> Any:
        """Run a function, but only while the file is the one that was opened; called in the thread."""
        if self._left:
            raise ConnectionLost("the connection is closed", sent=Sent.NO)
        self._file.check(self._within)
        return function(raw, *args)

    async def fetch_all(self, sql: str, args: tuple[object, ...], timeout: float | None) -> list[Row]:
        return cast("list[Row]", await self._call(timeout, _fetch, sql, _adapted(args), 0))

    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Row | None:
        rows = await self._call(timeout, _fetch, sql, _adapted(args), 1)
        return rows[0] if rows else None

    async def execute(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Result:
        return cast("Result", await self._call(timeout, _execute, sql, _adapted(args)))

    async def execute_many(self, sql: str, args: Sequence[tuple[object, ...]], timeout: float | None) -> int:
        rows = [_adapted(each) for each in args]
        return cast("int", await self._call(timeout, _execute_many, sql, rows))

    async def plan(self, sql: str, parameters: int, timeout: float) -> str:
        return cast("str", await self._call(timeout, _plan, sql, parameters))

    async def execute_raw(self, text: str, timeout: float | None) -> None:
        await self._call(timeout, _script, text)

    async def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncGenerator[list[Row], None]:
        cursor = await self._call(timeout, sqlite3.Connection.execute, sql, _adapted(args))
        try:
            while rows := await self._call(timeout, lambda _raw: cursor.fetchmany(batch)):
                made = row_class(tuple([each[0] for each in cursor.description]))
                yield cast("list[Row]", list(map(made, rows)))
        finally:
            if not self.closed:
                self._raw._tx.put_nowait((None, cursor.close))

    async def begin(self, *, readonly: bool, isolation: str | None, timeout: float | None) -> None:
        # IMMEDIATE takes the write lock now; a deferred one may find later that its snapshot is old
        # (BUSY_SNAPSHOT), which no waiting cures (sqlite.org/rescode.html#busy_snapshot)
        text = "BEGIN" if readonly else "BEGIN IMMEDIATE"
        await self.control(text, timeout)

    async def control(self, text: str, timeout: float | None) -> None:
        await self._call(timeout, _control, text)

    async def rollback(self, timeout: float | None) -> None:
        await self._call(timeout, _rollback)

    def commits_again(self, error: RouterError) -> bool:
        # a busy file keeps the transaction open, waiting for its COMMIT (sqlite.org/lang_transaction.html)
        return isinstance(error, LockTimeout) and bool(self._raw.in_transaction)

    def survives(self, error: RouterError) -> bool:
        # a full disk, an I/O error and an interrupted write roll back (sqlite.org/lang_transaction.html)
        return bool(self._raw.in_transaction)

    async def bind(self, endpoint: Endpoint, binding: Binding | None, timeout: float) -> None:
        """Do nothing: a tenant's schema is a file, and a connection has one file for life."""

    async def reset(self, timeout: float) -> None:
        raise NotImplementedError("a changed SQLite session is closed, not reset")

    async def close(self, timeout: float) -> None:
        raw: Any = self._raw
        if raw._running:
            raw._running = False
            stopped = send(raw, stop, (raw,))
            async with asyncio.timeout(timeout):
                while not stopped.done():
                    self._interrupt()  # what still runs is nobody's; what has yet to begin is met next time
                    await asyncio.wait((stopped,), timeout=_AGAIN)
            stopped.result()

    def _interrupt(self) -> None:
        with suppress(AttributeError, sqlite3.ProgrammingError):  # its thread may be closing it now
            cast("Any", self._raw)._connection.interrupt()

    def terminate(self) -> None:
        raw: Any = self._raw
        self._left = True
        if raw._running:
            end(raw)
        self._hunt()

    def _hunt(self) -> None:
        """Interrupt until the thread has closed: one interrupt may come before the statement has begun."""
        self._interrupt()
        if cast("Any", self._raw)._connection is not None and not self._loop.is_closed():
            self._loop.call_later(_AGAIN, self._hunt)

    def detach(self) -> Any:
        raw: Any = self._raw
        raw._running = False
        file, raw._connection = raw._connection, None
        return None if file is None else _Detached(raw, file)


class _Detached:
    """A file that its thread closes; in a forked child, which has no such thread, nobody does."""

    def __init__(self, raw: Any, file: sqlite3.Connection) -> None:
        self._raw, self._file = raw, file

    def close(self) -> None:
        raw, file = self._raw, self._file
        if raw._thread.is_alive():
            raw._connection = file  # for the thread, which closes it
            end(raw)


def _control(raw: sqlite3.Connection, text: str) -> None:
    raw.execute(text).close()


def _script(raw: sqlite3.Connection, text: str) -> None:
    """Run several statements; ``executescript`` would commit an open transaction first."""
    start = 0
    for found in re.finditer(";", text):
        if sqlite3.complete_statement(text[start : found.end()]):
            _control(raw, text[start : found.end()])
            start = found.end()
    if text[start:].strip():
        _control(raw, text[start:])


def _rollback(raw: sqlite3.Connection) -> None:
    if raw.in_transaction:  # some errors, such as a full disk, have rolled back already
        raw.execute("ROLLBACK")


class SqliteDriver(Driver):
    """Serve SQLite: each (database, schema) is a file in the node's folder."""

    name = "aiosqlite"
    dialect = Dialect.SQLITE
    plans = True

    def __init__(self) -> None:
        self._files = DatabaseFiles()

    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        file = Path(endpoint.node.path) / f"{endpoint.database}.db"
        options: dict[str, Any] = {"timeout": _BUSY, **endpoint.options}
        if endpoint.readonly:
            if not file.exists():
                raise DatabaseNotFound(
                    f"the database file {file.name} does not exist yet; a write creates it"
                )
            target, extra = f"file:{percent(str(file))}?mode=ro", "PRAGMA query_only = ON"
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            target, extra = f"file:{percent(str(file))}?mode=rwc", "PRAGMA journal_mode = WAL"
        async with asyncio.timeout(timeout):
            raw = await started(target, options)
            made = SqliteConnection(raw, self._files.at(file), reader=endpoint.readonly)
            try:
                for pragma in (extra, "PRAGMA synchronous = NORMAL", "PRAGMA foreign_keys = ON"):
                    await made._call(timeout, _pragma, pragma)
            except BaseException:
                end(raw)
                raise
        return made

    def translate(self, exc: BaseException) -> RouterError:
        return translate(exc)

    def locate(self, placement: Placement) -> Location:
        name = placement.database
        return Location(f"{name}.{placement.physical}" if placement.physical else name, None)

    def sqlalchemy_url(self) -> str:
        return "sqlite+aiosqlite://"

    def sqlalchemy_connection(self, dialect: Any, connection: Connection) -> Any:
        from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection

        class Lent(AsyncAdapt_aiosqlite_connection):
            isolation_level = None  # it is; to set it again would commit what is open

        return Lent(dialect.loaded_dbapi, connection.driver_connection)


def _pragma(raw: sqlite3.Connection, text: str) -> None:
    raw.execute(text).fetchall()
