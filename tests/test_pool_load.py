"""The pool under load: who may wait, what an empty pool says, what a server that refuses is spared."""

import asyncio
import contextlib
import gc
import itertools
import logging
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from router import Router, reasons
from router.drivers.driver import Connection, Endpoint, Login
from router.errors import (
    AuthenticationFailed,
    ConcurrentUse,
    PoolDeadlock,
    PoolFull,
    PoolTimeout,
    RouterClosed,
    RouterError,
    StatementTimeout,
    TooManyConnections,
)
from router.events import ConnectionFailed, ConnectionHeld, ConnectionOpened
from router.pools.holders import Holder, listed, unit_of
from router.pools.refusals import Refusals
from tests.doubles import PASSWORD, ScriptedDriver, Server, config, opened
from tests.engines import Engine, Recorder
from tests.test_pool import NODE, Bench, Clock

READ = "SELECT id FROM plans"


async def waiting(bench: Bench, number: int) -> None:
    """Return when so many stand in the queue."""
    while bench.pool.status().waiting < number:  # noqa: ASYNC110 - it has no event to tell it
        await asyncio.sleep(0)


# --- the queue -------------------------------------------------------------------------------------------


async def test_the_queue_is_bounded(server: Server) -> None:
    """Past connections.waiting nobody waits: the next is refused at once, those before are served."""
    bench = Bench(server, max=1, waiting=3)
    held = await bench.get()
    waiters = [asyncio.create_task(bench.get()) for _ in range(3)]
    await waiting(bench, 3)
    with pytest.raises(PoolFull, match=r"^3 tasks wait for a connection to main/primary already, and 1 of 1"):
        await bench.get()
    bench.pool.give(held)
    for waiter in waiters:
        bench.pool.give(await waiter)
    assert bench.numbers == (1, 1, 0, 0)


async def test_nobody_waits_where_waiting_is_0(server: Server) -> None:
    """With waiting: 0 a pool lends, opens or refuses, and never queues."""
    bench = Bench(server, max=2, waiting=0)
    held = [await bench.get(), await bench.get()]
    with pytest.raises(PoolFull):
        await bench.get()
    for connection in held:
        bench.pool.give(connection)
    assert await bench.get() in held


async def test_a_flood_of_requests_does_not_queue_without_bound(server: Server) -> None:
    """A flood is refused past the bound, in order, and the pool is whole afterwards (fault case 29)."""
    async with opened(replicas=0, connections={"max": 2, "waiting": 500}) as router:
        flood = [asyncio.ensure_future(router.fetch_all(READ, tenant="acme")) for _ in range(3_000)]
        results = Counter(
            type(each).__name__ for each in await asyncio.gather(*flood, return_exceptions=True)
        )
        assert results["PoolFull"] == 3_000 - results["list"]
        assert 500 <= results["list"] <= 502
        assert len(await router.fetch_all(READ, tenant="acme")) == 1
    assert server.most <= 2


async def test_a_waiter_may_be_cancelled_at_any_moment(server: Server) -> None:
    """Cancelled before, at, or after the hand-over of a connection or a slot: nothing is lost."""
    chance = random.Random(3)
    bench = Bench(server, max=3)

    async def work() -> None:
        connection = await bench.get(timeout=5)
        try:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        finally:
            if chance.random() < 0.3:
                bench.pool.discard(connection, "cancelled")
            else:
                bench.pool.give(connection)

    tasks = [asyncio.create_task(work()) for _ in range(500)]
    while any(not task.done() for task in tasks):
        for task in chance.sample(tasks, 10):
            task.cancel()
        await asyncio.sleep(0)
    await bench.settle()
    assert bench.pool.status().in_use == bench.pool.status().waiting == 0
    assert bench.pool.status().size == bench.pool.status().idle == len(server.open) <= 3
    assert len({await bench.get() for _ in range(3)}) == 3


