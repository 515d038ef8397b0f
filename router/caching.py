"""The way of a read that may be answered from memory: look it up, else read it once for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from math import inf
from typing import Any, NamedTuple

from router.backend import Target
from router.cache.entries import Entry
from router.cache.flights import Flight, again
from router.cache.keys import local_key
from router.cache.marks import Place
from router.cache.refusal import Bypass, Unstored
from router.cache.refusal import Refusal as Never
from router.cache.rules import moment_in
from router.cache.scope import Scope
from router.cache.serving import Refusal, refusal
from router.cache.shown import Shown
from router.cache.tally import add
from router.cache.tier import Tier
from router.cache.values import freeze
from router.consistency import Bounded, Consistency
from router.context import Context
from router.errors import RouterError, RouterTimeout, StaleReadError
from router.execution import Executor
from router.filling import Fill
from router.frontier import Frontier
from router.looking import Look
from router.queries import Options
from router.relating import learn
from router.requests import Request
from router.routing import Intent
from router.statements import Statement
from router.steering import settle

_FRESH = 0.8  # share of its lifetime after which an answer that is still asked for is read anew, beside
_DEAF = 2.0  # seconds that an answer lives while other processes should be heard and are not
_PAUSE = 1.0  # seconds until what could not be read anew is tried again
_FLIGHTS = 3  # reads of others that one waits for, before it goes by itself
_STRONG, _SESSION, _EVENTUAL = Consistency.STRONG, Consistency.SESSION, Consistency.EVENTUAL
_BOUNDED, _PRIMARY = Consistency.BOUNDED, Intent.PRIMARY
Places = tuple[Place, ...] | None  # None: the catalog has not said; an answer is shared and not kept


class Asked(NamedTuple):
    """Hold what decides whether an answer will do, and what is told of it."""

    target: Target
    seen: Frontier
    statement: Statement
    consistency: Consistency | Bounded
    ttl: float
    at: float
    context: Context | None
    beside: bool = False  # nobody waits for it: an answer is read anew before it is too old

    def refusal(self, entry: Entry, heard: Callable[[], float], sent: float = -inf) -> Refusal | None:
        """Return why an entry does not do; ``sent`` is when its read began, if it was just made."""
        reign = self.target.backend.health.snapshot().reign.began
        fresh = sent >= self.at
        return refusal(entry, self.seen, self.consistency, self.ttl, self.at, reign, heard, fresh=fresh)


async def read(
    executor: Executor,
    target: Target,
    seen: Frontier,
    verb: str,
    sql: str,
    params: Any,
    given: Options,
    consistency: Consistency | Bounded,
    context: Context | None,
    make: Callable[[str, str, Any, Options], Request],
) -> Any:
    """Answer a read from memory where that is allowed; else make its request, run it and keep the answer."""
    executor.check_loop()
    cache, now = executor.cache, executor.clock()
    if not cache.enabled:
        return await executor.run(make(verb, sql, params, given))
    if not cache.active:
        cache.activate()
    scope = target.scope or executor.scope(target)
    try:
        statement = target.backend.statements.of(sql)
        args = statement.bind(params)
    except RouterError:
        return await executor.run(make(verb, sql, params, given))  # which raises it again, with the place
    key = local_key(scope, verb, sql, args)
    ttl = given.cache
    if ttl is None:
        ttl = scope.lifetime(statement, key, now)
    if not ttl:
        return await executor.run(make(verb, sql, params, given))
    if ttl > _DEAF and not scope.broadcast.healthy():
        ttl = _DEAF
    level = given.consistency or consistency
    if level is not _SESSION or given.intent is _PRIMARY:
        if level is _BOUNDED:
            level = target.placement.settings.bounded
        if (why := _bypass(given, level)) is not None:
            add(scope.tally.bypasses, why)
            return await _past(executor, make(verb, sql, params, given))
    if key is None:
        add(scope.tally.bypasses, Bypass.PARAMETERS)
        _unanswered(executor, target, scope)
        return await _past(executor, make(verb, sql, params, given))
    reign = target.backend.health.snapshot().reign.began
    if seen.pending or seen.goal is not None or (reign > -inf and seen.since < reign):
        await _settled(executor, make(verb, sql, params, given))
        reign = target.backend.health.snapshot().reign.began
    if seen.shown is None:  # it began before the cache did
        seen.shown = Shown()
        seen.shown.everything(seen.restarted())
    entry = cache.memory.get(key)
    if entry is not None:
        no = refusal(entry, seen, level, ttl, now, reign, scope.heard)
        if no is None:
            scope.tally.hits += 1
            if now - entry.born > ttl * _FRESH and not entry.refreshing:
                asked = Asked(target, seen, statement, level, ttl, now, context)
                _refresh(executor, asked, scope, key, entry, make(verb, sql, params, given))
            return _give(executor, target, seen, statement, scope, entry, now, context)
        add(scope.tally.refused, no)
    asked = Asked(target, seen, statement, level, ttl, now, context)
    return await _miss(executor, asked, scope, key, make(verb, sql, params, given))


def _bypass(given: Options, level: Consistency | Bounded) -> Bypass | None:
    """Return why a call is not answered from memory."""
    if given.intent is _PRIMARY:
        return Bypass.PRIMARY
    if level is _STRONG:
        return Bypass.STRONG
    if isinstance(level, Bounded) and level.size is not None:
        return Bypass.BOUND
    return None


async def _past(executor: Executor, request: Request) -> Any:
    """Run a request that memory may not answer."""
    request.cache = "bypass"
    return await executor.run(request)


async def _settled(executor: Executor, request: Request) -> None:
    """Look at the session's tokens, and at what a failover has taken, before anything is compared with them.

    ``request`` is not run.
    """
    target, seen = request.target, request.seen
    request.started = executor.clock()
    failure: RouterError
    try:
        if not target.backend.health.known:
            await target.backend.look(target.database, request.deadline)
        if seen.pending:
            await executor.causality.look_around(seen, target, request.deadline)
        settle(target, seen, target.backend.health.snapshot(), executor.causality)
        return
    except RouterError as error:
        failure = request.describe(error)
    executor.teller.failed(request, failure)
    raise failure


def _give(
    executor: Executor,
    target: Target,
    seen: Frontier,
    statement: Statement,
    scope: Scope,
    entry: Entry,
    began: float,
    context: Context | None,
    found: str = "hit",
) -> Any:
    """Return a copy of an entry's rows; remember that the session has been shown them, and tell."""
    scope.tally.saved += entry.cost
    shown = seen.shown
    if shown is not None and shown.last is not entry:
        shown.entry(entry)
    if entry.until > seen.moment:
        seen.note_cached(entry.node, entry.until, target.backend.health.snapshot().current)
    value = entry.value.thaw()
    token = "met" if seen.carried else ""
    size = entry.value.size
    executor.teller.cached(target, statement, entry.node, began, value, size, context, found, token)
    return value


