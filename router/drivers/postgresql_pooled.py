"""PostgreSQL behind a pooler that gives each transaction another session of the server.

What makes a session a tenant's is set for one transaction at a time, in the round trip of its BEGIN. A single
statement gets a transaction of its own, of which only the COMMIT can be lost without its outcome being known.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import asyncpg

from router.drivers import postgresql_plans
from router.drivers.driver import Binding, Endpoint
from router.drivers.postgresql import PostgresqlConnection
from router.drivers.postgresql_along import Trust
from router.drivers.postgresql_binding import Bound, explained, text_of
from router.drivers.postgresql_errors import translate
from router.drivers.postgresql_prepared import Kept
from router.drivers.postgresql_shapes import Shapes
from router.errors import ConnectionLost, DatabaseError, RouterError, Sent
from router.rows import Result, Row

T = TypeVar("T")
_CLEANUP = 5.0  # seconds for a rollback


class PooledConnection(PostgresqlConnection):
    """A connection of asyncpg to PgBouncer."""

    __slots__ = ("_explained",)

    def __init__(self, raw: asyncpg.Connection) -> None:
        super().__init__(raw, Kept(raw, 0, Shapes()), Bound(Trust()))
        self._explained: Callable[[asyncpg.PostgresError], RouterError | None] = _nothing

    @property
    def encloses(self) -> bool:
        return bool(self._scope) and not self.in_transaction

    async def bind(self, endpoint: Endpoint, binding: Binding | None, timeout: float | None) -> None:
        # costs nothing, and proves nothing yet: each BEGIN does
        text = "" if binding is None else text_of(binding, endpoint.extensions)
        self._scope = text and f"; {text}"
        self._explained = partial(explained, binding, endpoint) if binding is not None else _nothing

    async def reset(self, timeout: float) -> None:
        """Do nothing: the session is no longer ours, and nothing was changed in it."""

    # --- transactions ------------------------------------------------------------------------------------

    async def begin(self, *, readonly: bool, isolation: str | None, timeout: float | None) -> None:
        await self._explaining(
            partial(super().begin, readonly=readonly, isolation=isolation, timeout=timeout)
        )

    async def _explaining(self, run: Callable[[], Awaitable[T]]) -> T:
        """Run what begins a transaction; say what is wrong with the tenant's place if it fails for that."""
        failure: RouterError | None = None
        try:
            return await run()
        except asyncpg.PostgresError as exc:
            failure = self._explained(exc)
            if failure is None:
                raise
        raise failure

    async def enter(self, timeout: float | None) -> None:
        failure: RouterError
        try:
            await self._explaining(partial(self._raw.execute, f"BEGIN{self._scope}", timeout=timeout))
            return
        except Exception as exc:
            failure = translate(exc)
        await self.undo()
        if isinstance(failure, ConnectionLost | DatabaseError):
            failure.sent = Sent.NO  # of the statement that the transaction is for
        raise failure

    async def leave(self, timeout: float | None) -> None:
        await self.commit(timeout)

    async def undo(self) -> None:
        if not self.closed:
            try:
                await self._raw.execute("ROLLBACK", timeout=_CLEANUP)
            except Exception:  # closing undoes it too; what went wrong first is raised
                self.terminate()

    async def _enclosed(self, run: Callable[[], Awaitable[T]], timeout: float | None) -> T:
        """Run a statement, in a transaction of its own if it is in none and must be the tenant's."""
        if not self.encloses:
            return await run()
        await self.enter(timeout)
        failure: RouterError
        try:
            value = await run()
        except Exception as exc:
            await self.undo()
            failure = translate(exc)
            if not isinstance(failure, ConnectionLost):
                raise
            failure.sent = Sent.NO  # no commit was sent, so it was not applied
        else:
            await self.leave(timeout)
            return value
        raise failure

    # --- statements --------------------------------------------------------------------------------------

    async def fetch_all(self, sql: str, args: tuple[object, ...], timeout: float | None) -> list[Row]:
        return await self._enclosed(partial(super().fetch_all, sql, args, timeout), timeout)

    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Row | None:
        return await self._enclosed(partial(super().fetch_one, sql, args, timeout), timeout)

    async def execute(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Result:
        return await self._enclosed(partial(super().execute, sql, args, timeout), timeout)

    async def execute_many(self, sql: str, args: Sequence[tuple[object, ...]], timeout: float | None) -> int:
        return await self._enclosed(partial(super().execute_many, sql, args, timeout), timeout)

    async def execute_raw(self, text: str, timeout: float | None) -> None:
        await self._enclosed(partial(super().execute_raw, text, timeout), timeout)

    async def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncGenerator[list[Row], None]:
        # unnamed: what asyncpg names would stay in a session that others get next
        statement = await self._raw.prepare(sql, name="", timeout=timeout)
        cursor = await statement.cursor(*args, timeout=timeout)
        while rows := await cursor.fetch(batch, timeout=timeout):
            yield cast("list[Row]", rows)

    async def plan(self, sql: str, parameters: int, timeout: float) -> str:
        return await self._explaining(
            partial(postgresql_plans.plan, self._raw, sql, parameters, timeout, self._scope)
        )


def _nothing(exc: asyncpg.PostgresError) -> Any:
    return None
