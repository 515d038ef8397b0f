"""Peers with a pool: asyncpg's, psycopg's and hasql's."""

import asyncio
from typing import Any
from urllib.parse import quote

import asyncpg

from tests.bench import texts
from tests.bench.arms.arm import Arm
from tests.bench.arms.bare import INSERT, READ, ROWS, WRITE, cursor, three
from tests.bench.place import Node


class AsyncpgPool(Arm):
    """asyncpg's pool, one for each server; replicas in turn."""

    name = "asyncpg_pool"

    async def open(self) -> None:
        nodes = (self.servers.primary, *self.servers.replicas)
        self._primary, *self._replicas = [await self._pool(node) for node in nodes]

    async def _pool(self, node: Node) -> Any:
        return await asyncpg.create_pool(
            host=node.host,
            port=node.port,
            user=texts.USER,
            password=self.servers.password,
            database=node.database,
            ssl=False,
            min_size=self.connections,
            max_size=self.connections,
        )

    async def close(self) -> None:
        await asyncio.gather(*(pool.close() for pool in (self._primary, *self._replicas)))

    def reader(self) -> Any:
        """Return a context manager of a connection to a replica."""
        return self._replicas[self.rotate()].acquire()

    def writer(self) -> Any:
        """Return a context manager of a connection to the primary."""
        return self._primary.acquire()

    async def point_read(self, task: int, key: int) -> None:
        async with self.reader() as connection:
            await connection.fetchrow(READ, key)

    async def write(self, task: int, key: int) -> None:
        async with self.writer() as connection:
            await connection.execute(WRITE, key)

    async def transaction(self, task: int, key: int) -> None:
        async with self.writer() as connection:
            await three(connection, key)

    async def rows(self, task: int, count: int) -> None:
        async with self.reader() as connection:
            await connection.fetch(ROWS, count)

    async def insert_many(self, task: int) -> None:
        async with self.writer() as connection:
            await connection.executemany(INSERT, texts.BULK_ROWS)

    async def stream(self, task: int, times: int) -> None:
        async with self.reader() as connection:
            await cursor(connection, times)


class Hasql(AsyncpgPool):
    """hasql over asyncpg; its own balancing, and one connection more to each server for its checks."""

    name = "hasql"

    async def open(self) -> None:
        from hasql.asyncpg import PoolManager

        places = self.servers
        hosts = ",".join(f"{node.host}:{node.port}" for node in (places.primary, *places.replicas))
        self._manager = PoolManager(
            f"postgresql://{texts.USER}:{quote(places.password)}@{hosts}/{places.primary.database}",
            pool_factory_kwargs={"min_size": self.connections, "max_size": self.connections, "ssl": False},
        )
        await self._manager.ready(masters_count=1, replicas_count=len(places.replicas))

    async def close(self) -> None:
        await self._manager.close()

    def reader(self) -> Any:
        return self._manager.acquire_replica()

    def writer(self) -> Any:
        return self._manager.acquire_master()


P_READ, P_WRITE, P_LOOK, P_ROWS, P_STREAM, P_INSERT = map(texts.percent, texts.ALL)


class PsycopgPool(Arm):
    """psycopg's pool, one for each server; replicas in turn. It prepares a statement at its fifth use."""

    name = "psycopg_pool"
    note = "autocommit=True; psycopg with its C speed-ups"

    async def open(self) -> None:
        nodes = (self.servers.primary, *self.servers.replicas)
        self._primary, *self._replicas = [await self._pool(node) for node in nodes]

    async def _pool(self, node: Node) -> Any:
        from psycopg_pool import AsyncConnectionPool

        login = {"user": texts.USER, "password": self.servers.password, "dbname": node.database}
        pool: Any = AsyncConnectionPool(
            kwargs={"host": node.host, "port": node.port, "sslmode": "disable", "autocommit": True, **login},
            min_size=self.connections,
            max_size=self.connections,
            open=False,
        )
        await pool.open(wait=True)
        return pool

    async def close(self) -> None:
        await asyncio.gather(*(pool.close() for pool in (self._primary, *self._replicas)))

    def _reader(self) -> Any:
        return self._replicas[self.rotate()].connection()

    async def point_read(self, task: int, key: int) -> None:
        async with self._reader() as connection:
            await (await connection.execute(P_READ, (key,))).fetchone()

    async def write(self, task: int, key: int) -> None:
        async with self._primary.connection() as connection:
            await connection.execute(P_WRITE, (key,))

    async def transaction(self, task: int, key: int) -> None:
        async with self._primary.connection() as connection, connection.transaction():
            await (await connection.execute(P_LOOK, (key,))).fetchone()
            await connection.execute(P_WRITE, (key,))
            await (await connection.execute(P_LOOK, (key,))).fetchone()

    async def rows(self, task: int, count: int) -> None:
        async with self._reader() as connection:
            await (await connection.execute(P_ROWS, (count,))).fetchall()

    async def insert_many(self, task: int) -> None:
        async with self._primary.connection() as connection, connection.transaction():
            await connection.cursor().executemany(P_INSERT, texts.BULK_ROWS)

    async def stream(self, task: int, times: int) -> None:
        async with (
            self._reader() as connection,
            connection.transaction(),
            connection.cursor(name="bench") as named,
        ):
            named.itersize = texts.BATCH
            await named.execute(P_STREAM, (times,))
            async for _ in named:
                pass
