"""Random writes and reads of a few keys through the cache, against a model that is a dict."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa

from router import Router
from router.session import Session
from tests.cache.looking import alone
from tests.engines import Engine, only

KEYS = range(6)
STEPS = 600
EACH = 60  # of eight sessions at once


class Undo(Exception):
    """End a transaction."""


class World:
    """Write to two tables in all forms, and keep what must be in them."""

    def __init__(self, router: Router, tables: list[str], rng: random.Random) -> None:
        self.router = router
        self.tables = tables
        self.rng = rng
        self.model: dict[str, dict[int, int]] = {table: {} for table in tables}
        self.hits = 0

    async def begin(self) -> None:
        """Fill the tables."""
        for table in self.tables:
            await self.router.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, n INT)", tenant="acme")
            await self.router.execute_many(
                f"INSERT INTO {table} (id, n) VALUES (:id, 0)", [{"id": key} for key in KEYS], tenant="acme"
            )
            self.model[table] = dict.fromkeys(KEYS, 0)

    def change(self) -> tuple[str, str, dict[str, int], dict[int, int]]:
        """Return a table, a statement with its parameters, and what the table holds after it."""
        table, key, value = self.rng.choice(self.tables), self.rng.choice(KEYS), self.rng.randrange(10**6)
        rows = dict(self.model[table])
        sort = self.rng.randrange(4)
        if sort == 0:
            rows.pop(key, None)
            return table, f"DELETE FROM {table} WHERE id = :id", {"id": key}, rows
        if sort == 1:
            rows = {each: found + value for each, found in rows.items()}
            return table, f"UPDATE {table} SET n = n + :n", {"n": value}, rows
        rows[key] = value
        upsert = f"INSERT INTO {table} (id, n) VALUES (:id, :n) ON CONFLICT (id) DO UPDATE SET n = excluded.n"
        return table, upsert, {"id": key, "n": value}, rows

    async def write(self, session: Session) -> None:
        """Change something in one of the forms; some of them are undone."""
        form = self.rng.randrange(7)
        table, sql, params, rows = self.change()
        if form == 0:
            await session.execute(sql, params)
        elif form == 1:
            await session.execute_many(sql, [params])
        elif form == 2:
            async with session.orm() as orm:
                await orm.execute(sa.text(sql), params)
        elif form == 3:
            await self._several(session, undo=False)
            return
        elif form == 4:
            await self._several(session, undo=True)
            return
        elif form == 5:
            async with session.transaction() as tx:
                with suppress(Undo):
                    async with tx.savepoint():
                        await tx.execute(f"DELETE FROM {table}")
                        raise Undo
                await tx.execute(sql, params)
        else:
            await self.router.execute(sql, params, tenant="acme")
        self.model[table] = rows

    async def _several(self, session: Session, *, undo: bool) -> None:
        before = {table: dict(rows) for table, rows in self.model.items()}
        with suppress(Undo):
            async with session.transaction() as tx:
                for _ in range(self.rng.randrange(1, 4)):
                    table, sql, params, rows = self.change()
                    await tx.execute(sql, params)
                    self.model[table] = rows
                if undo:
                    raise Undo
        if undo:
            self.model = before

    async def read(self, session: Session) -> tuple[Any, Any]:
        """Return what a read through the cache gave, and what is there."""
        table, key = self.rng.choice(self.tables), self.rng.choice(KEYS)
        rows, sort = self.model[table], self.rng.randrange(4)
        given: dict[str, Any] = {"cache": 60}
        if sort == 0:
            sql = f"SELECT n FROM {table} WHERE id = :id"
            return await session.fetch_value(sql, {"id": key}, **given), rows.get(key)
        if sort == 1:
            found = await session.fetch_all(f"SELECT id, n FROM {table} ORDER BY id", **given)
            return [tuple(row) for row in found], sorted(rows.items())
        if sort == 2:
            sql = f"SELECT count(*) FROM {table} WHERE n > :n"
            return await session.fetch_value(sql, {"n": 1000}, **given), sum(n > 1000 for n in rows.values())
        one, other = self.tables
        sql = f"SELECT count(*) FROM {one} AS a JOIN {other} AS b ON a.id = b.id"
        return await session.fetch_value(sql, **given), len(self.model[one].keys() & self.model[other].keys())


@pytest.fixture(params=["alone", "none"])
async def world(engine: Engine, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Open a router of which every read is as new as can be."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    async with engine.open(cluster=alone(engine), cache={"broadcast": request.param}) as router:
        made = World(router, [engine.name(), engine.name()], random.Random(seed))
        await made.begin()
        yield made


@only("sqlite", "postgresql")
async def test_every_cached_read_is_what_was_written_last(world: World) -> None:
    """By whomever in this process: with one process and one after the other there is nothing in between."""
    sessions = [world.router.session("acme") for _ in range(3)]
    for step in range(STEPS):
        if not world.rng.randrange(20):
            sessions[world.rng.randrange(3)] = world.router.session("acme")
        session = world.rng.choice(sessions)
        if world.rng.random() < 0.3:
            await world.write(session)
        else:
            found, expected = await world.read(session)
            assert found == expected, step
    executor: Any = world.router._executor
    tally = executor.scope(executor.target("acme", None)).tally
    assert tally.hits > 10, "nothing came from memory: nothing was tested"


class Counters:
    """Count up in several sessions at once; what was told to be written once is there for all."""

    def __init__(self, router: Router, table: str, seed: int, *, replicas: bool) -> None:
        self.router = router
        self.table = table
        self.seed = seed
        self.replicas = replicas
        self.written = dict.fromkeys(KEYS, 0)  # by all, answered

    async def work(self, number: int, steps: int) -> None:
        """Read and write in one session after the other."""
        rng = random.Random(self.seed + number)
        read = f"SELECT n FROM {self.table} WHERE id = :id"
        for _ in range(steps // 20):
            session, seen = self.router.session("acme"), dict.fromkeys(KEYS, 0)
            for _ in range(20):
                key = rng.choice(KEYS)
                if rng.random() < 0.15:
                    await self.write(session, rng, key)
                    seen[key] = self.written[key] if not self.replicas else max(seen[key] + 1, 1)
                    continue
                least = seen[key] if self.replicas else max(self.written[key], seen[key])
                if rng.random() < 0.3:
                    rows = await session.fetch_all(f"SELECT id, n FROM {self.table}", cache=60)
                    found = dict(map(tuple, rows))
                    assert all(found[each] >= seen[each] for each in KEYS), (found, seen)
                    seen = found
                else:
                    seen[key] = await session.fetch_value(read, {"id": key}, cache=60)
                assert seen[key] >= least

    async def write(self, session: Session, rng: random.Random, key: int) -> None:
        """Count one up, or begin to and leave it."""
        update = f"UPDATE {self.table} SET n = n + :by WHERE id = :id"
        if rng.random() < 0.3:
            with suppress(Undo):
                async with session.transaction() as tx:
                    await tx.execute(update, {"by": 1_000_000, "id": key})
                    raise Undo
        await session.execute(update, {"by": 1, "id": key})
        self.written[key] += 1


@only("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize("replicas", [False, True], ids=["alone", "replicas"])
@pytest.mark.parametrize("broadcast", ["alone", "none"])
async def test_many_sessions_at_once_never_go_back(engine: Engine, replicas: bool, broadcast: str) -> None:
    """Each sees its own writes and never less than before; without replicas also all that was answered."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    quick: dict[str, Any] = {} if engine.id == "sqlite" else {"checks": {"interval": "50ms"}}
    section = quick if replicas else alone(engine)
    given: dict[str, Any] = {"cluster": section, "connections": 8, "cache": {"broadcast": broadcast}}
    async with engine.open(**given) as router:
        table = engine.name()
        await router.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, n INT)", tenant="acme")
        insert = f"INSERT INTO {table} (id, n) VALUES (:id, 0)"
        await router.execute_many(insert, [{"id": key} for key in KEYS], tenant="acme")
        await engine.settle()
        counters = Counters(router, table, seed, replicas=replicas)
        await asyncio.gather(*(counters.work(number, EACH) for number in range(8)))
        rows = await router.fetch_all(f"SELECT id, n FROM {table}", tenant="acme", primary=True)
        assert dict(map(tuple, rows)) == counters.written
