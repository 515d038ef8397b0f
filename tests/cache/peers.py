"""Other caches in process, to be measured beside ours: the same row under a key of the same parts."""

from collections.abc import Awaitable, Callable
from typing import Any

NAMES = ("aiocache SimpleMemoryCache", "cashews in memory")
TENANT, VERB = "acme", "fetch_one"
SQL = "SELECT id, name, price FROM items WHERE id = :id"
Params = dict[str, int]
Get = Callable[[Any], Awaitable[object]]
"""Look something up."""


async def peer(name: str, row: object, params: Params) -> Get | None:
    """Return a read of ``row`` through a peer, ``None`` if it is not installed."""
    make = _aiocache if name.startswith("aiocache") else _cashews
    try:
        get = await make(_key(params), row)
    except ImportError:
        return None

    async def read(given: Params) -> object:
        return await get(_key(given))

    return read


def _key(params: Params) -> str:
    """Return a text of the parts of our key: where the read goes, what it asks, and with what."""
    return f"{TENANT}:{VERB}:{SQL}:{params!r}"


async def _aiocache(key: str, row: object) -> Get:
    from aiocache import SimpleMemoryCache

    cache = SimpleMemoryCache()
    await cache.set(key, row, ttl=60)
    return cache.get  # type: ignore[no-any-return]


async def _cashews(key: str, row: object) -> Get:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://")
    await cache.set(key, row, expire=60)
    return cache.get
