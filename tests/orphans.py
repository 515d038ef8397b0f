"""Statements that run long, and whether a server still runs them."""

import asyncio

from tests.engines import Engine

LONG = 30.0  # seconds that a statement would take
SOON = 5.0  # far less, and far more than a loaded machine needs


def long_read(engine: Engine) -> str:
    """Return a read that takes long, with this engine's mark in it."""
    return f"{engine.sleep(LONG)} /* {engine.prefix} */"


async def running(engine: Engine) -> int:
    """Return how many marked statements run on the primary now."""
    texts = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' "
        f"AND query LIKE '%{engine.prefix} */%' AND pid <> pg_backend_pid()",
        "mysql": "SELECT count(*) FROM information_schema.processlist "
        f"WHERE info LIKE '%{engine.prefix} */%' AND id <> connection_id()",
    }
    database = {"postgresql": "postgres", "mysql": "mysql"}[engine.dialect]
    return int(await asyncio.to_thread(engine.server.run, texts[engine.dialect], database))


async def until(engine: Engine, count: int, timeout: float = SOON) -> None:
    """Return once so many marked statements run."""
    async with asyncio.timeout(timeout):
        while await running(engine) != count:  # noqa: ASYNC110 - a server sets no event
            await asyncio.sleep(0.01)