async def test_a_waiter_is_told_of_the_close_even_if_it_is_cancelled_then(server: Server) -> None:
    """close() and a cancellation in the same moment: the cancellation wins, and close() does not hang."""
    bench = Bench(server, max=1)
    held = await bench.get()
    first, second = asyncio.create_task(bench.get()), asyncio.create_task(bench.get())
    await waiting(bench, 2)
    closing = asyncio.create_task(bench.pool.close(5))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert isinstance(second.exception(), RouterClosed)
    bench.pool.give(held)
    assert await closing == 0
    await bench.settle()
    assert not server.open


# --- who holds what --------------------------------------------------------------------------------------


async def test_a_pool_timeout_says_who_holds_what_and_for_how_long(server: Server) -> None:
    """Tenant and age of each, the task of what the application holds, the longest first (fault case 29)."""
    clock = Clock()
    bench = Bench(server, clock=clock, max=3)
    statement = await bench.pool.acquire(None, clock.now + 1, 1, 1, Holder("globex"))
    clock.now += 2
    unit = await bench.pool.acquire(None, clock.now + 1, 1, 1, Holder("acme"))
    asyncio.current_task().set_name("report")  # type: ignore[union-attr]
    bench.pool.hold(unit, unit_of("acme"))
    own = await bench.get()
    clock.now += 3
    with pytest.raises(PoolTimeout) as caught:
        await bench.pool.acquire(None, clock.now, 0.5, 1, Holder("initech"))
    assert str(caught.value.message).endswith(
        "Held by globex for 5 s for one statement; acme for 3 s in task 'report'; "
        "the router itself for 3 s for one statement"
    )
    for connection in (statement, unit, own):
        bench.pool.give(connection)


def test_only_the_five_longest_are_named() -> None:
    """A message stays short, however many hold a connection."""
    held = [(float(number), Holder(f"t{number}")) for number in range(12)]
    text = listed(held)
    assert list(re.findall(r"t\d+", text)) == ["t11", "t10", "t9", "t8", "t7"]
    assert text.endswith("; and 7 more")


async def test_the_application_sees_its_own_tasks_in_a_timeout(server: Server) -> None:
    """Through the whole router: the tenant that waits, the tenants and tasks that hold (fault case 29)."""
    given = {"connections": {"max": 2}, "defaults": {"timeouts": {"acquire": "50ms"}}}
    async with opened(replicas=0, **given) as router:
        release = asyncio.Event()

        async def hold() -> None:
            async with router.session("acme") as session, session.transaction():
                await release.wait()

        gate = server.block("fetch_all")
        tasks = [
            asyncio.create_task(hold(), name="holder"),
            asyncio.create_task(
                router.fetch_all(
                    "SELECT 'secret-literal' AS x WHERE 1 = :id", {"id": 424242}, tenant="globex"
                )
            ),
        ]
        for _ in range(1_000):
            if sum(pool.in_use for pool in router.status().pools) == 2:
                break
            await asyncio.sleep(0)
        with pytest.raises(PoolTimeout) as caught:
            await router.fetch_all(READ, tenant="globex")
        text = str(caught.value)
        assert re.search(r"acme for \S+ s in task 'holder'", text)
        assert re.search(r"globex for \S+ s for one statement", text)
        assert "424242" not in text and "secret" not in text and "SELECT" not in text
        assert caught.value.tenant == "globex"
        release.set()
        gate.set()
        await asyncio.gather(*tasks)


# --- leaks -----------------------------------------------------------------------------------------------


async def _forget(router: Router) -> Any:
    """Begin a transaction and never end it, as a leak does."""
    session = router.session("acme")
    await session.begin()
    return session


