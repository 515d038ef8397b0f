"""Rows that say whose they are, a load that reads and writes them, and an account of all that was wrong."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, Self

from router import Router

TENANTS = ("acme", "globex")  # with the same rows, which differ in what they say
TABLES, ROWS = 8, 12
Row = tuple[str, int, int]  # tenant, table, number
_TASKS = 6  # for each router
_PAUSE = 0.02  # seconds between two requests of a task
_WRITES = 0.01


class Sample(NamedTuple):
    """Hold one read: when it began, and the seconds that it took."""

    began: float
    took: float


@dataclass
class Account:
    """Hold what became of the requests."""

    reads: list[Sample] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def since(self, began: float) -> list[float]:
        """Return how long each read took that has begun at that moment or later."""
        return [each.took for each in self.reads if each.began >= began]


async def create(router: Router, name: str) -> None:
    """Create tables whose names begin with this, with rows that say whose they are."""
    for tenant in TENANTS:
        session = router.session(tenant)
        for table in range(TABLES):
            text = f"CREATE TABLE {name}_{table} (id INTEGER PRIMARY KEY, owner TEXT, version INTEGER)"
            await session.execute(text)
            rows = [{"id": number, "owner": f"{tenant} {table}"} for number in range(ROWS)]
            await session.execute_many(f"INSERT INTO {name}_{table} VALUES (:id, :owner, 0)", rows)


class Load:
    """Run requests on routers that stand for processes; each read is of a session of its own."""

    def __init__(self, routers: Sequence[Router], name: str, rng: random.Random) -> None:
        self.account = Account()
        self._name = name
        self._routers, self._rng = routers, rng
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for router in self._routers:
            known: dict[Row, int] = {}  # versions that this process has committed
            self._tasks += [asyncio.create_task(self._work(router, known)) for _ in range(_TASKS)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _work(self, router: Router, known: dict[Row, int]) -> None:
        rng = self._rng
        while not self._stopped:
            # some rows are asked for more than others
            row = rng.choice(TENANTS), int(TABLES * rng.random() ** 2), int(ROWS * rng.random() ** 2)
            try:
                if rng.random() < _WRITES:
                    await self._write(router, row, known)
                else:
                    await self._read(router, row, known)
            except Exception as exc:
                self.account.failed.append(repr(exc))
            await asyncio.sleep(_PAUSE * rng.uniform(0.5, 1.5))

    async def _read(self, router: Router, row: Row, known: dict[Row, int]) -> None:
        least, began = known.get(row, 0), monotonic()
        found = await router.fetch_one(self._text(row), {"id": row[2]}, tenant=row[0], cache=60)
        self.account.reads.append(Sample(began, monotonic() - began))
        self._check(row, least, found)

    async def _write(self, router: Router, row: Row, known: dict[Row, int]) -> None:
        tenant, table, number = row
        session = router.session(tenant)
        text = f"UPDATE {self._name}_{table} SET version = version + 1 WHERE id = :id RETURNING version"
        version = await session.fetch_value(text, {"id": number})
        known[row] = max(version, known.get(row, 0))
        self._check(row, version, await session.fetch_one(self._text(row), {"id": number}, cache=60))

    def _text(self, row: Row) -> str:
        return f"SELECT id, owner, version FROM {self._name}_{row[1]} WHERE id = :id"

    def _check(self, row: Row, least: int, found: Any) -> None:
        """Take note of a row of somebody else, and of one that this process itself knows to be old."""
        tenant, table, number = row
        if found is None or (found.owner, found.id) != (f"{tenant} {table}", number) or found.version < least:
            self.account.wrong.append(f"{row}, version {least} or later: found {found!r}")
