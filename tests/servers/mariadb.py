"""A MariaDB primary with a replica that follows by GTID."""

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pymysql
from pymysql.constants import CLIENT

from tests.servers.binaries import Account, account, find, search_path
from tests.servers.passwords import USERS, new_password, variables
from tests.servers.process import ANSWER_TIMEOUT, SCRIPTS, Folder, Server, answers, run

_FILES = SCRIPTS / "mariadb"


class MariadbServer(Server):
    """One MariaDB server; ``configuration`` names the files of config/servers/mariadb it reads, in order."""

    def __init__(self, name: str, cluster: "MariadbCluster", configuration: tuple[str, ...]) -> None:
        super().__init__(name, cluster.folder.make(name), cluster.owner)
        self._cluster = cluster
        self.data = self.home / "data"
        self._settings = cluster.folder.make(f"{name}.d")
        for file in configuration:
            cluster.folder.copy(_FILES / file, self._settings / file)
        includes = "".join(f"!include {self._settings / file}\n" for file in configuration)
        self._options = cluster.folder.write(self.home / "my.cnf", includes)

    def command(self) -> list[str]:
        """Return the command that becomes the server."""
        settings = {
            "datadir": self.data,
            "socket": self.home / "socket",
            "pid-file": self.home / "pid",
            "bind-address": self.host,
            "port": self.port,
            "tmpdir": self.home,
            "innodb-doublewrite": "OFF",  # only here: a crash of the machine ends the tests anyway
        }
        program = str(self._cluster.binaries / "mariadbd")
        return [program, f"--defaults-file={self._options}", *(f"--{k}={v}" for k, v in settings.items())]

    def environment(self) -> dict[str, str]:
        """Return PATH, and what the scripts need to reach this server and its primary."""
        primary = self._cluster.primary
        return {
            "PATH": search_path(self._cluster.clients, self._cluster.binaries),
            "MYSQL_UNIX_PORT": str(self.home / "socket"),
            "PRIMARY_HOST": primary.host,
            "PRIMARY_PORT": str(primary.port),
            **variables(self._cluster.passwords),
        }

    def ready(self) -> bool:
        """Wait for the greeting that MariaDB sends to whoever connects."""
        return answers(self.host, self.port)

    def install(self) -> None:
        """Create the data folder."""
        program = str(self._cluster.clients / "mariadb-install-db")
        options = [f"--datadir={self.data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        env = {"PATH": search_path(self._cluster.clients, self._cluster.binaries), "TMPDIR": str(self.home)}
        run([program, "--no-defaults", *options], env, self._owner, self.home)

    def script(self, name: str) -> None:
        """Run one of the shared scripts against this server."""
        file = self._cluster.files[name]
        run(["sh", str(file)], self.environment(), self._owner, self.home)

    def promote(self) -> None:
        """Make the replica a primary: it stops following and takes writes."""
        self.run("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF")

    def follow(self, primary: "MariadbServer") -> None:
        """Follow a primary that has all that this server has; takes no writes any more, until a restart."""
        user = "router_replication"
        self.run(
            "SET GLOBAL read_only = ON; SET GLOBAL gtid_slave_pos = @@gtid_binlog_pos;"
            f"CHANGE MASTER TO MASTER_HOST='{primary.host}', MASTER_PORT={primary.port}, "
            f"MASTER_USER='{user}', MASTER_PASSWORD='{primary.password(user)}', MASTER_SSL=0, "
            "MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos; START SLAVE"
        )

    def hold_back(self, seconds: float) -> None:
        """Let the replica apply what was committed so long ago or earlier, in whole seconds; 0 for all."""
        self.run(f"STOP SLAVE; CHANGE MASTER TO MASTER_DELAY = {math.ceil(seconds)}; START SLAVE")

    def pause(self) -> None:
        """Let the replica receive and not apply."""
        self.run("STOP SLAVE SQL_THREAD")

    def resume(self) -> None:
        """Let a paused replica apply again."""
        self.run("START SLAVE SQL_THREAD")

    def cut_off(self) -> None:
        """Let the replica follow nobody any more; it stays one, and applies what it has received."""
        self.run("STOP SLAVE IO_THREAD")

    def wait_for(self, position: str, timeout: float) -> None:
        """Return when the server has applied up to ``position`` (GTID); raise after ``timeout`` seconds."""
        if self.run(f"SELECT MASTER_GTID_WAIT('{position}', {timeout})") != "0":
            raise TimeoutError(f"{self.name} has not applied {position} (waited {timeout:g} s)")

    def run(self, sql: str, database: str = "mysql") -> str:
        """Run SQL as root over the Unix socket; return bare rows, columns apart by a tab."""
        # A session for each text: to connect takes a third of a millisecond, and no state is left to forget.
        try:
            with contextlib.closing(self._connect(database)) as session, session.cursor() as cursor:
                cursor.execute(sql)
                rows = list(cursor.fetchall())
                while cursor.nextset():
                    rows += cursor.fetchall()
        except pymysql.Error as exc:
            raise RuntimeError(f"{self.name} refuses: {exc}") from exc
        return "\n".join("\t".join(map(_shown, row)) for row in rows).strip()

    def _connect(self, database: str) -> pymysql.Connection:
        return pymysql.connect(
            unix_socket=str(self.home / "socket"),
            user="root",
            database=database,
            conv={},  # texts, as the server writes them
            autocommit=None,  # the server's, which is on
            client_flag=CLIENT.MULTI_STATEMENTS,
            ssl_disabled=True,  # else it reads all certificates of the system each time
            connect_timeout=ANSWER_TIMEOUT,
            read_timeout=ANSWER_TIMEOUT,
        )

    def password(self, user: str = "router_app") -> str:
        """Return the password of a user; it holds the canary."""
        return self._cluster.passwords[user]

    def dsn(self, user: str = "router_app", database: str = "app") -> str:
        """Return the URL of a database on this server, with the password in it."""
        return f"mariadb://{user}:{quote(self.password(user))}@{self.host}:{self.port}/{database}"


class MariadbCluster:
    """A primary and a GTID replica, with the users and the database of config/servers/mariadb."""

    def __init__(self, replicas: int = 1) -> None:
        if not 0 <= replicas <= 1:
            raise ValueError(f"{replicas} replicas asked for; replica.cnf gives a server_id to one")
        self.binaries: Path = find("mariadbd")
        self.clients: Path = find("mariadb", "mariadb-install-db")
        self.owner: Account = account("mysql")
        self.passwords = {user: new_password() for user in USERS}
        self.folder = Folder("mariadb", self.owner)
        names = ("init.sh", "replica.sh")
        self.files = {name: self.folder.copy(_FILES / name, self.folder.path / name) for name in names}
        self.primary = MariadbServer("primary", self, ("server.cnf",))
        both = ("server.cnf", "replica.cnf")
        self.replicas = [MariadbServer(f"replica-{n + 1}", self, both) for n in range(replicas)]

    @property
    def servers(self) -> list[MariadbServer]:
        """Return the primary and the replicas."""
        return [self.primary, *self.replicas]

    def start(self) -> None:
        """Create all data folders and start all servers; leave nothing behind if one fails."""
        try:
            with ThreadPoolExecutor(max_workers=2) as pool:
                list(pool.map(_install_and_start, self.servers))
            self.primary.script("init.sh")
            for replica in self.replicas:
                replica.script("replica.sh")
            self.wait_for_replicas()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all servers and delete their data."""
        for server in self.servers:
            server.close()
        self.folder.remove()

    def run(self, sql: str, database: str = "app") -> str:
        """Run SQL on the primary with all rights; return bare rows, columns apart by a tab."""
        return self.primary.run(sql, database)

    def switch(self, new: MariadbServer) -> None:
        """Stop all writes, wait until a replica has them all, promote it, and let the old primary follow."""
        old = self.primary
        old.run("FLUSH TABLES WITH READ LOCK; SET GLOBAL read_only = ON; UNLOCK TABLES")
        new.hold_back(0)
        new.wait_for(old.run("SELECT @@gtid_binlog_pos"), 30)
        self.promote(new)
        old.follow(new)

    def promote(self, new: MariadbServer) -> None:
        """Make a replica the primary, whatever it has received; the others follow whom they followed."""
        new.promote()
        self.replicas = [*(each for each in self.replicas if each is not new), self.primary]
        self.primary = new

    def create_database(self, name: str) -> None:
        """Create a database; router_app may use every database."""
        self.run(f"CREATE DATABASE `{name}`")

    def drop_database(self, name: str) -> None:
        """Drop a database."""
        self.run(f"DROP DATABASE IF EXISTS `{name}`")

    def wait_for_replicas(self, timeout: float = 30.0) -> None:
        """Return when every running replica has applied all that the primary has committed by now."""
        target = self.run("SELECT @@gtid_binlog_pos", "mysql")
        for replica in self.replicas:
            if replica.running:
                replica.wait_for(target, timeout)


def _shown(value: str | bytes | None) -> str:
    if value is None:
        return "NULL"
    return value if isinstance(value, str) else value.decode()


def _install_and_start(server: MariadbServer) -> None:
    server.install()
    server.start()
