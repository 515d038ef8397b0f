"""The ceilings: a driver's own connections, one for each task, and no pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import asyncpg

from tests.bench import texts
from tests.bench.arms.arm import Arm
from tests.bench.place import Node

READ, WRITE, LOOK, ROWS, STREAM, INSERT = map(texts.dollar, texts.ALL)


class BareAsyncpg(Arm):
    """Give each task a connection to the primary and one to each replica, taken in turn."""

    name = "bare_asyncpg"
    options: ClassVar[dict[str, Any]] = {}

    async def open(self) -> None:
        places = self.servers
        self._by_node: dict[Node, list[Any]] = {}
        for node in dict.fromkeys((places.primary, *places.replicas)):
            opening = [self._connect(node) for _ in range(self.connections)]
            self._by_node[node] = await asyncio.gather(*opening)
        self._writers = self._by_node[places.primary]
        self._readers = [self._by_node[node] for node in places.replicas]

    async def _connect(self, node: Node) -> Any:
        return await asyncpg.connect(
            host=node.host,
            port=node.port,
            user=texts.USER,
            password=self.servers.password,
            database=node.database,
            ssl=False,
            **self.options,
        )

    async def close(self) -> None:
        for connections in self._by_node.values():
            await asyncio.gather(*(connection.close() for connection in connections))

    async def point_read(self, task: int, key: int) -> None:
        await self._readers[self.rotate()][task].fetchrow(READ, key)

    async def write(self, task: int, key: int) -> None:
        await self._writers[task].execute(WRITE, key)

    async def transaction(self, task: int, key: int) -> None:
        await three(self._writers[task], key)

    async def rows(self, task: int, count: int) -> None:
        await self._readers[self.rotate()][task].fetch(ROWS, count)

    async def insert_many(self, task: int) -> None:
        await self._writers[task].executemany(INSERT, texts.BULK_ROWS)

    async def stream(self, task: int, times: int) -> None:
        await cursor(self._readers[self.rotate()][task], times)


async def three(connection: Any, key: int) -> None:
    """Run the three statements on a connection of asyncpg."""
    async with connection.transaction():
        await connection.fetchrow(LOOK, key)
        await connection.execute(WRITE, key)
        await connection.fetchrow(LOOK, key)


async def cursor(connection: Any, times: int) -> None:
    """Stream on a connection of asyncpg."""
    async with connection.transaction(readonly=True):
        async for _ in connection.cursor(STREAM, times, prefetch=texts.BATCH):
            pass


class BareAsyncpgNoCache(BareAsyncpg):
    """The same without prepared statements, as a client of PgBouncer 1.18 has to be."""

    name = "bare_asyncpg_nocache"
    note = "statement_cache_size=0: the direct pair of pgbouncer"
    unfit: ClassVar[dict[str, str]] = {"oversubscribed": "it has no pool; bare_asyncpg shares by hand there"}
    options: ClassVar[dict[str, Any]] = {"statement_cache_size": 0}


class BareShared(BareAsyncpg):
    """Hand out the connections by hand, for more tasks than connections: the least that a pool must do."""

    async def open(self) -> None:
        await super().open()
        self._free = list(self._readers[0])
        self._permits = asyncio.Semaphore(len(self._free))

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[Any]:
        async with self._permits:
            connection = self._free.pop()
            try:
                yield connection
            finally:
                self._free.append(connection)

    async def point_read(self, task: int, key: int) -> None:
        async with self._one() as connection:
            await connection.fetchrow(READ, key)


class Pgbouncer(BareAsyncpg):
    """Bare connections to PgBouncer, which pools by transaction."""

    name = "pgbouncer"
    place = "pgbouncer"
    bare = ("bare_asyncpg", "bare_asyncpg_nocache")
    unfit: ClassVar[dict[str, str]] = {}
    note = "by transaction 1.18 knows no prepared statements: statement_cache_size=0, as bare_asyncpg_nocache"
    options: ClassVar[dict[str, Any]] = {"statement_cache_size": 0}


class Pgpool(BareAsyncpg):
    """Bare connections to pgpool, which splits reads and writes by statement."""

    name = "pgpool"
    place = "pgpool"
    unfit: ClassVar[dict[str, str]] = {
        "oversubscribed": "a client has a process of pgpool to itself: 100 clients need 100 of them"
    }
