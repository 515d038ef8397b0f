"""The load of many tenants: tasks that read one row each time, of a tenant by Zipf's law."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, cycle
from random import Random
from time import perf_counter

from router import Router, RouterError
from tests.tenancy.place import READ, READ_DATABASE, ROWS

TASKS = 64
_DRAWS = 100_000


def zipf(tenants: Sequence[str], rng: Random, draws: int = _DRAWS) -> list[str]:
    """Return tenants as they are asked: the first one most, the n-th one n times less often."""
    weights = list(accumulate(1 / rank for rank in range(1, len(tenants) + 1)))
    return rng.choices(tenants, cum_weights=weights, k=draws)


@dataclass
class Load:
    """Send reads of tenants from many tasks; hold what became of them."""

    router: Router
    tenants: Sequence[str]  # in turn, over and over
    requests: int = 0
    asked: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    rates: list[float] = field(default_factory=list)  # requests a second, of each round

    def __post_init__(self) -> None:
        self._next = cycle(self.tenants).__next__
        self._sql = READ if self.tenants[0].startswith("s") else READ_DATABASE

    async def round(self, seconds: float, tasks: int = TASKS) -> None:
        """Run for a while, and add what happened."""
        done, began = self.requests, perf_counter()
        await asyncio.gather(*(self._work(began + seconds) for _ in range(tasks)))
        self.rates.append((self.requests - done) / (perf_counter() - began))

    async def _work(self, end: float) -> None:
        while perf_counter() < end:
            tenant = self._next()
            self.asked.add(tenant)
            self.requests += 1
            try:
                await self._read(tenant, 1 + self.requests % ROWS)
            except RouterError as exc:
                self.errors[type(exc).__name__] += 1

    async def _read(self, tenant: str, key: int) -> None:
        async with self.router.session(tenant) as session:
            row = await session.fetch_one(self._sql, {"id": key})
        if row is None or row.id != key or not row.tenant.endswith(tenant):
            self.errors["a row of another tenant"] += 1

    def note(self) -> str:
        """Return what was asked, and what failed."""
        failed = "".join(f", {count} {name}" for name, count in self.errors.items())
        return f"of {self.requests:,} requests, {len(self.asked):,} tenants{failed}"
