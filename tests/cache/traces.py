"""Which keys are asked for one after the other, the same in each run, and how often a store has them."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate
from random import Random
from typing import Any, Protocol


class Store(Protocol):
    """Describe what traces are played on."""

    def get(self, key: Hashable, /) -> object | None:
        """Return the value of a key."""
        ...

    def put(self, key: Hashable, value: Any, size: int, /) -> bool:
        """Keep the value of a key."""
        ...


def zipf(keys: int, alpha: float, count: int, seed: int, first: int = 0) -> list[int]:
    """Return ``count`` keys of which the n-th most frequent has the weight ``n ** -alpha``.

    The keys are numbers from 0; the most frequent is ``first``. With another ``first`` others are hot.
    """
    weights = list(accumulate(rank**-alpha for rank in range(1, keys + 1)))
    chosen = Random(seed).choices(range(keys), cum_weights=weights, k=count)
    return [(first + rank) % keys for rank in chosen]


def scan(count: int, first: int = 1_000_000_000) -> Sequence[int]:
    """Return keys that are asked for once, and in no other trace."""
    return range(first, first + count)


def uneven(least: int, most: int) -> Callable[[int], int]:
    """Return a function that gives each key a size of its own, as many between 100 and 1,000 as to 10,000."""

    def size(key: int) -> int:
        factor: float = (most / least) ** Random(key).random()
        return round(least * factor)

    return size


def hit_ratio(store: Store, trace: Iterable[Any], size: Callable[[Any], int] = lambda key: 100) -> float:
    """Ask for each key, put what is missing, and return which part was there."""
    asked = hits = 0
    for key in trace:
        asked += 1
        if store.get(key) is None:
            store.put(key, f"value of {key}", size(key))
        else:
            hits += 1
    return hits / asked


def present(store: Store, keys: Iterable[int]) -> set[int]:
    """Return which of ``keys`` are there."""
    return {key for key in keys if store.get(key) is not None}
