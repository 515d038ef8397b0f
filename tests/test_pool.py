"""The pool: who gets which connection, how long one waits, and what comes back into it."""

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from router.drivers.driver import Connection, Endpoint, Login
from router.errors import ConnectError, PoolTimeout, RouterClosed
from router.events import ConnectionClosed, ConnectionEvent, ConnectionFailed, ConnectionOpened, Event
from router.pools.admission import Admission
from router.pools.bounds import Limits
from router.pools.deadlines import Deadlines
from router.pools.pool import Pool
from router.pools.reaper import Reaper
from router.pools.registry import Pools
from router.statements import Dirt
from router.topology import Node, Role
from tests.doubles import PASSWORD, ScriptedConnection, ScriptedDriver, Server
from tests.lateness import taking

NODE = Node("primary", "main", Role.PRIMARY, "127.0.0.1", 1)


class Clock:
    """Stand still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def _password() -> str:
    return PASSWORD


def endpoint(database: str = "app") -> Endpoint:
    return Endpoint(NODE, database, Login("app", _password), readonly=False)


class Bench:
    """A pool with everything around it in reach."""

    def __init__(self, server: Server, *, clock: Callable[[], float] | None = None, **limits: Any) -> None:
        self.server = server
        self.events: list[Event] = []
        self.reaper = Reaper()
        self.clock = clock or time.monotonic
        self.pool = Pool(
            endpoint(),
            ScriptedDriver(server),
            given := Limits(**{"max": 2, **limits}),
            admission=Admission(given),
            reaper=self.reaper,
            deadlines=Deadlines(self.clock),
            emit=self.events.append,
            clock=self.clock,
            wall=time.time,
            rng=random.Random(7),
        )

    async def get(self, binding: str | None = None, timeout: float = 1.0) -> Any:
        """Lend a connection as a lease does: an idle one at once, else by waiting."""
        taken = self.pool.take(binding, self.clock())
        if taken is None:
            taken = await self.pool.acquire(binding, self.clock() + timeout, timeout, 5.0)
        return taken

    async def settle(self) -> None:
        """Return when the background has nothing left to do."""
        assert await self.reaper.drain(2) == 0

    def of(self, kind: type[ConnectionEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.of(ConnectionClosed)]

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        status = self.pool.status()
        return status.size, status.idle, status.in_use, status.waiting


@pytest.fixture
def bench(server: Server) -> Iterator[Bench]:
    yield Bench(server)


# --- lending ---------------------------------------------------------------------------------------------


async def test_nothing_is_opened_before_the_first_request(bench: Bench) -> None:
    """A pool that nobody asks holds no connection."""
    assert bench.pool.take(None, bench.clock()) is None
    assert bench.numbers == (0, 0, 0, 0)
    assert not bench.server.connections


async def test_the_connection_used_last_is_lent_first(bench: Bench) -> None:
    """Reuse is last in, first out, so that what is not needed can grow old and be closed."""
    first, second = await bench.get(), await bench.get()
    bench.pool.give(first)
    bench.pool.give(second)
    assert await bench.get() is second
    assert await bench.get() is first


async def test_a_connection_with_the_same_binding_is_preferred(server: Server) -> None:
    """A tenant gets a connection that is bound to it already, even if another was used later."""
    bench = Bench(server, max=3)
    held = [await bench.get() for _ in range(3)]
    for connection, binding in zip(held, ("acme", "globex", "initech"), strict=True):
        connection.binding = binding
        bench.pool.give(connection)
    assert (await bench.get("acme")).binding == "acme"
    assert (await bench.get("nobody")).binding in ("globex", "initech")
    assert bench.pool.status().idle == 1


async def test_waiters_are_served_in_the_order_that_they_came(server: Server) -> None:
    """First come, first served: nobody overtakes."""
    bench = Bench(server, max=1)
    held = await bench.get()
    order: list[int] = []

    async def wait(number: int) -> None:
        connection = await bench.get()
        order.append(number)
        await asyncio.sleep(0)
        bench.pool.give(connection)

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(wait(number))
            await asyncio.sleep(0)
        assert bench.numbers == (1, 0, 1, 5)
        bench.pool.give(held)
    assert order == [0, 1, 2, 3, 4]


async def test_a_newcomer_does_not_take_the_slot_that_was_promised_to_a_waiter(server: Server) -> None:
    """A slot that comes free belongs to the first in the queue, also if another task asks in that moment."""
    bench = Bench(server, max=1)
    held = await bench.get()
    order: list[str] = []

    async def wait(name: str) -> None:
        connection = await bench.get()
        order.append(name)
        bench.pool.give(connection)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait("waiter"))
        await asyncio.sleep(0)
        bench.pool.discard(held, "broken")  # frees the slot; the waiter has not run yet
        tasks.create_task(wait("newcomer"))
        assert bench.pool.status().size == 1
    assert order == ["waiter", "newcomer"]
    assert server.most == 1


async def test_the_maximum_is_never_exceeded(server: Server) -> None:
    """However many tasks ask, and whatever they do to the connections, max is max."""
    bench = Bench(server, max=5)
    chance = random.Random(11)

    async def work() -> None:
        connection = await bench.get(timeout=5)
        assert bench.pool.status().size <= 5
        await asyncio.sleep(chance.random() / 500)
        connection.dirt = chance.choice((Dirt.NONE, Dirt.NONE, Dirt.RESET))
        if chance.random() < 0.1:
            connection.terminate()
        bench.pool.give(connection)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(200):
            tasks.create_task(work())
    await bench.settle()
    assert bench.pool.status().in_use == bench.pool.status().waiting == 0
    assert bench.pool.status().size == bench.pool.status().idle <= 5
    assert server.most <= 5


# --- running out of time ---------------------------------------------------------------------------------


@pytest.mark.timed
async def test_a_pool_timeout_tells_the_numbers_and_comes_in_time(server: Server) -> None:
    """PoolTimeout says node, time, how many are in use and waiting, what to do; within 50 ms of the limit."""
    bench = Bench(server, max=1)
    held = await bench.get()
    async with taking(0.15, least=0.1):
        with pytest.raises(PoolTimeout) as caught:
            await bench.get(timeout=0.1)
    assert str(caught.value).startswith(
        "no connection to main/primary came free within 0.1 s: 1 of 1 in use, 1 waiting. "
        "Raise connections.max, or find who holds them for so long"
    )
    assert caught.value.context() == {"cluster": "main", "node": "primary"}
    assert bench.numbers == (1, 0, 1, 0)
    bench.pool.give(held)
    assert await bench.get() is held


async def test_a_timeout_in_a_task_that_was_cancelled_before_is_still_a_timeout(server: Server) -> None:
    """Cleanup in a cancelled task that finds the pool full learns that, not that it was cancelled again."""
    bench = Bench(server, max=1)
    await bench.get()
    seen: list[BaseException] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            try:
                await bench.get(timeout=0.02)
            except BaseException as exc:
                seen.append(exc)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert [type(exc) for exc in seen] == [PoolTimeout]


async def test_a_waiter_that_is_cancelled_leaves_the_queue(server: Server) -> None:
    """A cancelled waiter gets nothing and holds nobody up."""
    bench = Bench(server, max=1)
    held = await bench.get()
    first, second = asyncio.create_task(bench.get()), asyncio.create_task(bench.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert bench.numbers == (1, 0, 1, 1)
    bench.pool.give(held)
    assert await second is held


async def test_a_connection_handed_to_a_waiter_that_is_cancelled_then_is_passed_on(server: Server) -> None:
    """Cancelled after the hand-over and before it ran: the next gets the connection; it is not lost."""
    bench = Bench(server, max=1)
    held = await bench.get()
    first, second = asyncio.create_task(bench.get()), asyncio.create_task(bench.get())
    await asyncio.sleep(0)
    bench.pool.give(held)  # to the first, which has not run yet
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert await second is held
    bench.pool.give(held)
    assert bench.numbers == (1, 1, 0, 0)


async def test_a_slot_handed_to_a_waiter_that_is_cancelled_then_is_passed_on(server: Server) -> None:
    """The same for the right to open a connection."""
    bench = Bench(server, max=1)
    held = await bench.get()
    first, second = asyncio.create_task(bench.get()), asyncio.create_task(bench.get())
    await asyncio.sleep(0)
    bench.pool.discard(held, "broken")
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    fresh = await second
    assert fresh is not held
    bench.pool.give(fresh)
    assert bench.numbers == (1, 1, 0, 0)


# --- opening ---------------------------------------------------------------------------------------------


async def test_a_failed_connect_frees_its_slot_for_the_next_waiter(server: Server) -> None:
    """Who cannot connect raises; the slot goes to the next in the queue, who may have more luck."""
    bench = Bench(server, max=1)
    server.fail("connect", ConnectionRefusedError(111, "refused"))
    first, second = asyncio.create_task(bench.get()), asyncio.create_task(bench.get())
    with pytest.raises(ConnectError, match=r"to main/primary at 127\.0\.0\.1:1 as app") as caught:
        await first
    assert caught.value.sent.value == "no"
    bench.pool.give(await second)
    assert bench.numbers == (1, 1, 0, 0)
    assert [event.error for event in bench.of(ConnectionFailed)] == ["ConnectError"]


@pytest.mark.timed
async def test_a_connect_that_hangs_ends_in_time(server: Server) -> None:
    """A server that takes the connection and says nothing costs the caller its time limit, and no slot."""
    bench = Bench(server, max=1)
    server.block("connect")
    async with taking(0.15, least=0.1):
        with pytest.raises(ConnectError, match=r"no answer within 0\.1 s"):
            await bench.get(timeout=0.1)
    assert bench.numbers == (0, 0, 0, 0)


async def test_a_connect_that_hangs_names_the_time_that_was_asked_for(server: Server) -> None:
    """A moment that passed on the way to it does not make 0.1 s 0.0996 s."""
    bench = Bench(server)
    server.block("connect")
    error = await bench.pool._opener.open(0.0957)
    assert isinstance(error, ConnectError)
    assert error.message.endswith("no answer within 0.1 s")


@pytest.mark.timed
async def test_a_driver_that_resists_its_cancellation_does_not_hold_the_caller(server: Server) -> None:
    """The time limit holds also where a driver does not let go; what it opens too late is closed."""
    bench = Bench(server, max=1)
    late: list[ScriptedConnection] = []

    class Stubborn(ScriptedDriver):
        async def connect(self, endpoint: Endpoint, timeout: float) -> Connection:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)
            late.append(ScriptedConnection(server, endpoint, ""))
            return late[0]

    bench.pool._opener._driver = Stubborn(server)
    async with taking(0.1):
        with pytest.raises(ConnectError):
            await bench.get(timeout=0.05)
    assert await bench.reaper.drain(1) == 0
    assert late[0].closed


async def test_a_cancelled_connect_leaves_nothing_behind(server: Server) -> None:
    """Cancelled while connecting: the slot is free, and no connection stays open."""
    bench = Bench(server, max=1)
    gate = server.block("connect")
    task = asyncio.create_task(bench.get())
    await asyncio.sleep(0.01)
    assert bench.numbers == (1, 0, 0, 0)
    task.cancel()
    await asyncio.wait([task])
    gate.set()
    await bench.settle()
    assert bench.numbers == (0, 0, 0, 0)
    assert not server.open


# --- taking back -----------------------------------------------------------------------------------------


async def test_a_dirty_connection_is_reset_before_it_is_lent_again(bench: Bench) -> None:
    """Giving back does not wait for the reset; lending does, and the binding is gone."""
    connection = await bench.get("acme")
    connection.binding, connection.dirt = "acme", Dirt.RESET
    bench.pool.give(connection)
    assert bench.numbers == (1, 0, 0, 0)
    assert connection.calls == []
    await bench.settle()
    assert await bench.get("acme") is connection
    assert (connection.calls, connection.binding, connection.dirt) == (["reset"], None, Dirt.NONE)


async def test_a_connection_being_reset_goes_to_who_waits(server: Server) -> None:
    """A waiter gets the connection as soon as it is clean."""
    bench = Bench(server, max=1)
    connection = await bench.get()
    waiter = asyncio.create_task(bench.get())
    await asyncio.sleep(0)
    connection.dirt = Dirt.RESET
    bench.pool.give(connection)
    assert await waiter is connection
    assert connection.calls == ["reset"]


async def test_a_clean_connection_is_not_reset(bench: Bench) -> None:
    """What no statement has changed comes back at no cost."""
    connection = await bench.get()
    connection.dirt = Dirt.NONE
    bench.pool.give(connection)
    assert bench.pool.take(None, bench.clock()) is connection
    assert connection.calls == []


async def test_a_connection_whose_reset_fails_is_closed(bench: Bench) -> None:
    """Only a complete reset lets a connection back."""
    connection = await bench.get()
    bench.server.fail("reset", OSError("gone"))
    connection.dirt = Dirt.RESET
    bench.pool.give(connection)
    await bench.settle()
    assert connection.closed
    assert bench.reasons == ["reset_failed"]
    assert bench.numbers == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda connection: setattr(connection, "dirt", Dirt.DISCARD), "dirty"),
        (lambda connection: setattr(connection, "in_transaction", True), "dirty"),
        (lambda connection: connection.terminate(), "broken"),
    ],
    ids=["no-reset-cures-it", "in-transaction", "closed-by-server"],
)
async def test_a_connection_in_doubt_is_closed(
    bench: Bench, spoil: Callable[[Connection], None], reason: str
) -> None:
    """What cannot be cured, is in a transaction, or is broken does not come back, and its slot is free."""
    connection = await bench.get()
    spoil(connection)
    bench.pool.give(connection)
    assert bench.numbers == (0, 0, 0, 0)
    await bench.settle()
    assert connection.closed
    assert bench.reasons == [reason]
    assert "reset" not in connection.calls


async def test_a_discarded_connection_frees_its_slot_before_it_is_closed(server: Server) -> None:
    """A server that does not answer the good-bye holds nobody up."""
    bench = Bench(server, max=1)
    connection = await bench.get()
    gate = server.block("close")
    bench.pool.discard(connection, "cancelled")
    fresh = await bench.get(timeout=0.1)
    assert fresh is not connection
    gate.set()
    await bench.settle()
    assert bench.reasons == ["cancelled"]


async def test_a_connection_is_taken_back_once(bench: Bench) -> None:
    """Giving back twice is harmless: the pool's count stays right."""
    connection = await bench.get()
    bench.pool.give(connection)
    bench.pool.give(connection)
    bench.pool.discard(connection, "broken")
    assert bench.numbers == (1, 1, 0, 0)
    assert not bench.reasons


