"""A scripted cluster that replicates on demand, for states that real servers pass through too quickly.

``Cluster`` holds what each server has; a test replays, crashes and promotes. A read returns the writes that
its server shows. As on PostgreSQL a position counts bytes, a promotion begins a timeline, and a server that
crashes loses its connections and may show an older state when it is back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from router import Router
from router.backend import Backend
from router.cache.catalogs import QUERIES
from router.config import Config, parse
from router.drivers import registry
from router.drivers.driver import Connection, Endpoint, Reading
from router.errors import ConnectError, ReadOnlyViolation, RouterError
from router.events import RequestFinished
from router.positions import Lsn
from router.rows import Result, Row, row_class
from tests.doubles import PASSWORD, ScriptedConnection, ScriptedDriver, Server
from tests.engines import Recorder

READ = "SELECT id FROM t"
WRITE = "INSERT INTO t (id) VALUES (:id)"
CACHEABLE = "SELECT text FROM t"  # shows the same, as values that can be cached
_BYTES = 10  # of a write
_row = row_class(("node", "seen"))
_text = row_class(("node", "text"))
#: What the catalog says: there is one table, ``t``.
_CATALOG = cast(
    "list[Row]",
    [(None, None, ["public"], *[None] * 7), ("public", "t", None, (), (), "1r", "p", False, False, False)],
)


@dataclass
class Node:
    """Hold what one server has, and whether it takes writes."""

    name: str
    log: list[int] = field(default_factory=list)  # ids of writes, in order
    kept: list[int] = field(default_factory=list)  # what it will replay again, shown or not
    more: int = 0  # bytes that are no writes
    timeline: int = 1
    writable: bool = False
    up: bool = True
    lives: int = 1  # its connections end with its life
    identity: str = "id"

    @property
    def position(self) -> Lsn:
        """Return how far it is."""
        return Lsn(100 + len(self.log) * _BYTES + self.more)


class Cluster:
    """A primary and two replicas, as scripted by a test."""

    def __init__(self) -> None:
        self.faults = Server()  # fail() and block() the verbs of its connections
        self.nodes = {name: Node(name) for name in ("primary", "r1", "r2")}
        self.nodes["primary"].writable = True
        self.asked: list[tuple[str, str]] = []  # (node, verb) of all that reached a server
        self.follows = True  # replicas replay what they can by themselves, at each question
        self.held: set[str] = set()  # replicas that do not
        self._ids = iter(range(1, 1_000_000))

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    @property
    def primary(self) -> Node:
        """Return the server that takes writes; the newest if there are two."""
        assert self._source is not None
        return self._source

    @property
    def _source(self) -> Node | None:
        writable = (each for each in self.nodes.values() if each.writable)
        return max(writable, key=lambda each: each.timeline, default=None)

    def write(self, node: Node, written: int) -> None:
        """Let a server commit a write."""
        if not node.writable:
            raise ReadOnlyViolation("cannot execute INSERT in a read-only transaction", code="25006")
        node.log.append(written)

    def replay(self, *names: str, most: int = 1_000_000) -> None:
        """Let replicas catch up with the primary, or by so many writes."""
        for name in names or [name for name, each in self.nodes.items() if not each.writable]:
            node, source = self.nodes[name], self._source
            if source is not None and source.log[: len(node.log)] == node.log:  # else it is on another branch
                node.log = source.log[: len(node.log) + most]
                if len(node.log) == len(source.log):
                    node.more, node.timeline = source.more, source.timeline

    def crash(self, name: str, *, loses: int = 0, back: bool = True) -> None:
        """End a server; once it is back it shows for a while what it had ``loses`` writes before."""
        node = self.nodes[name]
        node.lives += 1
        node.up = back
        if loses:
            node.kept = max(node.kept, node.log, key=len)
            node.log = node.log[: max(len(node.log) - loses, 0)]

    def promote(self, name: str, *, more: int = 3) -> None:
        """Let a replica take writes on a timeline of its own, which begins with ``more`` bytes."""
        node = self.nodes[name]
        node.log = max(node.log, node.kept, key=len)  # before it takes writes it replays all that it has
        node.timeline = max(each.timeline for each in self.nodes.values()) + 1
        node.more, node.writable = node.more + more, True

    def count(self, verb: str, *names: str) -> int:
        """Return how often a verb reached these servers, or any."""
        return sum(each == verb and (not names or name in names) for name, each in self.asked)

    @property
    def opened(self) -> int:
        """Return how many connections are open."""
        return sum(not each.closed for each in self.faults.connections)

    def meet(self, name: str, verb: str) -> None:
        """Take note of a question; replicas that follow have caught up until it is answered."""
        self.asked.append((name, verb))
        if self.follows and not self.nodes[name].writable and name not in self.held:
            self.replay(name)


class ReplicatingConnection(ScriptedConnection):
    """One connection to one life of a server."""

    __slots__ = ("_cluster", "_life")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, password: str) -> None:
        super().__init__(cluster.faults, endpoint, password)
        self._cluster = cluster
        self._life = self._server.lives

    @property
    def _server(self) -> Node:
        return self._cluster[self.endpoint.node.name]

    @property
    def closed(self) -> bool:
        return not self._open or not self._server.up or self._life != self._server.lives

    async def _meet(self, verb: str, text: str = "", timeout: float | None = 5.0) -> None:
        await super()._meet(verb, text, 5.0 if timeout is None else timeout)
        if self.closed:
            raise ConnectionResetError("the server has ended")
        self._cluster.meet(self._server.name, verb)

    def _shown(self) -> Row:
        return cast("Row", _row((self._server.name, frozenset(self._server.log))))

    async def fetch_all(self, sql: str, args: tuple[object, ...], timeout: float | None) -> list[Row]:
        await self._meet("fetch_all", sql, timeout)
        if sql in QUERIES.values():
            return _CATALOG
        if sql == CACHEABLE:
            text = " ".join(map(str, sorted(self._server.log)))
            return [cast("Row", _text((self._server.name, text)))]
        return [self._shown()]

    async def fetch_one(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Row | None:
        await self._meet("fetch_one", sql, timeout)
        return self._shown()

    async def execute(self, sql: str, args: tuple[object, ...], timeout: float | None) -> Result:
        await self._meet("execute", sql, timeout)
        if args:
            self._cluster.write(self._server, int(cast("Any", args[0])))
        return Result(1)

    async def stream(
        self, sql: str, args: tuple[object, ...], batch: int, timeout: float
    ) -> AsyncIterator[list[Row]]:  # type: ignore[override]
        await self._meet("stream", sql, timeout)
        yield [self._shown()]

    async def probe(self) -> Reading:
        await self._meet("probe")
        node = self._server
        reign = str(node.timeline)
        if node.writable:
            return Reading(True, node.position, node.timeline, node.identity, reign)
        return Reading(False, node.position, None, node.identity, follows=frozenset({reign}))


class ReplicatingDriver(ScriptedDriver):
    """Connect to the servers of a scripted cluster."""

    probes = True

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.faults)
        self._cluster = cluster

    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        await self._cluster.faults.meet("connect", endpoint.node.name, lambda: None, lambda: None)
        if not self._cluster[endpoint.node.name].up:
            raise ConnectionRefusedError(111, "refused")
        made = ReplicatingConnection(self._cluster, endpoint, await endpoint.login.password())
        self._cluster.faults.connections.append(made)
        return made

    def translate(self, exc: BaseException) -> RouterError:
        if isinstance(exc, ConnectionRefusedError):
            return ConnectError("the server refuses connections", cause=exc)
        return super().translate(exc)


def config(
    *,
    defaults: dict[str, Any] | None = None,
    keys: Iterable[str] = (),
    cache: dict[str, Any] | None = None,
    **cluster: Any,
) -> Config:
    """Return a configuration of acme and globex on the scripted cluster, not probed by itself for long."""
    section = {
        "engine": "replicating",
        "primary": {"host": "127.0.0.1", "port": 1},
        "replicas": [{"name": name, "host": "127.0.0.1", "port": 2} for name in ("r1", "r2")],
        "credentials": {"writer": {"username": "app", "password": PASSWORD}},
        "connections": {"max": 8},
        "checks": {"interval": "1h", "timeout": "200ms"},
        **cluster,
    }
    data: dict[str, Any] = {
        "version": 1,
        "clusters": {"main": section},
        "tenants": {
            name: {"cluster": "main", "isolation": "database", "database": f"{name}_db"}
            for name in ("acme", "globex")
        },
        "defaults": {"retries": {"attempts": 3, "min_wait": "1ms", "max_wait": "5ms"}, **(defaults or {})},
    }
    if cache:
        data["cache"] = cache
    if keys:
        data["tokens"] = {"keys": list(keys)}
    return parse(data, known_engines=registry.engines())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Register a scripted cluster for one test."""
    made = Cluster()
    monkeypatch.setitem(registry._registered, "replicating", lambda: ReplicatingDriver(made))
    yield made


