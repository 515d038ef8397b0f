"""A plain store that forgets what was used least recently: what an admission policy has to beat."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from router.cache.memory import footprint

V = TypeVar("V")


class Lru(Generic[V]):
    """Keep values in at most ``most_bytes`` and ``most_entries``, counted as ``Memory`` counts."""

    def __init__(self, most_bytes: int, most_entries: int) -> None:
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> V | None:
        """Return what was put last under ``key``, as the one used last."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: V, size: int) -> bool:
        """Keep ``value`` and let go those that were used least recently."""
        size = footprint(size)
        _, before = self._kept.pop(key, (None, 0))
        self._kept[key] = value, size
        self.bytes += size - before
        while self.bytes > self._most_bytes or len(self._kept) > self._most_entries:
            _, (_, gone) = self._kept.popitem(last=False)
            self.bytes -= gone
        return key in self._kept
