"""Run requests and have their writes recorded: who gets the answer to a write can rely on its record.

Built instead of the plain :class:`router.execution.Executor` where the audit is on, so that it costs nothing
where it is off.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from router import leased, proving
from router.audit.audit import Audit
from router.audit.records import Facts, Place, announced
from router.backend import Target
from router.consistency import Consistency
from router.context import Context, current
from router.enclosing import alone, harmless, put
from router.errors import AuditUnavailable, RouterError
from router.events import RequestEvent
from router.execution import Executor
from router.frontier import Frontier
from router.reasons import Reason
from router.repeating import whole
from router.requests import Request
from router.statements import Dialect, Statement
from router.transaction import Transaction
from router.units import Unit

# Looking a member up on its enum costs 70 ns on CPython 3.11; every request passes here.
_READ = Reason.READ
_LONGEST = 1_000  # characters of a position in a record; MySQL's may name hundreds of servers


class AuditedExecutor(Executor):
    """Run requests, and give the answer to a write once its record is kept."""

    async def run(self, request: Request) -> Any:
        """Run a request outside of a transaction and return what its verb returns.

        Raises:
            AuditUnavailable: its record cannot be kept.
        """
        audit, target = self.audit, request.target
        if audit is None or not target.placement.settings.audit:
            return await super().run(request)
        if proving.known(request.statement, target) is _READ:
            return await super().run(request)
        audit.admit()
        if audit.outbox is not None and await self._rows(request):
            return await (self._beside(request) if alone(request) else self._within(request))
        try:
            value = await super().run(request)
        except Exception:
            if request.writes:
                with suppress(AuditUnavailable):  # what has failed already is worth more
                    await audit.kept()
            raise
        if request.writes:
            await audit.kept()
        return value

    async def _rows(self, request: Request) -> bool:
        """Tell whether a request gets rows: it is no read, by proof or by a declaration."""
        self.check_loop()
        target = request.target
        if not target.backend.health.known:
            await target.backend.look(target.database, request.deadline)
        known = proving.known(request.statement, target)
        request.verdict = known if known is not None else await proving.ask(request)
        return not harmless(request.verdict) and not request.read

    async def _within(self, request: Request) -> Any:
        """Run a write in a transaction of its own, which its row is in as well."""
        limit = request.deadline - self.clock()

        async def once() -> Any:
            mine = replace(request, deadline=request.deadline)
            unit = self._unit(request, max(request.deadline - self.clock(), 0.001))
            unit.retried = False
            async with Transaction(unit) as transaction:
                transaction.join(mine)
                return await leased.run(self, unit.lease, mine)

        return await whole(self, request.target, once, limit)

    async def _beside(self, request: Request) -> Any:
        """Run what cannot be in a transaction: a row says that it is sent, another what became of it."""
        audit = self.audit
        if audit is None:
            return await super().run(request)
        await note(self, request.target, request.statement, request.context)
        audit.trail.take_last()
        try:
            return await super().run(request)
        finally:
            # nothing was awaited since the request's event
            last = audit.trail.take_last()
            if last is not None:
                await self._conclude(audit, request, last)

    async def _conclude(self, audit: Audit, request: Request, facts: Facts) -> None:
        try:
            await _insert(self, request.target, facts)
        except RouterError as error:  # the write has happened; its first row says that it was sent
            audit.unenclosed(error)
        with suppress(AuditUnavailable):
            await audit.kept()

    def _unit(self, request: Request, timeout: float) -> Unit:
        return Unit(
            self,
            request.target,
            request.seen,
            request.consistency,
            timeout=timeout,
            context=request.context,
        )


async def note(executor: Executor, target: Target, statement: Statement, context: Context | None) -> None:
    """Record that something is about to be sent of which nobody may hear what it does.

    Raises:
        AuditUnavailable: the record cannot be kept.
    """
    audit, placement = executor.audit, target.placement
    if audit is None or not placement.settings.audit:
        return
    who = placement.tenant, placement.schema
    facts = announced(
        executor.teller.wall(),
        context or current(),
        who,
        place_at(target),
        statement,
        audit.config.longest,
    )
    if audit.outbox is not None:
        await _insert(executor, target, facts)
    audit.keep([facts])
    await audit.kept()


async def _insert(executor: Executor, target: Target, facts: Facts) -> None:
    """Insert one row in a transaction of its own."""
    unit = Unit(executor, target, Frontier(), Consistency.SESSION)
    async with Transaction(unit):
        await put(unit, [facts])


def place_of(executor: Executor, event: RequestEvent) -> Place | None:
    """Return where the data of a request's tenant are; ``None`` if its writes are not recorded."""
    target = executor.last(event.tenant, event.schema)  # of a session: the tenant may be gone by now
    return place_at(target) if target is not None and target.placement.settings.audit else None


def place_at(target: Target) -> Place:
    """Return where the data of a target are."""
    placement, known = target.placement, target.backend.health.lineage.position
    position = None if known is None else known.tagged
    return Place(
        placement.cluster.name,
        placement.database,
        placement.physical,
        position if position is None or len(position) <= _LONGEST else None,
        target.backend.driver.dialect is Dialect.MYSQL,
    )
