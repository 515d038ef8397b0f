"""What a driver is: the two classes that make an engine known to the router.

A new engine is added by writing one :class:`Driver` and one :class:`Connection` and registering the driver
under the engine's name, see ``docs/how-to/add-an-engine.md``. Methods may raise the vendor's exceptions;
:meth:`Driver.translate` is the one border where those become errors of ours.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from router.config.secret import Secret
from router.errors import RouterError
from router.positions import Position
from router.rows import Result, Row
from router.statements import Dialect, Dirt
from router.tenants import Placement
from router.topology import Node

_FIRST_PAUSE, _LAST_PAUSE = 0.001, 0.008  # seconds between two questions whether a server is there yet


@dataclass(frozen=True, slots=True)
class Credential:
    """Hold a user and a password that belong together, as they are for one connect."""

    username: str
    password: Secret
    until: float = math.inf  # on the monotonic clock: the server may forget the user then


class Account(ABC):
    """Give the user and the password of a login at each connect.

    Raises SecretUnavailable, or ConfigurationError where a variable or file is not there any more.
    """

    @abstractmethod
    async def fetch(self) -> Credential:
        """Return what is good now."""

    @abstractmethod
    async def look(self) -> Credential:
        """Return what is good now or was some seconds ago, for who does not connect with it."""

    @abstractmethod
    async def renew(self, refused: Credential) -> Credential | None:
        """Look past all that is remembered; return what is there now, ``None`` if it is what was refused."""


@dataclass(frozen=True, slots=True)
class Login:
    """Name a database user and fetch the password at connect time, so that it can rotate."""

    username: str  # as it is shown: where a store gives it, what the configuration names it by
    password: Callable[[], Awaitable[str]] = field(repr=False)
    account: Account | None = field(default=None, repr=False)  # None: always this user and password


@dataclass(frozen=True, slots=True)
class Setup:
    """Say how the sessions of a cluster are set up."""

    wall: float | None = None  # seconds after which the server itself ends a statement
    resolve: bool = False  # learn each transaction's number when it begins, to ask for its outcome later
    pooled: bool = False  # a pooler between us and the server gives each transaction another session


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Describe what a pool's connections connect to."""

    node: Node
    database: str  # "" where the driver switches databases on one connection
    login: Login
    readonly: bool  # the database itself must refuse writes on these connections
    tls: ssl.SSLContext | str | None = None  # None: plain; "prefer" and "allow" as in PostgreSQL
    options: Mapping[str, object] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()  # PostgreSQL: schemas after the tenant's in the search path
    application: str = "router"
    setup: Setup = Setup()


class Mark(NamedTuple):
    """Name a transaction so that another connection can ask what became of it."""

    transaction_id: str
    history: tuple[str, ...]  # the server's own; a number means something only in the history it is from


class Outcome(Enum):
    """Say what became of a transaction."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    OPEN = "open"  # the server is still at it
    UNKNOWN = "unknown"  # the server cannot tell


class Binding(NamedTuple):
    """Hold the session state that makes a connection a tenant's; a tuple, for each request compares two."""

    schema: str | None = None  # PostgreSQL: first in the search path; MySQL: the database
    role: str | None = None  # that statements run as
    setting: str | None = None  # that row security policies look at
    value: str | None = None  # of it


#: What no tenant is bound to: the binding of a connection of which nobody knows.
UNSURE = Binding("\0")


class Location(NamedTuple):
    """Say which pool serves a placement, and what its connections must be bound to; ``None``: to nothing."""

    database: str
    binding: Binding | None


class Reading(NamedTuple):
    """Hold what a server says of itself when it is probed; see :class:`router.standing.Observation`."""

    writable: bool
    position: Position | None = None
    timeline: int | None = None
    identity: str | None = None
    reign: str | None = None
    follows: frozenset[str] = frozenset()