async def test_a_leak_is_told_once_with_the_place_that_asked(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """After leak_after one event and one line: tenant, age, task, frames (fault case 34)."""
    clock = Clock()
    router = Router(config(replicas=0, connections={"leak_after": "30s"}), clock=clock)
    async with router:
        heard = Recorder(router)
        session = await asyncio.create_task(_forget(router), name="leaky")
        (pool,) = router._pools._pools.values()  # type: ignore[union-attr]
        with caplog.at_level(logging.WARNING, "router.pool"):
            for seconds, expected in ((29, 0), (2, 1), (100, 1)):
                clock.now += seconds
                pool.sweep()
                assert len(heard.of(ConnectionHeld)) == expected
        (event,) = heard.of(ConnectionHeld)
        assert (event.tenant, event.task, event.duration) == ("acme", "leaky", 31)
        assert re.fullmatch(r".*test_pool_load\.py:\d+ _forget", event.stack[0])
        assert not any("/router/" in frame or "asyncio" in frame for frame in event.stack)
        (line,) = caplog.messages
        assert line.startswith("a connection to main/primary is held by acme for 31 s in task 'leaky'")
        assert "_forget" in line
        await session.close()
        pool.sweep()
        assert len(heard.of(ConnectionHeld)) == 1


async def test_each_leak_is_told_of_its_own(server: Server) -> None:
    """A connection that is lent again is a new holder; a statement, which has a time limit, is none."""
    clock = Clock()
    bench = Bench(server, clock=clock, max=1, leak_after=10.0)
    for number in (1, 2):
        connection = await bench.get()
        bench.pool.hold(connection, unit_of("acme"))
        clock.now += 11
        bench.pool.sweep()
        bench.pool.sweep()
        assert len(bench.of(ConnectionHeld)) == number
        bench.pool.give(connection)
    connection = await bench.get()
    clock.now += 11
    bench.pool.sweep()
    assert len(bench.of(ConnectionHeld)) == 2
    bench.pool.give(connection)


async def test_no_leak_is_told_where_leak_after_is_0(server: Server) -> None:
    """0s switches the report off."""
    clock = Clock()
    bench = Bench(server, clock=clock, leak_after=0.0)
    connection = await bench.get()
    bench.pool.hold(connection, unit_of("acme"))
    clock.now += 1e6
    bench.pool.sweep()
    assert not bench.of(ConnectionHeld)
    bench.pool.give(connection)


async def test_a_holder_does_not_keep_its_task_alive(server: Server) -> None:
    """Who leaks a connection does not leak the frames of the task with it."""
    holders: list[Holder] = []

    async def work() -> None:
        holders.append(unit_of("acme"))

    await asyncio.create_task(work())
    await asyncio.sleep(0)
    gc.collect()
    assert holders[0].owner is not None and holders[0].owner() is None


# --- waiting for oneself ---------------------------------------------------------------------------------


@pytest.mark.engines("sqlite", "postgresql", "mariadb")
async def test_a_nested_acquire_is_refused_at_once(engine: Engine) -> None:
    """A task that holds the last connection and asks for another learns so at once (fault case 36)."""
    limits = {"defaults": {"timeouts": {"acquire": "20s"}}}
    async with engine.open(connections=1, **limits) as router:
        session = router.session("acme")
        async with session.transaction():
            started = time.monotonic()
            with pytest.raises(PoolDeadlock, match="in the transaction that is open already") as caught:
                await router.execute("SELECT 1", tenant="acme", primary=True)
            assert time.monotonic() - started < 10
            assert caught.value.tenant == "acme"
            assert repr(asyncio.current_task().get_name()) in str(caught.value)  # type: ignore[union-attr]
            assert await session.fetch_value("SELECT 1") == 1  # the transaction is as it was


async def test_tasks_that_wait_for_each_other_do_not_hang(server: Server) -> None:
    """The one that closes the circle is refused; its connection lets the others go on (fault case 36)."""
    async with opened(replicas=0, connections={"max": 2}) as router:
        both = asyncio.Barrier(2)
        outcomes: list[str] = []

        async def nested() -> None:
            async with router.session("acme") as outer, outer.transaction():
                await both.wait()
                try:
                    await router.execute("UPDATE plans SET seats = 1", tenant="acme", timeout=20)
                    outcomes.append("ran")
                except PoolDeadlock:
                    outcomes.append("refused")

        await asyncio.wait_for(asyncio.gather(nested(), nested()), 10)
        assert sorted(outcomes) == ["ran", "refused"]


async def test_a_pool_whose_connections_work_is_not_called_stuck(server: Server) -> None:
    """A statement that runs, or a unit that another task runs, will end: who asks meanwhile waits."""
    given = {"connections": {"max": 1}}
    async with opened(replicas=0, **given) as router, router.session("acme").transaction() as tx:
        gate = server.block("fetch_all")
        other = asyncio.create_task(tx.fetch_all(READ))
        await asyncio.sleep(0.01)
        with pytest.raises(PoolTimeout) as caught:  # the unit's own task asks; another task uses the unit
            await router.fetch_all(READ, tenant="acme", timeout=0.05)
        assert not isinstance(caught.value, PoolDeadlock)
        gate.set()
        await other


@pytest.mark.engines("sqlite", "postgresql", "mariadb")
async def test_two_tasks_in_one_transaction_are_told(engine: Engine) -> None:
    """Statements of two tasks never mix on one connection: the second is refused (fault case 42)."""
    async with engine.open() as router, router.session("acme") as session, session.transaction() as tx:
        slow = asyncio.create_task(tx.fetch_all(engine.sleep(0.02)))
        await asyncio.sleep(0)
        with pytest.raises(ConcurrentUse, match="Give each task"):
            await tx.fetch_value("SELECT 1")
        await slow
        assert await tx.fetch_value("SELECT 1") == 1


# --- a server that refuses -------------------------------------------------------------------------------


class Full(ScriptedDriver):
    """A server that takes so many connections and refuses the rest, and counts who asks."""

    def __init__(self, server: Server, most: int) -> None:
        super().__init__(server)
        self.most = most
        self.asked = 0
        self.at_once = self.now = self.taken = 0

    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        self.asked += 1
        self.now += 1
        self.at_once = max(self.at_once, self.now)
        try:
            await asyncio.sleep(0.001)
            if self.taken >= self.most:
                raise TooManyConnections("too many connections", code="53300")
            self.taken += 1
            return await super().connect(endpoint, timeout)
        finally:
            self.now -= 1


def full(bench: Bench, most: int) -> Full:
    driver = bench.pool._opener._driver = Full(bench.server, most)
    return driver


async def test_a_full_server_is_not_stormed(server: Server) -> None:
    """What the pool has serves all 100 tasks; the server is asked a few times (fault case 25)."""
    bench = Bench(server, max=100)
    driver = full(bench, 5)
    served = 0

    async def work() -> None:
        nonlocal served
        connection = await bench.get(timeout=30)
        await asyncio.sleep(0.002)
        bench.pool.give(connection)
        served += 1

    await asyncio.gather(*(work() for _ in range(100)))
    assert served == 100
    assert driver.asked <= 5 + 10 + 8  # those it takes, the first volley, and a few one by one
    assert driver.at_once <= 10
    assert bench.numbers == (5, 5, 0, 0)


async def test_who_was_refused_keeps_its_place_in_the_queue(server: Server) -> None:
    """A task that went to open a connection, and was refused, is served before those that came later."""
    bench = Bench(server, max=2)
    full(bench, 1)
    held = await bench.get()
    order: list[int] = []

    async def work(number: int) -> None:
        connection = await bench.get(timeout=30)
        order.append(number)
        bench.pool.give(connection)

    first = asyncio.create_task(work(1))
    await asyncio.sleep(0)  # it asks the server
    rest = [asyncio.create_task(work(number)) for number in (2, 3)]
    await waiting(bench, 2)
    await waiting(bench, 3)  # and was refused
    bench.pool.give(held)
    await asyncio.gather(first, *rest)
    assert order == [1, 2, 3]


async def test_a_pool_without_a_connection_says_that_the_server_is_full(server: Server) -> None:
    """With nothing that could come free, all who wait get the server's answer, typed (fault case 25)."""
    bench = Bench(server, max=100)
    driver = full(bench, 0)
    bench.pool._creator.refusals._rng = _Highest()
    results = await asyncio.gather(*(bench.get(timeout=30) for _ in range(100)), return_exceptions=True)
    assert {type(each) for each in results} == {TooManyConnections}
    assert driver.asked == 10
    with pytest.raises(TooManyConnections, match=r"too many connections; the server is asked again in \S+ s"):
        await bench.get()
    assert driver.asked == 10
    assert bench.numbers == (0, 0, 0, 0)


class _Highest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


async def test_a_timeout_behind_a_full_server_says_so(server: Server) -> None:
    """Who waits in vain learns why no connection was opened for it."""
    bench = Bench(server, max=5)
    full(bench, 1)
    bench.pool._creator.refusals._rng = _Highest()
    held = await bench.get()
    with pytest.raises(PoolTimeout, match=r"1 of 5 in use.*No more can be opened: .*too many connections"):
        await bench.get(timeout=0.05)
    bench.pool.give(held)


async def test_creation_goes_on_as_soon_as_the_server_has_room(server: Server) -> None:
    """The queue opens a connection after the wait, though no lent connection ever comes back."""
    bench = Bench(server, max=5)
    driver = full(bench, 1)
    held = await bench.get()
    waiter = asyncio.create_task(bench.get(timeout=30))
    await waiting(bench, 1)
    driver.most = 5
    second = await waiter
    assert second is not held
    assert not bench.pool._creator.refusals.probing
    bench.pool.give(held)
    bench.pool.give(second)


def test_the_wait_grows_by_chance_to_five_seconds() -> None:
    """Full jitter under a bound that doubles from 0.1 s to 5 s; one success starts anew (fault case 25)."""
    clock = Clock()
    for row, bound in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0)):
        waits = []
        for seed in range(300):
            refusals = Refusals(clock, random.Random(seed))
            for _ in range(row + 1):
                refusals.refused(TooManyConnections("full"))
            waits.append(refusals.pause())
        assert 0 <= min(waits) < 0.1 * bound and 0.9 * bound < max(waits) <= bound
    refusals.forget()
    assert (refusals.pause(), refusals.probing, refusals.error()) == (0.0, False, None)


