"""Ask a database's catalog how its relations depend on each other, and take note of what is written there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from router.backend import Backend, Target
from router.cache.cache import Cache
from router.cache.marks import Place, Writing
from router.cache.scope import Scope
from router.cache.tally import Tally
from router.cache.worth import Worth
from router.errors import NoPrimary, RouterError
from router.requests import Request
from router.retries import outcome_unknown
from router.rows import Row
from router.statements import Kind, Statement
from router.topology import Node

_PATIENCE = 1.0  # seconds that a read waits for what the catalog says, before it goes on without
_UNCLEAR = 3  # writes that cast doubt on all that a tenant has, until the catalog is asked for their sake


def scope_of(target: Target, cache: Cache, homes: Iterable[Place]) -> Scope:
    """Return what the cache knows of a target; ``homes`` are all places of its tenant."""
    placement, backend = target.placement, target.backend
    cluster = backend.cluster.name
    scope = Scope(
        Place(cluster, target.database, target.schema),
        tuple(homes),
        placement.settings,
        cache.known_of(cluster, backend.driver.dialect, placement.settings.cache_dependencies),
        cache.broadcasts[cluster],
        cache.tallies.setdefault(placement.tenant, Tally()),
        cache.worths.setdefault(placement.tenant, Worth()),
        placement.role,
    )
    target.scope = scope
    return scope


async def learn(target: Target, scope: Scope, deadline: float) -> None:
    """Ask the catalog about the relations of a target's schema, unless that was done lately.

    Where it does not answer soon nothing is known, so that nothing is cached for a while.
    """
    backend = target.backend
    now = backend.clock()
    end = now + _PATIENCE  # of the question, which others may share who have more time

    async def ask(text: str) -> Iterable[Row]:
        lease = await target.lease(_who_knows(backend), end)
        try:
            limit = max(end - backend.clock(), 0.001)
            rows: list[Row] = await lease.run("fetch_all", text, (), None, limit=limit)
        finally:
            lease.release()
        return rows

    with suppress(RouterError, TimeoutError):  # the read says itself what is wrong
        async with asyncio.timeout(min(deadline, end) - now):
            if not backend.health.known:
                await backend.look(target.database, deadline)
            await scope.learn(ask)


def _who_knows(backend: Backend) -> Node:
    """Return the node whose catalog is asked: the primary, unless others always show the same."""
    snapshot = backend.health.snapshot()
    first = next(iter(snapshot.replicas), None)
    node = first if first is not None and backend.cluster.replicas_current else snapshot.primary or first
    if node is None:
        raise NoPrimary("nobody is there to be asked")
    return node


def begin(
    cache: Cache, target: Target, scope: Scope, statement: Statement, writing: Writing | None
) -> Writing | None:
    """Take note that a statement that is no read is about to run; ``writing`` goes on if there is one."""
    if not scope.fresh:
        scope.doubt()
        scope.unclear += 1
        if scope.asks_by_itself and scope.unclear >= _UNCLEAR:
            limit = target.placement.settings.statement_timeout
            scope.asks_by_itself = not cache.beside(
                _learn_soon(target, scope, target.backend.clock() + limit)
            )
    places = scope.writes(statement)
    return cache.begin(writing, places, scope.facts) if places else writing


def conclude(cache: Cache, scope: Scope, writing: Writing) -> None:
    """Doubt all that a tenant has if the schema has changed since a write was sent."""
    if writing.facts is not scope.facts or not scope.fresh:
        cache.begin(writing, scope.homes)


async def _learn_soon(target: Target, scope: Scope, deadline: float) -> None:
    """Learn which tables a write changes, for the next one: until then it casts doubt on all of them."""
    await learn(target, scope, deadline)
    scope.asks_by_itself, scope.unclear = True, 0


def not_written(cache: Cache, scope: Scope, request: Request, error: RouterError | None) -> None:
    """Take note of a request that has failed; ``None``: it was cancelled."""
    writing = request.writing
    if writing is None:
        return
    # only what one statement did in its one attempt is undone for certain; a script or a procedure may have
    # committed part of it
    undone = error is not None and not outcome_unknown(error) and request.attempts <= 1
    if undone and request.statement.kind is Kind.WRITE:
        cache.undone(writing)
        return
    conclude(cache, scope, writing)
    cache.unknown(writing, request.target.placement.settings.statement_timeout)
    if may_change_schema(request.statement):
        scope.forget()


def may_change_schema(statement: Statement) -> bool:
    """Tell whether what the catalog said has to be forgotten after a statement."""
    return statement.kind not in (Kind.READ, Kind.WRITE, Kind.SESSION, Kind.TRANSACTION)
