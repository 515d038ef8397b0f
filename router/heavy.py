"""Keep the keys of most weight in a long stream of them, in bounded memory.

Space-Saving with weights (Metwally et al. 2005), with the filter of Homem and Carvalho (2010): the weight
of keys that are not held is added up in cells by hash, and a key comes in when its cell shows more than the
least that is held; so the many light keys do not push one another through the table. For ``total``, the
weight of all that was added, this is certain:

- the weight shown for a key that is held is its true one, or at most ``error`` more;
- no ``error`` is above ``total / capacity``;
- a key of more weight than ``total / capacity`` is held.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from heapq import heapify, heapreplace
from typing import Generic, TypeVar

_CELLS = 8  # for each place in the table


class Held:
    """Stand for a key that is held; who keeps more of it makes a subclass."""

    __slots__ = ("error", "key", "weight")

    def __init__(self, key: str) -> None:
        self.key = key
        self.weight = 0.0  # at least the true one, at most by ``error`` more
        self.error = 0.0  # of what was added before the key was held

    @property
    def counted(self) -> float:
        """Return what was added while the key was held: at most the true weight."""
        return self.weight - self.error


H = TypeVar("H", bound=Held)


class HeavyHitters(Generic[H]):
    """Hold at most ``capacity`` keys; ``make`` makes what stands for one.

    Who adds often may do by hand what :meth:`add` does for a key that is held: add to its ``weight``.
    """

    __slots__ = ("_capacity", "_cells", "_floor", "_heap", "_make", "_mask", "held")

    def __init__(self, capacity: int, make: Callable[[str], H]) -> None:
        self._capacity = capacity
        self._make = make
        self._mask = (1 << (capacity * _CELLS - 1).bit_length()) - 1
        self._cells = array("d", bytes(8 * (self._mask + 1)))
        self.held: dict[str, H] = {}
        # Weights only grow, and the heap is told late: what it shows of a key is at most its weight.
        self._heap: list[tuple[float, str]] = []
        self._floor = 0.0  # at most the least weight that is held, 0 while there is room

    def add(self, key: str, weight: float) -> H | None:
        """Add to the weight of a key and return what stands for it; ``None`` if it is not held."""
        held = self.held.get(key)
        if held is None:
            return self.admit(key, weight)
        held.weight += weight
        return held

    def admit(self, key: str, weight: float) -> H | None:
        """Add to the weight of a key that is not held, as :meth:`add` does."""
        if len(self.held) < self._capacity:
            held = self._hold(key, weight, 0.0)
            if len(self.held) == self._capacity:
                self._heap = [(each.weight, name) for name, each in self.held.items()]
                heapify(self._heap)
            return held
        cell = hash(key) & self._mask
        before = self._cells[cell]
        if before + weight <= self._floor or before + weight <= self._least():
            self._cells[cell] = before + weight
            return None
        return self._replace(key, weight, before)

    def _replace(self, key: str, weight: float, before: float) -> H:
        """Let the lightest go for a key that may have as much as ``before`` already."""
        least, lightest = self._heap[0]
        del self.held[lightest]
        self._cells[hash(lightest) & self._mask] = least  # at least what any key of that cell can have
        heapreplace(self._heap, (before + weight, key))
        return self._hold(key, weight, before)

    def _hold(self, key: str, weight: float, error: float) -> H:
        held = self.held[key] = self._make(key)
        held.weight, held.error = weight + error, error
        return held

    def _least(self) -> float:
        """Return the least weight that is held, whose key is then the first of the heap."""
        heap, held = self._heap, self.held
        while (weight := held[heap[0][1]].weight) > heap[0][0]:
            heapreplace(heap, (weight, heap[0][1]))
        self._floor = heap[0][0]
        return self._floor

    def scale(self, factor: float) -> None:
        """Multiply all weights."""
        for each in self.held.values():
            each.weight *= factor
            each.error *= factor
        self._cells = array("d", (weight * factor for weight in self._cells))
        self._heap = [(weight * factor, key) for weight, key in self._heap]
        self._floor *= factor

    def __iter__(self) -> Iterator[H]:
        """Yield what is held, in no order."""
        return iter(self.held.values())

    def __len__(self) -> int:
        return len(self.held)
