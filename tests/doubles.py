"""A scripted engine, for faults that a real server cannot be made to show at will.

``Server`` plays all nodes of a cluster and keeps what it has executed, as a server would. The driver and its
connections are complete; everything between them and the caller is the router's own.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

import pytest

from router import Router
from router.config import Config, parse
from router.drivers import registry
from router.drivers.driver import Binding, Connection, Driver, Endpoint, Location, Reading
from router.errors import ConnectionLost, RouterError, ServerError
from router.rows import Result, Row, row_class
from router.statements import Dialect
from router.tenants import Placement

PASSWORD = "canary-5ecre7-of-the-double"


@dataclass
class Fault:
    """Say what the next call of a verb meets: an error, a wait, or both."""

    verb: str
    error: BaseException | None
    node: str | None
    after: bool  # the server executes first: the answer is lost
    breaks: bool  # the connection is closed
    wait: Callable[[], Awaitable[object]] | None


@dataclass
class Server:
    """Hold what happened on the server's side, and what shall go wrong."""

    executed: list[tuple[str, str]] = field(default_factory=list)  # (node, SQL) of all that took effect
    connections: list["ScriptedConnection"] = field(default_factory=list)  # all there ever were
    most: int = 0  # open at once
    faults: deque[Fault] = field(default_factory=deque)
    down: set[str] = field(default_factory=set)  # nodes that refuse connections
    explained: list[tuple[str, str]] = field(default_factory=list)  # (node, SQL) of all plans asked for

    def fail(
        self,
        verb: str,
        error: BaseException | None = None,
        *,
        node: str | None = None,
        after: bool = False,
        breaks: bool = False,
        times: int = 1,
    ) -> None:
        """Let the next ``times`` calls of ``verb`` (on ``node``) fail."""
        self.faults.extend(Fault(verb, error, node, after, breaks, None) for _ in range(times))

    def block(self, verb: str, *, node: str | None = None) -> asyncio.Event:
        """Let the next call of ``verb`` wait for the event that is returned."""
        event = asyncio.Event()
        self.faults.append(Fault(verb, None, node, False, False, event.wait))
        return event

    def delay(self, verb: str, seconds: float) -> None:
        """Let the next call of ``verb`` take so long, from when it is made."""
        self.faults.append(Fault(verb, None, None, False, False, partial(asyncio.sleep, seconds)))

    @property
    def open(self) -> list["ScriptedConnection"]:
        """Return the connections that are open now."""
        return [each for each in self.connections if not each.closed]

    def count(self, sql: str) -> int:
        """Return how often a text took effect, on any node."""
        return sum(sql in text for _, text in self.executed)

    def _take(self, verb: str, node: str) -> Fault | None:
        for fault in self.faults:
            if fault.verb == verb and fault.node in (None, node):
                self.faults.remove(fault)
                return fault
        return None

    async def meet(
        self, verb: str, node: str, effect: Callable[[], None], breaks: Callable[[], None]
    ) -> None:
        """Let ``effect`` happen, or what was scripted instead."""
        await asyncio.sleep(0)  # as any network would
        fault = self._take(verb, node)
        if fault is None:
            effect()
            return
        if fault.wait is not None:
            await fault.wait()
        if fault.after or fault.error is None:
            effect()
        if fault.breaks:
            breaks()
        if fault.error is not None:
            raise fault.error


