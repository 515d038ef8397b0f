"""One Redis server."""

from urllib.parse import quote

from tests.servers.binaries import Account, find
from tests.servers.passwords import new_password
from tests.servers.process import SCRIPTS, Folder, Server, answers


class RedisServer(Server):
    """One Redis server with a password and nothing on disk."""

    def __init__(self) -> None:
        self._program = find("redis-server") / "redis-server"
        self._folder = Folder("redis", Account())
        super().__init__("redis", self._folder.path, Account())
        self._password = new_password()
        # A file, because the arguments of a process are there for all to read.
        lines = (f"include {SCRIPTS / 'redis' / 'redis.conf'}", f"requirepass {self._password}")
        self._file = self._folder.write(self.home / "redis.conf", "\n".join(lines) + "\n")

    def command(self) -> list[str]:
        """Return the command that becomes the server."""
        place = ["--bind", self.host, "--port", str(self.port), "--dir", str(self.home)]
        return [str(self._program), str(self._file), *place]

    def environment(self) -> dict[str, str]:
        """Return an empty environment: Redis needs none."""
        return {}

    def ready(self) -> bool:
        """Wait for any answer, be it the demand for a password."""
        return answers(self.host, self.port, b"PING\r\n")

    def close(self) -> None:
        """End the server and delete its folder."""
        super().close()
        self._folder.remove()

    def password(self) -> str:
        """Return the password; it holds the canary."""
        return self._password

    def dsn(self, database: int = 0) -> str:
        """Return the URL of the server, with the password in it."""
        return f"redis://:{quote(self._password)}@{self.host}:{self.port}/{database}"
