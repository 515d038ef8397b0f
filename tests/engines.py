"""One abstraction over all engines, so that one suite proves the same promises on each of them.

A test that takes the fixture ``engine`` or ``router`` runs on SQLite, on PostgreSQL with a database for each
tenant, on PostgreSQL with a schema for each tenant, and on MariaDB. The tenants ``acme`` and ``globex`` are
always there, each with a further schema ``analytics``.
"""

import asyncio
import contextlib
import itertools
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from router import Router
from router.config import Config, parse
from router.events import Event, RequestFailed, RequestFinished
from tests.servers import MariadbCluster, PostgresqlCluster

E = TypeVar("E", bound=Event)
TENANTS = ("acme", "globex")
_numbers = itertools.count(1)


class Engine:
    """Give a test what differs between the engines; everything else must be the same on all."""

    id = ""
    dialect = ""
    key = ""  # DDL of a primary key that the server generates
    blob = "BLOB"
    returning = True  # on INSERT; MariaDB has none on UPDATE
    own_read_reason = "own_write"
    replicas: tuple[str, ...] = ()
    server: Any = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = f"e{secrets.token_hex(3)}"
        self._made: list[str] = []

    def name(self) -> str:
        """Return a table name that no other test uses."""
        return f"t{next(_numbers)}"

    def create(self, *tenants: str) -> None:
        """Create the tenants' places on the server, replicas included."""

    def drop(self) -> None:
        """Remove what ``create`` made."""

    def tenant(self, tenant: str) -> dict[str, Any]:
        """Return the section of one tenant."""
        raise NotImplementedError

    def cluster(self) -> dict[str, Any]:
        """Return the section of the cluster."""
        raise NotImplementedError

    def config(self, *args: Any, **given: Any) -> Config:
        """Return a configuration as :meth:`document` describes it."""
        return parse(self.document(*args, **given), self.folder)

    def document(
        self,
        tenants: tuple[str, ...] = TENANTS,
        *,
        connections: int = 4,
        cluster: dict[str, Any] | None = None,
        defaults: dict[str, Any] | None = None,
        keys: tuple[str, ...] = (),
        own: dict[str, dict[str, Any]] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Return what describes these tenants on one cluster named ``main``; ``keys`` sign tokens.

        ``own`` is what single tenants set, ``more`` further sections such as ``cache`` and ``tiers``.
        """
        section = {**self.cluster(), "connections": {"max": connections}, **(cluster or {})}
        listed = {
            tenant: {
                "tenant": tenant,
                "cluster": "main",
                **self.tenant(tenant),
                **(own or {}).get(tenant, {}),
            }
            for tenant in tenants
        }
        quick: dict[str, Any] = {"retries": {"attempts": 3, "min_wait": "5ms", "max_wait": "50ms"}}
        # what one tenant leaves to others by itself has tests of its own
        quick["limits"] = {"connections": section["connections"].get("max", connections)}
        return {
            "version": 1,
            "clusters": {"main": section},
            "defaults": {**quick, **(defaults or {})},
            "tenants": listed,
            **({"tokens": {"keys": list(keys)}} if keys else {}),
            **more,
        }

    @contextlib.asynccontextmanager
    async def open(self, *args: Any, **given: Any) -> AsyncIterator[Router]:
        """Open a router of :meth:`config`."""
        async with Router.open(self.config(*args, **given)) as opened:
            yield opened

    async def settle(self) -> None:
        """Return when the replicas show all that was committed so far."""

    def sleep(self, seconds: float) -> str:
        """Return a read that takes so long on the server."""
        raise NotImplementedError


class Sqlite(Engine):
    """A file for each tenant and schema; readers take the place of replicas."""

    id = dialect = "sqlite"
    key = "INTEGER PRIMARY KEY"
    own_read_reason = "read"  # the readers see every commit at once
    replicas = ("reader-1", "reader-2")

    def create(self, *tenants: str) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        for tenant in tenants:
            for name in (tenant, f"{tenant}.{tenant}_analytics"):
                with contextlib.closing(sqlite3.connect(self.file(name))) as made:
                    made.execute("PRAGMA journal_mode = WAL")

    def tenant(self, tenant: str) -> dict[str, Any]:
        return {"isolation": "database", "database": tenant, "schemas": {"analytics": f"{tenant}_analytics"}}

    def cluster(self) -> dict[str, Any]:
        return {"engine": "sqlite", "primary": {"path": "data"}, "options": {"timeout": 2.0}}

    def file(self, tenant: str) -> Path:
        """Return the database file of a tenant."""
        return self.folder / "data" / f"{tenant}.db"

    def sleep(self, seconds: float) -> str:
        steps = int(seconds * 20_000_000)  # a generous estimate: rather too long than too short
        return (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
            f"{steps}) SELECT count(*) FROM n"
        )


class _Served(Engine):
    """What PostgreSQL and MariaDB have in common."""

    engine = ""

    def __init__(self, folder: Path, server: Any) -> None:
        super().__init__(folder)
        self.server = server
        self.replicas = tuple(f"r{number}" for number in range(1, len(server.replicas) + 1))
        self.addresses: Sequence[Any] = server.servers  # or the proxies that stand before them

    def cluster(self) -> dict[str, Any]:
        nodes = [{"host": each.host, "port": each.port} for each in self.addresses]
        primary, *replicas = nodes
        return {
            "engine": self.engine,
            "primary": primary,
            "replicas": [{"name": name, **node} for name, node in zip(self.replicas, replicas, strict=True)],
            "credentials": {"writer": self.login("router_app"), "reader": self.login("router_ro")},
        }

    def login(self, user: str) -> dict[str, str]:
        """Return a login of the server."""
        return {"username": user, "password": self.server.primary.password(user)}

    async def settle(self) -> None:
        await asyncio.to_thread(self.server.wait_for_replicas)

    def drop(self) -> None:
        for name in self._made:
            self.server.drop_database(name)


class Postgresql(_Served):
    """A database for each tenant."""

    id = engine = dialect = "postgresql"
    key = "SERIAL PRIMARY KEY"
    blob = "BYTEA"

    def database(self, tenant: str) -> str:
        """Return the name of the database that holds a tenant."""
        return f"{self.prefix}_{tenant}"

    def create(self, *tenants: str) -> None:
        for tenant in tenants:
            self._create_database(self.database(tenant))
            self.server.run("CREATE SCHEMA analytics AUTHORIZATION router_app", self.database(tenant))
        self.server.wait_for_replicas()

    def _create_database(self, name: str) -> None:
        if name not in self._made:
            self.server.create_database(name)
            self._made.append(name)
            # a deadlock is looked for after this time: the default of 1 s would make its tests slow
            self.server.run(f"ALTER DATABASE {name} SET deadlock_timeout = '30ms'")

    def tenant(self, tenant: str) -> dict[str, Any]:
        return {
            "isolation": "database",
            "database": self.database(tenant),
            "schemas": {"analytics": "analytics"},
        }

    def sleep(self, seconds: float) -> str:
        return f"SELECT 1 FROM pg_sleep({seconds})"


class PostgresqlSchemas(Postgresql):
    """A schema for each tenant, all in one database."""

    id = "postgresql-schema"

    def database(self, tenant: str) -> str:
        return self.prefix

    def create(self, *tenants: str) -> None:
        self._create_database(self.prefix)
        text = "".join(
            f"CREATE SCHEMA {name} AUTHORIZATION router_app;"
            for tenant in tenants
            for name in (tenant, f"{tenant}_analytics")
        )
        self.server.run(text, self.prefix)
        self.server.wait_for_replicas()

    def tenant(self, tenant: str) -> dict[str, Any]:
        return {
            "isolation": "schema",
            "schema": tenant,
            "database": self.prefix,
            "schemas": {"analytics": f"{tenant}_analytics"},
        }


class Mariadb(_Served):
    """A database for each tenant and for each of its schemas, all over the same connections."""

    id = engine = "mariadb"
    dialect = "mysql"
    key = "INT AUTO_INCREMENT PRIMARY KEY"

    def tenant(self, tenant: str) -> dict[str, Any]:
        return {
            "isolation": "database",
            "database": f"{self.prefix}_{tenant}",
            "schemas": {"analytics": f"{self.prefix}_{tenant}_analytics"},
        }

    def create(self, *tenants: str) -> None:
        names = [f"{self.prefix}_{tenant}{more}" for tenant in tenants for more in ("", "_analytics")]
        self._made += names
        self.server.run("".join(f"CREATE DATABASE `{name}`;" for name in names), "mysql")
        self.server.wait_for_replicas()

    def drop(self) -> None:
        self.server.run("".join(f"DROP DATABASE IF EXISTS `{name}`;" for name in self._made), "mysql")

    def sleep(self, seconds: float) -> str:
        return f"SELECT SLEEP({seconds})"


class Recorder:
    """Collect the events of a router."""

    def __init__(self, router: Router) -> None:
        self.events: list[Event] = []
        router.dispatcher.subscribe(Event, self.events.append)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of a class, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def requests(self) -> list[RequestFinished | RequestFailed]:
        """Return the events that end a request, in order."""
        return [event for event in self.events if isinstance(event, RequestFinished | RequestFailed)]

    @property
    def last(self) -> RequestFinished | RequestFailed:
        """Return the event of the request that ended last."""
        return self.requests[-1]

    @property
    def route(self) -> tuple[str, str]:
        """Return role and reason of the request that ended last."""
        return self.last.role.value, self.last.reason.value

    def clear(self) -> None:
        """Forget what was heard."""
        self.events.clear()


_SERVERS: dict[str, tuple[str, type[Any]]] = {
    "postgresql": ("postgresql", Postgresql),
    "postgresql-schema": ("postgresql", PostgresqlSchemas),
    "mariadb": ("mariadb", Mariadb),
}
ENGINES = ("sqlite", *_SERVERS)


def make(name: str, folder: Path, request: pytest.FixtureRequest) -> Engine:
    """Return the engine of that id, its server started."""
    if name == "sqlite":
        return Sqlite(folder)
    fixture, kind = _SERVERS[name]
    server: PostgresqlCluster | MariadbCluster = request.getfixturevalue(fixture)
    made: Engine = kind(folder, server)
    return made


def only(*names: str) -> pytest.MarkDecorator:
    """Run a test on these engines only, for what the others do not have."""
    return pytest.mark.engines(*names)


def wanted(item: pytest.Item) -> bool:
    """Tell whether a test is meant for the engine that it was made for."""
    callspec = getattr(item, "callspec", None)
    given = None if callspec is None else callspec.params.get("engine")
    return given is None or all(given in mark.args for mark in item.iter_markers("engines"))


#: The engines behind a server.
SERVED = only(*_SERVERS)
POSTGRESQL = only("postgresql", "postgresql-schema")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Give each engine in turn, with the places of acme and globex created; shared by a module."""
    made = make(request.param, tmp_path_factory.mktemp(request.param), request)
    made.create(*TENANTS)
    yield made
    made.drop()


@pytest.fixture
async def router(engine: Engine) -> AsyncIterator[Router]:
    """Open a router on the engine; at the end no connection may still be lent."""
    async with engine.open() as opened:
        yield opened
        lent = [pool for pool in opened.status().pools if pool.in_use or pool.waiting]
        assert not lent, f"connections were not given back: {lent}"


@pytest.fixture
def heard(router: Router) -> Recorder:
    """Record the router's events."""
    return Recorder(router)


@pytest.fixture
async def items(engine: Engine, router: Router) -> str:
    """Create a table of acme's with a name of its own: id, name (unique), amount."""
    name = engine.name()
    await router.execute(
        f"CREATE TABLE {name} (id {engine.key}, name VARCHAR(50) UNIQUE, amount INT)", tenant="acme"
    )
    return name
