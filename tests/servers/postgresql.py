"""A PostgreSQL primary with streaming replicas."""

import contextlib
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from tests.servers.binaries import Account, account, find, search_path
from tests.servers.passwords import USERS, new_password, variables
from tests.servers.process import ANSWER_TIMEOUT, SCRIPTS, Folder, Server, run, wait_until
from tests.servers.session import Sessions

_FILES = SCRIPTS / "postgresql"
_PSQL = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "-U", "postgres")
_SCRIPT = re.compile(r"\\|;\s*\S")  # several statements, or what psql alone knows: it knows where each ends


class PostgresqlServer(Server):
    """One PostgreSQL server; a replica copies ``primary`` at its first start and follows it."""

    stop_signal = signal.SIGINT  # "fast": disconnects clients, keeps all data
    quick_signal = signal.SIGQUIT  # "immediate": as a crash, but gives its shared memory back

    def __init__(
        self,
        name: str,
        cluster: "PostgresqlCluster",
        primary: "PostgresqlServer | None" = None,
    ) -> None:
        super().__init__(name, cluster.folder.make(name), cluster.owner)
        self._cluster = cluster
        self._primary = primary
        self.data = self.home / "data"
        address = self.home / f".s.PGSQL.{self.port}"
        self._sessions = Sessions(address, ("postgres", "app"), ANSWER_TIMEOUT)

    def command(self) -> list[str]:
        """Return the command that becomes the server: replica.sh for a replica, which ends in postgres."""
        program = str(self._cluster.binaries / "postgres")
        first = [program] if self._primary is None else ["sh", str(self._cluster.files["replica.sh"])]
        settings = {
            "config_file": self._cluster.files["postgresql.conf"],
            "hba_file": self._cluster.files["pg_hba.conf"],
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": self.home,
            "cluster_name": self.name,
            "fsync": "off",  # only here: a crash of the machine ends the tests anyway
        }
        return [*first, "-D", str(self.data), *(f"--{key}={value}" for key, value in settings.items())]

    def environment(self) -> dict[str, str]:
        """Return PATH and, for a replica, what replica.sh needs."""
        env = {"PATH": search_path(self._cluster.binaries), "PGDATA": str(self.data), "LC_ALL": "C"}
        if self._primary is not None:
            env |= {
                "PRIMARY_HOST": self._primary.host,
                "PRIMARY_PORT": str(self._primary.port),
                "REPLICATION_SLOT": self.name.replace("-", "_"),
                "ROUTER_REPLICATION_PASSWORD": self._cluster.passwords["router_replication"],
            }
        return env

    def ready(self) -> bool:
        """Read the server's own word in its pid file, as pg_ctl does; no connection is spent."""
        with contextlib.suppress(OSError, IndexError):  # the file is empty for a moment
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return lines[0] == str(self.pid) and lines[-1].strip() == "ready"
        return False

    def close(self) -> None:
        """End the server; give back the shared memory that a killed one has left in the system."""
        super().close()
        self._sessions.close()
        with contextlib.suppress(OSError, ValueError):
            _, shared = (self.data / "postmaster.pid").read_text().splitlines()[6].split()
            subprocess.run(["ipcrm", "-m", shared], stderr=subprocess.DEVNULL, check=False)

    def promote(self) -> None:
        """Make the replica a primary and return when it takes writes."""
        self.run("SELECT pg_promote(true, 30)")

    def follow(self, primary: "PostgresqlServer") -> None:
        """Follow another primary: a replica from now on, a stopped server as a replica once it is started."""
        user = "router_replication"
        address = f"host={primary.host} port={primary.port} user={user} password={primary.password(user)}"
        self._set({"primary_conninfo": address, "primary_slot_name": ""})
        self._cluster.folder.write(self.data / "standby.signal", "")

    def hold_back(self, seconds: float) -> None:
        """Let the replica apply what was committed so long ago or earlier; 0 for all at once."""
        self._set({"recovery_min_apply_delay": f"{seconds * 1000:.0f}ms"})

    def pause(self) -> None:
        """Let the replica receive and not apply."""
        self.run("SELECT pg_wal_replay_pause()")

    def resume(self) -> None:
        """Let a paused replica apply again."""
        self.run("SELECT pg_wal_replay_resume()")

    def cut_off(self) -> None:
        """Let the replica follow nobody any more; it stays one, and as old as it is."""
        self._set({"primary_conninfo": "", "primary_slot_name": ""})
        if self.running:  # the reload ends the receiver some time later; until then it still receives
            receiving = "SELECT count(*) FROM pg_stat_wal_receiver"
            wait_until(
                lambda: self.run(receiving) == "0", ANSWER_TIMEOUT, lambda: f"{self.name} still receives"
            )

    def _set(self, settings: dict[str, str]) -> None:
        """Change settings as ALTER SYSTEM would, also of a server that is stopped."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        if self.running:
            self.run("SELECT pg_reload_conf()")

    def wait_for(self, position: str, timeout: float) -> None:
        """Return when the server has replayed up to ``position`` (LSN); raise after ``timeout`` seconds."""
        question = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        complaint = f"{self.name} has not replayed {position}"
        wait_until(lambda: self.run(question) == "t", timeout, lambda: complaint)

    def run(self, sql: str, database: str = "postgres") -> str:
        """Run SQL as the server's owner over the Unix socket; return bare rows, columns apart by ``|``."""
        if _SCRIPT.search(sql):
            return self._script(sql, database)
        return self._sessions.ask(sql, database).strip()

    def _script(self, sql: str, database: str) -> str:
        psql = [str(self._cluster.binaries / "psql"), *_PSQL, f"--host={self.home}", f"--port={self.port}"]
        env = {"PATH": search_path(self._cluster.binaries)} | variables(self._cluster.passwords)
        return run([*psql, "--dbname", database], env, self._owner, self.home, sql)

    def password(self, user: str = "router_app") -> str:
        """Return the password of a role; it holds the canary."""
        return self._cluster.passwords[user]

    def dsn(self, user: str = "router_app", database: str = "app") -> str:
        """Return the URL of a database on this server, with the password in it."""
        return f"postgresql://{user}:{quote(self.password(user))}@{self.host}:{self.port}/{database}"


