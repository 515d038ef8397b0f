"""One of the processes that read and write the same rows: a router, and an account of what it saw."""

import asyncio
import random
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from router import Router
from router.config import parse
from router.events import RequestFinished
from router.topology import Role

TENANT = "acme"
_READERS = 4  # tasks in each process
_BURST = 20  # operations of a task between two pauses


class Job(NamedTuple):
    """Say what to do; moments are of the machine's monotonic clock, which all processes share."""

    document: dict[str, Any]
    folder: str
    tables: int
    rows: int  # in each
    seconds: float
    pause: float  # seconds between bursts
    writes: float  # share of operations
    seed: int


class Write(NamedTuple):
    """Hold a write: the row, the version that it made, and when."""

    row: tuple[int, int]
    version: int
    sent: float
    answered: float


class Told(NamedTuple):
    """Pass a token on, and what its session must see."""

    row: tuple[int, int]
    version: int
    token: str


@dataclass
class Account:
    """Hold what one process has seen."""

    writes: list[Write] = field(default_factory=list)
    reads: list[tuple[tuple[int, int], int, float]] = field(default_factory=list)  # row, version, began
    heard: list[tuple[int, float]] = field(default_factory=list)  # table, when a notice of it came
    behind: list[str] = field(default_factory=list)  # reads with a token, or after an own write, that lack it
    owed: int = 0  # reads with a token, or after an own write
    owed_hits: int = 0  # of them from memory
    hits: int = 0  # of the others
    failed: list[str] = field(default_factory=list)


def read_of(table: int) -> str:
    """Return the read of a row's version."""
    return f"SELECT version FROM shared_{table} WHERE id = :id"


def main(number: int, job: Job, inboxes: list["Queue[Any]"], home: "Queue[Any]") -> None:
    """Do the job and send its account home."""
    try:
        home.put((number, asyncio.run(Worker(number, job, inboxes, home).run())))
    except BaseException:
        home.put((number, traceback.format_exc()))
        raise
    finally:
        for inbox in inboxes:
            inbox.cancel_join_thread()  # nobody reads any more


class Worker:
    """Read and write as told; pass tokens of writes to all other processes."""

    def __init__(self, number: int, job: Job, inboxes: list["Queue[Any]"], home: "Queue[Any]") -> None:
        self._number, self._job = number, job
        self._inboxes, self._home = inboxes, home
        self._rng = random.Random(job.seed * 101 + number)
        self._account = Account()
        self._told: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self) -> Account:
        """Wait for the word to begin, work, and return the account."""
        job, loop = self._job, asyncio.get_running_loop()
        receive = partial(loop.call_soon_threadsafe, self._told.put_nowait)
        threading.Thread(target=_listen, args=(self._inboxes[self._number], receive), daemon=True).start()
        async with Router.open(parse(job.document, Path(job.folder))) as router:
            router.dispatcher.subscribe(RequestFinished, self._count)
            _note_notices(router, self._account.heard)
            await router.ready()
            for table in range(job.tables):
                await router.fetch_value(read_of(table), {"id": 0}, tenant=TENANT, cache=60)
            self._home.put((self._number, None))
            ends = await self._told.get() + job.seconds
            followers = [asyncio.create_task(self._follow(router)) for _ in range(2)]
            await asyncio.gather(*(self._work(router, ends) for _ in range(_READERS)))
            await asyncio.sleep(0.3)
            for task in followers:
                task.cancel()
        return self._account

    def _count(self, event: RequestFinished) -> None:
        if event.role is Role.CACHE:
            if event.context_id is None:
                self._account.hits += 1
            else:
                self._account.owed_hits += 1

    async def _work(self, router: Router, ends: float) -> None:
        job, rng = self._job, self._rng
        while monotonic() < ends:
            for _ in range(_BURST):
                row = rng.randrange(job.tables), rng.randrange(job.rows)
                try:
                    if rng.random() < job.writes:
                        await self._write(router, row)
                    else:
                        await self._read(router, row)
                except Exception as exc:
                    self._account.failed.append(repr(exc))
            await asyncio.sleep(job.pause * rng.uniform(0.5, 1.5))

    async def _read(self, router: Router, row: tuple[int, int]) -> None:
        began = monotonic()
        session = router.session(TENANT)
        version = await session.fetch_value(read_of(row[0]), {"id": row[1]}, cache=60)
        self._account.reads.append((row, version, began))

    async def _write(self, router: Router, row: tuple[int, int]) -> None:
        session = router.session(TENANT, context_id="owed")
        write = f"UPDATE shared_{row[0]} SET version = version + 1 WHERE id = :id RETURNING version"
        sent = monotonic()
        version = await session.fetch_value(write, {"id": row[1]})
        self._account.writes.append(Write(row, version, sent, monotonic()))
        await self._owed(session, Told(row, version, ""), "after its own write")
        if row[1] % 2:
            return  # nobody has a token of it, whose read would leave a new answer for all others
        told = Told(row, version, await session.token())
        for number, inbox in enumerate(self._inboxes):
            if number != self._number:
                inbox.put(told)

    async def _follow(self, router: Router) -> None:
        while True:
            told = await self._told.get()
            try:
                session = router.session(TENANT, after=told.token, context_id="owed")
                await self._owed(session, told, "with a token")
            except Exception as exc:
                self._account.failed.append(repr(exc))

    async def _owed(self, session: Any, told: Told, why: str) -> None:
        """Read twice what a session has to see: the second answer may be the one that the first has left."""
        for _ in range(2):
            found = await session.fetch_value(read_of(told.row[0]), {"id": told.row[1]}, cache=60)
            self._account.owed += 1
            if found < told.version:
                self._account.behind.append(f"{why}: version {found} of {told.row}, not {told.version}")


def _listen(inbox: "Queue[Any]", receive: Callable[[Any], Any]) -> None:
    while True:
        received = inbox.get()
        try:
            receive(received)
        except RuntimeError:
            return  # the loop is closed


def _note_notices(router: Router, heard: list[tuple[int, float]]) -> None:
    """Take note of when the cache hears that a table was written elsewhere."""
    broadcast: Any = router._executor.cache.broadcasts["main"]  # type: ignore[union-attr]
    pass_on = broadcast._on_message

    def noticed(notice: Any, at: float) -> None:
        pass_on(notice, at)
        for name in notice.tables or ():
            table = name.rpartition("_")[2]
            if table.isdigit():
                heard.append((int(table), at))

    broadcast._on_message = noticed
