"""The test servers are what the rest of the suite takes them for, and docker-compose.yml starts the same."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomcache
import aiomysql
import asyncpg
import pymysql
import pytest
import yaml
from redis.asyncio import Redis

from tests.conftest import start_or_skip
from tests.servers import (
    CANARY,
    MariadbCluster,
    MariadbServer,
    MemcachedServer,
    PostgresqlCluster,
    RedisServer,
    ServerMissing,
    install,
)
from tests.servers.binaries import find
from tests.servers.passwords import USERS
from tests.servers.process import Server, memory
from tests.servers.watchdog import alive, descendants

ROOT = Path(__file__).resolve().parents[1]


def _gone(pids: list[int]) -> bool:
    return not any(map(alive, pids))


def _orphaned_memory() -> set[str]:
    """Return the ids of the shared memory segments that nobody is attached to."""
    segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return {segment[1] for segment in segments if segment[6] == "0"}


def _family(server: Server) -> list[int]:
    return [server.pid, *descendants(server.pid)]


async def _mysql(server: MariadbServer, sql: str, user: str = "router_app", database: str = "app") -> Any:
    place = {"host": server.host, "port": server.port, "db": database}
    link = await aiomysql.connect(**place, user=user, password=server.password(user), autocommit=True)
    try:
        async with link.cursor() as cursor:
            await cursor.execute(sql)
            return await cursor.fetchall()
    finally:
        link.close()


# --- PostgreSQL ------------------------------------------------------------------------------------------


async def test_postgresql_replicas_have_what_the_primary_wrote(
    postgresql: PostgresqlCluster, postgresql_database: str
) -> None:
    """A committed row is on every replica once wait_for_replicas has returned."""
    link = await asyncpg.connect(postgresql.primary.dsn(database=postgresql_database))
    await link.execute("CREATE TABLE t (id int)")
    await link.execute("INSERT INTO t VALUES (42)")
    await link.close()
    postgresql.wait_for_replicas()
    assert len(postgresql.replicas) == 2
    for replica in postgresql.replicas:
        link = await asyncpg.connect(replica.dsn(database=postgresql_database))
        assert await link.fetchval("SELECT id FROM t") == 42
        await link.close()


async def test_postgresql_replicas_refuse_writes(postgresql: PostgresqlCluster) -> None:
    """A write on a replica is refused with 25006, even to a superuser."""
    for user in ("router_app", "admin"):
        link = await asyncpg.connect(postgresql.replicas[0].dsn(user))
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await link.execute("CREATE TABLE refused (id int)")
        await link.close()


async def test_postgresql_roles_can_what_they_are_for(
    postgresql: PostgresqlCluster, postgresql_database: str
) -> None:
    """router_app owns and creates, router_ro reads all and writes nothing, router_monitor sees statistics."""
    primary = postgresql.primary
    app = await asyncpg.connect(primary.dsn("router_app", postgresql_database))
    await app.execute("CREATE TABLE t (id int)")
    assert await app.fetchval("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user")
    assert not await app.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    reader = await asyncpg.connect(primary.dsn("router_ro", postgresql_database))
    assert await reader.fetch("SELECT * FROM t") == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await reader.execute("INSERT INTO t VALUES (1)")
    monitor = await asyncpg.connect(primary.dsn("router_monitor", postgresql_database))
    streams = await monitor.fetch("SELECT application_name, state FROM pg_stat_replication")
    assert {tuple(row) for row in streams} == {("replica-1", "streaming"), ("replica-2", "streaming")}
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await monitor.execute("SELECT * FROM t")
    for link in (app, reader, monitor):
        await link.close()


async def test_postgresql_asks_for_the_password(postgresql: PostgresqlCluster) -> None:
    """A wrong password is refused over TCP, on the primary and on a replica."""
    for server in (postgresql.primary, postgresql.replicas[0]):
        dsn = server.dsn().replace(server.password(), "wrong")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(dsn)


async def test_postgresql_frozen_server_hangs_and_goes_on(postgresql: PostgresqlCluster) -> None:
    """A frozen server leaves its clients waiting, old and new; thawed it answers the waiting one."""
    replica = postgresql.replicas[1]
    link = await asyncpg.connect(replica.dsn())
    replica.freeze()
    try:
        waiting = asyncio.create_task(link.fetchval("SELECT 7"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.3)
        with pytest.raises(TimeoutError):
            await asyncpg.connect(replica.dsn(), timeout=0.3)
    finally:
        replica.thaw()
    assert await asyncio.wait_for(waiting, 10) == 7
    await link.close()


async def test_postgresql_survives_kill_stop_and_promotion(
    postgresql_factory: Callable[..., PostgresqlCluster],
) -> None:
    """A killed server comes back as it was, a stopped replica catches up, a promoted one takes writes."""
    cluster = postgresql_factory(replicas=1)
    primary, replica = cluster.primary, cluster.replicas[0]
    cluster.run("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    family, dsn = _family(primary), primary.dsn()
    primary.kill()
    assert _gone(family)
    assert not primary.running
    primary.start()
    assert primary.dsn() == dsn
    replica.stop()
    cluster.run("INSERT INTO t VALUES (2)")
    replica.start()
    cluster.wait_for_replicas()
    primary.stop()
    replica.promote()
    link = await asyncpg.connect(replica.dsn("admin"))
    await link.execute("INSERT INTO t VALUES (3)")
    assert await link.fetchval("SELECT sum(id) FROM t") == 6
    await link.close()


# --- MariaDB ---------------------------------------------------------------------------------------------


async def test_mariadb_replica_gets_rows_by_gtid(mariadb: MariadbCluster, mariadb_database: str) -> None:
    """A committed row is on the replica once wait_for_replicas has returned, and GTIDs carried it there."""
    await _mysql(mariadb.primary, "CREATE TABLE t (id int)", database=mariadb_database)
    await _mysql(mariadb.primary, "INSERT INTO t VALUES (42)", database=mariadb_database)
    mariadb.wait_for_replicas()
    assert await _mysql(mariadb.replicas[0], "SELECT id FROM t", database=mariadb_database) == ((42,),)
    ((position,),) = await _mysql(mariadb.primary, "SELECT @@gtid_binlog_pos")
    assert await _mysql(mariadb.replicas[0], "SELECT @@gtid_slave_pos") == ((position,),)
    assert "Slave_Pos" in mariadb.replicas[0].run("SHOW REPLICA STATUS")


async def test_mariadb_replica_refuses_writes_of_the_application(
    mariadb: MariadbCluster, mariadb_database: str
) -> None:
    """router_app has no right that would let it past read_only."""
    with pytest.raises(pymysql.err.OperationalError, match="read-only") as caught:
        await _mysql(mariadb.replicas[0], "CREATE TABLE refused (id int)", database=mariadb_database)
    assert caught.value.args[0] == 1290


async def test_mariadb_users_can_what_they_are_for(mariadb: MariadbCluster, mariadb_database: str) -> None:
    """router_app makes databases, router_ro reads and writes nothing, router_monitor sees replication."""
    primary = mariadb.primary
    await _mysql(primary, f"CREATE DATABASE {mariadb_database}_two")
    await _mysql(primary, f"DROP DATABASE {mariadb_database}_two")
    await _mysql(primary, "CREATE TABLE t (id int)", database=mariadb_database)
    assert await _mysql(primary, "SELECT * FROM t", "router_ro", mariadb_database) == ()
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        await _mysql(primary, "INSERT INTO t VALUES (1)", "router_ro", mariadb_database)
    assert await _mysql(mariadb.replicas[0], "SHOW REPLICA STATUS", "router_monitor", "information_schema")


async def test_mariadb_frozen_server_hangs_and_goes_on(mariadb: MariadbCluster) -> None:
    """A frozen server leaves its clients waiting; thawed it answers them."""
    replica = mariadb.replicas[0]
    replica.freeze()
    try:
        waiting = asyncio.create_task(_mysql(replica, "SELECT 7"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.3)
    finally:
        replica.thaw()
    assert await asyncio.wait_for(waiting, 10) == ((7,),)


async def test_mariadb_survives_kill_and_promotion(mariadb_factory: Callable[..., MariadbCluster]) -> None:
    """A killed primary comes back and its replica follows again; a promoted replica takes writes."""
    cluster = mariadb_factory()
    primary, replica = cluster.primary, cluster.replicas[0]
    cluster.run("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    cluster.wait_for_replicas()
    pids = _family(primary)
    primary.kill()
    assert _gone(pids)
    primary.start()
    cluster.run("INSERT INTO t VALUES (2)")
    cluster.wait_for_replicas()
    primary.stop()
    replica.promote()
    await _mysql(replica, "INSERT INTO t VALUES (3)")
    assert await _mysql(replica, "SELECT sum(id) FROM t") == ((6,),)


# --- Redis -----------------------------------------------------------------------------------------------


async def test_redis_answers_with_the_password_only(redis: RedisServer) -> None:
    """Redis pings with its password and keeps the shared configuration's limit of memory."""
    async with Redis.from_url(redis.dsn()) as client:
        assert await client.ping()
        assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] == "allkeys-lru"
    async with Redis.from_url(f"redis://{redis.host}:{redis.port}/0") as stranger:
        with pytest.raises(Exception, match=r"(?i)authenticat"):
            await stranger.ping()


