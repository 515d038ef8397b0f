"""Figures of the time that a hit takes."""

from collections.abc import AsyncIterator, Callable
from statistics import median
from timeit import timeit
from typing import Any

from router.cache.memory import Memory
from tests.cache.effort import Effort
from tests.cache.servers import Servers
from tests.figures import Figure

_TIMES = 20_000  # gets in one look


async def figures(effort: Effort, seed: int, servers: Servers) -> AsyncIterator[Figure]:
    """Yield what the store adds to a dict."""
    store, plain = gets(effort.looks)
    name = "hit of the store in process, beyond dict.get of the same key"
    yield Figure(name, store - plain, 0.5, "us", note=f"dict.get takes {plain:.2f} us")


def gets(looks: int) -> tuple[float, float]:
    """Return the microseconds of a get of the store and of a dict, with keys such as the router's.

    Both are looked at in turn, so that whatever else the machine does meets both.
    """
    scope, statement = object(), object()

    def key(number: int) -> tuple[object, ...]:
        return scope, "fetch_one", statement, (number, "acme"), (int, str)

    plain = {key(number): scope for number in range(1_000)}
    memory: Memory[object] = Memory(1 << 30, 100_000)
    for each in plain:
        memory.put(each, scope, 100)
    asked = key(500)

    def look(get: Callable[[Any], object]) -> float:
        return timeit("get(asked)", globals={"get": get, "asked": asked}, number=_TIMES) / _TIMES * 1e6

    taken = [(look(memory.get), look(plain.get)) for _ in range(looks)]
    return median(ours for ours, _ in taken), median(theirs for _, theirs in taken)
