"""The facts that are told: one timed event per request, and what happens to connections and transactions.

Events are slotted, built once and not changed afterwards by agreement (a frozen dataclass costs
2 to 2.7 microseconds to build on CPython 3.11, a slotted one 0.35 to 0.54). They hold no bound values and
no secrets: SQL is the parameterised text as written, parameters appear by name and type only, addresses
have no credentials. ``at`` is wall-clock time in seconds since the epoch; every duration is in seconds of
the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from router.reasons import Reason
from router.topology import Node, Role


@dataclass(slots=True)
class Event:
    """Base of all events."""

    at: float


@dataclass(slots=True)
class RequestEvent(Event):
    """Hold what all events about one request share: who asked what, where it went and why, and the times."""

    tenant: str
    schema: str | None  # the logical schema as asked for
    sql: str  # as written, parameterised; never with values
    fingerprint: str  # same for statements that differ only in literals and white space
    kind: str  # read, write, ddl, ...
    node: Node | None  # the last node contacted, None if none was; of a cached answer the one it came from
    role: Role
    reason: Reason
    attempts: int
    acquire: float  # waiting for a connection, opening one included
    execute: float  # on the server and the wire, fetching included
    total: float
    context_id: str | None = None  # set by the application, see router.session(context_id=...)
    parameters: tuple[str, ...] = ()  # names and, for failures, types: "id int"

    outcome: ClassVar[str] = "ok"


@dataclass(slots=True)
class RequestFinished(RequestEvent):
    """Tell that a request succeeded; ``rows`` were returned or changed (-1 where unknown)."""

    rows: int = -1


@dataclass(slots=True, kw_only=True)
class RequestFailed(RequestEvent):
    """Tell that a request failed for good, after all attempts."""

    error: str  # name of the class in router.errors
    code: str | None  # SQLSTATE, errno or SQLite name
    message: str

    outcome: ClassVar[str] = "error"


@dataclass(slots=True)
class SlowRequest(Event):
    """Tell that a request took longer than its threshold."""

    request: RequestFinished | RequestFailed
    threshold: float


@dataclass(slots=True)
class RetryScheduled(Event):
    """Tell that a failed attempt will be followed by another."""

    tenant: str
    fingerprint: str
    node: Node | None
    error: str
    code: str | None
    attempt: int  # the one that failed, from 1
    delay: float


@dataclass(slots=True)
class RetryDenied(Event):
    """Tell that a failed attempt was not followed by another, to spare the cluster: see retry budget."""

    tenant: str
    cluster: str
    node: str | None
    error: str
    code: str | None


@dataclass(slots=True)
class ConnectionEvent(Event):
    """Hold what all events about one physical connection share."""

    node: Node
    driver: str
    database: str
    user: str
    duration: float  # of connecting; of the life for ConnectionClosed; of being held for ConnectionHeld


@dataclass(slots=True)
class ConnectionOpened(ConnectionEvent):
    """Tell that a connection was established."""


@dataclass(slots=True, kw_only=True)
class ConnectionFailed(ConnectionEvent):
    """Tell that a connection could not be established."""

    error: str
    code: str | None
    message: str


@dataclass(slots=True, kw_only=True)
class ConnectionClosed(ConnectionEvent):
    """Tell that a connection was closed, and why."""

    reason: str  # idle, lifetime, broken, dirty, closed, ...


@dataclass(slots=True, kw_only=True)
class ConnectionHeld(ConnectionEvent):
    """Tell, once, that a unit of work holds a connection for longer than ``connections.leak_after``."""

    tenant: str
    task: str  # name of the task that opened the unit of work
    stack: tuple[str, ...]  # the application's frames as "file:line function", the innermost first


@dataclass(slots=True)
class StatementsLeft(Event):
    """Tell that statements may still be running on the server that were cancelled or ran out of time."""

    node: Node
    count: int
    error: str  # why the server could not be asked to end them: name of the class in router.errors


@dataclass(slots=True)
class TransactionEvent(Event):
    """Hold what all events about one transaction share."""

    tenant: str
    schema: str | None
    node: Node
    duration: float  # from begin to end
    statements: int
    readonly: bool
    context_id: str | None = field(default=None)


@dataclass(slots=True)
class TransactionCommitted(TransactionEvent):
    """Tell that a transaction was committed."""


@dataclass(slots=True)
class TransactionRolledBack(TransactionEvent):
    """Tell that a transaction was rolled back, by request or because of an error."""

    error: str | None = None


@dataclass(slots=True)
class CommitUnknown(TransactionEvent):
    """Tell that a commit got no answer; see router.errors.CommitOutcomeUnknown."""


@dataclass(slots=True)
class CommitResolved(Event):
    """Tell that the server was asked about a commit without an answer, and knew what became of it."""

    tenant: str
    node: Node  # that the commit was sent to
    transaction_id: str
    committed: bool
    duration: float  # of finding out


@dataclass(slots=True)
class ReplicaChanged(Event):
    """Tell that a replica may be read again, or why it may not; see router.standing.Out for the reasons."""

    node: Node
    usable: bool
    reason: str


@dataclass(slots=True)
class PrimaryChanged(Event):
    """Tell that another server takes the writes of a cluster, or that none does and why."""

    cluster: str
    node: Node | None
    before: Node | None
    problem: str


@dataclass(slots=True)
class TokenIgnored(Event):
    """Tell that a token could not be used, and why; see :class:`router.tokens.Refusal`."""

    tenant: str  # of the session that it was given to
    cluster: str
    refusal: str


@dataclass(slots=True)
class WriteLost(Event):
    """Tell that a session must see a write that the new primary has not received.

    Not ``certain``: nobody has seen whether it was received before the old primary was gone.
    """

    tenant: str
    cluster: str
    certain: bool


@dataclass(slots=True)
class CacheNotWorthIt(Event):
    """Tell, once an hour at most, that the cache does little for a tenant's reads, and why."""

    tenant: str
    lookups: int  # reads since the last look, at least a thousand
    ratio: float  # of them the cache has answered
    saved: float  # seconds of database time
    spent: float  # seconds on reads that it has not answered
    reason: str  # why most were not; see docs/cache.md
    remedy: str  # the same in words, and what to do