# --- memcached -------------------------------------------------------------------------------------------


async def test_memcached_keeps_values_and_the_shared_limits(memcached: MemcachedServer) -> None:
    """A value comes back, the shared options are in force, and nothing listens on UDP."""
    client = aiomcache.Client(memcached.host, memcached.port, pool_size=1)
    assert await client.set(b"greeting", b"hello")
    assert await client.get(b"greeting") == b"hello"
    settings = await client.stats(b"settings")
    assert (settings[b"maxbytes"], settings[b"item_size_max"]) == (b"134217728", b"1048576")
    assert settings[b"udpport"] == b"0"
    await client.close()


# --- all of them -----------------------------------------------------------------------------------------


def test_every_password_holds_the_canary(
    postgresql: PostgresqlCluster, mariadb: MariadbCluster, redis: RedisServer
) -> None:
    """Whoever finds the canary in a log has found a leaked password; all of them differ."""
    found = [cluster.passwords[user] for cluster in (postgresql, mariadb) for user in USERS]
    found.append(redis.password())
    assert all(CANARY in password for password in found)
    assert len(set(found)) == len(found)


def test_no_log_of_a_server_holds_a_password(postgresql: PostgresqlCluster, mariadb: MariadbCluster) -> None:
    """Set-up creates users with passwords; none of it reaches a server's log."""
    for server in (*postgresql.servers, *mariadb.servers):
        assert CANARY not in (server.home / "log").read_text(errors="replace")


