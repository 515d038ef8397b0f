"""Every node failing: what reaches the servers must not be much more than healthy requests would send."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.chaos.load import CREATE, TABLE, Load
from tests.engines import Engine
from tests.faults import Break, Cut, Direction
from tests.faults.cluster import behind_proxies
from tests.figures import Figure

_LIMIT = 1.2
_BYTES = 1_500  # that a connection is answered: its handshake, and then not much more


async def everything_failing(name: str, engine: Engine, seconds: float) -> AsyncIterator[Figure]:
    """Reset every connection soon after its handshake, and count the statements that arrive all the same."""
    with behind_proxies(engine) as proxied:
        async with proxied.engine.open(tenants=("acme",), connections=20) as router:
            await router.execute(CREATE, tenant="acme")
            await engine.settle()
            async with Load(router) as load:
                await asyncio.sleep(0.5)
                healthy = await _statements(proxied, load, seconds)
                for node in proxied.nodes:
                    node.add(Cut(_BYTES, Break.RESET, direction=Direction.TO_CLIENT))
                    node.reset()
                broken = await _statements(proxied, load, seconds)
                for node in proxied.nodes:
                    node.heal()
    async with engine.open(tenants=("acme",)) as router:
        await router.execute(f"DROP TABLE {TABLE}", tenant="acme")
    share = broken / healthy if healthy else float("nan")
    note = f"{broken:.0f} a second, healthy {healthy:.0f}"
    yield Figure(f"{name}: every node failing: statements sent over healthy", share, _LIMIT, "x", note=note)


async def _statements(proxied: Any, load: Load, seconds: float) -> float:
    """Return the statements a second that reach the servers."""
    before = proxied.traffic.statements
    await load.for_a_while(seconds)
    return float(proxied.traffic.statements - before) / seconds
