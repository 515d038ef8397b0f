"""The threads behind SQLite's connections: who answers, how they end, and whether their file is there."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet, WeakValueDictionary

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL

from router.errors import Sent, ServerError


class Work:
    """Run a function in aiosqlite's thread and answer from there.

    aiosqlite's own answer raises in the thread if the event loop has ended meanwhile, which nobody can catch,
    and it writes what it runs at DEBUG, arguments included.
    """

    __slots__ = ("_args", "_function", "_future", "_named")

    def __init__(
        self, future: asyncio.Future[Any] | None, function: Any, args: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self._future, self._function, self._args, self._named = future, function, args, named

    def __call__(self) -> Any:
        """Run it; called in the thread."""
        value: Any = None
        if self._future is not None and self._future.cancelled() and self._function is not stop:
            return value  # given up before it began, when there was nothing yet to interrupt
        try:
            value = self._function(*self._args, **self._named)
        except BaseException as exc:
            self._answer(_raise, exc)
        else:
            self._answer(_return, value)
        return value

    def _answer(self, how: Any, what: Any) -> None:
        if self._future is not None:
            try:
                self._future.get_loop().call_soon_threadsafe(how, self._future, what)
            except RuntimeError:  # the loop is closed: there is nobody to tell
                return

    def __repr__(self) -> str:
        return f"<{getattr(self._function, '__name__', 'work')}>"


def _return(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _raise(future: asyncio.Future[Any], exc: BaseException) -> None:
    if not future.done():
        future.set_exception(exc)


NOTHING: dict[str, Any] = {}


def send(raw: Any, function: Any, args: tuple[Any, ...], named: dict[str, Any] = NOTHING) -> Any:
    """Hand a function to the thread and return the future of its answer."""
    future = asyncio.get_running_loop().create_future()
    raw._tx.put_nowait((None, Work(future, function, args, named)))
    return future


def _open(raw: Any) -> None:
    raw._connection = raw._connector()


def stop(raw: Any) -> object:
    """Close the file and end the thread; runs in it."""
    try:
        if raw._connection is not None:
            # One that somebody still holds, such as the traceback of a cancellation, would keep SQLite from
            # closing the file and from giving its lock back.
            for cursor in list(raw._cursors):
                cursor.close()
            raw._connection.close()
    finally:
        raw._connection = None
    return _STOP_RUNNING_SENTINEL


async def started(target: str, options: dict[str, Any]) -> aiosqlite.Connection:
    """Open a connection as aiosqlite does, but for who answers; see :class:`Work`."""
    raw: Any = aiosqlite.connect(target, uri=True, isolation_level=None, **options)
    # A thread that waits for work would keep a process from ending whose router was not closed.
    raw._thread.daemon = True
    raw._thread.start()

    raw._cursors = WeakSet()

    async def execute(function: Any, *args: Any, **named: Any) -> Any:
        if not raw._running or raw._connection is None:
            raise ValueError("the connection is closed")
        value = await send(raw, function, args, named)
        if isinstance(value, sqlite3.Cursor):
            raw._cursors.add(value)
        return value

    raw._execute = execute  # for the cursors that SQLAlchemy makes
    try:
        await send(raw, _open, (raw,))
    except BaseException:
        end(raw)
        raise
    return cast("aiosqlite.Connection", raw)


def end(raw: Any) -> None:
    """Let the thread end after what it does now, without waiting for it."""
    raw._running = False
    raw._tx.put_nowait((None, Work(None, stop, (raw,), NOTHING)))


class DatabaseFile:
    """Notice that a database file was removed or replaced while it is open; shared by its connections.

    SQLite notices only without a write-ahead log; with one it goes on writing into the file that nobody can
    open any more. A look lets go of the interpreter: of its lock another thread may be in want, so that it
    takes far longer than its own microsecond. Whoever finds the file gone has found it so for all.
    """

    __slots__ = ("__weakref__", "_clock", "_identity", "_looked", "_path", "gone")

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = str(path)
        self._clock = clock
        self._identity = self._look()
        self._looked = -math.inf
        self.gone = False

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @property
    def there(self) -> bool:
        """Tell whether it is still the file that was opened."""
        if not self.gone:
            self._looked = self._clock()
            self.gone = self._look() != self._identity
        return not self.gone

    def check(self, within: float) -> None:
        """Raise ServerError if the file is not there, as somebody saw it in the last ``within`` seconds."""
        recently = within and self._clock() - self._looked < within and not self.gone
        if not recently and not self.there:
            raise ServerError(
                f"the database file {os.path.basename(self._path)} was removed or replaced under us "
                "(nothing was written). Bring it back; new requests open what is there then",
                sent=Sent.NO,
            )


class DatabaseFiles:
    """Know the open database files; one that is replaced is another one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: WeakValueDictionary[Path, DatabaseFile] = WeakValueDictionary()

    def at(self, path: Path) -> DatabaseFile:
        """Return the file that is there now."""
        known = self._open.get(path)
        if known is None or not known.there:
            known = self._open[path] = DatabaseFile(path, self._clock)
        return known
