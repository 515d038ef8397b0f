"""PgBouncer in front of a PostgreSQL cluster: one process, one database name for each server."""

from collections.abc import Mapping

from tests.servers.binaries import account, find
from tests.servers.postgresql import PostgresqlCluster
from tests.servers.process import Folder, Server, answers

_STARTUP = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # an SSLRequest; any PostgreSQL-like server answers one letter


class Pgbouncer(Server):
    """Pool connections to each server of ``cluster`` by transaction.

    The databases are named as the cluster's servers, ``primary``, ``replica-1``, ..., followed by one of the
    suffixes in ``pools``, which give the number of connections to each. All lead to ``database``.
    """

    def __init__(
        self,
        cluster: PostgresqlCluster,
        pools: Mapping[str, int],
        user: str = "router_app",
        database: str = "app",
    ) -> None:
        self._program = find("pgbouncer") / "pgbouncer"
        owner = account("postgres")  # PgBouncer refuses to run as root
        self._folder = Folder("pgbouncer", owner)
        super().__init__("pgbouncer", self._folder.path, owner)
        users = self._folder.write(self.home / "users.txt", f'"{user}" "{cluster.primary.password(user)}"\n')
        databases = [
            f"{server.name}{suffix} = host={server.host} port={server.port} dbname={database} "
            f"pool_size={size}"
            for server in cluster.servers
            for suffix, size in pools.items()
        ]
        settings = {
            "listen_addr": self.host,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": users,
            "pool_mode": "transaction",
            "max_client_conn": 1000,
            "server_reset_query": "",  # by transaction it is not used; nothing here changes a session
            "ignore_startup_parameters": "extra_float_digits",
            "log_connections": 0,
            "log_disconnections": 0,
        }
        lines = ["[databases]", *databases, "[pgbouncer]", *(f"{k} = {v}" for k, v in settings.items())]
        self._file = self._folder.write(self.home / "pgbouncer.ini", "\n".join(lines) + "\n")

    def command(self) -> list[str]:
        """Return the command that becomes the proxy."""
        return [str(self._program), "-q", str(self._file)]

    def environment(self) -> dict[str, str]:
        """Return an empty environment: all is in the file."""
        return {}

    def ready(self) -> bool:
        """Wait for an answer to the offer of TLS."""
        return answers(self.host, self.port, _STARTUP)

    def close(self) -> None:
        """End the proxy and delete its folder."""
        super().close()
        self._folder.remove()