class PostgresqlCluster:
    """A primary and its streaming replicas, with the roles and the database of config/servers/postgresql."""

    def __init__(self, replicas: int = 2) -> None:
        if not 0 <= replicas <= 2:
            raise ValueError(f"{replicas} replicas asked for; init.sql makes slots for up to 2")
        self.binaries: Path = find("postgres", "initdb", "pg_basebackup", "psql")
        self.owner: Account = account("postgres")
        self.passwords = {user: new_password() for user in USERS}
        self.folder = Folder("postgresql", self.owner)
        names = ("postgresql.conf", "pg_hba.conf", "init.sql", "replica.sh")
        self.files = {name: self.folder.copy(_FILES / name, self.folder.path / name) for name in names}
        self.primary = PostgresqlServer("primary", self)
        self.replicas = [PostgresqlServer(f"replica-{n + 1}", self, self.primary) for n in range(replicas)]

    @property
    def servers(self) -> list[PostgresqlServer]:
        """Return the primary and the replicas."""
        return [self.primary, *self.replicas]

    def start(self) -> None:
        """Create all data folders and start all servers; leave nothing behind if one fails."""
        try:
            self._create()
            self.primary.start()
            self.primary.run(self.files["init.sql"].read_text())
            for replica in self.replicas:
                replica.launch()
            for replica in self.replicas:
                replica.wait_ready()
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        program = str(self.binaries / "initdb")
        # Its own pg_hba.conf is never read; --auth only keeps initdb from warning about it.
        options = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=peer", "--no-sync"]
        command = [program, "-D", str(self.primary.data), *options, "--no-instructions"]
        run(command, {"PATH": search_path(self.binaries), "LC_ALL": "C"}, self.owner, self.primary.home)

    def close(self) -> None:
        """End all servers and delete their data."""
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(PostgresqlServer.close, self.servers))
        self.folder.remove()

    def run(self, sql: str, database: str = "app") -> str:
        """Run SQL on the primary with all rights; return bare rows, columns apart by ``|``."""
        return self.primary.run(sql, database)

    def switch(self, new: PostgresqlServer) -> None:
        """Stop the primary in order, which sends all it has, promote a replica, and let the others follow it.

        Raises RuntimeError if the replica has not received everything.
        """
        old = self.primary
        streams = "SELECT status = 'streaming' FROM pg_stat_wal_receiver"
        wait_until(lambda: new.run(streams) == "t", 30, lambda: f"{new.name} does not follow {old.name}")
        old.stop()
        program = str(self.binaries / "pg_controldata")
        env = {"PATH": search_path(self.binaries), "LC_ALL": "C"}
        facts = run([program, "-D", str(old.data)], env, self.owner, old.home).splitlines()
        end = next(line.split()[-1] for line in facts if line.startswith("Latest checkpoint location:"))
        if new.run(f"SELECT pg_last_wal_receive_lsn() >= '{end}'") != "t":
            raise RuntimeError(f"{new.name} has not received {end}, the end of {old.name}")
        self.promote(new)
        for replica in self.replicas:
            replica.follow(new)
        old.start()

    def promote(self, new: PostgresqlServer) -> None:
        """Make a replica the primary, whatever it has received; the others follow whom they followed."""
        new.promote()
        self.replicas = [*(each for each in self.replicas if each is not new), self.primary]
        self.primary = new

    def create_database(self, name: str) -> None:
        """Create a database that router_app owns."""
        self.run(f'CREATE DATABASE "{name}" OWNER router_app')

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it."""
        self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def wait_for_replicas(self, timeout: float = 30.0) -> None:
        """Return when every running replica has replayed all that the primary has committed by now."""
        target = self.run("SELECT pg_current_wal_flush_lsn()")
        for replica in self.replicas:
            if replica.running:
                replica.wait_for(target, timeout)
