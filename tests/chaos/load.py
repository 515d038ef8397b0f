"""A steady load of reads and writes that keeps an account of every request: none can be lost quietly."""

import asyncio
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from router import CommitOutcomeUnknown, Router, RouterError

TABLE = "account"
CREATE = f"CREATE TABLE {TABLE} (number INTEGER, task INTEGER)"


@dataclass(slots=True)
class Sample:
    """Hold one request: what it was, when it ran (monotonic), and how it ended ("" for well)."""

    kind: str
    began: float
    ended: float
    error: str = ""


@dataclass(slots=True)
class Account:
    """Hold what the application was told of its writes, by the number that each wrote."""

    acknowledged: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)


class Load:
    """Run ``tasks`` tasks at ``rate`` requests a second each; a quarter writes, every other in a transaction.

    Each task is an application's request handler: it opens a session, does one thing and goes on.
    """

    def __init__(self, router: Router, *, tasks: int = 8, rate: float = 50.0, tenant: str = "acme") -> None:
        self._router = router
        self._tenant = tenant
        self._count, self._pause = tasks, 1 / rate
        self._number = 0
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self.account = Account()
        self.samples: list[Sample] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(self._count)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _work(self, task: int) -> None:
        turn = task
        while not self._stopped:
            began = time.monotonic()
            if turn % 4:
                await self._read(began)
            else:
                await self._write(began, task, whole=turn % 8 == 0)
            turn += 1
            await asyncio.sleep(max(self._pause - (time.monotonic() - began), 0))

    async def _read(self, began: float) -> None:
        error = ""
        try:
            await self._router.fetch_value(f"SELECT count(*) FROM {TABLE}", tenant=self._tenant)
        except RouterError as exc:
            error = repr(exc)
        self.samples.append(Sample("read", began, time.monotonic(), error))

    async def _write(self, began: float, task: int, *, whole: bool) -> None:
        self._number += 1
        number, account, error = self._number, self.account, ""
        insert, values = f"INSERT INTO {TABLE} VALUES (:number, :task)", {"number": number, "task": task}
        try:
            async with self._router.session(self._tenant) as session:
                if whole:
                    async with session.transaction() as tx:
                        await tx.execute(insert, values)
                else:
                    await session.execute(insert, values)
        except CommitOutcomeUnknown as exc:
            account.unknown.add(number)
            error = repr(exc)
        except RouterError as exc:
            account.refused.add(number)
            error = repr(exc)
        else:
            account.acknowledged.add(number)
        self.samples.append(Sample("write", began, time.monotonic(), error))

    def since(self, moment: float, kind: str) -> list[Sample]:
        """Return the requests of a kind that ended at ``moment`` or later, or did not end yet."""
        return [each for each in self.samples if each.kind == kind and each.ended >= moment]

    async def for_a_while(self, seconds: float) -> float:
        """Let it run; return when that began."""
        began = time.monotonic()
        await asyncio.sleep(seconds)
        return began


def failed(samples: list[Sample]) -> list[str]:
    """Return the errors among some requests."""
    return [each.error for each in samples if each.error]


def slowest(samples: list[Sample]) -> float:
    """Return the longest time that one of some requests took, in seconds."""
    return max((each.ended - each.began for each in samples), default=float("nan"))