def _given(executor: Executor, asked: Asked, scope: Scope, entry: Entry, found: str) -> Any:
    """Give a copy of an entry's rows to who asked; ``found`` says where it came from."""
    target, seen, statement = asked.target, asked.seen, asked.statement
    return _give(executor, target, seen, statement, scope, entry, asked.at, asked.context, found)


# --- reads that go to the database -----------------------------------------------------------------------


async def _miss(executor: Executor, asked: Asked, scope: Scope, key: Hashable, request: Request) -> Any:
    """Read for this request and for all who ask the same meanwhile, or join who does so already."""
    cache, tally = executor.cache, scope.tally
    request.started, request.cache = asked.at, "miss"
    if not scope.fresh and scope.never(asked.statement) is None:
        await learn(asked.target, scope, request.deadline)
    places = scope.reads(asked.statement)
    if moment_in(request.args, asked.statement.dialect):
        places = Never.TIME_LITERAL
    if isinstance(places, str):
        add(tally.bypasses, places)
        _unanswered(executor, asked.target, scope)
        return await _past(executor, request)
    for _ in range(_FLIGHTS):
        error = cache.flights.failed(key)
        flight = cache.flights.running(key)
        if error is None and flight is None:
            return await _lead(executor, asked, scope, key, places, request)
        if error is None and flight is not None:
            try:
                await flight.wait(request.deadline - executor.clock())
            except TimeoutError:
                break  # there is no time left for it either, which it says in the right words
            error = flight.error
        if error is not None:
            failure = again(error)
            executor.teller.failed(request, failure)
            raise failure
        if flight is not None and flight.entry is not None:
            entry = flight.entry
            await _settled(executor, request)  # another primary may have taken over meanwhile
            # an answer of which the tables are not known is not overruled by any write
            known = entry.places or flight.sent >= asked.at
            if known and asked.refusal(entry, scope.heard, flight.sent) is None:
                tally.joined += 1
                return _given(executor, asked, scope, entry, "joined")
    tally.misses += 1
    _unanswered(executor, asked.target, scope)
    return await executor.run(request)


def _unanswered(executor: Executor, target: Target, scope: Scope) -> None:
    """Take note that the database answers a read; tell if the cache is not worth it for its tenant."""
    verdict = scope.worth.unanswered(scope.tally, executor.clock())
    if verdict is not None:
        executor.teller.not_worth_it(target, verdict)


async def _lead(
    executor: Executor, asked: Asked, scope: Scope, key: Hashable, places: Places, request: Request
) -> Any:
    """Make a read that others may join; whoever is cancelled here leaves it to one of them."""
    cache = executor.cache
    flight = cache.flights.begin(key)
    try:
        return await _filled(executor, asked, scope, key, places, request, flight)
    except RouterError as error:
        if not isinstance(error, RouterTimeout | StaleReadError):  # which depend on who asks
            flight.error = error
        raise
    finally:
        cache.flights.end(key, flight)