@contextlib.asynccontextmanager
async def _limited(engine: Engine, most: int) -> AsyncIterator[dict[str, Any]]:
    """Yield the credentials of a database user who may have so many connections."""
    user, password = f"{engine.prefix}_few", "canary-of-the-limited-user"
    run = engine.server.run
    if engine.id == "postgresql":
        run(f"CREATE ROLE {user} LOGIN PASSWORD '{password}' CONNECTION LIMIT {most}", "postgres")
    else:
        run(f"CREATE USER {user}@'%' IDENTIFIED BY '{password}' WITH MAX_USER_CONNECTIONS {most}", "mysql")
        run(f"GRANT SELECT ON *.* TO {user}@'%'", "mysql")
    try:
        yield {"credentials": {"writer": {"username": user, "password": password}}, "replicas": []}
    finally:
        place = "postgres" if engine.id == "postgresql" else "mysql"
        run(f"DROP ROLE {user}" if place == "postgres" else f"DROP USER {user}", place)


@pytest.mark.engines("postgresql", "mariadb")
async def test_a_real_server_at_its_limit_is_not_stormed(engine: Engine) -> None:
    """A limit of 4 connections beside the probe, and 100 tasks: all are served, few try (fault case 25)."""
    async with _limited(engine, 4 + 1) as section:
        cluster = {**section, "connections": {"max": 100}}
        async with engine.open(cluster=cluster, defaults={"timeouts": {"acquire": "30s"}}) as router:
            heard = Recorder(router)
            await router.fetch_value("SELECT 1", tenant="acme")  # the probe has its connection
            rows = await asyncio.gather(
                *(router.fetch_value(engine.sleep(0.01), tenant="acme") for _ in range(100))
            )
            assert len(rows) == 100
            made, refused = heard.of(ConnectionOpened), heard.of(ConnectionFailed)
            assert len(made) == 4
            assert {event.error for event in refused} == {"TooManyConnections"}
            assert len(refused) <= 10 + 8
            assert {event.code for event in refused} <= {"53300", "1226", "1203"}


