"""With a server frozen, waiting for a connection ends within its timeout and 50 ms, whatever it waits for.

A frozen server still accepts connections, by its kernel, and answers nothing. What a busy machine adds is
taken off: a task beside it measures how late the event loop itself wakes up.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from statistics import median
from typing import Any

import pytest

from router import Router
from router.errors import ConnectError, NoPrimary, PoolTimeout, RouterTimeout
from tests.engines import Engine, Mariadb, Postgresql
from tests.lateness import Lateness

TIMEOUT = 0.15  # seconds
OVERSHOOT = 0.05


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def lone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Give an engine with one server of its own, which may be frozen."""
    from tests.conftest import start_or_skip
    from tests.servers import MariadbCluster, PostgresqlCluster

    make: Callable[[], Any] = PostgresqlCluster if request.param == "postgresql" else MariadbCluster
    cluster = start_or_skip(lambda: make(0))  # type: ignore[call-arg]
    kind = Postgresql if request.param == "postgresql" else Mariadb
    engine = kind(tmp_path_factory.mktemp("frozen"), cluster)
    engine.create("acme", "globex")
    yield engine
    cluster.close()


async def overshoot(work: Callable[[], Awaitable[object]], expected: Any) -> float:
    """Return by how much ``work`` was late, less the lateness of the loop meanwhile."""
    async with Lateness() as lateness:
        started = time.monotonic()
        with pytest.raises(expected):
            await work()
        took = time.monotonic() - started
    assert took >= TIMEOUT - 0.02
    return took - TIMEOUT - lateness.worst


async def late(work: Callable[[], Awaitable[object]], expected: Any, times: int = 3) -> float:
    """Return the median lateness of a few runs."""
    return median([await overshoot(work, expected) for _ in range(times)])


LIMITS = {
    "timeouts": {"acquire": "150ms", "connect": "5s", "statement": "5s"},
    "retries": {"attempts": 1},
}


# As if nobody watched the servers: else after a moment they are known not to answer, and nobody waits.
UNWATCHED = {"checks": {"interval": "60s", "timeout": "30s"}}


@pytest.mark.timed
async def test_acquiring_from_a_frozen_server_ends_in_time(lone: Engine) -> None:
    """In the queue, while connecting, and while binding: at most 50 ms over the timeout (fault case 23)."""
    server = lone.server.primary
    given = {"defaults": LIMITS, "cluster": UNWATCHED}
    async with (
        lone.open(connections=1, **given) as busy,
        lone.open(connections=8, **given) as cold,
        lone.open(connections=3, **given) as bound,
    ):
        await asyncio.gather(*(ask(bound, lone.sleep(0.02), timeout=5.0) for _ in range(3)))
        assert [pool.idle for pool in bound.status().pools] == [3]
        async with busy.session("acme").transaction(), cold.session("acme").transaction():
            server.freeze()
            try:
                # tasks of their own: the one that holds the connection would be told at once
                in_queue = await late(lambda: asyncio.create_task(ask(busy)), PoolTimeout)
                connecting = await late(lambda: ask(cold), (ConnectError, PoolTimeout, NoPrimary))
                binding = await late(lambda: ask(bound, schema="analytics"), RouterTimeout)
            finally:
                server.thaw()
    assert max(in_queue, connecting, binding) < OVERSHOOT, (in_queue, connecting, binding)


async def ask(
    router: Router, sql: str = "SELECT 1", schema: str | None = None, timeout: float = TIMEOUT
) -> object:
    """Run a statement on the primary."""
    return await router.fetch_all(sql, tenant="acme", schema=schema, primary=True, timeout=timeout)
