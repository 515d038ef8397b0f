"""The router on each engine: a new session for each request, events and metrics on."""

from contextlib import aclosing
from pathlib import Path
from typing import Any

from router import Config, Router, parse
from tests.bench import texts
from tests.bench.arms import models
from tests.bench.arms.arm import Arm
from tests.bench.place import Node, Place

TENANT = "acme"


def config(place: Place, connections: int) -> Config:
    """Return the configuration of one tenant on the servers of a place."""
    return parse(
        {
            "version": 1,
            "clusters": {"main": _cluster(place, connections)},
            "tenants": {TENANT: _tenant(place)},
        }
    )


def _cluster(place: Place, connections: int) -> dict[str, Any]:
    if place.engine == "sqlite":
        folder = str(Path(place.primary.host).parent)
        return {"engine": "sqlite", "primary": {"path": folder}, "readers": len(place.replicas)}
    return {
        "engine": place.engine,
        "primary": _node(place.primary),
        "replicas": [_node(node) for node in place.replicas],
        "database": texts.DATABASE,
        "credentials": {"writer": {"username": texts.USER, "password": place.password}},
        "connections": {"max": connections},
    }


def _node(node: Node) -> dict[str, Any]:
    return {"host": node.host, "port": node.port}


def _tenant(place: Place) -> dict[str, Any]:
    if place.engine == "sqlite":
        return {"cluster": "main", "isolation": "database", "database": Path(place.primary.host).stem}
    return {"cluster": "main", "isolation": "schema", "schema": texts.SCHEMA}


class OursText(Arm):
    """``session.fetch_one`` and its like."""

    name = "router"
    note = "a new session for each request; events and metrics on"

    async def open(self) -> None:
        self._router = Router(config(self.servers, self.connections))
        await self._router.connect()

    async def close(self) -> None:
        await self._router.close()

    async def point_read(self, task: int, key: int) -> None:
        async with self._router.session(TENANT) as session:
            await session.fetch_one(texts.READ, {"id": key})

    async def write(self, task: int, key: int) -> None:
        async with self._router.session(TENANT) as session:
            await session.execute(texts.WRITE, {"id": key})

    async def transaction(self, task: int, key: int) -> None:
        async with self._router.session(TENANT) as session, session.transaction() as tx:
            await tx.fetch_one(texts.LOOK, {"id": key})
            await tx.execute(texts.WRITE, {"id": key})
            await tx.fetch_one(texts.LOOK, {"id": key})

    async def rows(self, task: int, count: int) -> None:
        async with self._router.session(TENANT) as session:
            await session.fetch_all(texts.ROWS, {"id": count})

    async def insert_many(self, task: int) -> None:
        async with self._router.session(TENANT) as session:
            await session.execute_many(texts.INSERT, texts.BULK_PARAMS)

    async def stream(self, task: int, times: int) -> None:
        async with self._router.session(TENANT) as session:
            streamed = session.stream(texts.STREAM, {"id": times}, batch=texts.BATCH)
            async with aclosing(streamed) as rows:
                async for _ in rows:
                    pass


class OursOrm(OursText):
    """``session.orm()``: SQLAlchemy's ``AsyncSession`` over the router's pools."""

    name = "router_orm"

    async def point_read(self, task: int, key: int) -> None:
        async with self._router.session(TENANT) as session, session.orm(readonly=True) as orm:
            await models.read(orm, key)

    async def write(self, task: int, key: int) -> None:
        async with self._router.session(TENANT) as session, session.orm() as orm:
            await models.write(orm, key)

    async def transaction(self, task: int, key: int) -> None:
        async with self._router.session(TENANT) as session, session.orm() as orm:
            await models.three(orm, key)

    async def rows(self, task: int, count: int) -> None:
        async with self._router.session(TENANT) as session, session.orm(readonly=True) as orm:
            await models.rows(orm, count)

    async def insert_many(self, task: int) -> None:
        async with self._router.session(TENANT) as session, session.orm() as orm:
            await models.insert_many(orm)

    async def stream(self, task: int, times: int) -> None:
        async with self._router.session(TENANT) as session, session.orm(readonly=True) as orm:
            await models.stream(orm, times)


class OursMysql(OursText):
    """The text path on MariaDB."""

    name, place, bare = "router_mysql", "mariadb", ("bare_aiomysql",)


class OursSqlite(OursText):
    """The text path on SQLite."""

    name, place, bare = "router_sqlite", "sqlite", ("bare_aiosqlite",)
