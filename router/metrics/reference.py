"""Every metric that there is, without a router: for the documentation, and for what is checked against it."""

from __future__ import annotations

import random
import time

from router.cache.cache import Cache
from router.dispatcher import Dispatcher
from router.metrics.families import Family
from router.metrics.metrics import Metrics
from router.metrics.parts import Parts
from router.pools.registry import Pools


def reference() -> list[Family]:
    """Return all metrics, in the order of the exposition; their samples mean nothing."""
    clock, dispatcher = time.monotonic, Dispatcher()
    metrics = Metrics()
    metrics.attach(dispatcher)
    pools = Pools(emit=dispatcher.emit, clock=clock, wall=dispatcher.clock, rng=random.Random(0))  # noqa: S311  # unused
    cache = Cache(size=0, entries=1, largest=1, broadcasts=lambda *_: {}, clock=clock)
    metrics.watch(Parts({}, pools, cache, {}, lambda most: (), clock, lambda: ()))
    return list(metrics.families())
