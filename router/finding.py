"""Ask a source for tenants that are not in memory: once at a time for each, and again beside all requests.

What is known stays in use while the source fails; stale is better than down. Who is not known then gets
CatalogUnavailable, never UnknownTenant.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any

from router import events
from router.config import Config, TenantConfig
from router.errors import CatalogUnavailable, ConfigurationError, RouterClosed
from router.found import Found
from router.frames import drop_frames
from router.logs import log_of
from router.pacing import paced
from router.sources import Data, Source

_FIRST, _LONGEST = 0.1, 10.0  # seconds before a source that failed is asked again, doubled each time
_TOLD = 1_000  # tenants of which is remembered what was told to be wrong
_log = log_of("catalog")


class Finder:
    """Own what is looked up; ``drop`` is told of each tenant whose placement is no longer what it was."""

    def __init__(
        self,
        source: Source,
        config: Config,
        found: Found,
        drop: Callable[[TenantConfig], None],
        *,
        emit: Callable[[events.Event], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.found = found
        self.usable = True
        self.counts = dict.fromkeys(("found", "none", "refused", "failed"), 0)
        self._source = source
        self._config = config.catalog
        self._admission = config.admission
        self._drop = drop
        self._emit = emit
        self._clock, self._wall = clock, wall
        self._rng = rng
        self._flights: dict[str, asyncio.Task[str]] = {}
        self._asked: dict[str, float] = {}  # when each that is kept was last asked for, the first first
        self._changed: dict[str, None] = {}  # who is to be asked for again now
        self._something = asyncio.Event()  # has changed
        self._told: dict[str, tuple[str, ...]] = {}  # what was wrong, by tenant
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    # --- life --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to hear of changes."""
        self._tasks = [self._beside(self._hear(), "hear"), self._beside(self._refresh(), "refresh")]

    def cancel(self) -> None:
        """End, without waiting for it."""
        self._closed = True
        for task in (*self._tasks, *self._flights.values()):
            task.cancel()

    async def close(self) -> None:
        """End what runs beside requests."""
        self.cancel()
        if running := [*self._tasks, *self._flights.values()]:
            await asyncio.wait(running, timeout=1.0)

    @staticmethod
    def _beside(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        # in a context of its own: what it does is not part of the request that comes first
        return asyncio.get_running_loop().create_task(work, name=f"router catalog {name}", context=Context())

    def keep(self, config: Config) -> tuple[TenantConfig, ...]:
        """Return who can stay by another configuration, whose places they have in it; in any thread."""
        return tuple(each for each in paced(self.found.known()) if _stays(each, config))

    def adopt(self, config: Config, kept: Collection[TenantConfig], *, again: bool) -> None:
        """Go by another configuration, which has the places of those ``kept``; ask ``again`` for all."""
        self._config, self._admission = config.catalog, config.admission
        staying = set(map(id, kept))
        for had in self.found.known():
            # who was found meanwhile has no place in it yet
            if id(had) not in staying and not _stays(had, config):
                self.found.forget(had.tenant)
                self._asked.pop(had.tenant, None)
                self._drop(had)
        if again:
            self.heard(None)

    # --- asking ------------------------------------------------------------------------------------------

    async def find(self, tenant: str, timeout: float | None = None) -> None:
        """Have a tenant asked for; who asks at the same time shares the answer. Then it is remembered.

        Raises:
            CatalogUnavailable: it could not be asked for, or there was no answer in time.
        """
        flight = self._flight(tenant)
        await asyncio.wait((flight,), timeout=timeout)  # others go on waiting for it
        if flight.done() and flight.cancelled():
            raise _closed(tenant)
        if failure := flight.result() if flight.done() else "TimeoutError":
            raise CatalogUnavailable(
                f"it is not known whether there is such a tenant: looking it up failed with {failure}. "
                "Try again; those that are known are served"
            ).at(tenant=tenant)

    def _flight(self, tenant: str) -> asyncio.Task[str]:
        flight = self._flights.get(tenant)
        if flight is None:
            if self._closed:
                raise _closed(tenant)
            flight = self._flights[tenant] = self._beside(self._ask(tenant), "look-up")
            flight.add_done_callback(lambda _: self._flights.pop(tenant, None))
        return flight

    async def _ask(self, tenant: str) -> str:
        """Ask, and remember the answer; return the name of what went wrong, "" if nothing did."""
        try:
            async with asyncio.timeout(self._config.timeout):
                answer: Data | ConfigurationError | None = await self._source.find(tenant)
        except ConfigurationError as refusal:
            answer = refusal  # there is one, and nothing to go by
        except Exception as exc:
            drop_frames(exc)  # a password may be in one of them
            self.counts["failed"] += 1
            self._tell_state(type(exc).__name__)
            return type(exc).__name__
        self._tell_state("")
        self._asked.pop(tenant, None)
        self._take(tenant, answer)
        if tenant in self.found:
            self._asked[tenant] = self._clock()
        return ""

    # --- answers -----------------------------------------------------------------------------------------

    def _take(self, tenant: str, answer: Data | ConfigurationError | None) -> None:
        had = self.found.get(tenant)
        if answer is None:
            self.counts["none"] += 1
            self.found.miss(tenant)
            if had is not None:
                self._leave(had)
                self._emit(events.TenantChanged(self._wall(), tenant, gone=True))
            return
        try:
            if isinstance(answer, ConfigurationError):
                raise answer
            now = self._admission.take(tenant, answer, f"catalog.{tenant}", had)
        except ConfigurationError as refusal:
            self._refuse(tenant, refusal, had)
            return
        self.counts["found"] += 1
        self._told.pop(tenant, None)
        if now == had:
            return
        if (left := self.found.keep(now)) is not None:
            self._asked.pop(left.tenant, None)
            self._changed.pop(left.tenant, None)
            self._leave(left)
        if had is not None:
            self._drop(had)
            self._emit(events.TenantChanged(self._wall(), tenant, gone=False))

    def _leave(self, tenant: TenantConfig) -> None:
        self._admission.release(tenant)
        self._drop(tenant)

    def _refuse(self, tenant: str, refusal: ConfigurationError, had: TenantConfig | None) -> None:
        self.counts["refused"] += 1
        if had is None:  # else the last good one stays
            self.found.miss(tenant, refusal.problems)
        problems = tuple(map(str, refusal.problems))
        if self._told.get(tenant) == problems:
            return
        if len(self._told) >= _TOLD:
            del self._told[next(iter(self._told))]
        self._told[tenant] = problems
        _log.error("tenant %s is refused: %s", tenant, "; ".join(problems), extra={"tenant": tenant})
        self._emit(events.TenantRefused(self._wall(), tenant, problems))

    def _tell_state(self, error: str) -> None:
        if self.usable != (not error):
            self.usable = not error
            if error:
                _log.warning("tenants cannot be looked up: %s; those that are known are served", error)
            else:
                _log.info("tenants can be looked up again")
            self._emit(events.CatalogChanged(self._wall(), self.usable, error))

    # --- changes -----------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        failures = 0
        while True:
            try:
                async for tenant in self._source.changes():
                    failures = 0
                    self.heard(tenant)
                return
            except Exception as exc:
                drop_frames(exc)
                failures += 1
                _log.info("changes of tenants are not heard: %s", type(exc).__name__)
            await self._pause(failures)

    def heard(self, tenant: str | None) -> None:
        """Take note that a tenant has changed, with ``None`` that any may have."""
        self.found.doubt(tenant)
        for each in self.found.tenants() if tenant is None else (tenant,):
            # an answer that is on its way may be from before
            if each in self.found or each in self._flights:
                self._changed[each] = None
        self._something.set()

    async def _refresh(self) -> None:
        """Ask again for who has changed, and for who was not asked for in a while; one at a time."""
        failures = 0
        while True:
            tenant = self._next()
            if tenant is None:
                await self._rest()
                continue
            if (flight := self._flights.get(tenant)) is not None:
                await asyncio.wait((flight,))
            self._changed.pop(tenant, None)
            if tenant not in self.found:
                self.found.doubt(tenant)
            elif await self._flight(tenant):
                self._changed[tenant] = None
                failures += 1
                await self._pause(failures)
            else:
                failures = 0

    def _next(self) -> str | None:
        for tenant in self._changed:
            return tenant
        for tenant, asked in self._asked.items():
            return tenant if asked + self._config.refresh <= self._clock() else None
        return None

    async def _rest(self) -> None:
        """Wait for a change, or until somebody is due to be asked for again."""
        self._something.clear()
        due = next(iter(self._asked.values()), self._clock()) + self._config.refresh - self._clock()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(due, _FIRST)):
                await self._something.wait()

    async def _pause(self, failures: int) -> None:
        longest = min(_LONGEST, _FIRST * 2.0 ** min(failures, 20))
        await asyncio.sleep(longest * self._rng.uniform(0.5, 1.0))


def _closed(tenant: str) -> RouterClosed:
    return RouterClosed("the router is closed. Open a new one").at(tenant=tenant)


def _stays(tenant: TenantConfig, config: Config) -> bool:
    return tenant.cluster in config.clusters and config.admission.keep(tenant)