class ScriptedConnection(Connection):
    """One connection to the double."""

    __slots__ = ("_open", "bound", "calls", "endpoint", "password", "server")

    def __init__(self, server: Server, endpoint: Endpoint, password: str) -> None:
        super().__init__()
        self.server = server
        self.endpoint = endpoint
        self.password = password
        self.calls: list[str] = []
        self.bound: list[Binding | None] = []
        self._open = True

    @property
    def driver_connection(self) -> Any:
        return self

    @property
    def closed(self) -> bool:
        return not self._open

    async def _meet(self, verb: str, text: str = "", timeout: float = 5.0) -> None:
        node = self.endpoint.node.name
        self.calls.append(verb)

        def effect() -> None:
            if text:
                self.server.executed.append((node, text))

        if self.closed:
            raise ConnectionResetError("this end is closed")
        async with asyncio.timeout(timeout):
            await self.server.meet(verb, node, effect, self.terminate)

    async def fetch_all(self, sql: str, args: tuple[object, ...], timeout: float) -> list[Row]:
        await self._meet("fetch_all", sql, timeout)
        node = row_class(("node", "connection"))((self.endpoint.node.name, self.id))
        return [cast("Row", node)]

    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float) -> Row | None:
        await self._meet("fetch_one", sql, timeout)
        return cast("Row", row_class(("node", "connection"))((self.endpoint.node.name, self.id)))

    async def execute(self, sql: str, args: tuple[object, ...], timeout: float) -> Result:
        await self._meet("execute", sql, timeout)
        return Result(1)

    async def execute_many(self, sql: str, args: Sequence[tuple[object, ...]], timeout: float) -> int:
        await self._meet("execute_many", sql, timeout)
        return len(args)

    async def execute_raw(self, text: str, timeout: float) -> None:
        await self._meet("execute_raw", text, timeout)

    async def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncGenerator[list[Row], None]:
        for number in range(3):
            await self._meet("stream", sql, timeout)
            yield [cast("Row", row_class(("number",))((number,)))]

    async def begin(self, *, readonly: bool, isolation: str | None, timeout: float) -> None:
        await self._meet("begin", "", timeout)

    async def plan(self, sql: str, parameters: int, timeout: float) -> str:
        self.server.explained.append((self.endpoint.node.name, sql))
        await self._meet("plan", "", timeout)
        return f"Seq Scan, {parameters} parameters"

    async def control(self, text: str, timeout: float) -> None:
        await self._meet(text.split()[0].lower(), text, timeout)

    async def bind(self, endpoint: Endpoint, binding: Binding | None, timeout: float) -> None:
        await self._meet("bind", "", timeout)
        self.bound.append(binding)

    async def reset(self, timeout: float) -> None:
        await self._meet("reset", "", timeout)

    async def probe(self) -> Reading:
        await self._meet("probe")
        return Reading(writable=self.endpoint.node.name == "primary")

    async def close(self, timeout: float) -> None:
        await self._meet("close", "", timeout)
        self._open = False

    def terminate(self) -> None:
        self._open = False


class ScriptedDriver(Driver):
    """Connect to the double."""

    name = "scripted"
    dialect = Dialect.POSTGRESQL
    plans = True
    server: ClassVar[Server]

    def __init__(self, server: Server) -> None:
        self._server = server

    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        server = self._server
        password = await endpoint.login.password()
        made = ScriptedConnection(server, endpoint, password)
        if endpoint.node.name in server.down:
            raise ConnectionRefusedError(111, "refused")
        await server.meet("connect", endpoint.node.name, lambda: None, made.terminate)
        server.connections.append(made)
        server.most = max(server.most, len(server.open))
        return made

    def translate(self, exc: BaseException) -> RouterError:
        if isinstance(exc, RouterError):
            return exc
        if isinstance(exc, TimeoutError):
            from router.errors import StatementTimeout

            return StatementTimeout("the statement did not finish in time", cause=exc)
        if isinstance(exc, OSError):
            return ConnectionLost(f"the connection broke: {type(exc).__name__}", cause=exc)
        return ServerError(f"unexpected {type(exc).__name__}", cause=exc)

    def locate(self, placement: Placement) -> Location:
        return Location("shared", Binding(placement.database))

    def sqlalchemy_url(self) -> str:
        return "postgresql+asyncpg://"

    def sqlalchemy_connection(self, dialect: Any, connection: Connection) -> Any:
        raise NotImplementedError("the double speaks text only")


def config(
    *,
    replicas: int = 2,
    connections: dict[str, Any] | None = None,
    defaults: dict[str, Any] | None = None,
    observability: dict[str, Any] | None = None,
) -> Config:
    """Return a configuration of two tenants, acme and globex, on one scripted cluster."""
    section = {
        "engine": "scripted",
        "primary": {"host": "127.0.0.1", "port": 1},
        "replicas": [{"name": f"r{n + 1}", "host": "127.0.0.1", "port": n + 2} for n in range(replicas)],
        "credentials": {"writer": {"username": "app", "password": PASSWORD}},
        "connections": {"max": 4, **(connections or {})},
    }
    tenants = {
        name: {"cluster": "main", "isolation": "database", "database": f"{name}_db"}
        for name in ("acme", "globex")
    }
    quick = {"retries": {"attempts": 3, "min_wait": "1ms", "max_wait": "5ms"}, **(defaults or {})}
    data = {"version": 1, "clusters": {"main": section}, "tenants": tenants, "defaults": quick}
    data["observability"] = observability or {}
    return parse(data, known_engines=registry.engines())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Register the scripted engine for one test."""
    made = Server()
    monkeypatch.setitem(registry._registered, "scripted", lambda: ScriptedDriver(made))
    yield made


@asynccontextmanager
async def opened(**given: Any) -> AsyncIterator[Router]:
    """Open a router on the double; at the end no connection may be lent, waiting, or open."""
    router = Router(config(**given))
    async with router:
        yield router
        await asyncio.sleep(0.01)
        lent = [pool for pool in router.status().pools if pool.in_use or pool.waiting]
        assert not lent, f"connections were not given back: {lent}"
