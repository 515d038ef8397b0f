"""What an application may ask of the cache: let go of answers, tell others so, and say how it fares."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from router.cache.reach import Reach, reach
from router.cache.status import CacheStatus, status_of
from router.cache.tally import Tally
from router.errors import RouterError
from router.execution import Executor
from router.relating import learn

_PATIENCE = 5.0  # seconds


class CacheHandle:
    """Control the cache of a router, as ``router.cache``."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._cache = executor.cache

    def invalidate(
        self, tenant: str, schema: str | None = None, *, tables: Iterable[str] | None = None
    ) -> None:
        """Let go of what was read from a tenant's tables, here and in all processes that are told.

        Call it after a write that did not go through a router. ``tables`` are named as in SQL. Without them
        all of the schema's go, and without a schema all of the tenant's. So they do where the database's
        catalog was not asked lately, or does not tell which tables change with these: see :meth:`ask`.

        Raises:
            UnknownTenant: the catalog has no such tenant.
            UnknownSchema: the tenant has no such schema.
            TenantNotAsked: it has no file and is not in memory; await ``router.find`` before.
        """
        scope = self._executor.scope(self._executor.target(tenant, schema))
        if tables is None:
            self._cache.invalidate(scope.homes if schema is None else (scope.place,))
            if schema is None:
                self._cache.forgotten(tenant, "asked")
        else:
            names = frozenset((tables,) if isinstance(tables, str) else tables)
            self._cache.invalidate(scope.named(names))

    def flush(self) -> None:
        """Let go of everything, here and in all processes that are told."""
        self._cache.flush()

    async def ask(self, tenant: str, schema: str | None = None, *, timeout: float = _PATIENCE) -> None:
        """Ask the database which tables change with each other, unless that was done lately.

        Reads and writes through the cache do it by themselves. Raises nothing if it does not answer.
        """
        executor = self._executor
        executor.check_loop()
        target = executor.target(tenant, schema)
        scope = executor.scope(target)
        with suppress(RouterError):
            await learn(target, scope, executor.clock() + timeout)

    async def told(self, *, timeout: float = _PATIENCE) -> bool:
        """Wait until what was let go of was told to other processes; return whether it was.

        A program that calls ``invalidate`` and ends need not: closing the router waits for half a second.
        """
        self._executor.check_loop()
        return await self._cache.all_told(timeout)

    async def reach(self, *, timeout: float = _PATIENCE) -> Reach:
        """Return by what other processes are told, and whether the servers for it answer in time."""
        self._executor.check_loop()
        return await reach(self._cache, self._executor.clock, timeout)

    def tallies(self) -> list[Tally]:
        """Return what is counted for each tenant, as it goes on; any thread may ask."""
        return list(self._cache.tallies.values())

    def stats(self) -> CacheStatus:
        """Return what the cache holds and what became of the reads that could be answered from it."""
        return status_of(self._cache)