class Connection(ABC):
    """One physical connection and what is known of its state.

    The state lives here rather than in the pool because the pool is not the only one to change it: a
    statement makes the connection dirty, a binding changes its search path.
    """

    #: whether other statements may run while a stream is not read to its end
    interleaves: ClassVar[bool] = True

    __slots__ = (
        "binding",
        "charged",
        "dirt",
        "expires_at",
        "id",
        "in_transaction",
        "lent_at",
        "mark",
        "node",
        "opened_at",
        "record",
        "used_at",
    )

    def __init__(self) -> None:
        self.id = 0
        self.binding: Binding | None = None
        self.dirt: int = Dirt.NONE
        self.in_transaction = False
        self.mark: Mark | None = None  # of the last transaction, where the server told it
        self.opened_at = 0.0
        self.used_at = 0.0
        self.lent_at = 0.0
        self.charged = 0.0, 0.0  # when it was granted to who had waited, and what that was charged
        self.node: Node | None = None  # set by the pool
        self.expires_at = math.inf
        self.record: Any = None  # the SQLAlchemy pool entry, once the ORM has used this connection

    def spare(self, seconds: float) -> None:
        """Take off what its tenant is charged for the connection: others had it bound elsewhere."""
        granted, charged = self.charged
        self.charged = self.lent_at, (charged if granted == self.lent_at else 0.0) + seconds

    @property
    @abstractmethod
    def driver_connection(self) -> Any:
        """Return the vendor's connection object."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Tell whether the connection is known to be closed; costs no I/O."""

    @property
    def peer(self) -> str | None:
        """Return the IP address that it is connected to, ``None`` where there is none."""
        return None

    @abstractmethod
    async def fetch_all(self, sql: str, args: tuple[object, ...], timeout: float | None) -> list[Row]:
        """Run a statement and return its rows. ``timeout`` is in seconds."""

    @abstractmethod
    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Row | None:
        """Run a statement and return its first row."""

    @abstractmethod
    async def execute(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Result:
        """Run a statement and return what it did, with its rows if it has any."""

    @abstractmethod
    async def execute_many(self, sql: str, args: Sequence[tuple[object, ...]], timeout: float | None) -> int:
        """Run a statement once for each tuple of arguments, all or none; return the rows changed or -1."""

    @abstractmethod
    async def execute_raw(self, text: str, timeout: float | None) -> None:
        """Run a text as it is, several statements allowed."""

    @abstractmethod
    def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncGenerator[list[Row], None]:
        """Yield the rows in batches from a cursor on the server; ``timeout`` holds for each batch."""

    async def next_batch(self, batches: AsyncGenerator[list[Row], None]) -> list[Row]:
        """Return the next batch of a stream, an empty one at its end."""
        return await anext(batches, [])

    @abstractmethod
    async def begin(self, *, readonly: bool, isolation: str | None, timeout: float | None) -> None:
        """Begin a transaction."""

    @abstractmethod
    async def control(self, text: str, timeout: float | None) -> None:
        """Run one transaction command, such as COMMIT or SAVEPOINT, as it is."""

    async def commit(self, timeout: float | None) -> None:
        """Commit the transaction."""
        await self.control("COMMIT", timeout)

    async def rollback(self, timeout: float | None) -> None:
        """Roll the transaction back."""
        await self.control("ROLLBACK", timeout)

    def commits_again(self, error: RouterError) -> bool:
        """Tell whether, after a commit that failed with ``error``, the transaction waits for another."""
        return False

    async def outcome(self, mark: Mark, timeout: float | None) -> Outcome:
        """Ask what became of a transaction that began on another connection."""
        return Outcome.UNKNOWN

    def survives(self, error: RouterError) -> bool:
        """Tell whether an open transaction is still open on the server, or refuses all else, after ``error``.

        Where the server has ended it, the next statement would commit by itself.
        """
        return True

    @abstractmethod
    async def bind(self, endpoint: Endpoint, binding: Binding | None, timeout: float) -> None:
        """Set the session state of a tenant; raise if the tenant's place does not exist."""

    def bind_along(self, endpoint: Endpoint, binding: Binding | None) -> bool:
        """Have the next statement bind the session along with it; tell whether it will.

        Until it has, the connection's binding is :data:`UNSURE`; then it is this one.
        """
        return False

    @property
    def encloses(self) -> bool:
        """Tell whether what runs now must stand between :meth:`enter` and :meth:`leave` to be the tenant's.

        So it is for a statement outside of a transaction where a session is the tenant's for one transaction
        only; the methods here that run a statement see to it themselves.
        """
        return False

    async def enter(self, timeout: float | None) -> None:
        """Begin a transaction for one statement."""
        raise NotImplementedError

    async def leave(self, timeout: float | None) -> None:
        """Commit the transaction of one statement."""
        raise NotImplementedError

    async def undo(self) -> None:
        """Roll the transaction of one statement back, or close the connection."""
        raise NotImplementedError

    @abstractmethod
    async def reset(self, timeout: float) -> None:
        """Undo whatever statements may have changed in the session, the binding included."""

    async def probe(self) -> Reading:
        """Ask the server for its role and position; only called where the driver ``probes``."""
        raise NotImplementedError("this engine is not probed")

    async def reach(self, goal: Position, seconds: float) -> bool:
        """Wait until the replica has reached ``goal``, at most ``seconds``; tell whether it has.

        One that is promoted meanwhile has not: what it reaches then is its own.
        """
        clock = asyncio.get_running_loop().time
        pause, end = _FIRST_PAUSE, clock() + seconds
        while (left := end - clock()) > 0:  # the questions take time as well
            await asyncio.sleep(min(pause, left))
            reading = await self.probe()
            if reading.writable:
                return False
            if reading.position is not None and reading.position.reached(goal):
                return True
            pause = min(pause * 2, _LAST_PAUSE)
        return False

    async def plan(self, sql: str, parameters: int, timeout: float) -> str:
        """Return how the server means to run a query, which has so many parameters, without running it.

        Only called where the driver ``plans``. The text may have literals; the connection stays as it was.
        """
        raise NotImplementedError("this engine tells no plans")

    @property
    def unfinished(self) -> bool:
        """Tell whether the server would go on with a statement of this connection after it is closed."""
        return False

    async def kill(self, other: Connection, age: float) -> None:
        """End the session of ``other``, a connection to the same endpoint opened ``age`` seconds ago.

        Called on a fresh connection, and only if ``other`` is :attr:`unfinished`.
        """
        raise NotImplementedError

    @abstractmethod
    async def close(self, timeout: float) -> None:
        """Close in order, waiting for the server at most ``timeout`` seconds."""

    @abstractmethod
    def terminate(self) -> None:
        """Close at once, without waiting for anything."""

    def detach(self) -> Any:
        """Give the socket up without a word to the server or to the event loop; return what ``close()`` ends.

        For a time or place in which the event loop does not run: after it has ended, and in a process that
        was forked, whose parent goes on using the connection. Afterwards the connection counts as closed,
        and its driver does not complain that it was not. Return ``None`` where that cannot be done.
        """
        return None


class Driver(ABC):
    """Make an engine known: how to connect, how to read its errors, how its tenants are placed."""

    name: ClassVar[str]
    dialect: ClassVar[Dialect]
    #: whether servers are asked for their role and position; without that nobody can be promoted
    probes: ClassVar[bool] = False
    #: whether connections can be asked for the plan of a query
    plans: ClassVar[bool] = False

    @abstractmethod
    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        """Open a connection, read-only in the database itself if the endpoint says so."""

    @abstractmethod
    def translate(self, exc: BaseException) -> RouterError:
        """Turn an exception of the vendor's driver into one of ours, without secrets or bound values."""

    @abstractmethod
    def locate(self, placement: Placement) -> Location:
        """Return which pool serves a placement and the binding of its connections."""

    @abstractmethod
    def sqlalchemy_url(self) -> str:
        """Return the SQLAlchemy URL of the dialect, without address and credentials."""

    @abstractmethod
    def sqlalchemy_connection(self, dialect: Any, connection: Connection) -> Any:
        """Wrap the vendor's connection as SQLAlchemy's adapted DBAPI connection."""