# --- a server that refuses the password ------------------------------------------------------------------


class Locked(ScriptedDriver):
    """A server that refuses the login, and counts how often it was asked."""

    asked = 0
    right = "the right one"

    async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
        self.asked += 1
        if await endpoint.login.password() != self.right:
            raise AuthenticationFailed("the password is wrong", code="28P01")
        return await super().connect(endpoint, timeout)


async def test_a_refused_password_does_not_lock_the_account(server: Server) -> None:
    """After 10 refused logins in 150 s none is tried for 120 s; the error says so and for how long."""
    clock = Clock()
    bench = Bench(server, clock=clock)
    driver = bench.pool._opener._driver = Locked(server)
    for _ in range(10):
        with pytest.raises(AuthenticationFailed):
            await bench.get()
        clock.now += 10
    assert driver.asked == 10
    for left in ("110", "60"):
        with pytest.raises(AuthenticationFailed, match=rf"10 logins.*for another {left} s") as caught:
            await bench.get()
        assert (caught.value.code, caught.value.node) == ("28P01", "primary")
        assert PASSWORD not in str(caught.value)
        clock.now += 50
    await bench.settle()
    assert driver.asked == 10
    clock.now += 20
    with pytest.raises(AuthenticationFailed, match="password is wrong"):
        await bench.get()
    assert driver.asked == 11


