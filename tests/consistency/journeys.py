"""What users do: each opens a session, reads and writes a little, and goes on, often in another process."""

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from router import CommitOutcomeUnknown, Router, RouterError
from router.consistency import Bounded
from router.errors import UsageError
from router.events import RequestEvent, WriteLost
from router.predicates import router_error
from router.topology import Role
from tests.consistency.history import Kind, Level, Opening, Operation, Outcome, Past
from tests.consistency.plan import Carried, Journey, Plan
from tests.consistency.table import (
    CACHEABLE,
    CACHED_READS,
    LEVELLED,
    READS,
    SEVERAL,
    WRITES,
    Entries,
    Found,
    Row,
)

_STOPS = 12  # sessions of a journey: what its user knows stays small enough to be checked
_WINDOW = 400  # operations of a process after which it turns to other items: rows of one stay few
_ITEMS = 6  # that are in use at once, in each tenant
_CACHED_WINDOW, _CACHED_ITEMS = 1_500, 3  # where reads are cached: what is read once is not in memory again
_TIMEOUT = 20.0  # seconds: a request waits while the primary changes
_LEVELS = {Level.SESSION: 16, Level.EVENTUAL: 2, Level.STRONG: 1, Level.BOUNDED: 1}
_BOUNDS = (0.2, 1.0)  # seconds
_SHARES = (0.0, 0.3, 0.5, 0.7)  # of writes, among what one user does
_TTLS = (0.3, 2.0, 30.0)  # seconds that a cached answer may be old
#: How the reason of an operation begins that failed with an error that is none of the router's.
STRANGE = "no RouterError: "

_session: ContextVar[int] = ContextVar("session")  # whose request this task is making


class Place:
    """Hold what the users share who are in one process; ``note`` takes what they did."""

    def __init__(self, plan: Plan, process: int, router: Router, note: Callable[[Any], None]) -> None:
        self.plan, self.process, self.router, self.note = plan, process, router, note
        self.entries = Entries(plan.table, plan.tables)
        self.writes = plan.caching is None or plan.caching.writes(process)
        self.numbers = count((process + 1) * 10**9)
        self.sessions = count((process + 1) * 10**6)
        self.last: dict[str, RequestEvent] = {}  # by context id, which is the session's number
        self.lately: dict[str, deque[Carried]] = defaultdict(lambda: deque(maxlen=8))  # by tenant
        self._done = 0
        self._window, self._items = (
            (_WINDOW, _ITEMS) if plan.caching is None else (_CACHED_WINDOW, _CACHED_ITEMS)
        )
        self._journeys = count((process + 1) * 10**6)
        router.dispatcher.subscribe(RequestEvent, self._heard)
        router.dispatcher.subscribe(WriteLost, self._lost)
        self.reports: set[int] = set()  # sessions that were told of a lost write since they last asked

    def _heard(self, event: RequestEvent) -> None:
        if event.context_id is not None:
            self.last[event.context_id] = event

    def _lost(self, _: WriteLost) -> None:
        self.reports.add(_session.get())

    def journey(self) -> Journey:
        """Return a user who has just come."""
        number = next(self._journeys)
        rng = random.Random(f"{self.plan.seed}/{number}")
        shares = _SHARES if self.plan.caching is None else self.plan.caching.shares
        return Journey(number, rng.choice(self.plan.tenants), self.plan.table, rng.choice(shares))

    def item(self, rng: random.Random) -> int:
        """Return an item that is in use now."""
        return self._done // self._window * self._items + rng.randrange(self._items)

    def did(self, operation: Operation) -> None:
        """Take note of an operation."""
        self._done += 1
        self.note(operation)


