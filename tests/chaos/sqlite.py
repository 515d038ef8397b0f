"""The cases on SQLite: a file that somebody else locks, a snapshot that grows old, a file that is removed."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from router import Router, RouterError
from router.errors import ServerError
from tests.chaos.cases import off_loop
from tests.chaos.load import CREATE, TABLE, Load, failed, slowest
from tests.engines import Sqlite
from tests.figures import Figure

_HELD = 1.0  # seconds that another program holds the lock; the busy timeout of the tests is twice that


async def sqlite_cases(folder: Path, look: float) -> AsyncIterator[Figure]:
    """Yield the figures of all cases on SQLite."""
    engine = Sqlite(folder)
    engine.create("acme")
    async with engine.open(tenants=("acme",)) as router:
        await router.execute(CREATE, tenant="acme")
        async with Load(router) as load:
            async for figure in _locked(engine, load, look):
                yield figure
            yield await _old_snapshot(router)
        yield _account(engine, load)
    yield await _removed(engine)


async def _locked(engine: Sqlite, load: Load, look: float) -> AsyncIterator[Figure]:
    """Let another program hold the write lock for a second."""

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(engine.file("acme"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(_HELD)
            other.execute("COMMIT")

    await asyncio.sleep(0.3)
    began = time.monotonic()
    await off_loop(hold)
    during = load.since(began, "read")
    await load.for_a_while(look / 2)
    reads, writes = failed(load.since(began, "read")), failed(load.since(began, "write"))
    yield Figure("sqlite: locked by another: failed reads", len(reads), 0, note=(reads or [""])[0])
    yield Figure("sqlite: locked by another: failed writes", len(writes), 0, note=(writes or [""])[0])
    yield Figure("sqlite: locked by another: slowest read", slowest(during), _HELD / 2, "s")


async def _old_snapshot(router: Router) -> Figure:
    """Run transactions that read first and write later beside each other, each whole again if it must."""
    await router.execute("CREATE TABLE counter (n INTEGER)", tenant="acme")
    await router.execute("INSERT INTO counter VALUES (0)", tenant="acme")

    async def add(tx: Any) -> None:
        found = await tx.fetch_value("SELECT n FROM counter")
        await tx.execute("UPDATE counter SET n = :n", {"n": found + 1})

    async def work() -> None:
        for _ in range(10):
            await router.session("acme", timeout=20).run(add)

    await asyncio.gather(*(work() for _ in range(5)))
    found = await router.fetch_value("SELECT n FROM counter", tenant="acme")
    return Figure("sqlite: increments lost by transactions that read first", 50 - found, 0)


def _account(engine: Sqlite, load: Load) -> Figure:
    """Compare what was told with what is in the file."""
    with contextlib.closing(sqlite3.connect(engine.file("acme"))) as file:
        there = [number for (number,) in file.execute(f"SELECT number FROM {TABLE}")]
    account = load.account
    wrong = len(account.acknowledged - set(there)) + len(account.refused & set(there))
    return Figure("sqlite: writes lost, doubled or told wrong", wrong + len(there) - len(set(there)), 0)


async def _removed(engine: Sqlite) -> Figure:
    """Remove the file: no write may be acknowledged that nobody can ever read."""
    async with engine.open(tenants=("acme",)) as router:
        await router.fetch_value(f"SELECT count(*) FROM {TABLE}", tenant="acme")
        await router.execute(f"INSERT INTO {TABLE} VALUES (0, 0)", tenant="acme")
        for file in engine.file("acme").parent.glob("acme.db*"):
            file.unlink()
        lost = 0
        for _ in range(3):
            try:
                await router.execute(f"INSERT INTO {TABLE} VALUES (0, 0)", tenant="acme")
                lost += 1
            except ServerError:
                pass  # it was removed
            except RouterError:
                pass  # a new, empty file has no such table
    return Figure("sqlite: file removed: writes acknowledged into nothing", lost, 0)