@asynccontextmanager
async def opened(**given: Any) -> AsyncIterator[Router]:
    """Open a router on the scripted cluster, with all servers asked; at the end nothing may be lent."""
    async with Router(config(**given)) as router:
        await router.ready()
        await ask(router)
        yield router
        await asyncio.sleep(0.01)
        lent = [pool for pool in router.status().pools if pool.in_use or pool.waiting]
        assert not lent, f"connections were not given back: {lent}"


def backend(router: Router) -> Backend:
    """Return what serves the cluster."""
    return router._backends["main"]


async def ask(router: Router, *names: str) -> None:
    """Have servers probed now, in this order; all of them if none is named."""
    for name in names or ("primary", "r1", "r2"):
        await backend(router)._prober.ask(name)


# --- what tests do with it -------------------------------------------------------------------------------


async def fetch(session: Any) -> Any:
    return await session.fetch_one(READ)


async def in_transaction(session: Any) -> Any:
    async with session.transaction(readonly=True) as tx:
        return await tx.fetch_one(READ)


async def streamed(session: Any) -> Any:
    rows = [row async for row in session.stream(READ)]
    return rows[0]


async def prepared(session: Any) -> Any:
    return await (await session.prepare(READ)).fetch_one()


async def declared(session: Any) -> Any:
    return await session.fetch_one("SELECT unheard_of(id) FROM t", readonly=True)


FORMS = pytest.mark.parametrize("form", [fetch, in_transaction, streamed, prepared, declared])
Form = Callable[[Any], Any]


async def wrote(router: Router, number: int, **given: Any) -> Any:
    """Return a session that has written a number."""
    session = router.session("acme", **given)
    await session.execute(WRITE, {"id": number})
    return session


async def reading(router: Router, node: str) -> Any:
    """Return a session that has read on a replica."""
    while True:
        session = router.session("acme")
        if (await fetch(session)).node == node:
            return session


def reasons(heard: Recorder) -> list[str]:
    return [event.reason.value for event in heard.of(RequestFinished)]
