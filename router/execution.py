"""The straight line of one request: look up, classify, decide, choose, lease, run, report, tell.

The only module that knows this order. The first attempt runs without the retry loop, which would cost more
than a small statement; only a failure enters it. Longer than other modules for that reason.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

from router import proving, retries
from router.audit.audit import Audit
from router.backend import Backend, Target
from router.cache.cache import Cache
from router.cache.marks import Writing
from router.catching_up import catch_up, trusted
from router.causality import Causality
from router.dispatcher import Dispatcher
from router.drivers.driver import Connection
from router.errors import RouterError, Sent, StatementTimeout
from router.health import Health
from router.home import Home
from router.pools.holders import Holder
from router.pools.lease import Lease, judge
from router.pools.pool import Pool
from router.reasons import Reason
from router.relating import begin, conclude, may_change_schema, not_written
from router.requests import Request
from router.retries import Verdict
from router.routing import Route, to_primary
from router.statements import Kind, Statement
from router.steering import choose, fall_back, note, route_again, route_of
from router.targets import Targets
from router.telling import Teller
from router.tenants import Catalog
from router.tokens import Tokens
from router.topology import Node, Role

# Looking a member up on its enum costs 70 ns on CPython 3.11; every request passes here.
_PRIMARY, _WRITE, _READ = Role.PRIMARY, Kind.WRITE, Reason.READ
# What may run in one transaction with what binds its connection.
_ALONG = frozenset((Kind.READ, Kind.WRITE))


class Executor:
    """Run requests; owns nothing."""

    def __init__(
        self,
        catalog: Catalog,
        backends: dict[str, Backend],
        dispatcher: Dispatcher,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
        cache: Cache,
        tokens: Tokens | None = None,
    ) -> None:
        self.cache = cache
        self.audit: Audit | None = None  # records writes, where that is configured
        self.dispatcher = dispatcher
        self.teller = Teller(dispatcher, clock, wall)
        self.clock = clock
        self.rng = rng
        self.home = Home()
        self.check_loop = self.home.check  # not a method that calls it: every request does
        self.causality = Causality(tokens, dispatcher.emit, clock, wall)
        self.targets = targets = Targets(catalog, backends, cache, clock, self.teller.unserved)
        self.target, self.scope, self.last = targets.of, targets.scope, targets.last

    def begin_write(self, target: Target, statement: Statement, writing: Writing | None) -> Writing | None:
        """Mark what a statement is about to change, so that no cached answer outlives it."""
        return begin(self.cache, target, self.scope(target), statement, writing)

    # --- one request -------------------------------------------------------------------------------------

    async def run(self, request: Request) -> Any:
        """Run a request outside of a transaction and return what its verb returns.

        Emits one RequestFinished or RequestFailed. Raises the error of the last attempt.
        """
        self.check_loop()
        target = request.target
        backend = target.backend
        backend.requests += 1
        request.started = self.clock()
        if self.dispatcher.announces:
            self.teller.started(request)
        failure: BaseException
        try:
            if target.rate is not None:
                target.admit(request.started)
            if not backend.health.known:
                await backend.look(target.database, request.deadline)
            if request.seen.pending:
                await self.causality.look_around(request.seen, target, request.deadline)
            request.verdict = proving.known(request.statement, target) or await proving.ask(request)
            if self.cache.active and not request.read:
                request.writing = self.begin_write(target, request.statement, None)
            route = route_of(request, self.causality)
            first: RouterError | None = None
            try:
                value = await self._attempt(request, route)
            except RouterError as error:
                first = error
            if first is not None:
                value = await self._again(request, route, first)
        except RouterError as error:
            if self.cache.active:
                self._not_written(request, error)
            failure = request.describe(error)
        except BaseException as exc:
            self._may_have_written(request, None)  # cancelled: it may have been applied
            if self.cache.active:
                self._not_written(request, None)
            self.teller.failed(request, exc)
            raise
        else:
            if self.cache.began > request.started and self.cache.active:
                self._mark_late(request)
            if request.writing is not None:
                conclude(self.cache, self.scope(target), request.writing)
                self.cache.committed(request.writing)
                if request.statement.kind is not _WRITE and may_change_schema(request.statement):
                    self.scope(target).forget()
            self.teller.finished(request, value)
            if self.dispatcher.confirms and request.verdict is not _READ:
                self._wrote(request)
            return value
        self.teller.failed(request, failure)
        raise failure

    def _wrote(self, request: Request) -> None:
        """Tell of a statement that has committed by itself, if it is one that writes."""
        node, target, statement = request.node, request.target, request.statement
        if node is not None and not request.read and proving.writes(statement, target):
            self.teller.wrote(target, node, statement.tables, 1, 0, request.context)

    def _mark_late(self, request: Request) -> None:
        """Mark what a statement may have changed that was sent before writes were taken note of."""
        if request.writing is None and not request.read and self.cache.began > request.started:
            request.writing = self.begin_write(request.target, request.statement, None)

    def _not_written(self, request: Request, error: RouterError | None) -> None:
        """Take note of a request that has failed; ``None``: it was cancelled."""
        self._mark_late(request)
        not_written(self.cache, self.scope(request.target), request, error)

    def _attempt(self, request: Request, route: Route) -> Coroutine[Any, Any, Any]:
        """Choose a node, take a connection if one is idle, and return the coroutine that does the rest.

        Not a coroutine itself: each one that a reply passes through costs, and here nothing waits.
        """
        target = request.target
        request.role, request.reason = route.role, route.reason
        if not route.candidates:
            return self._held(request)
        request.node = node = choose(route, target, request.seen)
        request.attempts += 1
        now = self.clock()
        if request.attempts == 1:
            request.lookup = now - request.asked - request.waits.queue
        pool, holder = target.pools.get(node) or target.pool(node)
        connection = pool.take(target.binding, now, holder)
        if connection is None or connection.binding != target.binding:
            return self._later(pool, holder, connection, request)
        if connection.opened_at > request.since:
            return self._checked(pool, connection, request, now)
        if request.work is not None or request.verb == "execute_raw":
            return self._on_lease(pool, connection, request, now)
        return self._on(pool, connection, request, now)

    async def _held(self, request: Request) -> Any:
        """Wait for a primary, then run the attempt; nothing was sent so far."""
        backend = request.target.backend
        began = self.clock()
        try:
            await backend.holding.primary(request.deadline)
        finally:
            request.waiting().queue += self.clock() - began
        return await self._attempt(request, route_of(request, self.causality))

    async def _later(
        self, pool: Pool, holder: Holder, connection: Connection | None, request: Request
    ) -> Any:
        """Run an attempt for which a connection has to be waited for, or to be bound, first."""
        load = request.target.backend.health.load[pool.endpoint.node]
        load.in_flight += 1
        special = request.work is not None or request.verb == "execute_raw"
        along = not special and request.statement.kind in _ALONG
        failure: RouterError
        try:
            pool, settled = await request.target.settle(
                connection, pool, holder, request.deadline, request.waiting(), along=along
            )
        except RouterError as error:
            failure = error
        else:
            now = self.clock()
            if settled.opened_at > request.since:
                return await self._checked(pool, settled, request, now)
            return await (self._on_lease if special else self._on)(pool, settled, request, now)
        finally:
            load.in_flight -= 1
        raise self._failed(failure, request)

    async def _checked(self, pool: Pool, connection: Connection, request: Request, began: float) -> Any:
        """Run an attempt on a replica that must be asked first whether it has what the read must see."""
        target, lease = request.target, Lease(pool, connection)
        failure: RouterError | None = None
        reason: Reason | None = None
        try:
            if trusted(lease, target.backend.health, request.since):
                reason = request.reason
            else:
                reason = await catch_up(
                    lease, target, request.seen, request.consistency, request.started, request.deadline
                )
        except RouterError as error:
            failure = error
        finally:
            if reason is None:
                lease.release()
            now = self.clock()
            request.waiting().catch_up += now - began
        if failure is not None:
            raise self._failed(failure, request)
        request.since = inf
        if reason is None:
            return await self._attempt(
                request, fall_back(target, request.seen, Reason.WAIT_TIMED_OUT, self.causality)
            )
        request.reason = reason
        special = request.work is not None or request.verb == "execute_raw"
        return await (self._on_lease if special else self._on)(pool, connection, request, now)

    async def _on(self, pool: Pool, connection: Connection, request: Request, now: float) -> Any:
        """Run a request on a connection and give the connection back, whatever happens."""
        statement, health, node = request.statement, request.target.backend.health, pool.endpoint.node
        if statement.dirt > connection.dirt:
            connection.dirt = statement.dirt
        most, limit = request.target.placement.settings.statement_timeout, request.deadline - now
        if limit <= 0:
            pool.give(connection)
            late = StatementTimeout("no time was left to send the statement", sent=Sent.NO)
            raise self._failed(late, request)
        deadlines, load = pool.deadlines, health.load[node]
        if request.fill is not None:
            request.fill.asks(request.target, now)
        deadlines.enter(connection, now + (most if most < limit else limit))
        load.in_flight += 1
        failure: RouterError
        try:
            value = await getattr(connection, request.verb)(statement.sql, request.args, None)
        except Exception as exc:
            # raised below, outside of this block, so that the driver's exception is not its context
            failure, broken = judge(pool, connection, exc)
        except asyncio.CancelledError:
            if not deadlines.was_late(connection):
                pool.discard(connection, "cancelled")
                raise
            failure, broken = judge(pool, connection, TimeoutError())
        except BaseException:
            pool.discard(connection, "cancelled")
            raise
        else:
            pool.give(connection)
            took = self.clock() - now
            request.execute += took
            self._answered(request, health, node, now, took)
            if request.fill is not None:
                request.fill.answered(request.target, node, connection, now + took)
            elif request.seen.shown is not None:
                self._shown(request, now + took)
            return value
        finally:
            deadlines.leave(connection)
            load.in_flight -= 1
        if broken:
            pool.discard(connection, "broken")
        else:
            pool.give(connection)
        request.execute += self.clock() - now
        raise self._failed(failure, request)

    async def _on_lease(self, pool: Pool, connection: Connection, request: Request, now: float) -> Any:
        """Run what needs a lease: a Core construct, or a text that is not looked at."""
        lease, health = Lease(pool, connection), request.target.backend.health
        load = health.load[pool.endpoint.node]
        load.in_flight += 1
        failure: RouterError
        try:
            value = await self.send(lease, request, now)
        except RouterError as error:
            failure = error
        else:
            end = self.clock()
            self._answered(request, health, pool.endpoint.node, now, end - now)
            if request.seen.shown is not None:
                self._shown(request, end)
            return value
        finally:
            lease.release()
            load.in_flight -= 1
            request.execute += self.clock() - now
        raise self._failed(failure, request)

    def _shown(self, request: Request, at: float) -> None:
        """Remember which tables the session was shown: no cached answer may take it back there."""
        shown = request.seen.shown
        if shown is not None and request.read:
            places = self.scope(request.target).shows(request.statement)
            if places is None:
                shown.everything(at)
            else:
                shown.tables(places, at)

    def _failed(self, error: RouterError, request: Request) -> RouterError:
        """Take note of a failed attempt and return the error to raise."""
        failure = request.outcome(error)
        if request.node is not None:
            request.target.backend.health.failed(request.node, failure)
        self._may_have_written(request, failure)
        return failure

    async def send(self, lease: Lease, request: Request, now: float) -> Any:
        """Send a request on a lease, within what time is left for it."""
        statement = request.statement
        most, limit = request.target.placement.settings.statement_timeout, request.deadline - now
        limit = most if most < limit else limit
        connection = lease.connection
        if statement.dirt > connection.dirt:
            connection.dirt = statement.dirt
        if limit <= 0:
            raise StatementTimeout("no time was left to send the statement", sent=Sent.NO)
        if request.work is not None:
            return await request.work(lease, limit)
        if request.verb == "execute_raw":
            return await lease.run("execute_raw", statement.text, None, limit=limit)
        return await lease.run(request.verb, statement.sql, request.args, None, limit=limit)

    def _answered(self, request: Request, health: Health, node: Node, sent: float, took: float) -> None:
        """Take note of an answer: how long it took, and what the session has seen by it."""
        health.succeeded(node, took)
        if request.role is _PRIMARY:
            self._seen_on_primary(request, sent + took)
        else:
            request.seen.note_replica(node, sent + took, sent, health.reigns_since)

    def _seen_on_primary(self, request: Request, at: float) -> None:
        """Remember what the session has seen on the primary, or written there: its next reads must see it."""
        if request.node is not None:
            note(request.target, request.seen, request.node, at, wrote=not request.read)
        if not request.read:
            proving.forget(request)

    def _may_have_written(self, request: Request, error: RouterError | None) -> None:
        """Remember that the session may have written, though it has no answer."""
        if request.role is not _PRIMARY or request.read:
            return
        if error is None or retries.outcome_unknown(error):
            self._seen_on_primary(request, self.clock())

    async def _again(self, request: Request, route: Route, first: RouterError) -> Any:
        """Go on after a failed first attempt, as far as that is safe."""
        if request.judge(first, on_replica=request.role is Role.REPLICA) is Verdict.RAISE:
            raise first  # the loop would leave a hundred objects that refer to each other, for the collector
        settings = request.target.placement.settings
        current = route

        async def run(verdict: Verdict) -> Any:
            nonlocal current
            current = self._reroute(verdict, request)
            return await self._attempt(request, current)

        return await retries.repeat(
            run,
            first,
            policy=retries.Policy(settings.retry_attempts, settings.retry_min_wait, settings.retry_max_wait),
            judge=lambda error: request.judge(error, on_replica=current.role is Role.REPLICA),
            sleep=asyncio.sleep,
            clock=self.clock,
            rng=self.rng,
            started=request.started,
            budget=request.target.backend.may_retry,
            deadline=request.deadline,
            before=lambda retry: self.teller.retry(request, retry),
            denied=lambda error: self.teller.denied(request.target, error),
        )

    def _reroute(self, verdict: Verdict, request: Request) -> Route:
        """Return where the next attempt goes."""
        snapshot = request.target.backend.health.snapshot()
        request.since = inf  # of the replica before
        if verdict is Verdict.PRIMARY:
            request.target.backend.remember_refused(request.statement)
            request.verdict = Reason.REFUSED_BY_REPLICA  # a write after all: never repeat it unasked
            if self.cache.active and request.writing is None:
                request.writing = self.begin_write(request.target, request.statement, None)
            return to_primary(snapshot, Reason.REFUSED_BY_REPLICA)
        if request.role is Role.PRIMARY:
            return route_again(request, self.causality)
        if verdict is Verdict.ELSEWHERE and request.node is not None:
            request.tried = (*request.tried, request.node)
        if all(node in request.tried for node in snapshot.replicas):
            return to_primary(snapshot, Reason.REPLICA_FAILED)
        return route_of(request, self.causality)
