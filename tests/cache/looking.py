"""Read through the cache, and tell who has answered."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from router import Router
from tests.engines import Engine, Recorder


class Look(NamedTuple):
    """Hold the rows of a read as tuples, and the role that has answered."""

    rows: list[tuple[Any, ...]]
    role: str

    @property
    def cached(self) -> bool:
        """Tell whether they came from memory."""
        return self.role == "cache"


class Looking:
    """Read through sessions of one router."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.heard = Recorder(router)

    async def __call__(self, on: Any, sql: str, params: Any = None, *, cache: Any = 60, **given: Any) -> Look:
        """Read on a session, or on a new one of the tenant that is named."""
        session = self.router.session(on) if isinstance(on, str) else on
        self.heard.clear()
        if cache is not None:
            given["cache"] = cache
        rows = await session.fetch_all(sql, params, **given)
        return Look([tuple(row) for row in rows], self.heard.last.role.value)

    async def truth(self, sql: str, params: Any = None, tenant: str = "acme") -> list[tuple[Any, ...]]:
        """Return what the primary has."""
        rows = await self.router.fetch_all(sql, params, tenant=tenant, primary=True, cache=False)
        return [tuple(row) for row in rows]

    def reads(self, sql: str) -> int:
        """Return how often a database was asked ``sql`` since the last read through this."""
        return sum(event.sql == sql and event.role.value != "cache" for event in self.heard.requests)


def alone(engine: Engine, **more: Any) -> dict[str, Any]:
    """Return the section of a cluster without replicas: every read is as new as can be."""
    return more if engine.dialect == "sqlite" else {**more, "replicas": []}


@dataclass
class Stage:
    """Hold a table with three rows, which is read through the cache, and another one beside it."""

    router: Router
    engine: Engine
    look: Looking
    table: str
    beside: str

    @property
    def sql(self) -> str:
        return f"SELECT count(*), coalesce(sum(amount), 0) FROM {self.table}"

    async def run(self, *texts: str) -> None:
        """Prepare something, over a session that no other test has."""
        for text in texts:
            await self.router.execute(text, tenant="acme")

    def insert(self, number: int, table: str | None = None) -> str:
        return f"INSERT INTO {table or self.table} (id, amount) VALUES ({number}, {number})"


@pytest.fixture
async def stage(engine: Engine) -> AsyncIterator[Stage]:
    """Open a router of which every read is as new as can be."""
    async with engine.open(cluster=alone(engine), connections=6) as router:
        made = Stage(router, engine, Looking(router), engine.name(), engine.name())
        for name in (made.table, made.beside):
            await made.run(f"CREATE TABLE {name} (id INT PRIMARY KEY, amount INT)")
            await router.execute_many(
                f"INSERT INTO {name} (id, amount) VALUES (:id, 1)", [{"id": 1}, {"id": 2}, {"id": 3}],
                tenant="acme",
            )  # fmt: skip
        yield made
