"""The facts that are told: one timed event per request, and what happens to connections and transactions.

Events are slotted, built once and not changed afterwards by agreement (a frozen dataclass costs
2 to 2.7 microseconds to build on CPython 3.11, a slotted one 0.35 to 0.54). They hold no bound values and
no secrets: SQL is the parameterised text as written, parameters appear by name and type only, addresses
have no credentials. ``at`` is wall-clock time in seconds since the epoch; every duration is in seconds of
the monotonic clock. All of them are in this one file, longer than others: the reference is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import ClassVar

from router.context import NOBODY, Context
from router.reasons import Reason
from router.topology import Node, Role
from router.waits import Waits


@dataclass(slots=True)
class Event:
    """Base of all events.

    ``context`` is what the application had said of the work under way, see :func:`router.context.acting`;
    the dispatcher stamps it when the event is emitted.
    """

    at: float  # wall clock, in seconds since the epoch
    context: Context | None = field(default=None, init=False)  # whose work it was

    @property
    def context_id(self) -> str | None:
        """Return the application's id of the work that it was emitted in."""
        return None if self.context is None else self.context.context_id

    @property
    def trace_id(self) -> str | None:
        """Return the trace that it was emitted in."""
        return None if self.context is None else self.context.trace_id


@dataclass(slots=True)
class RequestStarted(Event):
    """Tell that a request is about to run; a sync listener may add tags, which the later events carry.

    Emitted only while somebody listens, and not for what is answered from memory.
    """

    tenant: str
    schema: str | None  # the logical schema as asked for
    sql: str  # as written, parameterised
    fingerprint: str  # as in RequestEvent
    kind: str  # read, write, ddl, ...
    tables: frozenset[str]  # that the text names
    normalized: str = ""  # as of RequestEvent

    def add(self, name: str, value: str) -> None:
        """Add a tag; one that is there already keeps its value."""
        context = self.context or NOBODY
        self.context = replace(context, tags=MappingProxyType({name: value, **context.tags}))


@dataclass(slots=True)
class LookupRefused(Event):
    """Tell that somebody asked for a tenant or schema that is not served; no request began."""

    tenant: str  # "" for one that nobody knows: the name may be anything
    error: str  # UnknownTenant, UnknownSchema, TenantSuspended


@dataclass(slots=True)
class RetryScheduled(Event):
    """Tell that a failed attempt will be followed by another."""

    tenant: str
    fingerprint: str
    node: Node | None  # that the attempt met, None if none
    error: str  # name of the class in router.errors
    code: str | None  # of the database, if it answered
    attempt: int  # the one that failed, from 1
    delay: float  # seconds until the next


@dataclass(slots=True)
class RequestEvent(Event):
    """Hold what all events about one request share: who asked what, where it went and why, and the times."""

    tenant: str
    schema: str | None  # the logical schema as asked for
    sql: str  # as written, parameterised; never with values
    fingerprint: str  # same for statements that differ only in literals and white space
    kind: str  # read, write, ddl, ...
    tables: frozenset[str]  # that the text names; of a text that is not understood none
    node: Node | None  # the last node contacted, None if none was; of a cached answer the one it came from
    role: Role  # that the route led to
    reason: Reason  # why it led there
    attempts: int  # 0: answered from memory, or failed before
    lookup: float  # until the first attempt: parsing a new text, proving it a read, looking at the cache
    waits: Waits  # until a connection was had: its queue, connect, bind and catch_up
    execute: float  # on the server and the wire; rows come with the answer, except for a stream
    fetch: float  # of a stream: everything after its first rows, the consumer's own time included
    total: float  # all of it, and the pauses between attempts
    parameters: tuple[str, ...] = ()  # names and, for failures, types: "id int"
    retries: tuple[RetryScheduled, ...] = ()  # the attempts that failed and were followed by another
    unit: int = 0  # number of the transaction in this process that it ran in; 0: in none
    cache: str = ""  # hit, joined, remote, miss, bypass; "" where the cache was not asked
    token: str = ""  # what became of the session's token: met, waited, primary, ignored; "" without one
    normalized: str = ""  # the text without literals, parameters and comments: what may be shown and kept
    writes: bool = False  # whether it may have changed something: it was no proven read

    outcome: ClassVar[str] = "ok"

    @property
    def acquire(self) -> float:
        """Return the seconds until a connection was had that would do."""
        return self.waits.total

    @property
    def tags(self) -> Mapping[str, str]:
        """Return what the application and its listeners have tagged the request with."""
        return (self.context or NOBODY).tags


