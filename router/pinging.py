"""Ask every node for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from router.backend import Backend
from router.errors import RouterError
from router.status import Ping
from router.topology import Node


async def ping(
    backends: Mapping[str, Backend], databases: Mapping[str, str], timeout: float
) -> tuple[Ping, ...]:
    """Return what every node answers within ``timeout`` seconds, connecting to one of these databases."""
    asked = (_ping_cluster(backend, databases[name], timeout) for name, backend in backends.items())
    return tuple(answer for each in await asyncio.gather(*asked) for answer in each)


async def _ping_cluster(backend: Backend, database: str, timeout: float) -> list[Ping]:
    # the primary first: it creates the file of a new SQLite database, which its readers need
    first, *others = backend.health.nodes
    answer = await _ping_node(backend, database, first, timeout)
    return [answer, *await asyncio.gather(*(_ping_node(backend, database, each, timeout) for each in others))]


async def _ping_node(backend: Backend, database: str, node: Node, timeout: float) -> Ping:
    clock = backend.clock
    started = clock()
    error: str | None = None
    try:
        lease = await backend.lease_unbound(backend.pool(node, database), started + timeout, timeout)
        try:
            await lease.run("control", "SELECT 1", max(started + timeout - clock(), 0.001))
        finally:
            lease.release()
    except RouterError as exc:
        error = str(exc)
    return Ping(
        backend.cluster.name,
        node.name,
        node.role.value,
        node.address,
        error is None,
        clock() - started,
        error,
    )