# --- growing old -----------------------------------------------------------------------------------------


async def test_lifetimes_are_jittered_and_end(server: Server) -> None:
    """Connections expire between 90 % and 100 % of the lifetime, not all at once, and are then replaced."""
    clock = Clock()
    bench = Bench(server, clock=clock, max=50, lifetime=100.0)
    held = [await bench.get() for _ in range(50)]
    lives = [connection.expires_at - clock.now for connection in held]
    assert 90 <= min(lives) < 92 and 98 < max(lives) <= 100
    for connection in held:
        bench.pool.give(connection)
    clock.now += 101
    fresh = await bench.get()
    assert fresh not in held
    assert bench.reasons == ["lifetime"] * 50


async def test_the_sweep_closes_what_was_idle_too_long_but_keeps_min(server: Server) -> None:
    """Idle connections above min go after idle seconds; those that were used since stay."""
    clock = Clock()
    bench = Bench(server, clock=clock, max=4, min=2, idle=60.0)
    held = [await bench.get() for _ in range(4)]
    for connection in held:
        bench.pool.give(connection)
    clock.now += 59
    bench.pool.sweep()
    assert bench.pool.status().idle == 4
    used = await bench.get()
    bench.pool.give(used)
    clock.now += 2
    bench.pool.sweep()
    assert bench.numbers == (2, 2, 0, 0)
    assert bench.reasons == ["idle", "idle"]
    assert await bench.get() is used


