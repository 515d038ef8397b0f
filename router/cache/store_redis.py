"""Redis as a store of values, through aiocache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiocache.backends.redis import RedisCache
from aiocache.serializers import NullSerializer
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from router.cache.urls import CacheUrl

# One command with one answer. aiocache would send a transaction of many, and a client that is cancelled
# between the answers of a pipeline has been the way to another's data more than once.
_SET_MANY = """
for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[1]) end
return #KEYS
"""


class RedisStore:
    """Keep values in Redis; redis-py discards a connection on whatever interrupts a command on it."""

    largest = 512 * 1024 * 1024
    shortest = 0.001

    def __init__(self, url: CacheUrl, connections: int) -> None:
        self._cache: Any = RedisCache(
            serializer=NullSerializer(encoding=None),
            timeout=None,  # the caller has its own limit; this one would be a task for each call
            endpoint=url.host,
            port=url.port,
            db=url.database,
            password=url.password.reveal() if url.password else None,
            pool_max_size=connections,
            ssl=url.kind == "rediss",
            connection_pool_kwargs=_connection(url),
        )

    async def get_many(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """Return the values in the order of the names."""
        values: list[bytes | None] = await self._cache.multi_get(names)
        return values

    async def set_many(self, values: dict[str, bytes], ttl: float) -> None:
        """Keep all values, at one moment."""
        arguments = [*values, str(_milliseconds(ttl)), *values.values()]
        await self._cache.raw("eval", _SET_MANY, len(values), *arguments)

    async def add(self, name: str, value: bytes, ttl: float | None) -> bool:
        """Keep the value if there is none; tell whether it was kept."""
        try:
            await self._cache.add(name, value, ttl=None if ttl is None else _milliseconds(ttl) / 1000)
        except ValueError:
            return False
        return True

    async def set(self, name: str, value: bytes, ttl: float | None) -> None:
        """Keep one value; for ever where ttl is None."""
        await self._cache.set(name, value, ttl=None if ttl is None else _milliseconds(ttl) / 1000)

    async def delete(self, name: str) -> None:
        """Forget a value."""
        await self._cache.delete(name)

    async def close(self) -> None:
        """Close all connections."""
        await self._cache.client.aclose()


def _connection(url: CacheUrl) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": url.username,
        # no second try and no second clock: whoever asks has 50 ms in all
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "protocol": 2,
    }
    if url.kind == "rediss":
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": url.authority}
    return options


def _milliseconds(ttl: float) -> int:
    return max(1, int(ttl * 1000))
