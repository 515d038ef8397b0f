"""Look tenants up in a table of a control-plane database, through the router's own pools.

What has changed is heard by LISTEN where that is configured, and asked for now and then in any case: a
notification may be lost with the connection that it was for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any

from router.backend import Backend, Target
from router.config import Config, Settings, TableConfig
from router.errors import ConfigurationError, ConnectError, ConnectionLost, Problem, RouterTimeout
from router.execution import Executor
from router.folder_source import FolderSource
from router.session import Session
from router.sources import CallableSource, Data, Lookup, Source
from router.tenant_table import CATALOG, decode, texts
from router.tenants import Placement

POLL, _POLL_BESIDE = 5.0, 60.0  # seconds between two questions what has changed; with NOTIFY
_OVERLAP = 60.0  # seconds: a row counts as changed since its transaction began, and shows when it ends
_PATIENCE = 2.0  # seconds that the connection for NOTIFY is waited for


def session(executor: Executor, backend: Backend, config: TableConfig) -> Session:
    """Return a session on the database that the table is in, for who reads or writes it."""
    placement = Placement(CATALOG, None, backend.cluster, config.database, config.schema_, Settings())
    return Session(executor, Target(placement, backend))


def source_of(
    given: Source | Lookup | None,
    config: Config,
    executor: Executor,
    backends: Mapping[str, Backend],
    clock: Callable[[], float],
    rng: random.Random,
) -> Source | None:
    """Return where tenants are looked up: what the application gave, or what the configuration names."""
    table, folder = config.catalog.table, config.catalog.folder
    if given is not None:
        return given if isinstance(given, Source) else CallableSource(given)
    if folder is not None:
        return FolderSource(config.source / folder, POLL, rng)
    if table is None:
        return None
    patience = config.catalog.timeout / 2  # so that there is time to ask a replica
    return TableSource(executor, backends[table.cluster], table, patience=patience, clock=clock, rng=rng)


class TableSource:
    """Read a tenant's row when it is asked for; the primary's, or a replica's while there is none."""

    def __init__(
        self,
        executor: Executor,
        backend: Backend,
        config: TableConfig,
        *,
        patience: float,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._executor = executor
        self._backend = backend
        self._config = config
        self._patience = patience  # seconds that the primary has for an answer
        self._clock = clock
        self._rng = rng
        self._texts = texts(backend.driver.dialect, config.name)
        self._since = clock()  # all that changed before was yielded
        self._seen: dict[str, object] = {}  # when each changed that was yielded lately

    async def find(self, tenant: str) -> Data | None:
        """Return the settings in the tenant's row."""
        given = {"tenant": tenant}
        row: Any = None
        try:
            row = await self._session().fetch_one(
                self._texts.find, given, primary=True, timeout=self._patience
            )
        except (ConnectError, ConnectionLost, RouterTimeout):  # what a replica has is better than nothing
            row = await self._session().fetch_one(self._texts.find, given, readonly=True)
        if row is None or row[0] is None:
            return None
        try:
            return decode(row[0])
        except ValueError as flaw:
            fact, remedy = "has settings that are not understood", "Write a JSON object, each key once"
            problem = Problem(f"catalog.{tenant}", 0, 0, f"it {fact}", remedy)
            del flaw  # its text may hold the settings
        raise ConfigurationError([problem]).at(tenant=tenant)

    def _session(self) -> Session:
        return session(self._executor, self._backend, self._config)

    # --- changes -----------------------------------------------------------------------------------------

    async def changes(self) -> AsyncGenerator[str | None, None]:
        """Yield who has changed; raise when the connection for NOTIFY is lost or the table cannot be read."""
        if not self._config.notify:
            while True:
                for tenant in await self._changed():
                    yield tenant
                await asyncio.sleep((self._config.poll or POLL) * self._rng.uniform(0.8, 1.2))
        async for tenant in self._heard():
            yield tenant

    async def _changed(self) -> list[str]:
        """Return whose rows have changed since this was last asked."""
        asked = self._clock()
        seconds = int(asked - self._since + _OVERLAP) + 1
        rows = await self._session().fetch_all(self._texts.changed, {"seconds": seconds}, primary=True)
        before, self._seen, self._since = self._seen, {row[0]: row[1] for row in rows}, asked
        return [tenant for tenant, at in self._seen.items() if before.get(tenant) != at]

    async def _heard(self) -> AsyncGenerator[str, None]:
        poll = self._config.poll or _POLL_BESIDE
        heard: asyncio.Queue[str | None] = asyncio.Queue()
        primary = self._backend.health.snapshot().primary
        link: Any = await self._backend.link(self._config.database, _PATIENCE)
        try:
            link.add_termination_listener(lambda _: heard.put_nowait(None))
            await link.add_listener(self._config.name, lambda _l, _p, _c, text: heard.put_nowait(text))
            while True:
                for tenant in await self._changed():  # also before: what was told until now was not heard
                    yield tenant
                end = self._clock() + poll * self._rng.uniform(0.8, 1.2)
                while (left := end - self._clock()) > 0:
                    try:
                        async with asyncio.timeout(left):
                            told = await heard.get()
                    except TimeoutError:
                        break
                    if told is None:
                        raise ConnectionResetError("the connection that changes are heard on has ended")
                    yield told
                if self._backend.health.snapshot().primary is not primary:
                    raise ConnectionResetError("another server has become the primary")
                async with asyncio.timeout(_PATIENCE):
                    await link.execute("SELECT 1")  # else a server that is gone would be silent for ever
        finally:
            with suppress(Exception):
                link.terminate()