async def test_the_sweep_closes_broken_and_expired_connections(server: Server) -> None:
    """What the server has closed, and what is too old, goes even below min; what min asks for is opened."""
    clock = Clock()
    bench = Bench(server, clock=clock, max=2, min=1, lifetime=100.0)
    first, second = await bench.get(), await bench.get()
    bench.pool.give(first)
    bench.pool.give(second)
    second.terminate()
    clock.now += 101
    bench.pool.sweep()
    assert sorted(bench.reasons) == ["broken", "lifetime"]
    await bench.settle()
    assert bench.numbers == (1, 1, 0, 0)
    assert bench.pool.take(None, bench.clock()) not in (None, first, second)


async def test_the_sweep_opens_what_min_asks_for(server: Server) -> None:
    """min connections are kept ready; a failure to open one is told and tried again at the next sweep."""
    bench = Bench(server, max=4, min=3)
    server.fail("connect", ConnectionRefusedError(111, "refused"))
    bench.pool.sweep()
    await bench.settle()
    assert bench.numbers == (2, 2, 0, 0)
    assert len(bench.of(ConnectionFailed)) == 1
    bench.pool.sweep()
    await bench.settle()
    assert bench.numbers == (3, 3, 0, 0)
    assert len(bench.of(ConnectionOpened)) == 3


