"""SQLAlchemy by text and by session, and advanced-alchemy's routing session."""

from typing import Any

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.bench import texts
from tests.bench.arms import models
from tests.bench.arms.arm import Arm
from tests.bench.place import Node, Place

READ, WRITE, LOOK, ROWS, STREAM, INSERT = map(text, texts.ALL)


def url(place: Place, node: Node) -> URL:
    """Return the address of a node for SQLAlchemy."""
    return URL.create(
        "postgresql+asyncpg",
        texts.USER,
        place.password,
        node.host,
        node.port,
        node.database,
        {"ssl": "disable"},
    )


class Engines(Arm):
    """One engine for each server, replicas in turn; QueuePool."""

    async def open(self) -> None:
        nodes = (self.servers.primary, *self.servers.replicas)
        self._primary, *self._replicas = [
            create_async_engine(url(self.servers, node), pool_size=self.connections, max_overflow=0)
            for node in nodes
        ]

    async def close(self) -> None:
        for engine in (self._primary, *self._replicas):
            await engine.dispose()

    def reader(self) -> Any:
        """Return the engine of the next replica."""
        return self._replicas[self.rotate()]


class SqlalchemyText(Engines):
    """``AsyncEngine`` with ``text()``."""

    name = "sqlalchemy_text"
    note = "in its default mode, which puts BEGIN and ROLLBACK or COMMIT around every statement"

    async def point_read(self, task: int, key: int) -> None:
        async with self.reader().connect() as connection:
            (await connection.execute(READ, {"id": key})).first()

    async def write(self, task: int, key: int) -> None:
        async with self._primary.begin() as connection:
            await connection.execute(WRITE, {"id": key})

    async def transaction(self, task: int, key: int) -> None:
        async with self._primary.begin() as connection:
            (await connection.execute(LOOK, {"id": key})).first()
            await connection.execute(WRITE, {"id": key})
            (await connection.execute(LOOK, {"id": key})).first()

    async def rows(self, task: int, count: int) -> None:
        async with self.reader().connect() as connection:
            (await connection.execute(ROWS, {"id": count})).all()

    async def insert_many(self, task: int) -> None:
        async with self._primary.begin() as connection:
            await connection.execute(INSERT, texts.BULK_PARAMS)

    async def stream(self, task: int, times: int) -> None:
        async with self.reader().connect() as connection:
            options = {"yield_per": texts.BATCH}
            async for _ in await connection.stream(STREAM, {"id": times}, execution_options=options):
                pass


class SqlalchemySession(Engines):
    """A new ``AsyncSession`` for each request, ``select()`` of objects."""

    name = "sqlalchemy_session"

    async def point_read(self, task: int, key: int) -> None:
        async with AsyncSession(self.reader(), expire_on_commit=False) as session:
            await models.read(session, key)

    async def write(self, task: int, key: int) -> None:
        async with AsyncSession(self._primary, expire_on_commit=False) as session:
            await models.write(session, key)
            await session.commit()

    async def transaction(self, task: int, key: int) -> None:
        async with AsyncSession(self._primary, expire_on_commit=False) as session:
            await models.three(session, key)
            await session.commit()

    async def rows(self, task: int, count: int) -> None:
        async with AsyncSession(self.reader(), expire_on_commit=False) as session:
            await models.rows(session, count)

    async def insert_many(self, task: int) -> None:
        async with AsyncSession(self._primary, expire_on_commit=False) as session:
            await models.insert_many(session)
            await session.commit()

    async def stream(self, task: int, times: int) -> None:
        async with AsyncSession(self.reader(), expire_on_commit=False) as session:
            await models.stream(session, times)


class AdvancedAlchemy(Arm):
    """advanced-alchemy's routing session: it sends selects to the replicas in turn by itself."""

    name = "advanced_alchemy"

    async def open(self) -> None:
        from advanced_alchemy.config.routing import RoutingConfig
        from advanced_alchemy.routing import RoutingAsyncSession, RoutingAsyncSessionMaker

        # advanced-alchemy 1.12 sets this before there is a session that SQLAlchemy 2.1 could pass it on to
        RoutingAsyncSession.bind = None
        places = self.servers
        self._make = RoutingAsyncSessionMaker(
            routing_config=RoutingConfig(
                primary_connection_string=_plain(places, places.primary),
                read_replicas=[_plain(places, node) for node in places.replicas],
            ),
            engine_config={"pool_size": self.connections, "max_overflow": 0},
            session_config={"expire_on_commit": False},
        )
        async with self._make() as session:
            await models.read(session, 1)

    async def close(self) -> None:
        await self._make.close_all()

    async def point_read(self, task: int, key: int) -> None:
        async with self._make() as session:
            await models.read(session, key)

    async def write(self, task: int, key: int) -> None:
        async with self._make() as session:
            await models.write(session, key)
            await session.commit()

    async def transaction(self, task: int, key: int) -> None:
        from advanced_alchemy.routing import primary_context

        with primary_context():
            async with self._make() as session:
                await models.three(session, key)
                await session.commit()

    async def rows(self, task: int, count: int) -> None:
        async with self._make() as session:
            await models.rows(session, count)

    async def insert_many(self, task: int) -> None:
        async with self._make() as session:
            await models.insert_many(session)
            await session.commit()

    async def stream(self, task: int, times: int) -> None:
        async with self._make() as session:
            await models.stream(session, times)


def _plain(place: Place, node: Node) -> str:
    return url(place, node).render_as_string(hide_password=False)
