"""A bounded store in process that keeps what is asked for often, whatever is asked for once meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from router.cache.frequency import Frequency

# W-TinyLFU (Einziger, Friedman & Manes 2017) with a clock instead of its lists in order of use: a hit writes
# one integer and moves nothing, and a resident's frequency stands in its node, where the hand ages it, so
# that the sketch is asked only when something is put.
#
#   put -> window, first in first out -> asked for more often than who must go for it? -> main, a clock
#
# A key that is seen once passes through the window and never displaces one of the main ring.

V = TypeVar("V")

OVERHEAD: Final = 288  # bytes an entry takes beside its key and value; see test_cache_memory.py
_LOST: Final = 12  # one part in so many is lost between objects of different sizes, see tests/cache/growth
_WINDOW: Final = 20  # one part in so many is the window; more costs hits, less forgets new keys too soon
_LARGEST: Final = 32  # an entry takes at most one part in so many: more would have to push out too many
_TOP: Final = 7  # a resident's frequency: it is forgotten after as many passes of the hand without a hit


def footprint(size: int) -> int:
    """Return the bytes of the bound that an entry takes whose key and value have ``size`` bytes."""
    return size + size // _LOST + OVERHEAD


class _Node(Generic[V]):
    """Hold one entry and its place in a ring."""

    __slots__ = ("after", "before", "frequency", "hits", "key", "ring", "size", "value")
    before: _Node[V]
    after: _Node[V]
    ring: _Ring[V]

    def __init__(self, key: Hashable, value: V, size: int, frequency: int) -> None:
        self.key = key
        self.value = value
        self.size = size
        self.frequency = frequency  # how often it was asked for again
        self.hits = 0  # since the hand last passed

    def settle(self) -> int:
        """Add the hits since the last time to the frequency and return it; age it if there were none."""
        if self.hits:
            self.frequency = min(_TOP, self.frequency + self.hits)
            self.hits = 0
        elif self.frequency:
            self.frequency -= 1
        return self.frequency


class _Ring(Generic[V]):
    """Link nodes in a ring with a hand at the oldest; bounded by its user."""

    __slots__ = ("bytes", "count", "hand", "most_bytes", "most_entries")

    def __init__(self, most_bytes: int, most_entries: int) -> None:
        self.most_bytes = most_bytes
        self.most_entries = most_entries
        self.bytes = 0
        self.count = 0
        self.hand: _Node[V] | None = None

    def full(self, size: int) -> bool:
        """Tell whether one more entry of ``size`` bytes is too much."""
        return self.count >= self.most_entries or self.bytes + size > self.most_bytes

    def insert(self, node: _Node[V]) -> None:
        """Let the hand come to ``node`` after all others."""
        after = self.hand
        if after is None:
            self.hand = node.before = node.after = node
        else:
            before = after.before
            node.before, node.after = before, after
            before.after = after.before = node
        node.ring = self
        self.count += 1
        self.bytes += node.size

    def remove(self, node: _Node[V]) -> None:
        """Take ``node`` out; if the hand is at it, the hand goes on."""
        before, after = node.before, node.after
        if self.hand is node:
            self.hand = None if after is node else after
        before.after = after
        after.before = before
        # the only one of a ring is linked to itself: it would wait for the garbage collector
        del node.before, node.after
        self.count -= 1
        self.bytes -= node.size


class Memory(Generic[V]):
    """Keep values by key, in at most ``most_bytes`` and ``most_entries``, those that are asked for most.

    For one event loop. Neither ``evicted`` nor ``dead`` may call a method. ``evicted`` is told
    each value that had to go for others. ``dead`` is asked of what comes up for eviction: a value that can no
    longer be used goes then, however often it was asked for.
    """

    __slots__ = (
        "_dead",
        "_evicted",
        "_frequency",
        "_largest",
        "_main",
        "_nodes",
        "_window",
        "evictions",
        "refused",
    )

    def __init__(
        self,
        most_bytes: int,
        most_entries: int,
        evicted: Callable[[V], None] | None = None,
        dead: Callable[[V], bool] | None = None,
    ) -> None:
        self._evicted = evicted
        self._dead = dead
        self._nodes: dict[Hashable, _Node[V]] = {}
        self._frequency = Frequency()
        self._largest = most_bytes // _LARGEST if most_entries else 0
        entries = min(most_entries, max(1, most_entries // _WINDOW))
        self._window: _Ring[V] = _Ring(most_bytes // _WINDOW, entries)
        self._main: _Ring[V] = _Ring(most_bytes - most_bytes // _WINDOW, most_entries - entries)
        self.evictions = 0  # entries that had to go for others
        self.refused = 0  # puts that were not admitted

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return (
            f"Memory({len(self)} entries, {self.bytes} bytes, "
            f"{self.evictions} evictions, {self.refused} refused)"
        )

    @property
    def bytes(self) -> int:
        """Return the sum of the footprints of all entries."""
        return self._window.bytes + self._main.bytes

    def get(self, key: Hashable) -> V | None:
        """Return what was put last under ``key``, and remember that it was asked for."""
        node = self._nodes.get(key)
        if node is None:
            return None
        node.hits += 1
        return node.value

    def put(self, key: Hashable, value: V, size: int) -> bool:
        """Keep ``value``, whose bytes together with its key's are ``size``; return whether it was admitted.

        What was there under ``key`` is gone in any case.
        """
        size = footprint(size)
        if size > self._largest:
            self.drop(key)
            self.refused += 1
            return False
        node = self._nodes.get(key)
        if node is not None:
            return self._replace(node, value, size)
        node = self._nodes[key] = _Node(key, value, size, self._frequency.add(key) - 1)
        if len(self._nodes) > self._frequency.keys:
            self._frequency.widen()
        window = self._window
        while (oldest := window.hand) is not None and window.full(size):
            window.remove(oldest)
            if not self._admit(oldest):
                self._evict(oldest)
        window.insert(node)
        return True

    def drop(self, key: Hashable) -> bool:
        """Forget ``key``; return whether it was there."""
        node = self._nodes.pop(key, None)
        if node is None:
            return False
        node.ring.remove(node)
        return True

    def clear(self) -> None:
        """Forget all entries, but not how often they were asked for.

        Takes half a microsecond for each; what must be done at once is better said by ``dead``.
        """
        for node in self._nodes.values():
            del node.before, node.after
        self._nodes.clear()
        for ring in (self._window, self._main):
            ring.hand = None
            ring.count = ring.bytes = 0

    def _replace(self, node: _Node[V], value: V, size: int) -> bool:
        ring = node.ring
        ring.remove(node)
        node.value, node.size = value, size
        if not ring.full(size):
            ring.insert(node)
        elif not self._admit(node):
            del self._nodes[node.key]
            self.refused += 1
            return False
        return True

    def _admit(self, node: _Node[V]) -> bool:
        """Put ``node`` into the main ring if it is worth more than all that must go for it together.

        So a large entry does not displace many small ones that are in use; those that nobody asks for any
        more are worth nothing, and give way to whatever is seen twice.
        """
        main, dead = self._main, self._dead
        if dead is not None and dead(node.value):
            return False
        worth = min(_TOP, node.frequency + node.hits)
        leaving: list[_Node[V]] = []
        lost = 0
        while main.full(node.size):
            victim = main.hand
            if victim is None:
                return False
            main.remove(victim)
            if dead is not None and dead(victim.value):
                self._evict(victim)
                continue
            leaving.append(victim)
            lost += victim.settle()
            if lost >= worth:
                for each in leaving:
                    main.insert(each)
                return False
        for each in leaving:
            self._evict(each)
        node.frequency, node.hits = worth, 0
        main.insert(node)
        return True

    def _evict(self, node: _Node[V]) -> None:
        del self._nodes[node.key]
        self.evictions += 1
        if self._evicted is not None:
            self._evicted(node.value)
