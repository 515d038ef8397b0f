"""Many tasks over a small pool, most of them cancelled at random moments; count what must not happen."""

import asyncio
import gc
import random
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from router import Router
from router.events import ConnectionClosed
from tests.engines import TENANTS, Engine

_WAVES = (6, 30, 250)  # tasks at once: of few most are cancelled at work, of many most in the queue
_PACE = 0.001  # seconds that the first wave of a size takes for each task, about
_USERS = "('router_app', 'router_ro')"
_SESSIONS = {
    "postgresql": f"SELECT count(*) FROM pg_stat_activity WHERE usename IN {_USERS}",
    "mysql": f"SELECT count(*) FROM information_schema.processlist WHERE user IN {_USERS}",
}


@dataclass(frozen=True, slots=True)
class StormResult:
    """Say what a storm did, and count what must be zero; ``wrong`` samples what went wrong in words."""

    tasks: int
    cancelled: int
    discarded: int  # connections that a cancellation met in use
    seconds: float
    wrong_rows: int  # of another tenant, half written, lost after success
    leaked_connections: int  # lent or missing in a pool after the last task
    orphan_sessions: int  # on the server (threads, for SQLite) after the router has closed
    orphan_tasks: int
    unretrieved: int  # exceptions that the event loop was told of
    unexpected: int  # errors of tasks, and cancellations that did not come out
    wrong: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether nothing happened that must not."""
        counts = (self.wrong_rows, self.leaked_connections, self.orphan_sessions, self.orphan_tasks)
        return not any((*counts, self.unretrieved, self.unexpected))


@dataclass(slots=True)
class _Write:
    """Hold what a task was to write: ``rows`` under its mark, all or none."""

    tenant: str
    rows: int
    finished: bool = False


@dataclass
class _Storm:
    """Hold the state of a storm that is under way."""

    router: Router
    table: str
    rng: random.Random
    writes: dict[int, _Write] = field(default_factory=dict)
    wrong_rows: int = 0
    unexpected: int = 0
    cancelled: int = 0
    pace: dict[int, float] = field(default_factory=lambda: dict.fromkeys(_WAVES, _PACE))
    wrong: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Keep the first few words on what went wrong."""
        if len(self.wrong) < 10:
            self.wrong.append(text)

    def see(self, tenant: str, rows: list[Any]) -> None:
        """Check that rows are a tenant's own: the row of mark 0 is always among them."""
        if not rows or any(row.tenant != tenant for row in rows):
            self.wrong_rows += 1
            self.say(f"{tenant} got {rows[:3]}")

    # --- what a task does --------------------------------------------------------------------------------

    async def read(self, tenant: str, mark: int) -> None:
        sql = f"SELECT tenant, mark FROM {self.table} WHERE mark IN (0, :mark)"
        self.see(tenant, await self.router.fetch_all(sql, {"mark": mark}, tenant=tenant))

    async def stream(self, tenant: str, mark: int) -> None:
        sql = f"SELECT tenant, mark FROM {self.table} WHERE mark = 0"
        async with aclosing(self.router.stream(sql, tenant=tenant, batch=1)) as rows:
            self.see(tenant, [row async for row in rows])

    async def write(self, tenant: str, mark: int) -> None:
        self.writes[mark] = write = _Write(tenant, 1)
        await self.router.execute(self._insert(tenant), {"mark": mark}, tenant=tenant)
        write.finished = True

    async def write_many(self, tenant: str, mark: int) -> None:
        self.writes[mark] = write = _Write(tenant, 3)
        await self.router.execute_many(self._insert(tenant), [{"mark": mark}] * 3, tenant=tenant)
        write.finished = True

    async def transaction(self, tenant: str, mark: int) -> None:
        self.writes[mark] = write = _Write(tenant, 2)
        async with self.router.session(tenant) as session, session.transaction() as tx:
            await tx.execute(self._insert(tenant), {"mark": mark})
            sql = f"SELECT tenant, mark FROM {self.table} WHERE mark IN (0, :mark)"
            self.see(tenant, await tx.fetch_all(sql, {"mark": mark}))
            await tx.execute(self._insert(tenant), {"mark": mark})
        write.finished = True

    def _insert(self, tenant: str) -> str:
        return f"INSERT INTO {self.table} (tenant, mark) VALUES ('{tenant}', :mark)"

    # --- the whole ---------------------------------------------------------------------------------------

    async def prepare(self, engine: Engine) -> None:
        """Create the table of each tenant, with the row that says whose it is."""
        columns = f"id {engine.key}, tenant VARCHAR(20), mark INT"
        for tenant in TENANTS:
            async with self.router.session(tenant) as session:
                await session.execute(f"CREATE TABLE {self.table} ({columns})")
                await session.execute(self._insert(tenant), {"mark": 0})
        await engine.settle()

    async def wave(self, size: int, marks: range, share: float) -> None:
        """Start a task for each mark, cancel a share of them, and wait for all."""
        loop, rng = asyncio.get_running_loop(), self.rng
        started = loop.time()
        doomed = set()
        tasks = []
        for number, mark in enumerate(marks, 1):
            work: Callable[[str, int], Awaitable[None]] = rng.choices(
                (self.read, self.stream, self.write, self.write_many, self.transaction), (4, 1, 2, 1, 2)
            )[0]
            task = asyncio.ensure_future(work(rng.choice(TENANTS), mark))
            tasks.append(task)
            if rng.random() < share:
                doomed.add(task)
                # the queue is first in, first out: rather when its turn has come than before
                delay = self.pace[size] * number * rng.betavariate(3, 1)
                loop.call_later(delay, self._cancel, task)
        await asyncio.wait(tasks)
        self.pace[size] = 0.9 * (loop.time() - started) / len(tasks)
        for task in tasks:
            error = None if task.cancelled() else task.exception()
            if error is not None or (task.cancelled() and task not in doomed):
                self.unexpected += 1
                self.say(repr(error))

    def _cancel(self, task: "asyncio.Future[None]") -> None:
        if task.cancel():
            self.cancelled += 1
            task.add_done_callback(self._came_out)

    def _came_out(self, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and task.exception() is None:
            self.unexpected += 1
            self.say("a cancellation was swallowed")

    async def count(self) -> None:
        """Compare what is in the tables with what was written."""
        for tenant in TENANTS:
            rows = await self.router.fetch_all(
                f"SELECT tenant, mark, count(*) AS n FROM {self.table} GROUP BY tenant, mark",
                tenant=tenant,
                primary=True,
            )
            found = {row.mark: row.n for row in rows if row.tenant == tenant}
            self.wrong_rows += sum(row.tenant != tenant for row in rows)
            for mark, write in self.writes.items():
                there = found.pop(mark, 0)
                mine = write.tenant == tenant
                allowed = (write.rows,) if write.finished else (0, write.rows)
                if there not in (allowed if mine else (0,)):
                    self.wrong_rows += 1
                    self.say(f"{there} rows of {write} in {tenant}")
            self.wrong_rows += found != {0: 1}


async def storm(
    engine: Engine, tasks: int = 10_000, share: float = 0.6, rng: random.Random | None = None
) -> StormResult:
    """Run ``tasks`` tasks of two tenants over a small pool and cancel a ``share`` of them at random moments.

    The tenants' places must exist on the engine; nobody else may be connected to its servers meanwhile.
    """
    rng = rng or random.Random()
    loop = asyncio.get_running_loop()
    told: list[str] = []
    before, threads = asyncio.all_tasks(), threading.active_count()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(f"{context}"))
    started = time.monotonic()
    try:
        timeouts = {"timeouts": {"acquire": "60s", "statement": "60s"}, "slow_query": "1h"}
        async with engine.open(connections=3, defaults=timeouts) as router:
            closed: list[ConnectionClosed] = []
            router.dispatcher.subscribe(ConnectionClosed, closed.append)
            state = _Storm(router, f"storm{rng.getrandbits(32):08x}", rng)
            await state.prepare(engine)
            first = 1
            while first <= tasks:
                size = rng.choices(_WAVES, (20, 4, 1))[0]
                await state.wave(size, range(first, min(first + size, tasks + 1)), share)
                first += size
            seconds = time.monotonic() - started
            leaked = await _leaked(router)
            await state.count()
        orphans = await _orphans(engine, threads)
        gc.collect()
    finally:
        loop.set_exception_handler(handler)
    return StormResult(
        tasks,
        state.cancelled,
        sum(event.reason in ("cancelled", "abandoned", "begin_failed") for event in closed),
        seconds,
        state.wrong_rows,
        leaked,
        orphans,
        len(asyncio.all_tasks() - before),
        len(told),
        state.unexpected,
        (*state.wrong, *told[:5]),
    )


async def _leaked(router: Router) -> int:
    """Return how many connections are lent or missing although all tasks have ended."""
    leaked = 0
    for _ in range(500):
        pools = router.status().pools
        leaked = sum(pool.in_use + pool.waiting + pool.size - pool.idle for pool in pools)
        if not leaked:
            break
        await asyncio.sleep(0.01)
    return leaked


async def _orphans(engine: Engine, threads: int) -> int:
    """Return how many sessions of ours the servers still have; they need a moment to see that we are gone."""
    left = 0
    for _ in range(50):
        if engine.dialect == "sqlite":
            left = max(threading.active_count() - threads, 0)
        else:
            left = await asyncio.to_thread(_sessions, engine)
        if not left:
            break
        await asyncio.sleep(0.1)
    return left


def _sessions(engine: Engine) -> int:
    return sum(int(server.run(_SESSIONS[engine.dialect])) for server in engine.server.servers)
