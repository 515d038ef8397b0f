"""Pools as they are when metrics are rendered, added up by node: there may be one for each tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from router.metrics.families import Family, Numbers
from router.pacing import paced
from router.pools.registry import Pools


def families(pools: Pools, prefix: str) -> Iterator[Family]:
    """Yield connections, queues and bounds by node."""
    counts = Counter(pool.endpoint.node.label for pool in paced(pools.each()))
    budgets = list(paced(pools.budgets()))
    yield Numbers(
        f"{prefix}pool_connections",
        "Open connections",
        "gauge",
        ("node", "state"),
        [
            ((each.node, state), count)
            for each in budgets
            for state, count in (("idle", each.idle), ("in_use", each.in_use))
        ],
    )
    text = "Share of a node's connections that is in use"
    rows = [((each.node,), each.in_use / each.max) for each in budgets]
    yield Numbers(f"{prefix}pool_used_ratio", text, "gauge", ("node",), rows)
    for name, text, attribute in (
        ("pool_waiters", "Requests that wait for a connection", "waiting"),
        ("pool_limit", "Connections that there may be", "max"),
    ):
        rows = [((each.node,), getattr(each, attribute)) for each in budgets]
        yield Numbers(f"{prefix}{name}", text, "gauge", ("node",), rows)
    text = "Pools: one for each database and user"
    yield Numbers(f"{prefix}pools", text, "gauge", ("node",), [((node,), n) for node, n in counts.items()])