class Visit:
    """Run one session of a user."""

    def __init__(self, place: Place, journey: Journey, client: int) -> None:
        self._place, self._journey, self._client = place, journey, client
        self._rng = random.Random(f"{place.plan.seed}/{journey.number}/{journey.stop}/{place.process}")
        self._number = next(place.sessions)
        _session.set(self._number)
        self._count = 0  # operations so far
        caching = place.plan.caching
        levels = _LEVELS if caching is None else _LEVELS | {Level.BOUNDED: caching.bounded}
        self._level = self._rng.choices(tuple(levels), tuple(levels.values()))[0]
        self._within = self._rng.choice(_BOUNDS)  # seconds, where its reads are bounded
        carried = [*journey.carried]
        if (lately := place.lately[journey.tenant]) and self._rng.random() < 0.1:
            carried.append(self._rng.choice(lately))  # two users who know of each other
        after = tuple(each.past for each in carried)
        place.note(Opening(self._number, place.process, client, journey.tenant, monotonic(), after))
        given: dict[str, Any] = {"consistency": self._given(self._level)}
        if place.plan.guarantees.tokens:
            given["after"] = [*(self._brought(each.token) for each in carried), *self._rubbish()]
        self._session = place.router.session(
            journey.tenant, context_id=str(self._number), timeout=_TIMEOUT, **given
        )

    def _brought(self, token: Any) -> Any:
        """Return a token as it arrives: sometimes damaged, so that it is not believed."""
        caching = self._place.plan.caching
        if caching is None or not isinstance(token, str) or self._rng.random() >= caching.damaged:
            return token
        return token[:-3]

    def _cache(self) -> dict[str, Any]:
        """Return, often, that an answer may come from memory."""
        if self._place.plan.caching is None or self._rng.random() >= 0.75:
            return {}
        return {"cache": self._rng.choice(_TTLS)}

    def _rubbish(self) -> list[str]:
        """Return, sometimes, a token that must not be believed: it must not weaken what the others say."""
        others = (each for tenant, each in self._place.lately.items() if tenant != self._journey.tenant)
        foreign = [carried.token for each in others for carried in each if isinstance(carried.token, str)]
        return [self._rng.choice([*foreign, "r1.rubbish"])] if self._rng.random() < 0.02 else []

    def _given(self, level: Level) -> str | Bounded:
        """Return the level to ask for: less than what is claimed, if that is switched off."""
        if level is Level.BOUNDED:
            return Bounded(seconds=self._within)
        return self._place.plan.guarantees.level if level is Level.SESSION else level.value

    async def run(self) -> list[tuple[int, Journey]]:
        """Do what the user does here; return where they go on: processes, and with what."""
        async with self._session:
            for _ in range(self._rng.randint(1, 5 if self._place.plan.caching is None else 8)):
                await self._operation()
                if self._rng.random() < 0.05:
                    await asyncio.sleep(self._rng.uniform(0, 0.3))
            onward = [each async for each in self._onward()]
        self._place.last.pop(str(self._number), None)
        return onward

    async def _onward(self) -> AsyncIterator[tuple[int, Journey]]:
        """Yield where the user goes; sometimes two go on from here."""
        if self._journey.stop >= _STOPS:
            return
        for _ in range(1 + (self._rng.random() < 0.06)):
            target = self._rng.randrange(self._place.plan.processes)
            stays = target == self._place.process
            token: Any = self._session if stays and self._rng.random() < 0.7 else await self._token()
            if token is None:
                return
            if self._number in self._place.reports:  # it was told when it took the token
                now = monotonic()
                self._did(Kind.TOKEN, 0, (), now, now, Outcome.OK, "token", "")
            carried = Carried(Past(self._number, self._count), token)
            if stays:
                self._place.lately[self._journey.tenant].append(carried)
            yield target, replace(self._journey, stop=self._journey.stop + 1, carried=(carried,))

    async def _token(self) -> str | None:
        """Return a token; ``None`` if nobody could be asked for one."""
        if not self._place.plan.guarantees.tokens:
            return ""
        try:
            return await self._session.token()
        except UsageError:
            raise
        except RouterError:
            return None

    # --- operations --------------------------------------------------------------------------------------

    async def _operation(self) -> None:
        if self._place.writes and self._rng.random() < self._journey.writes:
            await self._write()
        elif self._rng.random() < 0.95:
            await self._read()
        else:
            await self._glance()

    def _item(self) -> int:
        items = self._journey.items
        if items and self._rng.random() < 0.6:
            return self._rng.choice(items)
        item = self._place.item(self._rng)
        self._journey.items = (item, *items[:2])
        return item

    async def _write(self) -> None:
        rows = [Row(self._item(), next(self._place.numbers)) for _ in range(self._rng.choice((1, 1, 1, 2)))]
        way = self._rng.choices(tuple(WRITES), tuple(WRITES.values()))[0]
        began = monotonic()
        outcome, error = await self._try(lambda: way(self._place.entries, self._session, rows))
        tries = 1
        while outcome is Outcome.UNKNOWN and not self._place.plan.guarantees.once and tries < 3:
            outcome, error = await self._try(lambda: way(self._place.entries, self._session, rows))
            tries += 1
        ended = monotonic()
        for item in sorted({row.item for row in rows}):
            numbers = tuple(row.number for row in rows if row.item == item)
            self._did(Kind.WRITE, item, numbers, began, ended, outcome, way.__name__, error)

    async def _try(self, work: Callable[[], Awaitable[None]]) -> tuple[Outcome, str]:
        try:
            await work()
        except (RouterError, SQLAlchemyError) as exc:
            error = router_error(exc)
            if error is None:
                return Outcome.UNKNOWN, f"{STRANGE}{type(exc).__name__}: {exc}"
            unknown = isinstance(error, CommitOutcomeUnknown)
            return Outcome.UNKNOWN if unknown else Outcome.FAILED, type(error).__name__
        return Outcome.OK, ""

    async def _read(self) -> None:
        ways = READS if self._place.plan.caching is None else CACHED_READS
        way = self._rng.choices(tuple(ways), tuple(ways.values()))[0]
        several = way in SEVERAL and self._rng.random() < 0.5
        items = list(dict.fromkeys(self._item() for _ in range(1 + several)))
        level, given = self._level, dict[str, Any]()
        if way in LEVELLED and self._rng.random() < 0.1:
            level = self._rng.choice((Level.EVENTUAL, Level.STRONG, Level.BOUNDED))
            given = {"consistency": self._given(level)}
        if way in CACHEABLE:
            given |= self._cache()
        began = monotonic()
        found: list[Found] = []

        async def work() -> None:
            found.extend(await way(self._place.entries, self._session, items, **given))

        outcome, error = await self._try(work)
        if outcome is not Outcome.OK:
            found = [(monotonic(), []) for _ in items]
        for item, (ended, rows) in zip(items, found, strict=True):
            numbers = tuple(number for tenant, number in rows if tenant == self._journey.tenant)
            foreign = tuple(tenant for tenant, _ in rows if tenant != self._journey.tenant)
            self._did(
                Kind.READ,
                item,
                numbers,
                began,
                ended,
                outcome,
                way.__name__,
                error,
                level=level,
                cache=given.get("cache", 0.0),
                foreign=foreign,
            )

    async def _glance(self) -> None:
        """Read once without a session, after this one."""
        place, tenant, item, number = (
            self._place,
            self._journey.tenant,
            self._item(),
            next(self._place.sessions),
        )
        past = Past(self._number, self._count)
        place.note(Opening(number, place.process, self._client, tenant, monotonic(), (past,)))
        after = self._session if place.plan.guarantees.tokens else None
        found: list[tuple[str, int]] = []
        given = self._cache()

        async def work() -> None:
            found.extend(
                (row.tenant, row.number)
                for row in await place.router.fetch_all(
                    place.entries.of(item).select,
                    {"item": item},
                    tenant=tenant,
                    after=after,
                    consistency=self._given(Level.SESSION),
                    timeout=_TIMEOUT,
                    **given,
                )
            )

        _session.set(number)
        began = monotonic()
        outcome, error = await self._try(work)
        ended = monotonic()
        told = number in place.reports
        _session.set(self._number)
        own = tuple(each for owner, each in found if owner == tenant)
        foreign = tuple(owner for owner, _ in found if owner != tenant)
        place.did(
            Operation(
                number, place.process, tenant, Kind.READ, item, own, began, ended,
                outcome, how="glance", reason=error, told=told, foreign=foreign, **given,
            )
        )  # fmt: skip

    def _did(
        self,
        kind: Kind,
        item: int,
        numbers: tuple[int, ...],
        began: float,
        ended: float,
        outcome: Outcome,
        how: str,
        error: str,
        **more: Any,
    ) -> None:
        event = self._place.last.get(str(self._number))
        node = "" if event is None or event.node is None else event.node.name
        reason = error or ("" if event is None else event.reason.value)
        replica = event is not None and event.role is Role.REPLICA
        place, tenant = self._place, self._journey.tenant
        told = self._number in place.reports
        place.reports.discard(self._number)
        within = self._within if more.get("level") is Level.BOUNDED else 0.0
        self._count += 1
        place.did(
            Operation(
                self._number, place.process, tenant, kind, item, numbers, began, ended,
                outcome, how=how, node=node, replica=replica, reason=reason, told=told, within=within, **more,
            )
        )  # fmt: skip
