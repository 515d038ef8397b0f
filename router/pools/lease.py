"""One checkout of a connection: the border where drivers' exceptions become ours.

A lease remembers whether its connection can still be trusted. ``release`` is a plain call: it cannot be
cancelled, and it gives back or closes, whatever state the connection is in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from router.drivers.driver import UNSURE, Binding, Connection
from router.errors import (
    CommitOutcomeUnknown,
    ConcurrentUse,
    ConnectionLost,
    RouterError,
    Sent,
    TransactionAborted,
)
from router.pools.patience import Patience
from router.pools.pool import Pool
from router.retries import outcome_unknown
from router.rows import Row

_ANSWER = 1.0  # seconds that a cancellation waits for the answer to a commit
_CONTROL = 5.0  # seconds for begin and rollback where the caller names no limit
_PAUSE = 0.01  # seconds between two attempts at a commit that found the file busy


class Watch(Protocol):
    """Hear what SQLAlchemy does on a lease."""

    def begun(self, seconds: float) -> None:
        """Take note of the begin of a transaction."""

    def started(self, sql: str, kind: str) -> None:
        """Take note of a statement that is about to run."""

    def finished(self, sql: str, kind: str, seconds: float, rows: int) -> None:
        """Take note of a statement that succeeded."""

    def failed(self, sql: str, kind: str, seconds: float, error: RouterError) -> None:
        """Take note of a statement that failed."""

    async def settle(self, unknown: CommitOutcomeUnknown) -> RouterError | None:
        """Find out what became of a commit: ``None`` if it was applied, else the error to raise."""

    def ended(self, committed: bool, error: RouterError | None) -> None:
        """Take note of the end of a transaction; with an error the commit failed."""

    def enclosing(self) -> Awaitable[None] | None:
        """Return what has to be done in the transaction before its commit, ``None`` for nothing."""

    def recorded(self) -> Awaitable[None] | None:
        """Return what to wait for before the caller hears of a commit, ``None`` for nothing."""


class Lease:
    """Hold one connection until :meth:`release`."""

    __slots__ = (
        "broken",
        "busy",
        "connection",
        "isolation",
        "over",
        "pool",
        "readonly",
        "streaming",
        "transactional",
        "watch",
    )

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self.pool = pool
        self.connection = connection
        self.broken = ""  # why the connection must not be used again; "" if it may
        self.busy = False
        self.over = False  # the transaction has ended without commit() or rollback(): an error did it
        self.streaming = False  # rows of a stream stand before whatever the server would answer next
        self.readonly = False
        self.isolation: str | None = None
        #: whether SQLAlchemy's begin, commit and rollback are real on this lease
        self.transactional = False
        self.watch: Watch | None = None

    async def run(self, verb: str, *args: Any, limit: float | None = None, **options: Any) -> Any:
        """Call a method of the connection and translate what it raises.

        ``limit`` bounds it, in seconds; without one the method's own ``timeout`` does.
        """
        if self.busy or (self.streaming and verb != "next_batch"):
            raise ConcurrentUse(
                "another statement is running on this connection, or a stream of it is not read to its end. "
                "Give each task, and each stream, a session of its own"
            )
        if self.over:
            self.check_transaction(verb)
        self.busy = True
        connection, pool = self.connection, self.pool
        if limit is not None:
            pool.deadlines.enter(connection, pool.clock() + limit)
        try:
            return await getattr(connection, verb)(*args, **options)
        except Exception as exc:
            # Raised below, outside of this block: inside, the driver's exception would become the context
            # of ours, and its frames hold the password or bound values.
            error = self.judge(exc)
        except BaseException as exc:
            self.broken = "cancelled"
            self.over = connection.in_transaction
            if not isinstance(exc, asyncio.CancelledError) or not pool.deadlines.was_late(connection):
                raise
            error = self.judge(TimeoutError())
        finally:
            self.busy = False
            if limit is not None:
                pool.deadlines.leave(connection)
        raise error

    def check_transaction(self, verb: str = "") -> None:
        """Refuse a statement after an error that ended its transaction: it would commit by itself."""
        if self.over and verb != "rollback":
            raise TransactionAborted(
                "an earlier error has ended this transaction, nothing of it was applied. Begin a new one",
                sent=Sent.NO,
            )

    def judge(self, exc: BaseException) -> RouterError:
        """Translate a driver's exception, and note whether the connection can still be trusted."""
        error, broken = judge(self.pool, self.connection, exc)
        if broken:
            self.broken = "broken"
        connection = self.connection
        if connection.in_transaction and (self.broken == "broken" or not connection.survives(error)):
            self.over = True
        return error

    async def bind(self, binding: Binding | None, timeout: float) -> None:
        """Set the connection to a tenant's place, if it is not set so already."""
        connection = self.connection
        if connection.binding == binding:
            return
        connection.binding = UNSURE  # until the server has answered; matches no binding
        try:
            await self.run("bind", self.pool.endpoint, binding, timeout)
        except RouterError as error:
            error.sent = Sent.NO  # of the statement that the lease is for
            raise
        connection.binding = binding

    @asynccontextmanager
    async def enclosed(self) -> AsyncIterator[None]:
        """Put what runs in the block in a transaction of its own; without one it were not the tenant's."""
        await self.run("enter", None)
        try:
            yield
        except BaseException:
            if not self.broken:
                await self.run("undo")
            raise
        await self.run("leave", None)

    async def begin(self, timeout: float = _CONTROL) -> None:
        """Begin a transaction."""
        # set first: a cancelled BEGIN may have reached the server
        self.connection.in_transaction = True
        self.over = False
        options = {"readonly": self.readonly, "isolation": self.isolation, "timeout": None}
        await self.run("begin", limit=timeout, **options)

    async def commit(self, timeout: float = _CONTROL) -> None:
        """Commit the transaction.

        A cancellation waits a second for the answer: without it nobody could know what became of the
        transaction. Raised afterwards, it leaves ``connection.in_transaction`` false if the commit was
        applied, ``broken`` set if that is not known.

        Raises:
            CommitOutcomeUnknown: the server did not answer.
        """
        late = partial(self.pool.deadlines.is_late, self.connection)
        error, cancelled = await Patience(self._commit(timeout), _ANSWER, late)
        if error is None:
            self.connection.in_transaction = False
        failure = cancelled or error
        if failure is not None:
            raise failure

    async def _commit(self, timeout: float) -> RouterError | None:
        connection, clock, left = self.connection, self.pool.clock, timeout
        deadline = clock() + timeout
        while True:
            try:
                await self.run("commit", None, limit=left)
            except RouterError as error:
                failure = error
            else:
                return None
            left = deadline - clock() - _PAUSE
            if left <= 0 or not connection.commits_again(failure):
                break
            await asyncio.sleep(_PAUSE)
        if self.readonly or not outcome_unknown(failure):
            return failure  # nothing was written that could be unknown
        unknown = CommitOutcomeUnknown(
            f"the server did not answer the commit ({failure.message}): it may have been applied, or not. "
            "Read before you repeat it",
            code=failure.code,
            cause=failure,
        ).at(cluster=failure.cluster, node=failure.node)
        unknown.transaction_id = connection.mark.transaction_id if connection.mark else None
        return unknown

    async def rollback(self, timeout: float = _CONTROL) -> None:
        """Roll the transaction back."""
        await self.run("rollback", timeout)
        self.connection.in_transaction = False
        self.over = False

    async def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncGenerator[list[Row], None]:
        """Yield batches of rows; a stream that is not read to its end costs the connection."""
        self.broken = "abandoned"
        async with aclosing(self.connection.stream(sql, args, batch, timeout)) as batches:
            while rows := await self.run("next_batch", batches):
                self.streaming = not self.connection.interleaves
                yield rows
        self.streaming = False
        self.broken = ""

    def release(self) -> None:
        """Give the connection back, or close it if it cannot be trusted."""
        if self.broken:
            self.pool.discard(self.connection, self.broken)
        else:
            self.pool.give(self.connection)


def judge(pool: Pool, connection: Connection, exc: BaseException) -> tuple[RouterError, bool]:
    """Return our error for a driver's exception, and whether the connection must not be used again."""
    if pool.gone is not None:
        return pool.gone(), True  # the connection was taken from under its user: that is all there is to say
    error = pool.driver.translate(exc)
    broken = error.sent is Sent.UNKNOWN or isinstance(error, ConnectionLost) or connection.closed
    node = pool.endpoint.node
    return error.at(cluster=node.cluster, node=node.name), broken