# --- the end ---------------------------------------------------------------------------------------------


async def test_close_waits_for_lent_connections(bench: Bench) -> None:
    """close() refuses new work at once, waits for what is lent, and closes everything."""
    lent, idle = await bench.get(), await bench.get()
    bench.pool.give(idle)
    closing = asyncio.create_task(bench.pool.close(1.0))
    await asyncio.sleep(0)
    with pytest.raises(RouterClosed, match="pool of main/primary is closed"):
        await bench.get()
    assert not closing.done()
    bench.pool.give(lent)
    assert await closing == 0
    await bench.settle()
    assert not bench.server.open
    assert bench.reasons == ["closed", "closed"]


@pytest.mark.timed
async def test_close_cuts_what_is_still_lent_after_the_grace(bench: Bench) -> None:
    """A connection that is not given back in time is cut and counted; giving it back later is harmless."""
    lent = await bench.get()
    async with taking(0.2, least=0.1):
        assert await bench.pool.close(0.1) == 1
    await bench.reaper.drain(1.0)
    assert lent.closed
    bench.pool.give(lent)
    bench.pool.discard(lent, "broken")
    assert bench.numbers == (0, 0, 0, 0)
    assert bench.reasons == ["closed"]
    assert await bench.pool.close(0.1) == 0


