"""Notice that a server's name leads elsewhere, and let go of what is connected to where it led before.

Every connect resolves the name anew; without this a pool would keep its old connections until they expire,
half an hour after the name of a managed database moved to another machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context

from router.health import Health
from router.topology import Node

_EVERY = 30.0  # seconds; names of managed databases live for 5 to 60 s


class Addresses:
    """Watch the names of one cluster's servers."""

    def __init__(
        self, health: Health, moved: Callable[[Node, frozenset[str]], None], rng: random.Random
    ) -> None:
        self._health = health
        self._moved = moved  # is told where each name leads now
        self._rng = rng
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch, if any server is known by a name."""
        if self._task is None and any(_is_name(each.node.host) for each in self._health.servers):
            self._task = asyncio.get_running_loop().create_task(self._watch(), context=Context())

    def cancel(self) -> None:
        """Stop watching, soon."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Stop watching."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY * self._rng.uniform(0.8, 1.2))
            for server in self._health.servers:
                if _is_name(server.node.host):
                    found = await _resolve(server.node)
                    if found:  # an empty answer, or none: what is known stays
                        self._moved(server.node, found)


def _is_name(host: str) -> bool:
    if not host or host.startswith("/"):
        return False
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False


async def _resolve(node: Node) -> frozenset[str]:
    loop = asyncio.get_running_loop()
    with suppress(OSError, UnicodeError):
        found = await loop.getaddrinfo(node.host, node.port, type=socket.SOCK_STREAM)
        return frozenset(str(address[0]) for *_, address in found)
    return frozenset()
