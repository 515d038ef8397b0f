"""One whole history: processes that serve users, faults meanwhile, and a look at the end."""

import asyncio
import multiprocessing
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Any

from router import Router
from router.config import parse
from tests.consistency.history import Failover, History, Opening, Operation, Row
from tests.consistency.plan import Plan
from tests.consistency.table import Entries
from tests.consistency.worker import End, Explain, Stop, main

_PATIENCE = 60.0  # seconds for what needs a few


@dataclass(slots=True)
class Progress:
    """Hold how far a history has come; faults are timed by it, and note the failovers that they make."""

    total: int
    history: History = field(default_factory=History)

    @property
    def done(self) -> int:
        """Return the operations so far."""
        return len(self.history.operations)

    async def reach(self, share: float) -> None:
        """Return when this share of all operations is done."""
        while self.done < share * self.total:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.02)

    def failed_over(self, began: float, ended: float, *, clean: bool, kept: bool = False) -> None:
        """Take note that another server is the primary."""
        self.history.failovers.append(Failover(began, ended, clean, kept))


#: What is done to the servers during a history.
Faults = Callable[[Progress], Awaitable[None]]


def _nothing(_: int) -> None:
    """Tell nobody."""


async def no_faults(progress: Progress) -> None:
    """Leave the servers alone."""


class Workers:
    """Keep processes that can take part in one history after the other."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")  # as servers of applications do; a fork shares sockets
        self._home: Any = context.Queue()
        self._inboxes: list[Any] = [context.Queue() for _ in range(count)]
        self._processes: list[BaseProcess] = [
            context.Process(target=main, args=(number, self._inboxes, self._home), daemon=True)
            for number in range(count)
        ]
        self._progress: Progress | None = None
        self._told: dict[str, set[int]] = {"ready": set(), "done": set()}
        self._waits: dict[int, str] = {}
        self._failure = ""

    @property
    def count(self) -> int:
        """Return how many there are."""
        return len(self._processes)

    def start(self) -> None:
        """Start all processes; they need a moment to be ready."""
        for process in self._processes:
            process.start()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while (message := self._home.get()) is not None:
            process, word, value = message
            if word == "notes":
                self._keep(value)
            elif word == "failed":
                self._failure = value
            elif word == "waits":
                self._waits[process] = value
            else:
                self._told[word].add(process)

    def _keep(self, notes: list[Any]) -> None:
        history = self._progress.history if self._progress is not None else History()
        kinds: dict[type, list[Any]] = {
            Opening: history.openings,
            Operation: history.operations,
            str: history.strays,
        }
        for note in notes:
            kinds[type(note)].append(note)

    async def _all(self, word: str) -> None:
        """Return when all processes have said a word; raise if one cannot any more."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while len(self._told[word]) < self.count:
                    self._check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            waits = await self._explained(set(range(self.count)) - self._told[word])
            raise TimeoutError(f"not {word} after {_PATIENCE:g} s:\n{waits}") from None

    async def _explained(self, processes: set[int]) -> str:
        """Return what the tasks of processes wait for."""
        for process in processes:
            self._inboxes[process].put(Explain())
        await asyncio.sleep(2)
        return "\n".join(
            f"process {each}: {self._waits.get(each, 'no answer')}" for each in sorted(processes)
        )

    def _check(self) -> None:
        dead = [process.exitcode for process in self._processes if not process.is_alive()]
        if self._failure or dead:
            raise RuntimeError(f"a process of the history has failed ({dead or 'error'}):\n{self._failure}")

    def _tell(self, message: Any) -> None:
        for inbox in self._inboxes:
            inbox.put(message)

    async def run(
        self, plan: Plan, total: int, faults: Faults = no_faults, tell: Callable[[int], None] = _nothing
    ) -> History:
        """Run users until ``total`` operations and all ``faults`` are done; return what happened.

        ``tell`` gets the number of operations so far, now and then.
        """
        await self._all("ready")
        progress = self._progress = Progress(total)
        self._told["done"].clear()
        self._tell(plan)
        harm = asyncio.ensure_future(faults(progress))
        moved, before = monotonic(), -1
        try:
            while progress.done < total or not harm.done():
                self._check()
                tell(min(progress.done, total))
                if progress.done > before:
                    moved, before = monotonic(), progress.done
                elif monotonic() - moved > _PATIENCE:
                    raise TimeoutError(f"no operation has ended for {_PATIENCE:g} s, after {before}")
                await asyncio.wait([harm], timeout=0.05)
                await asyncio.sleep(0.02)
            await harm
        finally:
            harm.cancel()
            self._tell(Stop())
        await self._all("done")
        return progress.history

    def close(self) -> None:
        """End all processes."""
        self._tell(End())
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
        self._home.put(None)


@contextmanager
def workers(count: int = 3) -> Iterator[Workers]:
    """Start processes, and end them."""
    made = Workers(count)
    made.start()
    try:
        yield made
    finally:
        made.close()


async def prepare(plan: Plan, key: str) -> None:
    """Create the tables of each tenant."""
    entries = Entries(plan.table, plan.tables)
    async with Router.open(parse(plan.sections, Path(plan.folder))) as router:
        for tenant in plan.tenants:
            await entries.create(router, tenant, key)


async def look(plan: Plan, history: History) -> None:
    """Write down what is in the tables in the end, on the primary of now."""
    entries = Entries(plan.table, plan.tables)
    async with Router.open(parse(plan.sections, Path(plan.folder))) as router:
        final = []
        for tenant in plan.tenants:
            for shelf in entries.shelves:
                sql = f"SELECT tenant, item, number FROM {shelf.name}"
                rows = await router.fetch_all(sql, tenant=tenant, primary=True, timeout=60)
                final += [Row(tenant, row.tenant, row.item, row.number) for row in rows]
    history.final = final