@dataclass(slots=True)
class RequestFinished(RequestEvent):
    """Tell that a request succeeded; ``rows`` were returned or changed, of ``size`` bytes (-1: unknown)."""

    rows: int = -1  # -1: not known
    size: int = -1  # known of answers from memory


@dataclass(slots=True, kw_only=True)
class RequestFailed(RequestEvent):
    """Tell that a request failed for good, after all attempts."""

    error: str  # name of the class in router.errors
    code: str | None  # SQLSTATE, errno or SQLite name
    message: str  # of the error; without values

    outcome: ClassVar[str] = "error"


@dataclass(slots=True)
class SlowRequest(Event):
    """Tell that a request took longer than its threshold."""

    request: RequestFinished | RequestFailed  # the event that ended it
    threshold: float  # seconds


@dataclass(slots=True)
class StatementExplained(Event):
    """Tell how a replica means to run a statement that costs much; see observability.slow.explain."""

    tenant: str  # of the request whose text was explained
    fingerprint: str
    node: Node
    plan: str  # without literals
    changed: bool  # it is another one than at the last time, not only in its estimates
    duration: float


@dataclass(slots=True)
class RetryDenied(Event):
    """Tell that a failed attempt was not followed by another, to spare the cluster: see retry budget."""

    tenant: str
    cluster: str
    node: str | None  # its name
    error: str  # name of the class in router.errors
    code: str | None  # of the database, if it answered


@dataclass(slots=True)
class ConnectionEvent(Event):
    """Hold what all events about one physical connection share."""

    node: Node
    driver: str  # the package that speaks to the server
    database: str  # "" where a connection serves several
    user: str  # login name
    duration: float  # of connecting; of the life for ConnectionClosed; of being held for ConnectionHeld


@dataclass(slots=True)
class ConnectionOpened(ConnectionEvent):
    """Tell that a connection was established."""


@dataclass(slots=True, kw_only=True)
class ConnectionFailed(ConnectionEvent):
    """Tell that a connection could not be established."""

    error: str  # name of the class in router.errors
    code: str | None  # of the database, if it answered
    message: str  # of the error


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
    count: int  # of sessions
    error: str  # why the server could not be asked to end them: name of the class in router.errors


@dataclass(slots=True)
class TransactionEvent(Event):
    """Hold what all events about one transaction share."""

    tenant: str
    schema: str | None
    node: Node
    duration: float  # from begin to end
    statements: int  # so far
    readonly: bool  # as it was declared
    unit: int  # its number in this process; the requests in it have it too


@dataclass(slots=True, kw_only=True)
class TransactionBegun(TransactionEvent):
    """Tell that a transaction has begun; ``duration`` is what that took, and the waits are parts of it."""

    role: Role  # of the node
    reason: Reason  # why there
    waits: Waits  # for its connection


@dataclass(slots=True)
class TransactionCommitted(TransactionEvent):
    """Tell that a transaction was committed."""


@dataclass(slots=True)
class TransactionRolledBack(TransactionEvent):
    """Tell that a transaction was rolled back, by request or because of an error."""

    error: str | None = None  # name of its class; None if it was asked for


@dataclass(slots=True)
class CommitUnknown(TransactionEvent):
    """Tell that a commit got no answer; see router.errors.CommitOutcomeUnknown."""


@dataclass(slots=True)
class WriteCommitted(Event):
    """Tell that a write was committed: a transaction that wrote, or a statement that commits by itself.

    The place for what must follow a commit and may fail without it: listeners change nothing any more.
    """

    tenant: str
    schema: str | None
    node: Node  # that has committed it
    tables: frozenset[str]  # that the statements name; of DDL and of texts that are not understood none
    statements: int  # that have written, or may: they call a function that is not known, or are DDL
    unit: int  # number of the transaction in this process; 0: a statement by itself


@dataclass(slots=True)
class CommitResolved(Event):
    """Tell that the server was asked about a commit without an answer, and knew what became of it."""

    tenant: str
    node: Node  # that the commit was sent to
    transaction_id: str  # the server's own name for it
    committed: bool  # False: it was rolled back
    duration: float  # of finding out


@dataclass(slots=True)
class PoolEvent(Event):
    """Hold what all events about one pool share."""

    node: Node
    database: str  # "" where a connection serves several
    user: str  # login name


@dataclass(slots=True)
class PoolOpened(PoolEvent):
    """Tell that a pool was made for an endpoint; its connections follow when they are needed."""


@dataclass(slots=True)
class PoolClosed(PoolEvent):
    """Tell that a pool was closed."""

    leftovers: int  # connections that were cut while in use