@pytest.mark.parametrize("broken", ["alive", "frozen", "killed"])
def test_closed_cluster_leaves_nothing(
    postgresql_factory: Callable[..., PostgresqlCluster], broken: str
) -> None:
    """No process, folder or shared memory stays after close, whatever was done to the servers before."""
    before = _orphaned_memory()
    cluster = postgresql_factory(replicas=0)
    family = _family(cluster.primary)
    {"alive": lambda: None, "frozen": cluster.primary.freeze, "killed": cluster.primary.kill}[broken]()
    cluster.close()
    assert _gone(family)
    assert not cluster.folder.path.exists()
    assert _orphaned_memory() <= before


def test_servers_are_kept_in_memory_only_where_there_is_room() -> None:
    """Where memory is short they write to the disk, which is slower and harms nobody."""
    assert memory(room=0) == Path("/dev/shm")
    assert memory(room=1 << 60) is None


def test_servers_end_when_the_tests_die(tmp_path: Path) -> None:
    """A run of tests that is killed leaves no server and no folder: the watchdog ends them."""
    try:
        find("redis-server")
    except ServerMissing as exc:
        pytest.skip(str(exc))
    program = (
        "import time; from tests.servers import RedisServer; s = RedisServer(); s.start()\n"
        "print(s.pid, s.home, flush=True); s.freeze(); time.sleep(60)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        pid, home = tests.stdout.readline().split()
        os.kill(tests.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while not (_gone([int(pid)]) and not Path(home).exists()) and time.monotonic() < end:
        time.sleep(0.05)
    assert _gone([int(pid)])
    assert not Path(home).exists()


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_missing_server_skips_and_in_ci_fails(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """A missing server is one line that names the program and what to run: a skip, with CI=true a failure."""

    def absent() -> RedisServer:
        find("no-such-server")
        return RedisServer()

    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome) as caught:
        start_or_skip(absent)
    assert "no-such-server is not installed" in str(caught.value)
    assert "make test" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 0\n"])
def test_installation_starts_no_service_and_restores_the_policy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str | None
) -> None:
    """While packages are installed the policy forbids to start services; afterwards it is what it was."""
    policy = tmp_path / "policy-rc.d"
    if before is not None:
        policy.write_text(before)
    monkeypatch.setattr(install, "_POLICY", policy)
    with pytest.raises(RuntimeError, match="interrupted"), install._no_services():
        assert subprocess.run([policy, "postgresql", "start"]).returncode == 101
        raise RuntimeError("interrupted")
    assert (policy.read_text() if policy.exists() else None) == before


# --- docker-compose.yml ----------------------------------------------------------------------------------


def _services() -> dict[str, dict[str, Any]]:
    compose: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return compose["services"]


def _mounted() -> set[Path]:
    mounts = [mount for service in _services().values() for mount in service.get("volumes", [])]
    return {ROOT / mount.split(":")[0] for mount in mounts if mount.startswith("./")}


def test_compose_mounts_what_the_tests_use() -> None:
    """Every file under config/servers is mounted by docker-compose.yml and used by the tests' own servers.

    Of the folders beside it Prometheus and Grafana get what tests/test_dashboards.py loads.
    """
    shared = {path for path in (ROOT / "config" / "servers").rglob("*") if path.is_file()}
    folders = {
        ROOT / "config" / name for name in ("prometheus", "grafana/provisioning", "grafana/dashboards")
    }
    assert all(folder.is_dir() for folder in folders)
    assert _mounted() == shared | folders
    code = "".join(path.read_text() for path in (ROOT / "tests" / "servers").glob("*.py"))
    for path in shared:
        assert f'"{path.name}"' in code, f"{path.name} is not used by tests/servers"


def test_compose_scripts_can_be_executed() -> None:
    """A script without its executable bit would be read into the image's own shell, or not run at all."""
    for path in filter(Path.is_file, _mounted()):
        assert os.access(path, os.X_OK) == (path.suffix == ".sh"), path


def test_compose_is_reachable_from_this_machine_only() -> None:
    """Every port is bound to loopback, and no two services want the same."""
    services = _services()
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    published = [port.split(":")[1] for port in ports]
    assert sorted(published) == ["21211", "33060", "33061", "54320", "54321", "54322", "63790"]
    here = {name for name, service in services.items() if service.get("network_mode") == "host"}
    assert (
        here == {"prometheus", "grafana"} == {name for name, each in services.items() if "ports" not in each}
    )
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


def test_compose_gives_each_script_the_variables_it_reads() -> None:
    """Each variable that a mounted script needs is in the environment of the services that mount it."""
    for name, service in _services().items():
        given = service.get("environment", {})
        for mount in service.get("volumes", []):
            if mount.startswith("./") and mount.split(":")[0].endswith((".sh", ".sql")):
                text = (ROOT / mount.split(":")[0]).read_text()
                code = "\n".join(line for line in text.splitlines() if not line.startswith(("#", "--")))
                needed = set(re.findall(r"\$\{?((?:ROUTER|PRIMARY|REPLICATION|PGDATA|MARIADB)\w*)", code))
                needed |= set(re.findall(r"\\getenv \w+ (\w+)", code))
                assert needed, mount
                assert needed <= set(given), f"{name} lacks {needed - set(given)}"


def test_compose_passwords_come_from_the_environment() -> None:
    """No password is fixed in the file: each can be set, and has a default for development."""
    for name, service in _services().items():
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key:
                assert re.fullmatch(r"\$\{ROUTER_\w+_PASSWORD:-router-dev-only\}", value), f"{name}: {key}"
