"""Pools as they are when metrics are rendered, added up by node: there may be one for each tenant."""

from __future__ import annotations

from collections.abc import Iterator

from router.metrics.families import Family, Numbers
from router.metrics.pacing import paced
from router.pools.registry import Pools


class _Sum:
    """Add up the pools of one node."""

    __slots__ = ("count", "fullest", "idle", "limit", "used", "waiting")

    def __init__(self) -> None:
        self.count = self.idle = self.limit = self.used = self.waiting = 0
        self.fullest = 0.0


def families(pools: Pools, prefix: str) -> Iterator[Family]:
    """Yield connections, queues and bounds by node."""
    sums: dict[str, _Sum] = {}
    for pool in paced(pools.each()):
        status = pool.status()
        node = sums.setdefault(status.node, _Sum())
        node.count += 1
        node.idle += status.idle
        node.used += status.in_use
        node.waiting += status.waiting
        node.limit += status.max
        node.fullest = max(node.fullest, status.in_use / status.max)
    yield Numbers(
        f"{prefix}pool_connections",
        "Open connections",
        "gauge",
        ("node", "state"),
        [
            ((node, state), count)
            for node, each in sums.items()
            for state, count in (("idle", each.idle), ("in_use", each.used))
        ],
    )
    text = "Share of its limit that the fullest pool has in use; the sums hide one full pool among many"
    rows = [((node,), each.fullest) for node, each in sums.items()]
    yield Numbers(f"{prefix}pool_fullest_ratio", text, "gauge", ("node",), rows)
    for name, text, attribute in (
        ("pool_waiters", "Requests that wait for a connection", "waiting"),
        ("pool_limit", "Connections that there may be", "limit"),
        ("pools", "Pools: one for each database and user", "count"),
    ):
        rows = [((node,), getattr(each, attribute)) for node, each in sums.items()]
        yield Numbers(f"{prefix}{name}", text, "gauge", ("node",), rows)
