"""Hold real replicas back, have servers asked, and wait for what they have."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from router import Router
from tests.chaos.cases import off_loop
from tests.engines import Recorder

_PAUSE = {"postgresql": "SELECT pg_wal_replay_pause()", "mariadb": "STOP SLAVE SQL_THREAD"}
_RESUME = {"postgresql": "SELECT pg_wal_replay_resume()", "mariadb": "START SLAVE SQL_THREAD"}


class Held:
    """Hold replicas of an engine, by their names; all others follow."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._servers = dict(zip(engine.replicas, engine.server.replicas, strict=True))
        self.names: set[str] = set()

    async def hold(self, *names: str) -> None:
        """Let replicas show nothing new; all if none is named."""
        for name in names or self._servers:
            self.names.add(name)
            await off_loop(self._servers[name].run, _PAUSE[self._engine.engine])

    async def resume(self, *names: str) -> None:
        """Let replicas go on."""
        for name in names or tuple(self.names):
            self.names.discard(name)
            await off_loop(self._servers[name].run, _RESUME[self._engine.engine])

    async def settle(self) -> None:
        """Return when those that are not held show all that was committed so far."""
        mariadb = self._engine.engine == "mariadb"
        position = "SELECT @@gtid_binlog_pos" if mariadb else "SELECT pg_current_wal_flush_lsn()"
        there = await off_loop(self._engine.server.run, position, "mysql" if mariadb else "postgres")
        for name in self._servers.keys() - self.names:
            await off_loop(self._servers[name].wait_for, there, 20.0)


@asynccontextmanager
async def holding(engine: Any, *names: str) -> AsyncIterator[Held]:
    """Hold replicas back for a while; at the end they go on, since others share them."""
    held = Held(engine)
    try:
        await held.hold(*(names or engine.replicas))
        yield held
    finally:
        await held.resume()


async def ask(router: Router, *names: str) -> None:
    """Have servers probed now, the primary first; all if none is named. SQLite has none."""
    backend = router._backends["main"]
    if not backend.driver.probes:
        return
    names = names or tuple(server.node.name for server in backend.health.servers)
    for name in names:
        await backend._prober.ask(name)


async def ask_until_current(router: Router, timeout: float = 10.0) -> None:
    """Have servers probed until each replica was seen to have all that the primary had.

    One round does not do: the primary writes to its log by itself (autovacuum, snapshots of running
    transactions), and if that falls between the two answers, the replica is not known to have it.
    """
    health = router._backends["main"].health
    async with asyncio.timeout(timeout):
        await ask(router)
        while any(each.current == -inf for each in health.snapshot().progress.values()):
            await asyncio.sleep(0.02)
            await ask(router)


def routes(heard: Recorder) -> list[tuple[str, str]]:
    """Return node and reason of each request, in order."""
    return [(event.node.name if event.node else "", event.reason.value) for event in heard.requests]
