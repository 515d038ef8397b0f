"""A routed request stays as cheap as it is: counts, and ratios in one run, for no busy machine changes them.

The limits are about a quarter above today's counts, so that a lost half is noticed. Who makes the path
shorter lowers them. Times are in docs/performance.md, and are measured by ``make bench``.
"""

import asyncio
import gc
import inspect
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from statistics import median
from types import FrameType
from typing import Any, cast

import asyncpg
import pytest

from router import Router, statements
from router.drivers.driver import Connection
from router.events import Event
from router.rows import Result, Row, row_class
from router.statements import Dialect, parse
from tests.doubles import ScriptedConnection, Server, opened
from tests.engines import Engine

READ = "SELECT id, name, seats FROM plans WHERE id = :id"
WRITE = "UPDATE counters SET seats = seats + 1 WHERE id = :id"
PREPARED = {text: text.replace(":id", "$1") for text in (READ, WRITE)}

Work = Callable[[Router], Coroutine[Any, Any, Any]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Let the double answer at once, and count what is asked of its connections, by verb and text."""
    counts: Counter[str] = Counter()
    row = cast("Row", row_class(("id", "name", "seats"))((7, "team", 5)))
    result = Result(1)

    async def fetch_one(self: Connection, sql: str, args: object, timeout: float | None) -> Row:
        counts[sql] += 1
        return row

    async def execute(self: Connection, sql: str, args: object, timeout: float | None) -> Result:
        counts[sql] += 1
        return result

    async def meet(self: Connection, verb: str, text: str = "", timeout: float = 5.0) -> None:
        counts[text or verb] += 1

    monkeypatch.setattr(ScriptedConnection, "fetch_one", fetch_one)
    monkeypatch.setattr(ScriptedConnection, "execute", execute)
    monkeypatch.setattr(ScriptedConnection, "_meet", meet)
    return counts


@pytest.fixture
async def router(server: Server, sent: Counter[str]) -> AsyncIterator[Router]:
    """Open a router on the double whose connections are open and whose statements are known."""
    async with opened() as made:
        for _ in range(20):
            await _read(made)
            await _write(made)
            await _transaction(made)
        sent.clear()
        yield made


async def _read(router: Router) -> Row | None:
    async with router.session("acme") as session:
        return await session.fetch_one(READ, {"id": 7})


async def _write(router: Router) -> Result:
    async with router.session("acme") as session:
        return await session.execute(WRITE, {"id": 7})


async def _transaction(router: Router) -> None:
    async with router.session("acme") as session, session.transaction() as tx:
        await tx.fetch_one(READ, {"id": 7})
        await tx.execute(WRITE, {"id": 7})
        await tx.fetch_one(READ, {"id": 7})


# --- counts ----------------------------------------------------------------------------------------------


class _Cost:
    """Count what a request makes the interpreter do: calls, of C as well; coroutines; instructions."""

    def __init__(self, request: Coroutine[Any, Any, Any]) -> None:
        self.coroutines = self.instructions = 0
        self.calls: Counter[str] = Counter()
        before = sys.gettrace(), sys.getprofile()
        sys.settrace(self._trace)
        sys.setprofile(self._profile)
        try:
            _at_once(request)
        finally:
            sys.settrace(before[0])
            sys.setprofile(before[1])

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self.calls[frame.f_code.co_name] += 1
            self.coroutines += bool(frame.f_code.co_flags & inspect.CO_COROUTINE)
        elif event == "c_call":
            self.calls[getattr(argument, "__name__", "?")] += 1

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        self.instructions += event == "opcode"
        return self._trace


def _at_once(request: Coroutine[Any, Any, Any]) -> None:
    """Run a request that need not wait for anything."""
    with suppress(StopIteration):
        request.send(None)
        request.close()
        pytest.fail("the request gave the event loop a turn although its connection was idle")


# work, most calls, most coroutines, most instructions; on CPython 3.11 a read takes 86, 7 and 1,590;
# to count what each tenant holds of a node takes 35 of them
_LIMITS = [
    pytest.param(_read, 97, 12, 1_610, id="read"),
    pytest.param(_write, 92, 12, 1_475, id="write"),
    pytest.param(_transaction, 276, 46, 4_530, id="transaction"),
]


@pytest.mark.parametrize(("work", "calls", "coroutines", "instructions"), _LIMITS)
async def test_a_request_makes_few_calls(
    router: Router, work: Work, calls: int, coroutines: int, instructions: int
) -> None:
    """The way to the driver and back has a length: who adds to it sees it here."""
    for subscription in router.dispatcher.subscriptions:
        subscription.cancel()
    least = _least(work, router)
    assert least.calls.total() <= calls, least.calls
    assert least.coroutines <= coroutines, least.calls
    assert least.instructions <= instructions, least.calls


# work, most calls, most instructions; building the events included
_TOLD = [
    pytest.param(_read, 28, 665, id="read"),
    pytest.param(_write, 44, 900, id="write"),
    pytest.param(_transaction, 120, 2_560, id="transaction"),
]


@pytest.mark.parametrize(("work", "calls", "instructions"), _TOLD)
async def test_listeners_add_few_calls(router: Router, work: Work, calls: int, instructions: int) -> None:
    """Those that every router has; ``make observe`` measures the time that they take."""
    told = _least(work, router)
    for subscription in router.dispatcher.subscriptions:
        subscription.cancel()
    untold = _least(work, router)
    assert told.calls.total() - untold.calls.total() <= calls, told.calls - untold.calls
    assert told.coroutines == untold.coroutines
    assert told.instructions - untold.instructions <= instructions, told.calls - untold.calls


def _least(work: Work, router: Router) -> _Cost:
    costs = [_Cost(work(router)) for _ in range(5)]  # the first may meet something that is made once
    return min(costs, key=lambda cost: cost.calls.total())


@pytest.mark.parametrize("work", [_read, _write, _transaction])
async def test_a_request_on_an_idle_connection_does_not_wait(router: Router, work: Work) -> None:
    """Nothing but the driver gives the event loop a turn."""
    _at_once(work(router))


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (_read, {PREPARED[READ]: 1}),
        (_write, {PREPARED[WRITE]: 1}),
        (_transaction, {"begin": 1, PREPARED[READ]: 2, PREPARED[WRITE]: 1, "COMMIT": 1}),
    ],
)
async def test_nothing_is_sent_that_was_not_asked_for(
    router: Router, sent: Counter[str], work: Work, expected: dict[str, int]
) -> None:
    """A read or write is one message: no BEGIN, no SET, no ping before it and no reset after it."""
    await work(router)
    assert sent == expected


@pytest.mark.parametrize("work", [_read, _write, _transaction])
async def test_requests_leave_nothing_behind(router: Router, work: Work) -> None:
    """Memory does not grow with requests, and none of their objects waits for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        for _ in range(1_000):
            _at_once(work(router))
        unreachable = gc.collect()  # also gives back the interpreter's own spare objects
        kept = sys.getallocatedblocks() - before
    finally:
        gc.enable()
    assert unreachable < 10
    assert kept < 100


async def test_a_request_makes_no_task_and_no_timer(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand requests in one step of the loop share the timer of the deadlines, and need no task."""
    made: Counter[str] = Counter()
    loop = asyncio.get_running_loop()

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(loop, name)

        def counted(*args: Any, **given: Any) -> Any:
            made[name] += 1
            return real(*args, **given)

        return counted

    for name in ("call_soon", "call_later", "call_at", "create_task", "create_future"):
        monkeypatch.setattr(loop, name, counting(name))
    for _ in range(1_000):
        _at_once(_read(router))
    pools = len(router.status().pools)
    assert made.pop("call_later", 0) <= pools
    assert made.pop("call_at", 0) <= pools  # which call_later() is made of
    assert made == {}


async def test_a_known_text_is_not_parsed_again(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of a statement is found by its text."""
    parsed: list[str] = []

    def noting(text: str, dialect: Dialect) -> statements.Statement:
        parsed.append(text)
        return parse(text, dialect)

    monkeypatch.setattr(statements, "parse", noting)
    for _ in range(10):
        await _read(router)
    assert parsed == []
    await router.fetch_one(f"{READ} AND seats > 0", {"id": 7}, tenant="acme")
    assert len(parsed) == 1


async def test_a_request_is_one_event(router: Router) -> None:
    """A statement is told as it begins and as it ends; taking and giving back a connection is not told."""
    heard: list[Event] = []
    router.dispatcher.subscribe(Event, heard.append)
    await _read(router)
    assert [type(event).__name__ for event in heard] == ["RequestStarted", "RequestFinished"]


# --- ratios in one run -----------------------------------------------------------------------------------


def _fastest(work: Callable[[], object], times: int) -> float:
    """Return the seconds of the fastest call: what else the machine did is in the slower ones."""
    least = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - started)
    return least


@pytest.mark.timed
async def test_a_known_text_is_decided_many_times_faster_than_a_new_one(router: Router) -> None:
    """The cached decision costs a small part of reading a statement for the first time."""
    known = new = float("inf")
    for _ in range(100):  # in turns: a machine that is slow for a while is so for both
        new = min(new, _fastest(lambda: parse(READ, Dialect.POSTGRESQL), 2))
        known = min(known, _fastest(lambda: router.explain(READ, tenant="acme"), 20))
    assert new / known >= 20


async def _rate(work: Callable[[int], Awaitable[object]], seconds: float) -> float:
    """Return requests a second of 16 tasks."""
    done = 0
    until = time.perf_counter() + seconds

    async def client(task: int) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await work(task)
            done += 1

    async with asyncio.TaskGroup() as group:
        for task in range(16):
            group.create_task(client(task))
    return done / (time.perf_counter() - until + seconds)


@pytest.mark.timed
@pytest.mark.engines("postgresql")
async def test_point_reads_are_faster_than_those_of_a_pool(engine: Engine) -> None:
    """On the same server and loop the router beats asyncpg's own pool, as it sends no reset."""
    replica = engine.server.replicas[0]
    sql = "SELECT relname FROM pg_class WHERE oid = "
    async with (
        engine.open(connections=16) as router,
        asyncpg.create_pool(
            replica.dsn(user="router_app", database=engine.database("acme")), min_size=16, max_size=16
        ) as pool,
    ):

        async def ours(task: int) -> None:
            async with router.session("acme") as session:
                await session.fetch_one(sql + ":id", {"id": 1259})

        async def theirs(task: int) -> None:
            await pool.fetchrow(sql + "$1", 1259)

        await _rate(ours, 0.2), await _rate(theirs, 0.1)  # connect and prepare
        # few rounds on a busy machine are mostly that machine
        ratios = [await _rate(ours, 0.1) / await _rate(theirs, 0.1) for _ in range(21)]
    assert median(ratios) >= 1.2


@pytest.mark.engines("postgresql")
async def test_rows_cost_no_call_each(engine: Engine) -> None:
    """A row is what the driver made: no Python function runs for each."""
    sql = "SELECT * FROM generate_series(1, :rows) AS n"

    async def count(rows: int) -> int:
        calls: Counter[str] = Counter()

        def profile(frame: FrameType, event: str, argument: object) -> None:
            calls[event] += 1

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            found = await session.fetch_all(sql, {"rows": rows})
        finally:
            sys.setprofile(before)
        assert len(found) == rows
        return calls["call"] + calls["c_call"]

    async with engine.open() as router, router.session("acme") as session:
        await count(1)  # connects and prepares
        few, many = await count(1), await count(5_000)
    assert many - few < 1_000  # a call for each of the messages from the server, whose number may differ
