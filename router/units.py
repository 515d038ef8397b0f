"""A unit of work: one connection held over several statements, routed once, counted and told at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any, Final

from router import events, proving, retries
from router.audit.audit import Audit
from router.backend import Target
from router.cache.marks import Writing
from router.catching_up import catch_up, trusted
from router.consistency import Bounded, Consistency
from router.context import Context
from router.errors import RouterError, TransactionStateError
from router.execution import Executor
from router.frontier import Frontier
from router.pools.holders import unit_of
from router.pools.lease import Lease
from router.reasons import Reason
from router.relating import conclude, may_change_schema
from router.retries import Verdict
from router.routing import Route
from router.statements import Kind, Statement
from router.steering import choose, fall_back, note, route_of_unit
from router.topology import Node, Role
from router.waits import Waits

_NUMBERS = count(1)
Point = tuple[int, frozenset[str], tuple[Callable[[], object], ...]]
NOTHING: Final[Point] = 0, frozenset(), ()
_ISOLATION = frozenset({"read uncommitted", "read committed", "repeatable read", "serializable"})


@dataclass(slots=True, eq=False)
class Unit:
    """Hold what a unit of work was asked for, and the lease that serves it."""

    executor: Executor
    target: Target
    seen: Frontier
    consistency: Consistency | Bounded
    readonly: bool = False
    isolation: str | None = None
    timeout: float | None = None  # of the whole begin, and of each statement
    context: Context | None = None
    retried: bool = True  # False where the caller repeats the whole unit: attempts would multiply
    number: int = field(default_factory=_NUMBERS.__next__)
    waits: Waits = field(default_factory=Waits)
    statements: int = 0
    writing: Writing | None = None  # what is marked as being written
    changes_schema: bool = False  # what the catalog says may be another once it has ended
    may_commit: bool = False  # MySQL commits at DDL, and code in the database may: no rollback undoes that
    began: float = 0.0
    writes: int = 0  # statements that have succeeded, and write or may
    tables: frozenset[str] = frozenset()  # that they name
    afterwards: tuple[Callable[[], object], ...] = ()  # to be called after the commit
    route: Route = field(init=False)
    node: Node = field(init=False)
    _lease: Lease | None = None
    _since: float = inf  # as in Request
    _tried: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        if self.isolation is not None and self.isolation.lower() not in _ISOLATION:
            known = ", ".join(sorted(_ISOLATION))
            raise TransactionStateError(
                f"there is no isolation level {self.isolation!r}. Use one of: {known}"
            )

    @property
    def lease(self) -> Lease:
        """Return the lease; raises TransactionStateError if the unit is not open."""
        if self._lease is None:
            raise TransactionStateError(
                "the transaction is not open: it has not begun, or has ended. Begin a new one"
            ).at(tenant=self.target.placement.tenant)
        return self._lease

    @property
    def audit(self) -> Audit | None:
        """Return what records the unit's writes; ``None`` if nothing does."""
        audit = self.executor.audit
        if audit is None or self.readonly or not self.target.placement.settings.audit:
            return None
        return audit

    @property
    def is_open(self) -> bool:
        """Tell whether the unit holds a lease."""
        return self._lease is not None

    async def open(self, *, begin: bool) -> None:
        """Lease a connection and begin, if asked for; what fails so far had no effect and is tried again."""
        executor = self.executor
        executor.check_loop()
        self.began = executor.clock()
        if self.retried:  # else the caller has counted the whole, however often it is repeated
            self.target.admit(self.began)
        self.target.backend.requests += 1
        settings = self.target.placement.settings
        deadline = self.began + (self.timeout or settings.acquire_timeout + settings.statement_timeout)
        backend = self.target.backend
        if not backend.health.known:
            await backend.look(self.target.database, deadline)
        if self.seen.pending:
            await executor.causality.look_around(self.seen, self.target, deadline)
        failure: RouterError
        try:
            self._decide()
            first: RouterError | None = None
            try:
                await self._attempt(begin, deadline)
            except RouterError as error:
                if not self.retried:
                    raise
                first = error
            if first is not None:
                await self._again(first, begin, deadline)
            if begin:
                self.begun(executor.clock() - self.began)
            return
        except RouterError as error:
            failure = self.describe(error)
        raise failure

    def _decide(self) -> None:
        self.route, self._since = route_of_unit(
            self.target,
            self.seen,
            self.consistency,
            self.executor.causality,
            readonly=self.readonly,
            began=self.began,
            without=self._tried,
        )

    async def _attempt(self, begin: bool, deadline: float) -> None:
        executor, backend = self.executor, self.target.backend
        health = backend.health
        if not self.route.candidates:
            asked = executor.clock()
            await backend.holding.primary(deadline)
            self.waits.queue += executor.clock() - asked
            self._decide()
        self.node = choose(self.route, self.target, self.seen)
        try:
            lease = await self.target.lease(self.node, deadline, self.waits)
        except RouterError as error:
            health.failed(self.node, error)
            raise
        if lease.connection.opened_at > self._since and not await self._caught_up(lease, deadline):
            lease.release()
            self.route = fall_back(self.target, self.seen, Reason.WAIT_TIMED_OUT, executor.causality)
            self._since = inf
            await self._attempt(begin, deadline)
            return
        lease.readonly = self.readonly
        lease.isolation = self.isolation
        if begin:
            try:
                await lease.begin(max(deadline - executor.clock(), 0.001))
            except BaseException as exc:
                lease.broken = lease.broken or "begin_failed"
                lease.release()
                if isinstance(exc, RouterError):
                    health.failed(self.node, exc)
                raise
        if self.route.role is Role.REPLICA:
            now = executor.clock()
            self.seen.note_replica(self.node, now, now, health.reigns_since)
        lease.pool.hold(lease.connection, unit_of(self.target.placement.tenant, executor.home.loop))
        self._lease = lease
        health.load[self.node].in_flight += 1

    async def _caught_up(self, lease: Lease, deadline: float) -> bool:
        """Tell whether the replica behind a lease has what the unit must see; ask it if need be."""
        health = self.target.backend.health
        if trusted(lease, health, self._since):
            return True
        asked = self.executor.clock()
        try:
            reason = await catch_up(lease, self.target, self.seen, self.consistency, self.began, deadline)
        except BaseException as exc:
            lease.release()
            if isinstance(exc, RouterError):
                health.failed(self.node, exc)
            raise
        finally:
            self.waits.catch_up += self.executor.clock() - asked
        if reason is not None:
            self.route = self.route._replace(reason=reason)
        return reason is not None

    async def _again(self, first: RouterError, begin: bool, deadline: float) -> None:
        if retries.judge(first, idempotent=True, on_replica=self.route.role is Role.REPLICA) is Verdict.RAISE:
            raise first  # as for a request: the loop leaves much behind
        settings = self.target.placement.settings

        async def run(verdict: Verdict) -> None:
            if self.route.role is Role.REPLICA:
                self._tried = (*self._tried, self.node)
            self._decide()
            await self._attempt(begin, deadline)

        await retries.repeat(
            run,
            first,
            policy=retries.Policy(settings.retry_attempts, settings.retry_min_wait, settings.retry_max_wait),
            # whatever became of a BEGIN, it changed nothing
            judge=lambda error: retries.judge(
                error, idempotent=True, on_replica=self.route.role is Role.REPLICA
            ),
            sleep=asyncio.sleep,
            clock=self.executor.clock,
            rng=self.executor.rng,
            started=self.began,
            budget=self.target.backend.may_retry,
            deadline=deadline,
            before=lambda retry: self.executor.teller.unit_retry(self.target, retry),
            denied=lambda error: self.executor.teller.denied(self.target, error),
        )

    def mark(self, statement: Statement) -> None:
        """Mark what a statement is about to change, until the unit has ended."""
        if proving.known(statement, self.target) is not Reason.READ:
            self.writing = self.executor.begin_write(self.target, statement, self.writing)
            self.changes_schema = self.changes_schema or may_change_schema(statement)
            self.may_commit = self.may_commit or statement.kind not in (Kind.READ, Kind.WRITE)

    def ended(self, *, wrote: bool, unknown: bool = False) -> None:
        """Take note of what became of the unit's writes, for cached answers."""
        cache, writing = self.executor.cache, self.writing
        if wrote and cache.active and cache.began > self.began:  # nobody took note of its first writes
            writing = cache.begin(writing, self.executor.scope(self.target).homes)
        if writing is None:
            return
        if wrote or self.may_commit:
            conclude(cache, self.executor.scope(self.target), writing)
        if unknown:
            cache.unknown(writing, self.target.placement.settings.statement_timeout)
        elif wrote or self.may_commit:
            cache.committed(writing)
        else:
            cache.undone(writing)
        if self.changes_schema:
            self.executor.scope(self.target).forget()
        self.writing, self.changes_schema, self.may_commit = None, False, False

    def close(self, *, wrote: bool = False, unknown: bool = False) -> Node:
        """Give the lease back and return its node; ``wrote`` if a write may have taken effect.

        ``unknown`` says that it may yet.
        """
        lease, now = self.lease, self.executor.clock()
        self._lease = None
        if self.route.role is Role.REPLICA:
            self.seen.note_replica(self.node, now, self.began, self.target.backend.health.reigns_since)
        else:
            note(self.target, self.seen, self.node, now, wrote=wrote)
        if self.seen.shown is not None:
            self.seen.shown.everything(now)
        if self.executor.cache.active:
            self.ended(wrote=wrote, unknown=unknown)
        self.target.backend.health.load[self.node].in_flight -= 1
        lease.release()
        return self.node

    def describe(self, error: RouterError) -> RouterError:
        """Add to an error what the unit knows."""
        placement = self.target.placement
        return error.at(tenant=placement.tenant, schema=placement.schema, cluster=placement.cluster.name)

    # --- what is told of its transactions ----------------------------------------------------------------

    def note(self, statement: Statement) -> None:
        """Take note of a statement that has succeeded, for what is told after the commit."""
        if proving.writes(statement, self.target):
            self.writes += 1
            if not statement.tables <= self.tables:
                self.tables |= statement.tables

    def point(self) -> Point:
        """Return what a savepoint must know to go back to it."""
        return self.writes, self.tables, self.afterwards

    def back_to(self, point: Point) -> None:
        """Forget what was written, and to be done, since a savepoint that was rolled back to."""
        self.writes, self.tables, self.afterwards = point

    def begun(self, seconds: float) -> None:
        """Tell that a transaction has begun, which took so long."""
        more = {"role": self.route.role, "reason": self.route.reason, "waits": self.waits}
        self.tell(events.TransactionBegun, seconds, **more)

    def committed(self) -> None:
        """Tell that the transaction is committed for certain, and do what was to be done then."""
        self.tell(events.TransactionCommitted)
        executor, calls = self.executor, self.afterwards
        if self.writes and executor.dispatcher.confirms:
            teller = executor.teller
            teller.wrote(self.target, self.node, self.tables, self.writes, self.number, self.context)
        if calls:
            self.afterwards = ()
            executor.dispatcher.afterwards.run(calls)

    def tell(self, kind: type[events.TransactionEvent], seconds: float | None = None, **more: Any) -> None:
        """Tell of a transaction; its end, if it is not said how long it took."""
        executor, placement = self.executor, self.target.placement
        if not executor.dispatcher.wants(kind):
            return
        event = kind(
            executor.teller.wall(),
            placement.tenant,
            placement.schema,
            self.node,
            executor.clock() - self.began if seconds is None else seconds,
            self.statements,
            self.readonly,
            self.number,
            **more,
        )
        event.context = self.context
        executor.teller.emit(event)
