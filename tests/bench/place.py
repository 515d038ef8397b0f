"""The servers that every arm connects to, and the data in them."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench.texts import DATABASE, SCHEMA, SCRIPTS, USER
from tests.servers import MariadbCluster, PostgresqlCluster, ServerMissing
from tests.servers.pgbouncer import Pgbouncer
from tests.servers.pgpool import Pgpool

POOLED = 16
"""Connections to each server that an arm may have, and the most tasks of the usual workloads."""
NARROW = 10
"""Connections that an arm may have where 100 tasks want one."""
_CONNECTIONS = 900  # all arms are open at the same time
_FILE = "acme.db"


@dataclass(frozen=True)
class Node:
    """Say where a server is, and the database on it; for SQLite ``host`` is the file."""

    host: str
    port: int = 0
    database: str = DATABASE


@dataclass(frozen=True)
class Place:
    """Name the servers of one engine. ``password`` is never shown."""

    engine: str
    primary: Node
    replicas: tuple[Node, ...]
    password: str = field(default="", repr=False)
    suffix: str = ""  # of the databases that a proxy keeps few connections to

    def narrow(self) -> "Place":
        """Return the same with one replica, so that reads have one set of connections, and few of them."""
        primary, replica = (
            replace(node, database=node.database + self.suffix) for node in (self.primary, self.replicas[0])
        )
        return replace(self, primary=primary, replicas=(replica,))


@dataclass
class World:
    """Hold every place by its name, and for those that could not be had the reason."""

    places: dict[str, Place] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    cleaners: list[Callable[[], object]] = field(default_factory=list)

    def clean(self) -> None:
        """Empty the tables of the bulk inserts."""
        for cleaner in self.cleaners:
            cleaner()


@contextmanager
def world(names: set[str]) -> Iterator[World]:
    """Start the servers that the places called ``names`` need, with data in them, and end them afterwards."""
    built = World()
    proxies = names & {"pgbouncer", "pgpool"}
    with ExitStack() as stack:
        with ThreadPoolExecutor(max_workers=2) as pool:
            starting = []
            if "postgresql" in names or proxies:
                starting.append(pool.submit(_start_postgresql, stack, built, proxies))
            if "mariadb" in names:
                starting.append(pool.submit(_start_mariadb, stack, built))
        for each in starting:
            each.result()
        if "sqlite" in names:
            built.places["sqlite"] = _sqlite(stack)
        yield built


def _start_postgresql(stack: ExitStack, built: World, proxies: set[str]) -> None:
    with _noting(built, "postgresql", *proxies):
        cluster = _postgresql(stack)
        built.places["postgresql"] = _place("postgresql", cluster)
        built.cleaners.append(lambda: cluster.run(f"TRUNCATE {SCHEMA}.bulk"))
        for name in proxies:
            with _noting(built, name):
                start = _pgbouncer if name == "pgbouncer" else _pgpool
                built.places[name] = start(stack, cluster)


def _start_mariadb(stack: ExitStack, built: World) -> None:
    with _noting(built, "mariadb"):
        built.places["mariadb"] = _mariadb(stack, built)


@contextmanager
def _noting(built: World, *names: str) -> Iterator[None]:
    try:
        yield
    except (ServerMissing, RuntimeError, TimeoutError) as exc:
        lines = str(exc).splitlines()
        built.missing |= {name: " ".join(dict.fromkeys((lines[0], lines[-1]))) for name in names}


def _place(engine: str, cluster: PostgresqlCluster | MariadbCluster) -> Place:
    nodes = [Node(server.host, server.port) for server in cluster.servers]
    return Place(engine, nodes[0], tuple(nodes[1:]), cluster.primary.password(USER))


def _postgresql(stack: ExitStack) -> PostgresqlCluster:
    try:
        cluster = _cluster()
    except RuntimeError:
        cluster = _cluster()  # once more: another program may have taken a port in between
    stack.callback(cluster.close)
    cluster.run(SCRIPTS["postgresql"])
    cluster.wait_for_replicas()
    return cluster


def _cluster() -> PostgresqlCluster:
    cluster = PostgresqlCluster()
    with cluster.files["postgresql.conf"].open("a") as settings:
        settings.write(f"max_connections = {_CONNECTIONS}\n")
    cluster.start()
    return cluster


def _pgbouncer(stack: ExitStack, cluster: PostgresqlCluster) -> Place:
    suffix = "-narrow"
    proxy = Pgbouncer(cluster, {"": POOLED, suffix: NARROW})
    stack.callback(proxy.close)
    proxy.start()
    nodes = [Node(proxy.host, proxy.port, server.name) for server in cluster.servers]
    return Place("postgresql", nodes[0], tuple(nodes[1:]), cluster.primary.password(USER), suffix)


def _pgpool(stack: ExitStack, cluster: PostgresqlCluster) -> Place:
    proxy = Pgpool(cluster, POOLED + 4)
    stack.callback(proxy.close)
    proxy.start()
    node = Node(proxy.host, proxy.port)  # one address: it finds the server by itself
    return Place("postgresql", node, (node,), cluster.primary.password(USER))


def _mariadb(stack: ExitStack, built: World) -> Place:
    cluster = MariadbCluster()
    stack.callback(cluster.close)
    cluster.start()
    cluster.create_database(SCHEMA)
    cluster.run(SCRIPTS["mariadb"], SCHEMA)
    cluster.wait_for_replicas()
    built.cleaners.append(lambda: cluster.run("TRUNCATE TABLE bulk", SCHEMA))
    place = _place("mariadb", cluster)
    nodes = [replace(node, database=SCHEMA) for node in (place.primary, *place.replicas)]
    return replace(place, primary=nodes[0], replicas=tuple(nodes[1:]))


def _sqlite(stack: ExitStack) -> Place:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-sqlite-")))
    with sqlite3.connect(folder / _FILE) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCRIPTS["sqlite"])
    connection.close()
    node = Node(str(folder / _FILE))
    return Place("sqlite", node, (node, node))  # two readers, as ours has


def redact(text: str, places: World) -> str:
    """Return a text for the report: first line, no password, not too long."""
    for place in places.places.values():
        if place.password:
            text = text.replace(place.password, "***")
    with suppress(IndexError):
        text = text.strip().splitlines()[0]
    return text[:200]
