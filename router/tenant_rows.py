"""Tenants kept as rows of the table that ``catalog.table`` names: a change is one statement."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from router.config import Config, TableConfig, TenantConfig
from router.errors import ConfigurationError, Problem, UniqueViolation, UsageError
from router.router import Router
from router.session import Session
from router.statements import Dialect
from router.tenant_store import Candidate, Kept, unknown
from router.tenant_table import Texts, decode, texts
from router.topology import Engine

_PAGE = 5_000  # rows
_DIALECTS = {Engine.POSTGRESQL: Dialect.POSTGRESQL, Engine.SQLITE: Dialect.SQLITE}


class TenantRows:
    """Keep tenants in a table, through a router that is open; tenants with files of their own come first."""

    def __init__(self, opened: Router, config: Config, table: TableConfig) -> None:
        self._opened, self._config = opened, config
        engine = config.clusters[table.cluster].engine
        dialect = next((each for name, each in _DIALECTS.items() if name == engine), Dialect.MYSQL)
        self._texts: Texts = texts(dialect, table.name)
        self._table = table.name
        self._where = f"the table {table.name} in {table.database} on {table.cluster}"

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Keep nobody out: each statement finds out by itself whether another was quicker."""
        yield

    async def rehearse(self, name: str, content: Mapping[str, Any]) -> Candidate:
        """Return a tenant as it would be, if the router would accept its row beside all others."""
        if name in self._config.tenants or self._config.admission.accepts(name):
            raise UsageError(f"the tenant {name} has a file, or a pattern makes it, which would come first")
        if await self._text(name) is not None:
            raise UsageError(f"{self._where} has the tenant {name} already")
        data = {key: value for key, value in content.items() if key != "tenant"}
        found = self._checked(name, data)
        words = self._words(found)
        async for other, text in self._pages():
            # few rows name the place; to read the JSON of a hundred thousand takes seconds
            if not words or other in words or "\\" in text or any(word in text for word in words):
                self._take_rival(found, other, text)
        found = self._checked(name, data)  # again: now it is known who else is there
        tenants = MappingProxyType({**self._config.tenants, name: found})
        return Candidate(found, replace(self._config, tenants=tenants), self._where, json.dumps(data))

    def _words(self, tenant: TenantConfig) -> set[str]:
        """Return words of which a row has one if its place may be the tenant's; none if any row's may."""
        names = filter(None, (tenant.database, tenant.schema, *tenant.schemas.values()))
        words = {f'"{name}"' for name in names} | ({tenant.row[1]} if tenant.row else set())
        shared = {each.database for each in self._config.clusters.values()}
        if tenant.isolation == "database" and tenant.database in shared:
            return set()  # a row need not name the database of its cluster
        return words

    def _take_rival(self, tenant: TenantConfig, other: str, text: str) -> None:
        """Take note of another tenant's place, if that may be the same; what is wrong with it is its own."""
        with suppress(ConfigurationError, ValueError):
            data = decode(text)
            if other != tenant.tenant and self._is_near(tenant, other, data):
                self._config.admission.take(other, data, self._place(other))

    def _is_near(self, tenant: TenantConfig, other: str, data: Mapping[str, Any]) -> bool:
        cluster = self._config.clusters.get(data.get("cluster", ""))
        database = data.get("database") or (cluster.database if cluster is not None else None)
        if "database" in (tenant.isolation, data.get("isolation")) and database == tenant.database:
            return True
        mine = {tenant.schema, *tenant.schemas.values()} - {None}
        theirs = {data.get("schema"), *(data.get("schemas") or {}).values()}
        if tenant.row is not None and data.get("isolation") == "row":  # they share all but the key
            return tenant.row[1] in (data.get("key"), other)
        return bool(mine & theirs)

    async def draft(self, candidate: Candidate) -> RowDraft:
        """Return the row that is to be."""
        return RowDraft(self._session, self._texts, candidate)

    async def find(self, name: str) -> Kept:
        """Return a tenant with what its row says."""
        text = await self._text(name)
        if text is None:
            raise unknown(name, self._where)
        data = self._decoded(name, text)
        return Kept(self._checked(name, data), self._config, f"{self._where}, row {name}", data)

    async def mark(self, name: str, *, suspended: bool) -> bool:
        """Change one key of a tenant's settings."""
        async with self._session as session, session.transaction() as transaction:
            row: Any = await transaction.fetch_one(self._texts.hold, {"tenant": name})
            if row is None or row[0] is None:
                raise unknown(name, self._where)
            data = self._decoded(name, row[0])
            if data.get("suspended", False) is suspended:
                return False
            data["suspended"] = suspended
            self._checked(name, data)
            given = {"tenant": name, "settings": json.dumps(data)}
            await transaction.execute(self._texts.change, given)
        return True

    async def remove(self, name: str) -> str:
        """Leave an empty row, which says to all who ask for changes that the tenant is gone."""
        async with self._session as session, session.transaction() as transaction:
            row: Any = await transaction.fetch_one(self._texts.hold, {"tenant": name})
            if row is None or row[0] is None:
                raise unknown(name, self._where)
            await transaction.execute(self._texts.remove, {"tenant": name})
        return f"{self._where}, row {name}"

    async def every(self) -> AsyncIterator[TenantConfig | ConfigurationError]:
        """Yield all tenants of the table by their ids, an error for one that would be refused."""
        async for name, text in self._pages():
            try:
                yield self._checked(name, self._decoded(name, text))
            except ConfigurationError as error:
                yield error

    async def _pages(self) -> AsyncIterator[tuple[str, str]]:
        after = ""
        while True:
            given = {"after": after, "most": _PAGE}
            rows: list[Any] = await self._session.fetch_all(self._texts.page, given, primary=True)
            for row in rows:
                yield row[0], row[1]
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]
            await asyncio.sleep(0)

    async def _text(self, name: str) -> str | None:
        row: Any = await self._session.fetch_one(self._texts.find, {"tenant": name}, primary=True)
        return None if row is None else row[0]

    @property
    def _session(self) -> Session:
        return self._opened.control()

    def _checked(self, name: str, data: Mapping[str, Any]) -> TenantConfig:
        return self._config.admission.check(name, data, self._place(name))

    def _decoded(self, name: str, text: str) -> dict[str, Any]:
        try:
            return decode(text)
        except ValueError as error:
            problem = Problem(self._place(name), 0, 0, f"cannot be read: {error}", "Correct the row")
            raise ConfigurationError([problem]) from None

    def _place(self, name: str) -> str:
        return f"{self._table}.{name}"


class RowDraft:
    """Hold a row that is not there yet."""

    def __init__(self, session: Session, texts: Texts, candidate: Candidate) -> None:
        self._session, self._texts, self._candidate = session, texts, candidate

    async def take_effect(self) -> None:
        """Insert the row, or fill the empty one that a removed tenant has left."""
        name = self._candidate.tenant.tenant
        given = {"tenant": name, "settings": self._candidate.text}
        if (await self._session.execute(self._texts.revive, given)).rowcount == 1:
            return
        try:
            await self._session.execute(self._texts.insert, given)
        except UniqueViolation:
            raise UsageError(f"{self._candidate.where} has the tenant {name} already") from None

    async def discard(self) -> None:
        """Leave the table as it is."""