@dataclass(slots=True)
class PoolRefused(PoolEvent):
    """Tell that a request got no connection: it waited for too long, or too many wait already."""

    tenant: str  # "" for the router itself
    error: str  # PoolTimeout, PoolFull or PoolDeadlock
    waited: float  # seconds
    in_use: int  # connections
    waiting: int  # requests in the queue
    limit: int  # of connections


@dataclass(slots=True)
class BreakerChanged(Event):
    """Tell that a replica is asked nothing for a while because requests fail there, or is asked again."""

    node: Node
    open: bool  # True: it is left alone
    failures: int  # times that it had to be left alone, one soon after the other; each time is longer
    error: str  # unreachable, losing, silent; "" when it closes


@dataclass(slots=True)
class ReplicaChanged(Event):
    """Tell that a replica may be read again, or why it may not; see router.standing.Out for the reasons."""

    node: Node
    usable: bool  # whether it is read from now on
    reason: str  # "" if it is


@dataclass(slots=True)
class PrimaryChanged(Event):
    """Tell that another server takes the writes of a cluster, or that none does and why."""

    cluster: str
    node: Node | None  # None: there is none
    before: Node | None  # who it was
    problem: str  # why there is none


@dataclass(slots=True)
class TokenIgnored(Event):
    """Tell that a token could not be used, and why; see :class:`router.tokens.Refusal`."""

    tenant: str  # of the session that it was given to
    cluster: str
    refusal: str  # malformed, forged, expired, ...


@dataclass(slots=True)
class WriteLost(Event):
    """Tell that a session must see a write that the new primary has not received.

    Not ``certain``: nobody has seen whether it was received before the old primary was gone.
    """

    tenant: str
    cluster: str
    certain: bool  # whether the new primary is known to lack it


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


@dataclass(slots=True)
class CacheFlushed(Event):
    """Tell that all cached answers of a tenant, or of everybody, were forgotten at once, and why."""

    tenant: str | None  # None: everybody's
    reason: str  # asked; told, by another process; broadcast_lost: others may have written unheard


@dataclass(slots=True)
class CacheTierChanged(Event):
    """Tell that the cache that processes share answers again, or is left alone because it fails."""

    usable: bool  # False: it is left alone
    error: str  # "" when it answers again


@dataclass(slots=True)
class ConfigurationLoaded(Event):
    """Tell that the router works by a configuration from now on: when it is opened, and after a reload."""

    generation: int  # from 1; the same again if nothing had changed
    clusters: int
    tenants: int
    tenants_added: int = 0  # since the generation before
    tenants_removed: int = 0
    tenants_changed: int = 0
    clusters_changed: tuple[str, ...] = ()  # added, removed or changed
    restart: tuple[str, ...] = ()  # sections that differ, and count only once the process starts anew


@dataclass(slots=True)
class ConfigurationRefused(Event):
    """Tell that the configuration has mistakes now, so that the router goes on with the one before."""

    generation: int  # of the one that stays in force
    problems: int
    message: str  # the first of them, with its file and line


@dataclass(slots=True)
class CatalogChanged(Event):
    """Tell that tenants can be looked up again, or cannot: those that are known go on as they are."""

    usable: bool  # False: who is not known gets CatalogUnavailable
    error: str  # name of its class; "" when it works again


@dataclass(slots=True)
class TenantChanged(Event):
    """Tell that a tenant was looked up anew and is another than before, or is gone."""

    tenant: str
    gone: bool  # True: it is no more


@dataclass(slots=True)
class TenantRefused(Event):
    """Tell that what was looked up of a tenant has mistakes; one that was known goes on as it was."""

    tenant: str
    problems: tuple[str, ...]  # each with its place and what to do


@dataclass(slots=True)
class SecretChanged(Event):
    """Tell that a login's password is another one than at the last connect."""

    user: str  # login name
    source: str  # such as ${env:NAME} or ${vault:PATH}, as configured; never what it holds


@dataclass(slots=True)
class SecretFailed(Event):
    """Tell that a login's password could not be had; connects fail with it, if none is kept."""

    user: str  # login name
    source: str  # as in SecretChanged
    message: str  # why; without any value
    kept: bool  # the last good one is used; only stores' are kept


@dataclass(slots=True)
class AuditFailed(Event):
    """Tell that records of writes cannot be kept or handed on, and that they can again."""

    part: str  # journal, sink or outbox
    error: str  # what went wrong; "" when it works again
    lost: int  # records that are missing since the last telling; they are counted in the chain
