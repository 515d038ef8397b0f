"""What an arm is: one way to reach the servers, asked to do the same things as all others."""

from abc import ABC, abstractmethod
from typing import ClassVar

from tests.bench.place import Place


class Arm(ABC):
    """Do what a workload asks, the way a user of this peer would write it.

    ``task`` is the number of the client, from 0; ``connections`` bounds the connections to each server.
    """

    name: ClassVar[str]
    place: ClassVar[str] = "postgresql"  # name of the place it connects to
    bare: ClassVar[tuple[str, ...]] = ("bare_asyncpg",)  # what it is measured against: vs_bare is the first
    note: ClassVar[str] = ""  # what a reader of its figures has to know
    unfit: ClassVar[dict[str, str]] = {}  # workload -> why it takes no part

    def __init__(self, place: Place, connections: int) -> None:
        self.servers = place
        self.connections = connections
        self._turn = 0

    @abstractmethod
    async def open(self) -> None:
        """Connect, as far as the peer does so ahead."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def point_read(self, task: int, key: int) -> None:
        """Read one row by key, on a replica."""

    @abstractmethod
    async def write(self, task: int, key: int) -> None:
        """Update one row by key and commit."""

    @abstractmethod
    async def transaction(self, task: int, key: int) -> None:
        """Read, update and read again in one transaction."""

    @abstractmethod
    async def rows(self, task: int, count: int) -> None:
        """Read ``count`` rows into a list, on a replica."""

    @abstractmethod
    async def insert_many(self, task: int) -> None:
        """Insert the bulk rows, all or none."""

    @abstractmethod
    async def stream(self, task: int, times: int) -> None:
        """Read ``times`` x 10,000 rows through a cursor, on a replica, keeping none."""

    def rotate(self) -> int:
        """Return the index of the next replica in turn."""
        self._turn = turn = (self._turn + 1) % len(self.servers.replicas)
        return turn
