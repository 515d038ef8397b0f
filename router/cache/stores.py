"""What the remote tier asks of a server of values: bytes under names, for some time."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from router.cache.urls import CacheUrl
from router.errors import MissingExtra

_KINDS = {
    "redis": ("router.cache.store_redis", "RedisStore", "cache"),
    "rediss": ("router.cache.store_redis", "RedisStore", "cache"),
    "memcached": ("router.cache.store_memcached", "MemcachedStore", "memcached"),
}
_PACKAGES = {"aiocache", "aiomcache", "redis"}


class Store(Protocol):
    """Keep bytes under names; every method may raise whatever its client raises.

    A call that is cancelled anywhere never leaves a connection whose next user could get its answer.
    """

    largest: int  # bytes of a value
    shortest: float  # seconds: values that live shorter cannot be kept

    async def get_many(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """Return the values in the order of the names, which differ from each other."""

    async def set_many(self, values: dict[str, bytes], ttl: float) -> None:
        """Keep all values."""

    async def add(self, name: str, value: bytes, ttl: float | None) -> bool:
        """Keep the value if there is none; tell whether it was kept. It never expires where ttl is None."""

    async def set(self, name: str, value: bytes, ttl: float | None) -> None:
        """Keep one value; for ever where ttl is None."""

    async def delete(self, name: str) -> None:
        """Forget a value."""

    async def close(self) -> None:
        """Close all connections."""


class StoreOf(Protocol):
    """Make the store of a URL with so many connections at most."""

    def __call__(self, url: CacheUrl, connections: int) -> Store:
        """Return it; it connects when it is first used."""


def open_store(url: CacheUrl, connections: int) -> Store:
    """Return the store of a URL; its package is imported only now.

    Raises MissingExtra where it is not installed.
    """
    module, name, extra = _KINDS[url.kind]
    try:
        make: StoreOf = getattr(import_module(module), name)
    except ImportError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in _PACKAGES and package != "":
            raise
        raise MissingExtra(package or "aiocache", extra) from None
    return make(url, connections)
