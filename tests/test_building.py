"""Building: every setting of the configuration arrives in the part that it is for."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from router import building
from router.balancing import Policy
from router.config import parse
from router.credentials import Passwords
from router.pools.registry import Pools
from router.topology import Role


def backend(section: dict[str, Any], folder: Path) -> Any:
    config = parse({"version": 1, "clusters": {"main": section}}, folder)
    pools = Pools(emit=lambda event: None, clock=time.monotonic, wall=time.time, rng=random.Random(1))
    clocks = building.Clocks(time.monotonic, time.time)
    keeper = building.keeper(config, {}, lambda event: None, clocks, random.Random(1))
    passwords = Passwords(lambda event: None, time.time, keeper)
    given = config, pools, passwords, lambda event: None, clocks, random.Random(1)
    return building.backends(*given, further=False)["main"]


def served(**more: Any) -> dict[str, Any]:
    return {
        "engine": "postgresql",
        "database": "app",
        "primary": {"host": "127.0.0.1", "port": 5433},
        "replicas": [{"name": "r1", "host": "127.0.0.2", "weight": 2, "zone": "a"}, {"host": "127.0.0.3"}],
        "credentials": {
            "writer": {"username": "app", "password": "w"},
            "reader": {"username": "app_ro", "password": "r"},
        },
        **more,
    }


def test_a_cluster_is_as_configured(tmp_path: Path) -> None:
    """Nodes with names, addresses, weights, zones and roles; the engine's usual port where none is given."""
    cluster = backend(served(), tmp_path).cluster
    first, second = cluster.replicas
    assert (cluster.primary.label, cluster.primary.address) == ("main/primary", "127.0.0.1:5433")
    assert (first.name, first.address, first.weight, first.zone) == ("r1", "127.0.0.2:5432", 2.0, "a")
    assert (second.name, second.role, second.weight) == ("replica-2", Role.REPLICA, 1.0)
    assert (cluster.database, cluster.replicas_current) == ("app", False)


async def test_the_primary_gets_the_writer_and_replicas_the_reader(tmp_path: Path) -> None:
    """Each node is connected to as its own user, with the password read when it is needed."""
    made = backend(served(), tmp_path)
    logins = [made._access[node.name].login(node.role) for node in made.cluster.nodes]
    assert [login.username for login in logins] == ["app", "app_ro", "app_ro"]
    assert [await login.password() for login in logins] == ["w", "r", "r"]


async def test_a_password_that_rotates_is_read_anew(tmp_path: Path) -> None:
    """A changed file is used for the next connection, without a reload."""
    file = tmp_path / "password"
    file.write_text("old\n")
    file.chmod(0o600)
    section = served(credentials={"writer": {"username": "app", "password": f"${{file:{file}}}"}})
    login = backend(section, tmp_path)._access
    first = next(iter(login.values())).writer
    assert await first.password() == "old"
    file.write_text("new\n")
    assert await first.password() == "new"


def test_limits_and_balancing_arrive(tmp_path: Path) -> None:
    """connections and balancing reach the pools and the choice among replicas."""
    limits = {"min": 1, "max": 7, "idle": "90s", "lifetime": "1h"}
    made = backend(served(connections=limits, balancing="round_robin"), tmp_path)
    for access in made._access.values():
        found = access.limits
        assert (found.min, found.max, found.idle, found.lifetime) == (1, 7, 90.0, 3600.0)
    assert made._policy is Policy.ROUND_ROBIN


async def test_only_replicas_are_read_only(tmp_path: Path) -> None:
    """The wall behind the router's proof stands on replicas, and not on the primary."""
    made = backend(served(extensions=["ext"]), tmp_path)
    pools = [made.pool(node, "app") for node in made.cluster.nodes]
    assert [pool.endpoint.readonly for pool in pools] == [False, True, True]
    assert {pool.endpoint.extensions for pool in pools} == {("ext",)}
    await made._pools.close(1)


@pytest.mark.parametrize(("mode", "plain"), [(None, True), ("disable", True), ("require", False)])
def test_tls_is_off_on_loopback_only_by_default(tmp_path: Path, mode: str | None, plain: bool) -> None:
    """A loopback address is plain unless the configuration says otherwise."""
    made = backend(served(tls={"mode": mode} if mode else {}), tmp_path)
    assert (made._access["primary"].tls is None) is plain


def test_tls_is_verified_across_a_network_by_default(tmp_path: Path) -> None:
    """Without a word in the configuration a remote server must prove who it is."""
    import ssl

    made = backend(served(primary={"host": "db.example"}), tmp_path)
    context = made._access["primary"].tls
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED


def test_sqlite_has_one_writer_and_readers(tmp_path: Path) -> None:
    """Readers stand in for replicas on the primary's folder, each with one connection and no login."""
    section = {
        "engine": "sqlite",
        "primary": {"path": "data"},
        "readers": 3,
        "connections": {"max": 9, "min": 2},
    }
    made = backend(section, tmp_path)
    assert [node.name for node in made.cluster.replicas] == ["reader-1", "reader-2", "reader-3"]
    assert {node.path for node in made.cluster.nodes} == {str(tmp_path / "data")}
    limits = {(access.limits.min, access.limits.max, access.limits.each) for access in made._access.values()}
    assert limits == {(2, 9, 1)}  # of all files, and of each
    assert made.cluster.replicas_current
