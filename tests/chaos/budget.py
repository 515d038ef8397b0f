"""Every node failing: what reaches the servers must not be much more than healthy requests would send."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.chaos.load import CREATE, Load
from tests.engines import Engine
from tests.faults import Break, Cut, Direction
from tests.faults.cluster import behind_proxies
from tests.figures import Figure

_LIMIT = 1.2


async def everything_failing(name: str, engine: Engine, seconds: float) -> AsyncIterator[Figure]:
    """Let every answer of every server be cut, and count the statements that arrive there all the same."""
    with behind_proxies(engine) as proxied:
        async with proxied.engine.open(tenants=("acme",), connections=20) as router:
            await router.execute(CREATE.replace("account", "calm"), tenant="acme")
            await router.execute("DROP TABLE calm", tenant="acme")
            async with Load(router) as load:
                await asyncio.sleep(0.5)
                healthy = await _statements(proxied, load, seconds)
                for node in proxied.nodes:
                    node.add(Cut(0, Break.RESET, direction=Direction.TO_CLIENT))
                    node.reset()
                broken = await _statements(proxied, load, seconds)
                for node in proxied.nodes:
                    node.heal()
    share = broken / healthy if healthy else float("nan")
    yield Figure(f"{name}: every node failing: statements sent over healthy", share, _LIMIT, "x")


async def _statements(proxied: Any, load: Load, seconds: float) -> float:
    """Return the statements a second that reach the servers."""
    before = proxied.traffic.statements
    await load.for_a_while(seconds)
    return float(proxied.traffic.statements - before) / seconds
