"""Ask replicas, now and then, how they mean to run the statements that cost most.

It is done beside all requests, in a task of its own, by plain EXPLAIN, which runs nothing: one statement in a
while, on a connection that nobody waits for, within a limit. The primary is never asked, and nothing that
goes wrong here is felt anywhere else.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import NamedTuple

from router import proving
from router.backend import Target
from router.config.observability import ExplainConfig
from router.digests import Plan
from router.errors import RouterError, StatementError
from router.events import StatementExplained
from router.execution import Executor
from router.ledger import Entry
from router.logs import log_of
from router.placeholders import parameters_of, without_placeholders
from router.plans import kept, shape
from router.reasons import Reason
from router.slowlog import SlowLog
from router.statements import Statement
from router.topology import Node

_log = log_of("slow")


class Question(NamedTuple):
    """Hold what a server is asked: the plan of a query, as its driver sends it."""

    target: Target
    sql: str
    parameters: int


class Planner:
    """Ask for one plan in each interval."""

    def __init__(
        self, rules: ExplainConfig, executor: Executor, slowlog: SlowLog, rng: random.Random
    ) -> None:
        self._rules = rules
        self._executor = executor
        self._slowlog = slowlog
        self._rng = rng
        self._asked: dict[str, float] = {}  # when each statement's plan was asked for, had or not

    async def run(self) -> None:
        """Go on until it is cancelled."""
        while True:
            await asyncio.sleep(self._rules.every * self._rng.uniform(0.9, 1.1))
            try:
                await self.look()
            except RouterError as error:
                _log.info("a plan could not be had: %s", error)
            except Exception as exc:  # whatever it is, the next statement may fare better
                _log.info("a plan could not be had: %s", type(exc).__name__)

    async def look(self) -> None:
        """Ask for the plan of what cost most lately and was not asked for in a while; may raise anything."""
        rules = self._rules
        now = self._executor.clock()
        entries = self._slowlog.costliest()
        held = {entry.key for entry in entries}
        self._asked = {key: at for key, at in self._asked.items() if key in held and now - at < rules.again}
        for entry in entries:
            if entry.key in self._asked:
                continue
            question = self._question(entry)
            node = None if question is None else self._free(question.target)
            if question is None or node is not None:
                self._asked[entry.key] = now
            if question is not None and node is not None:
                await self._ask(entry, question, node, now + rules.timeout)
                return

    def _question(self, entry: Entry) -> Question | None:
        """Return what to ask about a statement; ``None`` if there is no plan to be had of it."""
        sample = entry.sample
        if sample is None or entry.kind != "read":
            return None
        try:
            target = self._executor.target(sample.tenant, sample.schema)
            statement, question = _understood(sample.sql, target)
        except RouterError:  # the tenant is gone, or nobody but its driver reads the text
            return None
        proven = proving.known(statement, target) is Reason.READ
        return question if proven and target.backend.driver.plans else None

    def _free(self, target: Target) -> Node | None:
        """Return a replica for whose connections nobody waits: who does comes first."""
        replicas = target.backend.health.snapshot().replicas
        free = [node for node in replicas if not target.pool(node)[0].status().waiting]
        return self._rng.choice(free) if free else None

    async def _ask(self, entry: Entry, question: Question, node: Node, deadline: float) -> None:
        target = question.target
        clock, teller = self._executor.clock, self._executor.teller
        began = clock()
        lease = await target.lease(node, deadline)
        try:
            limit = max(deadline - clock(), 0.001)
            told = await lease.run("plan", question.sql, question.parameters, limit, limit=limit)
        finally:
            lease.release()
        plan = Plan(kept(told), node.label, teller.wall())
        changed = entry.plan is not None and shape(entry.plan.text) != shape(plan.text)
        self._slowlog.keep(entry.key, plan)
        tenant = target.placement.tenant
        _log.log(
            logging.WARNING if changed else logging.INFO,
            "the plan of %s has changed, on %s: %s" if changed else "the plan of %s, on %s: %s",
            entry.key,
            node.label,
            " / ".join(line.strip() for line in plan.text.splitlines()),
            extra={"tenant": tenant, "fingerprint": entry.key, "node": node.label, "plan": plan.text},
        )
        teller.emit(StatementExplained(plan.at, tenant, entry.key, node, plan.text, changed, clock() - began))


def _understood(sql: str, target: Target) -> tuple[Statement, Question]:
    """Return what is known of a text, as written or as SQLAlchemy has sent it, and how to ask about it."""
    statements = target.backend.statements
    try:
        statement = statements.of(sql)
        return statement, Question(target, statement.sql, len(statement.names))
    except StatementError:
        return statements.of(without_placeholders(sql)), Question(target, sql, parameters_of(sql))