async def test_logins_refused_over_a_longer_time_are_not_blocked(server: Server) -> None:
    """One refusal now and then locks nothing; a login that succeeds starts the count anew."""
    clock = Clock()
    refusals = Refusals(clock, random.Random(1))
    for _ in range(30):
        refusals.refused(AuthenticationFailed("no"))
        clock.now += 17
        assert not refusals.pause()
    for _ in range(9):
        refusals.refused(AuthenticationFailed("no"))
    refusals.forget()
    refusals.refused(AuthenticationFailed("no"))
    assert not refusals.pause()


async def test_another_password_ends_the_block(server: Server) -> None:
    """The password is read in the background while logins are blocked; a changed one is tried."""
    password = "the old one"
    reads = 0

    async def current() -> str:
        nonlocal reads
        reads += 1
        return password

    bench = Bench(server)
    changing = Endpoint(NODE, "app", Login("app", current), readonly=False)
    bench.pool._opener._endpoint = bench.pool._creator._endpoint = changing
    bench.pool._opener._driver = Locked(server)
    for _ in range(12):
        with pytest.raises(AuthenticationFailed):
            await bench.get()
    await bench.settle()
    with pytest.raises(AuthenticationFailed, match="10 logins"):
        await bench.get()
    password = Locked.right
    with pytest.raises(AuthenticationFailed, match="10 logins"):
        await bench.get()  # starts the look
    await bench.settle()
    bench.pool.give(await bench.get())
    assert reads < 20


# --- bursts ----------------------------------------------------------------------------------------------