async def _filled(
    executor: Executor,
    asked: Asked,
    scope: Scope,
    key: Hashable,
    places: Places,
    request: Request,
    flight: Flight,
) -> Any:
    """Take an answer from the tier that processes share, or run the read; keep what may be kept."""
    look = None
    if (
        executor.cache.tier is not None
        and places is not None
        and not asked.target.backend.cluster.replicas_current
    ):
        look, entry = await _looked(executor, asked, scope, request, places, executor.cache.tier)
        if entry is not None:
            flight.entry = entry
            executor.cache.store(key, entry, scope)
            if asked.beside:
                return None
            scope.tally.remote += 1
            return _given(executor, asked, scope, entry, "remote")
    if not asked.beside:
        scope.tally.misses += 1
        _unanswered(executor, asked.target, scope)
    return await _run(executor, asked, scope, key, places, request, flight, look)


async def _looked(
    executor: Executor, asked: Asked, scope: Scope, request: Request, places: tuple[Place, ...], tier: Tier
) -> tuple[Look, Entry | None]:
    """Look into the tier that processes share; return its answer only if it will do."""
    began = executor.clock()
    look = await Look.begin(executor, asked.target, tier, request, places)
    scope.tally.waited += executor.clock() - began
    entry = look.entry(scope.marks(places, executor.cache.marks), asked.ttl)
    if entry is not None:
        await _settled(executor, request)  # as after any wait
        if asked.refusal(entry, scope.heard) is None:
            return look, entry
    return look, None


async def _run(
    executor: Executor,
    asked: Asked,
    scope: Scope,
    key: Hashable,
    places: Places,
    request: Request,
    flight: Flight,
    look: Look | None,
) -> Any:
    """Run the read; keep what may be kept of its answer."""
    cache = executor.cache
    fill = request.fill = Fill()
    # before it is sent: a write from now on is seen in them
    marks = () if places is None else scope.marks(places, cache.marks)
    goal = request.seen.goal
    value = await executor.run(request)
    if places is not None and (not scope.fresh or scope.reads(request.statement) != places):
        add(scope.tally.unstored, Unstored.SCHEMA)  # it has changed while the read waited
        _show(executor, request, None)
        return value
    frozen = freeze(value, cache.largest)
    if frozen is None or fill.node is None:
        add(scope.tally.unstored, Unstored.VALUE if frozen is None else Unstored.AGE)
        _show(executor, request, places)
        return value
    own = request.consistency is _SESSION  # else it need not have what the session has seen
    if own:
        fill.includes(goal)
    entry = Entry(
        frozen,
        places=places or (),
        marks=marks,
        as_of=fill.as_of,
        until=fill.until,
        born=fill.until,
        position=fill.position,
        reign=fill.reign,
        node=fill.node,
        cost=request.execute,
    )
    flight.entry = entry
    if request.seen.shown is not None:
        request.seen.shown.own(entry, fill.sent if own else entry.as_of)
    if entry.as_of == -inf:  # for those who have seen nothing it does, as a read of their own would
        add(scope.tally.unstored, Unstored.AGE)
        asked.target.backend.health.wanted()
    elif places is None:
        add(scope.tally.unstored, Refusal.UNKNOWN)
    elif cache.store(key, entry, scope):
        if look is not None:
            look.keep(entry, asked.ttl)
    elif not entry.alive:  # a replica that is not known to have the last write: ask how far it is by now
        asked.target.backend.health.wanted()
    return frozen.thaw()


def _show(executor: Executor, request: Request, places: Places) -> None:
    """Remember that the session was shown these tables, or any if they are not known."""
    shown = request.seen.shown
    if shown is not None and places is not None:
        shown.tables(places, executor.clock())
    elif shown is not None:
        shown.everything(executor.clock())


def _refresh(
    executor: Executor, asked: Asked, scope: Scope, key: Hashable, entry: Entry, request: Request
) -> None:
    """Have an entry read anew before it is too old; until then it does."""
    if executor.cache.flights.running(key) is not None:
        return
    request.seen = Frontier()  # not the session's: what is read beside, it has not seen
    request.consistency = _EVENTUAL
    alone = asked._replace(seen=request.seen, consistency=_EVENTUAL, beside=True)

    async def renew() -> None:
        try:
            await _lead(executor, alone, scope, key, entry.places, request)
        except RouterError:  # told as an event; the entry serves until it is too old
            asyncio.get_running_loop().call_later(_PAUSE, entry.rest)

    # once for each entry: where a replica gave nothing newer, another try would not either
    entry.refreshing = executor.cache.beside(renew())
