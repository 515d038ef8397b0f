"""Figures of what the store keeps: the part of requests that it has, beside a plain LRU of the same size."""

from collections.abc import AsyncIterator
from typing import Any

from router.cache.memory import Memory
from tests.cache.effort import Effort
from tests.cache.lru import Lru
from tests.cache.servers import Servers
from tests.cache.traces import Store, hit_ratio, present, scan, uneven, zipf
from tests.figures import Figure

_ALPHAS = (0.8, 0.9, 1.0, 1.1, 1.2)
_ROOMY = 1 << 40  # bytes, where entries are the bound


async def figures(effort: Effort, seed: int, servers: Servers) -> AsyncIterator[Figure]:
    """Yield hit ratios on skewed traces, and what scans and changes of the favourites do to them."""
    for alpha in _ALPHAS:
        yield _skewed(effort, seed, alpha)
    yield _uneven(effort, seed)
    yield _scanned(effort, seed)
    yield _followed(effort, seed)


def _stores(effort: Effort) -> tuple[Memory[Any], Lru[Any]]:
    room = effort.keys // 100
    return Memory(_ROOMY, room), Lru(_ROOMY, room)


def _skewed(effort: Effort, seed: int, alpha: float) -> Figure:
    trace = zipf(effort.keys, alpha, effort.requests, seed)
    ours, plain = (100 * hit_ratio(store, trace) for store in _stores(effort))
    return _beside(f"Zipf {alpha}, room for 1 %: hit ratio beside plain LRU's", ours, plain)


def _uneven(effort: Effort, seed: int) -> Figure:
    room = effort.keys // 100 * 2_500
    stores: tuple[Store, Store] = Memory(room, effort.keys), Lru(room, effort.keys)
    trace, size = zipf(effort.keys, 1.0, effort.requests, seed), uneven(100, 10_000)
    ours, plain = (100 * hit_ratio(store, trace, size) for store in stores)
    return _beside("Zipf 1.0, entries of 100 to 10,000 bytes: hit ratio beside plain LRU's", ours, plain)


def _beside(name: str, ours: float, plain: float) -> Figure:
    return Figure(name, ours, plain, "%", least=True)


def _scanned(effort: Effort, seed: int) -> Figure:
    room = effort.keys // 100
    left = []
    for store in _stores(effort):
        hit_ratio(store, zipf(effort.keys, 1.0, effort.requests, seed))
        hot = present(store, range(room // 2))
        hit_ratio(store, scan(10 * room))
        left.append(100 * len(present(store, hot)) / len(hot))
    note = f"an LRU keeps {left[1]:.0f} %"
    return Figure("scan of 10 times the room: hot keys that stay", left[0], 90, "%", least=True, note=note)


def _followed(effort: Effort, seed: int) -> Figure:
    """Compare before and after the favourites change, once as many requests have settled the new ones."""
    store, _ = _stores(effort)

    def ratio(number: int, first: int, requests: int) -> float:
        return 100 * hit_ratio(store, zipf(effort.keys, 1.0, requests, seed + number, first))

    settle, look = effort.keys, effort.keys // 2
    ratio(0, 0, 2 * settle)
    before = ratio(1, 0, look)
    ratio(2, effort.keys // 2, settle)
    after = ratio(3, effort.keys // 2, look)
    return Figure("other keys become hot: hit ratio lost, 100 times the room later", before - after, 2, "%")