async def test_close_tells_who_waits(server: Server) -> None:
    """Waiters learn at once that the pool is closed."""
    bench = Bench(server, max=1)
    lent = await bench.get()
    waiters = [asyncio.create_task(bench.get(timeout=10)) for _ in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(bench.pool.close(1.0))
    for waiter in waiters:
        with pytest.raises(RouterClosed):
            await waiter
    bench.pool.give(lent)
    assert await closing == 0


async def test_close_gives_up_on_connections_being_opened(bench: Bench) -> None:
    """Who is connecting is told that the pool is closed, without waiting for the server."""
    bench.server.block("connect")
    opening = asyncio.create_task(bench.get(timeout=10))
    await asyncio.sleep(0.01)
    assert await bench.pool.close(1.0) == 0
    with pytest.raises(RouterClosed):
        await opening
    assert bench.numbers == (0, 0, 0, 0)
    assert not bench.server.open


async def test_a_cancelled_close_cuts_what_is_lent(bench: Bench) -> None:
    """Cancelling close() does not leave connections open."""
    lent = await bench.get()
    closing = asyncio.create_task(bench.pool.close(10))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert lent.closed
    assert bench.numbers == (0, 0, 0, 0)


# --- the reaper and the registry -------------------------------------------------------------------------


async def test_the_reaper_is_bounded() -> None:
    """Past its bound a clean-up is not started: the short way is taken instead."""
    reaper = Reaper(most=2)
    gate = asyncio.Event()
    done: list[str] = []

    async def work() -> None:
        await gate.wait()
        done.append("work")

    for _ in range(3):
        reaper.submit(work, lambda: done.append("instead"))
    assert (len(reaper), done) == (2, ["instead"])
    gate.set()
    assert await reaper.drain(1) == 0
    assert done == ["instead", "work", "work"]


async def test_what_was_given_up_fails_in_silence() -> None:
    """A probe that nobody waits for any more may end with an error, and asyncio would log that."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    reaper = Reaper()

    async def fail() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise ConnectionError("the server has gone") from None

    task = asyncio.get_running_loop().create_task(fail())
    await asyncio.sleep(0)
    task.cancel()
    reaper.adopt(task)
    assert await reaper.drain(1.0) == 0
    del task
    gc.collect()
    assert told == []


async def test_draining_waits_for_what_a_clean_up_hands_over() -> None:
    """A clean-up that ends in another one is waited for as a whole."""
    reaper = Reaper()
    done: list[str] = []

    async def second() -> None:
        await asyncio.sleep(0.01)
        done.append("second")

    async def first() -> None:
        await asyncio.sleep(0.01)
        reaper.submit(second, lambda: None)

    reaper.submit(first, lambda: None)
    assert await reaper.drain(1) == 0
    assert done == ["second"]


@pytest.mark.timed
async def test_draining_ends_in_time() -> None:
    """A clean-up that hangs is cancelled when the time is up."""
    reaper = Reaper()

    async def forever() -> None:
        await asyncio.sleep(100)

    reaper.submit(forever, lambda: None)
    async with taking(0.2):
        assert await reaper.drain(0.05) == 1
    assert len(reaper) == 0


def pools(events: list[Event]) -> Pools:
    return Pools(emit=events.append, clock=time.monotonic, wall=time.time, rng=random.Random(1))


async def test_one_pool_for_each_node_database_and_user(server: Server) -> None:
    """The same endpoint gives the same pool; another database gives another."""
    registry = pools([])
    driver = ScriptedDriver(server)
    first = registry.pool(endpoint("a"), driver, Limits())
    assert registry.pool(endpoint("a"), driver, Limits()) is first
    assert registry.pool(endpoint("b"), driver, Limits()) is not first
    assert [status.database for status in registry.status()] == ["a", "b"]
    await registry.close(1)


async def test_no_pool_is_made_after_close(server: Server) -> None:
    """A pool made after close() would never be closed: it is refused."""
    registry = pools([])
    await registry.close(1)
    with pytest.raises(RouterClosed):
        registry.pool(endpoint(), ScriptedDriver(server), Limits())


async def test_the_registry_sweeps_its_pools(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """min connections come without being asked for, and the sweeper ends with close()."""
    monkeypatch.setattr("router.pools.registry._SWEEP", 0.01)
    registry = pools([])
    pool = registry.pool(endpoint(), ScriptedDriver(server), Limits(min=2, max=2))
    for _ in range(200):
        if pool.status().idle < 2:
            await asyncio.sleep(0.005)
    assert pool.status().idle == 2
    assert await registry.close(1) == 0
    assert not server.open
    assert _others() == []


def _others() -> list[Any]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_closing_the_registry_is_bounded(server: Server) -> None:
    """However many pools and frozen servers there are, close() ends about when its grace does."""
    registry = pools([])
    gates: list[asyncio.Event] = []
    for name in "abcd":
        pool = registry.pool(endpoint(name), ScriptedDriver(server), Limits())
        connection = await pool.acquire(None, time.monotonic() + 1, 1, 1)
        pool.give(connection)
        gates.append(server.block("close"))
    started = time.monotonic()
    await registry.close(0.1)
    assert time.monotonic() - started < 1.5
    assert not server.open
    assert _others() == []
