"""Turn what a caller passes (text or a Core construct, parameters) into a request."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

from router import retries
from router.backend import Target
from router.cache.marks import Writing
from router.consistency import Bounded, Consistency
from router.context import Context
from router.errors import (
    CommitOutcomeUnknown,
    ParameterError,
    ReadOnlyViolation,
    RouterError,
    StatementError,
)
from router.events import RetryScheduled
from router.filling import Fill
from router.frontier import Frontier
from router.lexer import check_characters
from router.pools.lease import Lease
from router.reasons import Reason
from router.retries import Verdict, outcome_unknown
from router.routing import Intent
from router.statements import Dialect, Dirt, Kind, Statement
from router.topology import Node, Role
from router.waits import NO_WAITS, Waits

#: What no declaration makes a read: the session must see its effect, and it is never repeated unasked.
_CHANGES = frozenset({Reason.WRITE, Reason.DDL, Reason.WRITING_CTE, Reason.REFUSED_BY_REPLICA})

# Looking a member up on its enum costs 70 ns on CPython 3.11; every request passes here.
_READ, _PRIMARY = Reason.READ, Role.PRIMARY


@dataclass(slots=True)
class Request:
    """Hold one request and how far it has come."""

    target: Target
    seen: Frontier
    verb: str  # name of a method of drivers.driver.Connection
    statement: Statement
    args: Any
    deadline: float
    intent: Intent = Intent.AUTO
    consistency: Consistency | Bounded = Consistency.SESSION
    idempotent: bool = False  # declared safe to repeat
    verdict: Reason = Reason.WRITE  # Reason.READ once it is a proven read
    context: Context | None = None  # None: what the application says where it is told
    work: Callable[[Lease, float], Awaitable[Any]] | None = None  # instead of verb: a Core construct
    asked: float = 0.0  # when the caller asked
    started: float = 0.0  # when it was begun: what it must see is decided as of then
    attempts: int = 0
    node: Node | None = None
    role: Role = Role.PRIMARY
    reason: Reason = Reason.WRITE
    lookup: float = 0.0
    waits: Waits = NO_WAITS
    execute: float = 0.0
    fetch: float = 0.0
    retries: tuple[RetryScheduled, ...] = ()
    unit: int = 0
    cache: str = ""
    tried: tuple[Node, ...] = ()
    fill: Fill | None = None  # what is noted so that the answer can be kept
    writing: Writing | None = None  # what is marked as being written
    note: Callable[[Statement], None] | None = None  # is told when it has succeeded, in a transaction
    since: float = inf  # a replica's connection that is younger must be asked first how far its server is

    def waiting(self) -> Waits:
        """Return where to add what is waited for."""
        if self.waits is NO_WAITS:
            self.waits = Waits()
        return self.waits

    @property
    def read(self) -> bool:
        """Tell whether the statement is a read, by proof or by a declaration that is not plainly wrong."""
        if self.verdict is _READ:
            return True
        return self.intent is Intent.READONLY and self.verdict not in _CHANGES

    @property
    def writes(self) -> bool:
        """Tell whether it may change something: no proven read, and none declared that no primary runs."""
        if self.verdict is _READ:
            return False
        return self.role is _PRIMARY or not self.read

    @property
    def repeatable(self) -> bool:
        """Tell whether running the statement twice is the same as once."""
        return self.idempotent or self.read

    def judge(self, error: RouterError, *, on_replica: bool) -> Verdict:
        """Judge a failed attempt at this request."""
        refused = isinstance(error, ReadOnlyViolation) and not on_replica
        if refused and self.statement.kind is Kind.OTHER and not self.repeatable:
            # a script, a procedure: what came before the statement that was refused may have been applied
            return Verdict.RAISE
        return retries.judge(error, idempotent=self.repeatable, on_replica=on_replica)

    def outcome(self, error: RouterError) -> RouterError:
        """Turn the error of a write without an answer into one of its own kind."""
        if self.repeatable or not outcome_unknown(error):
            return error
        return CommitOutcomeUnknown(
            f"the server did not answer a write ({error.message}): it may have been applied, or not. "
            "It was not repeated; read before you repeat it",
            code=error.code,
            cause=error,
        ).at(cluster=error.cluster, node=error.node)

    def describe(self, error: RouterError) -> RouterError:
        """Add to an error what only the request knows."""
        names = self.statement.names
        position = error.position if isinstance(error, ParameterError) else None
        if position is not None and 0 < position <= len(names):
            error.message = f"parameter :{names[position - 1]} is of a type that the server does not take"
        placement = self.target.placement
        return error.at(
            tenant=placement.tenant,
            schema=placement.schema,
            cluster=placement.cluster.name,
            fingerprint=self.statement.fingerprint,
        )


def request_for(
    target: Target, seen: Frontier, verb: str, sql: Any, params: Any, now: float, *, inside: bool = False
) -> Request:
    """Return a request whose deadline is ``now``; the caller sets deadline, intent and the like.

    ``inside`` says that it is for an open transaction.

    Raises:
        StatementError: the text cannot be run by this verb, or not through the cluster's pooler, or would
            make the session another tenant's.
        ParameterError: parameters are missing or too many.
    """
    failure: RouterError
    try:
        made = (_from_text if isinstance(sql, str) else _from_construct)(target, seen, verb, sql, params, now)
        if target.refusal is None or (refused := target.refusal(made.statement, inside)) is None:
            return made
        failure = StatementError(refused).at(fingerprint=made.statement.fingerprint)
    except RouterError as error:
        failure = error
    placement = target.placement
    raise failure.at(tenant=placement.tenant, schema=placement.schema, cluster=placement.cluster.name)


def _from_text(target: Target, seen: Frontier, verb: str, sql: str, params: Any, now: float) -> Request:
    args: Any
    if verb == "execute_raw":
        statement, args = raw_statement(sql, target.backend.driver.dialect), ()
    else:
        statement = target.backend.statements.of(sql)
        if statement.verdict in _REFUSED:
            raise StatementError(_REFUSED[statement.verdict]).at(fingerprint=statement.fingerprint)
        args = statement.bind_many(params) if verb == "execute_many" else statement.bind(params)
    return Request(target, seen, verb, statement, args, now, asked=now)


_REFUSED = {
    Reason.MULTIPLE_STATEMENTS: (
        "the text holds more than one statement. Run them one by one, or use execute_raw()"
    ),
    Reason.TRANSACTION_CONTROL: (
        "a transaction cannot be controlled by text: the next statement may run on another connection. "
        "Use session.transaction(), savepoint(), or begin(), commit() and rollback()"
    ),
}


def raw_statement(text: str, dialect: Dialect) -> Statement:
    """Return the stand-in for a text that is not looked at: it may do anything."""
    check_characters(text)
    if not text.strip():
        raise StatementError("statement is empty. Pass the text to run")
    return Statement(
        text=text,
        dialect=dialect,
        kind=Kind.OTHER,
        verdict=Reason.RAW,
        functions=frozenset(),
        unproven=frozenset(),
        tables=frozenset(),
        sql=text,
        names=(),
        parameters=frozenset(),
        fingerprint=hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest(),
        normalized="(raw)",
        returns_rows=False,
        dirt=Dirt.DISCARD,
    )


def _from_construct(
    target: Target, seen: Frontier, verb: str, construct: Any, params: Any, now: float
) -> Request:
    if not hasattr(construct, "compile"):
        raise StatementError(f"a statement is text or a SQLAlchemy construct, not {type(construct).__name__}")
    bridge = target.backend.bridge
    statement = target.backend.statements.of(bridge.text_of(construct))
    request = Request(target, seen, verb, statement, (), now, asked=now)
    request.work = partial(bridge.run, construct, params, verb)
    return request