async def test_a_burst_of_connections_does_not_expire_at_one_moment(server: Server) -> None:
    """Connections opened together are replaced a few at a time (fault case 35)."""
    clock = Clock()
    bench = Bench(server, clock=clock, max=100, lifetime=1_000.0, idle=1e6)
    held = [await bench.get() for _ in range(100)]
    for connection in held:
        bench.pool.give(connection)
    gone: list[int] = []
    for _ in range(100):
        clock.now += 10
        bench.pool.sweep()
        gone.append(100 - bench.pool.status().idle)
    assert gone[89] == 0 and gone[-1] == 100
    steps = [after - before for before, after in itertools.pairwise(gone)]
    assert max(steps) <= 25


async def test_a_pool_that_is_never_idle_replaces_connections_too(server: Server) -> None:
    """A connection that has had its time is not handed on to who waits: they get a new one."""
    clock = Clock()
    bench = Bench(server, clock=clock, max=1, lifetime=10.0)
    first = await bench.get()
    waiting = asyncio.create_task(bench.get(timeout=60))
    await asyncio.sleep(0)
    clock.now += 20
    bench.pool.give(first)
    second = await waiting
    assert second is not first and bench.reasons == ["lifetime"]
    bench.pool.give(second)


async def test_a_burst_opens_few_connections_at_once(server: Server) -> None:
    """200 tasks on a pool of 50 open ten at a time; what comes back meanwhile serves the others."""
    bench = Bench(server, max=50)
    driver = full(bench, 1_000)

    async def work() -> None:
        bench.pool.give(await bench.get(timeout=30))

    await asyncio.gather(*(work() for _ in range(200)))
    assert driver.at_once == 10
    assert driver.asked < 50


# --- clocks ----------------------------------------------------------------------------------------------


async def test_jumps_of_the_wall_clock_change_nothing(server: Server) -> None:
    """Timeouts, ages, back-off and retries hold while the wall clock jumps by an hour (fault case 44)."""
    chance = random.Random(5)

    def wall() -> float:
        return time.time() + chance.choice((-3_600, 0, 3_600))

    given = {"attempts": 3, "min_wait": "1ms", "max_wait": "5ms"}
    defaults = {"timeouts": {"acquire": "300ms", "statement": "300ms"}, "retries": given}
    router = Router(config(replicas=1, connections={"max": 1}, defaults=defaults), wall=wall)
    async with router:
        heard = Recorder(router)
        server.fail("fetch_all", ConnectionResetError("reset"), breaks=True)
        assert await router.fetch_all(READ, tenant="acme")  # retried
        held = asyncio.Event()
        release = asyncio.Event()

        async def hold() -> None:
            async with router.session("acme") as session, session.transaction():
                held.set()
                await release.wait()

        holder = asyncio.create_task(hold())
        await held.wait()

        async def timed(work: Awaitable[object], error: type[RouterError]) -> None:
            started = time.monotonic()
            with pytest.raises(error):
                await work
            assert 0.29 <= time.monotonic() - started < 5

        await timed(router.execute("UPDATE plans SET seats = 1", tenant="acme"), PoolTimeout)
        release.set()
        await holder
        server.block("fetch_all")
        await timed(router.fetch_all(READ, tenant="acme"), StatementTimeout)
        for pool in router._pools._pools.values():  # type: ignore[union-attr]
            pool.sweep()
            assert all(each.expires_at > time.monotonic() + 1_000 for each in pool._idle)
        assert all(0 <= event.total < 10 for event in heard.requests)


def test_nothing_but_what_is_told_uses_the_wall_clock() -> None:
    """Outside of events and logs there is no time.time() and no datetime.now() (fault case 44)."""
    wall = re.compile(
        r"(?<!Callable\[\[\], float\] = )(?<![a-z])time\.time\b|datetime\.(now|utcnow)\b|time\.localtime"
    )
    files = Path(reasons.__file__).parent.rglob("*.py")
    # the commands show people their own time; elsewhere it is the default of a clock that is injected
    found = {file.name for file in files if file.parent.name != "cli" and wall.search(file.read_text())}
    assert not found
