"""memcached as a store of values, through aiocache."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from aiocache.backends.memcached import MemcachedCache
from aiocache.serializers import NullSerializer
from aiomcache.pool import Connection, MemcachePool

from router.cache.urls import CacheUrl

_LONGEST = 30 * 24 * 3600  # seconds; memcached takes anything longer for a moment of the calendar, long past


class MemcachedStore:
    """Keep values in memcached, whose clock counts whole seconds."""

    largest = 1_000_000  # a little less than its own limit of 1 MiB, which counts the name as well
    shortest = 1.0  # less would have to be rounded up, and the value would outlive its time

    def __init__(self, url: CacheUrl, connections: int) -> None:
        self._cache: Any = MemcachedCache(
            serializer=NullSerializer(encoding=None),
            timeout=None,  # the caller has its own limit; this one would be a task for each call
            endpoint=url.host,
            port=url.port,
            pool_size=connections,
        )
        self._cache.client._pool = _Pool(url.host, url.port, minsize=0, maxsize=connections)

    async def get_many(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """Return the values in the order of the names."""
        values: list[bytes | None] = await self._cache.multi_get(names)
        return values

    async def set_many(self, values: dict[str, bytes], ttl: float) -> None:
        """Keep all values, one after the other."""
        for name, value in values.items():
            await self.set(name, value, ttl)

    async def add(self, name: str, value: bytes, ttl: float | None) -> bool:
        """Keep the value if there is none; tell whether it was kept."""
        try:
            await self._cache.add(name, value, ttl=_seconds(ttl))
        except ValueError:
            return False
        return True

    async def set(self, name: str, value: bytes, ttl: float | None) -> None:
        """Keep one value; for ever where ttl is None."""
        await self._cache.set(name, value, ttl=_seconds(ttl))

    async def delete(self, name: str) -> None:
        """Forget a value."""
        await self._cache.delete(name)

    async def close(self) -> None:
        """Close all connections."""
        await self._cache.close()


class _Pool(MemcachePool):
    """Lend connections, and take back only those whose last answer was read to its end.

    aiomcache (0.8) gives up a connection after an ``Exception``, which a cancellation is not: the next user
    would read the answer to the cancelled command, and every later one the answer of the one before. It also
    makes either all connections before it lends the first, or one and no more.
    """

    async def acquire(self) -> Connection:
        """Return an idle connection, or a new one; no more are lent at a time than ``maxsize``."""
        while True:
            while not self._pool.empty():
                conn = self._pool.get_nowait()
                if _clean(conn.reader):
                    self._in_use.add(conn)
                    return conn
                self._do_close(conn)
            made = await self._create_new_conn()
            if made is not None:
                self._in_use.add(made)
                return made
            # one came back while this one was made
            await asyncio.sleep(0)

    def release(self, conn: Connection) -> None:
        """Take a connection back, or discard it where an exception is why it comes back."""
        # aiomcache calls this in a `finally`, so whatever ended the command is being handled right now
        if sys.exc_info()[0] is not None:
            conn.reader.set_exception(ConnectionError("interrupted within a command"))
            conn.writer.transport.abort()
        super().release(conn)


def _clean(reader: asyncio.StreamReader) -> bool:
    """Tell whether a connection is open and no byte waits that nobody has asked for."""
    unasked = reader._buffer  # type: ignore[attr-defined]  # there is no other way to see it without waiting
    return not unasked and not reader.at_eof() and reader.exception() is None


def _seconds(ttl: float | None) -> int:
    return 0 if ttl is None else max(1, min(int(ttl), _LONGEST))
