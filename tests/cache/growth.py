"""How much a process grows that fills a store with many keys: run in a process of its own.

``python -m tests.cache.growth BYTES KEYS SIZES SEED`` prints by how many bytes it grew at most.
"""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from pathlib import Path
from random import Random

from router.cache.broadcast import Nobody
from router.cache.cache import Cache
from router.cache.entries import Entry
from router.cache.keys import local_key
from router.cache.known import Known
from router.cache.marks import Place
from router.cache.scope import Scope
from router.cache.tally import Tally
from router.cache.values import freeze
from router.cache.worth import Worth
from router.config import Settings
from router.positions import Lsn
from router.rows import row_class
from router.statements import Dialect
from router.topology import Node, Role
from tests.cache.effort import Effort
from tests.cache.servers import Servers
from tests.figures import Figure

_ROOT = Path(__file__).parents[2]
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TEXT = "x" * 20_000
_FEW = 500_000  # keys whose rows change
_EVERY = 10_000  # keys from one look at the size of the process to the next

Size = Callable[[float, Random], int]
_SQL = "SELECT id, name, price FROM items WHERE id = :id AND owner = :owner"
_NODE = Node("r1", "main", Role.REPLICA, "127.0.0.1", 5432)

# bytes of the text in the only row, when this part of all keys has been read
SIZES: dict[str, Size] = {
    "small": lambda part, rng: 20,
    "of many sizes": lambda part, rng: int(20 * 1_000 ** rng.random()),
}
CHANGING: dict[str, Size] = {
    "small, then large": lambda part, rng: 20 if part < 0.5 else 20_000,
    "ever larger": lambda part, rng: int(20 * 300**part),
}


#: which rows, and the most that a process may grow over the limit, in percent
LIMITS = ((SIZES, 20), (CHANGING, 100))


async def figures(
    effort: Effort, seed: int, servers: Servers, limits: Sequence[tuple[dict[str, Size], int]] = LIMITS
) -> AsyncIterator[Figure]:
    """Yield by how much a process grows beyond the limit: rows of one size, of many, and of others later.

    What small rows leave behind does not fit larger ones while a part of the small ones stays: that is the
    allocator's, and no count of bytes foresees it. So of rows that change twice the limit is allowed for.
    """
    limit = effort.most_bytes
    for kinds, most in limits:
        keys = effort.distinct if kinds is SIZES else min(effort.distinct, _FEW)
        grown = await asyncio.gather(
            *(asyncio.to_thread(measured, limit, keys, sizes, seed) for sizes in kinds)
        )
        for sizes, bytes_ in zip(kinds, grown, strict=True):
            name = f"limit {limit >> 20} MiB, {keys:,} keys, rows {sizes}: growth over it"
            yield Figure(name, 100 * (bytes_ / limit - 1), most, "%")


def measured(most_bytes: int, keys: int, sizes: str, seed: int) -> int:
    """Return by how many bytes a new process grows while so many keys are put and some asked for again."""
    given = [str(each) for each in (most_bytes, keys, sizes, seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cache.growth", *given],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(done.stdout)


def _grow(most_bytes: int, keys: int, size: Size, rng: Random) -> int:
    _fill(1 << 20, 2_000, size, rng)  # what the interpreter takes for itself at first
    gc.collect()
    before = _resident()
    return _fill(most_bytes, keys, size, rng) - before


def _fill(most_bytes: int, keys: int, size: Size, rng: Random) -> int:
    """Read all keys once, some again, as a router does; return the bytes that the process had at most."""
    cache = Cache(size=most_bytes, entries=keys, largest=1 << 20, broadcasts=lambda *_: {}, clock=lambda: 0.0)
    cache.activate()
    scope = _scope()
    places = (Place("main", "app", "public", "items"),)
    row = row_class(("id", "name", "price"))
    marks = list(scope.marks(places, cache.marks))
    most = 0
    for number in range(keys):
        frozen = freeze(row((number, _TEXT[: size(number / keys, rng)], number + 1_000)))
        assert frozen is not None
        now = float(number)
        entry = Entry(
            frozen,
            places=places,  # as a statement's are: remembered, and shared by all of its answers
            marks=tuple(marks),
            as_of=now,
            until=now + 0.001,
            born=now + 0.001,
            position=Lsn(number),
            reign=0.0,
            node=_NODE,
            cost=0.001,
        )
        cache.store(_key(scope, number), entry, scope)
        if rng.random() < 0.3:  # in the window still, or in the main ring
            cache.memory.get(_key(scope, number - rng.randrange(min(number, 20_000) + 1)))
        if number % _EVERY == 0:
            most = max(most, _resident())
    return max(most, _resident())


def _key(scope: Scope, number: int) -> Hashable:
    return local_key(scope, "fetch_one", _SQL, (number, f"user {number}"))


def _scope() -> Scope:
    place = Place("main", "app", "public")
    known = Known(Dialect.POSTGRESQL, {}, lambda: 0.0)
    return Scope(place, (place,), Settings(), known, Nobody(), Tally(), Worth())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


if __name__ == "__main__":
    sizes = (SIZES | CHANGING)[sys.argv[3]]
    print(_grow(int(sys.argv[1]), int(sys.argv[2]), sizes, Random(int(sys.argv[4]))))
