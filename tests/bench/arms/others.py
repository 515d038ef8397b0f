"""The ceilings on MariaDB and SQLite: aiomysql's and aiosqlite's own connections."""

import asyncio
from typing import Any

import aiomysql
import aiosqlite
from pymysql.constants import CLIENT

from tests.bench import texts
from tests.bench.arms.arm import Arm
from tests.bench.place import Node

M_READ, M_WRITE, M_LOOK, M_ROWS, M_STREAM, M_INSERT = map(texts.percent, texts.ALL)
S_READ, S_WRITE, S_LOOK, S_ROWS, S_STREAM, S_INSERT = map(texts.question, texts.ALL)


class BareAiomysql(Arm):
    """Give each task a connection to the primary and one to the replica."""

    name, place, bare = "bare_aiomysql", "mariadb", ("bare_aiomysql",)

    async def open(self) -> None:
        servers = self.servers
        self._writers = await self._connect(servers.primary)
        self._readers = [await self._connect(node) for node in servers.replicas]

    async def _connect(self, node: Node) -> list[Any]:
        opening = [
            aiomysql.connect(
                host=node.host,
                port=node.port,
                user=texts.USER,
                password=self.servers.password,
                db=node.database,
                autocommit=True,
                charset="utf8mb4",
                client_flag=CLIENT.FOUND_ROWS,
            )
            for _ in range(self.connections)
        ]
        return await asyncio.gather(*opening)

    async def close(self) -> None:
        for connections in (self._writers, *self._readers):
            await asyncio.gather(*(connection.ensure_closed() for connection in connections))

    async def point_read(self, task: int, key: int) -> None:
        async with self._readers[self.rotate()][task].cursor() as cursor:
            await cursor.execute(M_READ, (key,))
            await cursor.fetchone()

    async def write(self, task: int, key: int) -> None:
        async with self._writers[task].cursor() as cursor:
            await cursor.execute(M_WRITE, (key,))

    async def transaction(self, task: int, key: int) -> None:
        connection = self._writers[task]
        await connection.begin()
        async with connection.cursor() as cursor:
            await cursor.execute(M_LOOK, (key,))
            await cursor.fetchone()
            await cursor.execute(M_WRITE, (key,))
            await cursor.execute(M_LOOK, (key,))
            await cursor.fetchone()
        await connection.commit()

    async def rows(self, task: int, count: int) -> None:
        async with self._readers[self.rotate()][task].cursor() as cursor:
            await cursor.execute(M_ROWS, (count,))
            await cursor.fetchall()

    async def insert_many(self, task: int) -> None:
        async with self._writers[task].cursor() as cursor:
            await cursor.executemany(M_INSERT, texts.BULK_ROWS)

    async def stream(self, task: int, times: int) -> None:
        async with self._readers[self.rotate()][task].cursor(aiomysql.SSCursor) as cursor:
            await cursor.execute(M_STREAM, (times,))
            while await cursor.fetchmany(texts.BATCH):
                pass


class BareAiosqlite(Arm):
    """One writer and two readers for all tasks: as many connections, and so threads, as ours has."""

    name, place, bare = "bare_aiosqlite", "sqlite", ("bare_aiosqlite",)
    note = "reads by execute_fetchall, the one call of aiosqlite that changes threads only once"

    async def open(self) -> None:
        file = self.servers.primary.host
        self._connections = [
            await aiosqlite.connect(f"file:{file}{mode}", uri=True, isolation_level=None)
            for mode in ("", *["?mode=ro"] * len(self.servers.replicas))
        ]
        self._writer, *self._readers = self._connections
        await self._writer.execute("PRAGMA synchronous = NORMAL")
        self._turn_of_writer = asyncio.Lock()

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    async def point_read(self, task: int, key: int) -> None:
        await self._readers[self.rotate()].execute_fetchall(S_READ, (key,))

    async def write(self, task: int, key: int) -> None:
        async with self._turn_of_writer:
            await self._writer.execute_fetchall(S_WRITE, (key,))

    async def transaction(self, task: int, key: int) -> None:
        async with self._turn_of_writer:
            await self._writer.execute_fetchall("BEGIN IMMEDIATE")
            await self._writer.execute_fetchall(S_LOOK, (key,))
            await self._writer.execute_fetchall(S_WRITE, (key,))
            await self._writer.execute_fetchall(S_LOOK, (key,))
            await self._writer.execute_fetchall("COMMIT")

    async def rows(self, task: int, count: int) -> None:
        await self._readers[self.rotate()].execute_fetchall(S_ROWS, (count,))

    async def insert_many(self, task: int) -> None:
        async with self._turn_of_writer:
            await self._writer.execute_fetchall("BEGIN IMMEDIATE")
            await self._writer.executemany(S_INSERT, texts.BULK_ROWS)
            await self._writer.execute_fetchall("COMMIT")

    async def stream(self, task: int, times: int) -> None:
        async with self._readers[self.rotate()].execute(S_STREAM, (times,)) as cursor:
            while await cursor.fetchmany(texts.BATCH):
                pass
