"""A session of a tenant that must be looked up first: it is asked for when the session is entered or used."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Self

from router.backend import Target
from router.errors import TenantNotAsked
from router.execution import Executor
from router.queries import Options, Params
from router.rows import Row
from router.session import Session

_SLOTS = frozenset(name for part in Session.__mro__ for name in getattr(part, "__slots__", ()))


class DeferredSession(Session):
    """Become a session like any other with its first ``async with`` or its first statement.

    What needs the tenant at once, such as ``transaction()`` before that, raises TenantNotAsked.
    """

    __slots__ = ("_find", "_given", "_name")

    def __init__(
        self,
        executor: Executor,
        name: tuple[str, str | None],
        find: Callable[[str, str | None, float | None], Awaitable[Target]],
        given: dict[str, Any],
    ) -> None:
        self._executor = executor
        self._name = name
        self._find = find
        self._given: dict[str, Any] | None = given

    def __getattr__(self, name: str) -> Any:
        if name not in _SLOTS:
            raise AttributeError(name)
        raise TenantNotAsked(
            "the tenant is not in memory and is asked for when the session is entered. "
            "Use it inside of: async with router.session(...)"
        ).at(tenant=self.tenant, schema=self.schema)

    @property
    def tenant(self) -> str:
        """Return the tenant's id."""
        return self._name[0]

    @property
    def schema(self) -> str | None:
        """Return the logical schema, ``None`` for the tenant's main one."""
        return self._name[1]

    def __repr__(self) -> str:
        if self._given is None:
            return super().__repr__()
        return f"<Session {'/'.join(filter(None, self._name))} not yet asked for>"

    async def __aenter__(self) -> Self:
        await self._arrive()
        return await super().__aenter__()

    async def _arrive(self) -> None:
        given = self._given
        if given is None:
            return
        target = await self._find(*self._name, given["timeout"])
        if self._given is not None:  # else another task was here meanwhile
            Session.__init__(self, self._executor, target, **given)
            self._given = None

    async def close(self) -> None:
        """Roll back what is open and refuse further use; closing twice is harmless."""
        await self._arrive()
        await super().close()

    def _run(self, verb: str, sql: Any, params: Any, given: Options) -> Coroutine[Any, Any, Any]:
        if self._given is None:
            return super()._run(verb, sql, params, given)
        return self._run_later(verb, sql, params, given)

    async def _run_later(self, verb: str, sql: Any, params: Any, given: Options) -> Any:
        await self._arrive()
        return await super()._run(verb, sql, params, given)

    async def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        batch: int = 500,
        readonly: bool = False,
        timeout: float | None = None,
    ) -> AsyncGenerator[Row, None]:
        """Iterate over the rows of a query with a cursor on the server; memory stays constant."""
        await self._arrive()
        async for row in super().stream(sql, params, batch=batch, readonly=readonly, timeout=timeout):
            yield row
