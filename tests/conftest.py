"""Servers on demand: a run of tests that asks for none starts none.

The session's clusters are shared: a test makes its own database, and leaves the servers running and the
replicas following. A test that kills, freezes for long or promotes takes a cluster of its own from a factory.
"""

import gc
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

import hypothesis
import pytest

from tests import sharing_out, turns
from tests.doubles import server as server  # a scripted engine, for faults on demand
from tests.engines import engine as engine  # the fixtures of the suite over all engines
from tests.engines import heard as heard
from tests.engines import items as items
from tests.engines import router as router
from tests.engines import wanted
from tests.faults.cluster import proxied as proxied
from tests.servers import (
    MariadbCluster,
    MemcachedServer,
    PostgresqlCluster,
    RedisServer,
    ServerMissing,
    watchdog,
)
from tests.servers.process import Folder, memory


class Startable(Protocol):
    """Describe what finds its programs when it is made, and raises ServerMissing where they are not there."""

    def start(self) -> object:
        """Start it."""


Started = TypeVar("Started", bound=Startable)


def start_or_skip(make: Callable[[], Started]) -> Started:
    """Start a server; where its programs are missing skip, or fail if CI promises that all are there."""
    try:
        server = make()
    except ServerMissing as exc:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(str(exc), pytrace=False)
        pytest.skip(str(exc))
    server.start()
    return server


# In CI the same examples each time: what chance finds belongs to those who can look into it.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI", "").lower() in ("1", "true"):
    hypothesis.settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of tests, say where servers keep their data, and take turns with other processes."""
    config.addinivalue_line("markers", "engines(*names): run the test on these engines only")
    config.addinivalue_line("markers", "timed: it measures time, so no other test runs meanwhile")
    turns.take(config)
    Folder.place = memory() or Folder.place


@pytest.fixture
def timed() -> None:
    """Stand in the ids of tests that are timed."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let the ids of timed tests say so."""
    sharing_out.name_timed(metafunc)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> sharing_out.ByFile:
    """Share the tests out between the processes of a run."""
    return sharing_out.ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not meant for an engine: a skip would look like something missing."""
    left_out = [item for item in items if not wanted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = sorted((item for item in items if wanted(item)), key=sharing_out.turn)


def pytest_collection_finish() -> None:
    """Take what was imported and collected out of the collector's sight: it stays, and tests collect often.

    What a test leaves behind is found as before, in a fraction of the time.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the watchdog of the servers go when all is done."""
    watchdog.dismiss()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlCluster]:
    """Share a PostgreSQL primary with two streaming replicas."""
    cluster = start_or_skip(PostgresqlCluster)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbCluster]:
    """Share a MariaDB primary with one GTID replica."""
    cluster = start_or_skip(MariadbCluster)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """Share a Redis server."""
    server = start_or_skip(RedisServer)
    yield server
    server.close()


@pytest.fixture(scope="session")
def memcached() -> Iterator[MemcachedServer]:
    """Share a memcached server."""
    server = start_or_skip(MemcachedServer)
    yield server
    server.close()


@pytest.fixture
def postgresql_factory() -> Iterator[Callable[..., PostgresqlCluster]]:
    """Start private clusters that the test may break: ``postgresql_factory(replicas=1)``."""
    with ExitStack() as stack:

        def factory(replicas: int = 2) -> PostgresqlCluster:
            cluster = start_or_skip(lambda: PostgresqlCluster(replicas))
            stack.callback(cluster.close)
            return cluster

        yield factory


@pytest.fixture
def mariadb_factory() -> Iterator[Callable[..., MariadbCluster]]:
    """Start private clusters that the test may break: ``mariadb_factory(replicas=0)``."""
    with ExitStack() as stack:

        def factory(replicas: int = 1) -> MariadbCluster:
            cluster = start_or_skip(lambda: MariadbCluster(replicas))
            stack.callback(cluster.close)
            return cluster

        yield factory


def _fresh(cluster: PostgresqlCluster | MariadbCluster) -> Iterator[str]:
    name = f"app_{secrets.token_hex(4)}"
    cluster.create_database(name)
    cluster.wait_for_replicas()
    yield name
    cluster.drop_database(name)


@pytest.fixture
def postgresql_database(postgresql: PostgresqlCluster) -> Iterator[str]:
    """Name a new, empty database of the shared cluster, there on the replicas too; dropped after the test."""
    yield from _fresh(postgresql)


@pytest.fixture
def mariadb_database(mariadb: MariadbCluster) -> Iterator[str]:
    """Name a new, empty database of the shared cluster, there on the replica too; dropped after the test."""
    yield from _fresh(mariadb)
