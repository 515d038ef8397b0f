"""The one-shot forms: a statement in a session of its own, for who has just one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from router.causality import After
from router.queries import Params
from router.rows import Result, Row
from router.session import Session


class OneShot(ABC):
    """Run single statements; ``given`` are the options of :class:`router.queries.Queries`."""

    @abstractmethod
    def session(self, tenant: str, schema: str | None = None, *, after: After = None) -> Session:
        """Return a session of a tenant."""

    async def fetch_all(
        self,
        sql: Any,
        params: Params = None,
        *,
        tenant: str,
        schema: str | None = None,
        after: After = None,
        **given: Any,
    ) -> list[Row]:
        """Run one statement in a session of its own and return all its rows."""
        return await self.session(tenant, schema, after=after).fetch_all(sql, params, **given)

    async def fetch_one(
        self,
        sql: Any,
        params: Params = None,
        *,
        tenant: str,
        schema: str | None = None,
        after: After = None,
        **given: Any,
    ) -> Row | None:
        """Run one statement in a session of its own and return its first row, or ``None``."""
        return await self.session(tenant, schema, after=after).fetch_one(sql, params, **given)

    async def fetch_value(
        self,
        sql: Any,
        params: Params = None,
        *,
        tenant: str,
        schema: str | None = None,
        after: After = None,
        **given: Any,
    ) -> Any:
        """Run one statement in a session of its own and return the first column of its first row."""
        return await self.session(tenant, schema, after=after).fetch_value(sql, params, **given)

    async def execute(
        self,
        sql: Any,
        params: Params = None,
        *,
        tenant: str,
        schema: str | None = None,
        after: After = None,
        **given: Any,
    ) -> Result:
        """Run one statement in a session of its own and return what it did."""
        return await self.session(tenant, schema, after=after).execute(sql, params, **given)

    async def execute_many(
        self,
        sql: Any,
        params: Iterable[Mapping[str, object]],
        *,
        tenant: str,
        schema: str | None = None,
        after: After = None,
        **given: Any,
    ) -> int:
        """Run one statement for each mapping, all or none."""
        return await self.session(tenant, schema, after=after).execute_many(sql, params, **given)

    async def execute_raw(
        self,
        text: str,
        *,
        tenant: str,
        schema: str | None = None,
        after: After = None,
        timeout: float | None = None,
    ) -> None:
        """Run a text on the primary exactly as it is."""
        await self.session(tenant, schema, after=after).execute_raw(text, timeout=timeout)

    async def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        tenant: str,
        schema: str | None = None,
        after: After = None,
        **given: Any,
    ) -> AsyncGenerator[Row, None]:
        """Iterate over the rows of a query with a cursor on the server."""
        async with aclosing(self.session(tenant, schema, after=after).stream(sql, params, **given)) as rows:
            async for row in rows:
                yield row
