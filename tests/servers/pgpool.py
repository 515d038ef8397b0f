"""pgpool-II in front of a PostgreSQL cluster: one port; it splits reads and writes by itself."""

import contextlib
import signal
import socket

from tests.servers.binaries import account, find
from tests.servers.postgresql import PostgresqlCluster
from tests.servers.process import Folder, Server, free_port

_USERS = ("router_app", "router_monitor")
_GREETING = (
    b"\x00\x03\x00\x00user\x00router_monitor\x00database\x00app\x00\x00"  # protocol 3.0, a startup packet
)


class Pgpool(Server):
    """Send writes to the primary and each read to a replica of ``cluster``; serve ``clients`` at a time.

    A client has a process of pgpool to itself for as long as it is connected.
    """

    quick_signal = signal.SIGQUIT  # "immediate"; killed, it would leave its children behind

    def __init__(self, cluster: PostgresqlCluster, clients: int) -> None:
        self._program = find("pgpool") / "pgpool"
        owner = account("postgres")
        self._folder = Folder("pgpool", owner)
        super().__init__("pgpool", self._folder.path, owner)
        # TEXT: pgpool needs the password itself, to log in at the servers by SCRAM
        users = [f"{user}:TEXT{cluster.primary.password(user)}" for user in _USERS]
        self._folder.write(self.home / "pool_passwd", "\n".join(users) + "\n")
        rules = "host all all 127.0.0.1/32 scram-sha-256\nlocal all all scram-sha-256\n"
        self._rules = self._folder.write(self.home / "pool_hba.conf", rules)
        self._pcp = self._folder.write(self.home / "pcp.conf", "")
        settings = self._settings(clients) | _backends(cluster)
        lines = [f"{key} = {_quoted(value)}" for key, value in settings.items()]
        self._file = self._folder.write(self.home / "pgpool.conf", "\n".join(lines) + "\n")

    def _settings(self, clients: int) -> dict[str, str | int]:
        return {
            "backend_clustering_mode": "streaming_replication",
            "listen_addresses": self.host,
            "port": self.port,
            "socket_dir": str(self.home),
            "pcp_listen_addresses": self.host,
            "pcp_port": free_port(),
            "pcp_socket_dir": str(self.home),
            "pid_file_name": str(self.home / "pid"),
            "work_dir": str(self.home),
            "logdir": str(self.home),
            "enable_pool_hba": "on",
            "pool_passwd": "pool_passwd",
            "num_init_children": clients,
            "max_pool": 1,
            "load_balance_mode": "on",
            "statement_level_load_balance": "on",  # else a client keeps one server to its end
            "sr_check_period": 10,
            "sr_check_user": "router_monitor",
            "sr_check_database": "app",
            "log_min_messages": "warning",
        }

    def command(self) -> list[str]:
        """Return the command that becomes the proxy."""
        files = ["-f", str(self._file), "-a", str(self._rules), "-F", str(self._pcp)]
        return [str(self._program), "-n", "-D", *files]

    def environment(self) -> dict[str, str]:
        """Return an empty environment: all is in the files."""
        return {}

    def ready(self) -> bool:
        """Wait until it asks a client for its password: then it has found the servers."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection((self.host, self.port), timeout=2) as link,
        ):
            link.sendall((len(_GREETING) + 4).to_bytes(4, "big") + _GREETING)
            return link.recv(1) == b"R"
        return False

    def close(self) -> None:
        """End the proxy and delete its folder."""
        super().close()
        self._folder.remove()


def _backends(cluster: PostgresqlCluster) -> dict[str, str | int]:
    settings: dict[str, str | int] = {}
    for number, server in enumerate(cluster.servers):
        settings |= {
            f"backend_hostname{number}": server.host,
            f"backend_port{number}": server.port,
            # the primary takes writes only, as with all the others
            f"backend_weight{number}": 0 if server is cluster.primary else 1,
            f"backend_flag{number}": "DISALLOW_TO_FAILOVER",
            f"backend_application_name{number}": server.name.replace("-", "_"),
        }
    return settings


def _quoted(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
