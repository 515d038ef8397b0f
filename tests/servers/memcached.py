"""One memcached server."""

from tests.servers.binaries import account, find
from tests.servers.process import SCRIPTS, Folder, Server, answers


class MemcachedServer(Server):
    """One memcached server; it has no password and keeps nothing on disk."""

    def __init__(self) -> None:
        self._program = find("memcached") / "memcached"
        owner = account("memcache")  # memcached refuses to run as root
        self._folder = Folder("memcached", owner)
        super().__init__("memcached", self._folder.path, owner)
        lines = (SCRIPTS / "memcached" / "memcached.options").read_text().splitlines()
        self._options = [line for line in lines if not line.startswith("#")]

    def command(self) -> list[str]:
        """Return the command that becomes the server."""
        return [str(self._program), *self._options, f"--listen={self.host}", f"--port={self.port}"]

    def environment(self) -> dict[str, str]:
        """Return an empty environment: memcached needs none."""
        return {}

    def ready(self) -> bool:
        """Wait for it to tell its version."""
        return answers(self.host, self.port, b"version\r\n")

    def close(self) -> None:
        """End the server and delete its folder."""
        super().close()
        self._folder.remove()

    def dsn(self) -> str:
        """Return the URL of the server."""
        return f"memcached://{self.host}:{self.port}"
