"""The servers that figures need: started when a family first asks, or lent by a test that has them."""

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.engines import Postgresql, Sqlite
from tests.servers import PostgresqlCluster, RedisServer


class Servers:
    """Start servers once, on private ports; end those that it has started."""

    def __init__(self, cluster: PostgresqlCluster | None = None) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._cluster = cluster

    async def postgresql(self, *tenants: str) -> Postgresql:
        """Return PostgreSQL, a primary and a replica or more, with new databases for tenants."""
        if self._cluster is None:
            self._cluster = PostgresqlCluster(1)
            self._stack.callback(self._cluster.close)
            await asyncio.to_thread(self._cluster.start)
        engine = Postgresql(self._folder, self._cluster)
        self._stack.callback(engine.drop)
        await asyncio.to_thread(engine.create, *tenants)
        return engine

    def sqlite(self, *tenants: str) -> Sqlite:
        """Return SQLite with new files for tenants."""
        engine = Sqlite(Path(self._stack.enter_context(tempfile.TemporaryDirectory())))
        engine.create(*tenants)
        return engine

    async def redis(self) -> RedisServer:
        """Return a Redis server that nobody else uses: it may be broken."""
        server = RedisServer()
        self._stack.callback(server.close)
        await asyncio.to_thread(server.start)
        return server

    def close(self) -> None:
        """End what was started."""
        self._stack.close()
