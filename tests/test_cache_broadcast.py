"""Broadcasts between processes: real Redis and PostgreSQL; nothing that was missed goes unnoticed."""

import asyncio
import logging
import math
import random
import resource
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from router.cache.broadcast import Alone, Nobody
from router.cache.broadcast_postgresql import PostgresqlBroadcast
from router.cache.broadcast_redis import RedisBroadcast
from router.cache.linked import Linked
from router.cache.notices import EVERYTHING, Notice
from tests.conftest import start_or_skip
from tests.faults.proxy import Proxy
from tests.faults.toxics import Direction, Latency
from tests.lateness import taking
from tests.servers import CANARY, PostgresqlCluster, RedisServer
from tests.test_cache_remote import running, until
from tests.test_secrets_never_shown import Haul

KINDS = ("redis", "postgresql")


class Heard:
    """Keep what a broadcast has delivered, as a small cache: what is stale stays so until it is told."""

    def __init__(self) -> None:
        self.stale: set[str | None] = set()
        self.notices: list[Notice] = []
        self.moments: list[float] = []
        self.lost = 0

    def message(self, notice: Notice, moment: float) -> None:
        """Take a notice."""
        self.stale.discard(notice.place)
        self.notices.append(notice)
        self.moments.append(moment)

    def gap(self) -> None:
        """Take note of a loss: forget all."""
        self.stale.clear()
        self.lost += 1


class Place:
    """Make broadcasts of one kind through one server, or through something before it."""

    def __init__(self, kind: str, server: Any, host: str = "", port: int = 0) -> None:
        self.kind = kind
        self.server = server
        self.prefix = f"t{random.getrandbits(40):x}"
        self.port = port or server.port
        self.stack = AsyncExitStack()

    async def broadcast(self, port: int = 0, **options: Any) -> tuple[Linked, Heard]:
        """Open a broadcast and wait until it hears."""
        heard = Heard()
        made = self.make(heard, port or self.port, **options)
        await made.start(5)
        assert made.healthy()
        self.stack.push_async_callback(made.close)
        return made, heard

    def make(self, heard: Heard, port: int, **options: Any) -> Linked:
        """Return a broadcast that is not started."""
        options |= {"on_message": heard.message, "on_lost": heard.gap, "prefix": self.prefix}
        options = {"beat": 0.03, "patience": 0.4} | options
        url = self.server.dsn().replace(f":{self.server.port}", f":{port}")
        if self.kind == "redis":
            return RedisBroadcast(url, **options)
        return PostgresqlBroadcast(lambda: asyncpg.connect(url, timeout=1), **options)


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Give the session's server of each kind; what was opened is closed afterwards and leaves no task."""
    server = request.getfixturevalue(request.param)
    made = Place(request.param, server if request.param == "redis" else server.primary)
    async with made.stack:
        yield made
    assert running() == []


@asynccontextmanager
async def through_proxy(place: Place) -> AsyncIterator[Proxy]:
    """Put a proxy before the server; it outlives the broadcasts through it."""
    proxy = place.stack.enter_context(Proxy(place.server))
    yield proxy


@pytest.fixture(autouse=True)
def no_task_fails_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """See that the event loop had no complaint about a task that nobody asked for its error."""
    yield
    assert "never retrieved" not in caplog.text


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Start a Redis that the test may break."""
    server = start_or_skip(RedisServer)
    yield server
    server.close()


# --- what is said is heard -------------------------------------------------------------------------------


async def test_others_hear_what_was_written(place: Place) -> None:
    """A notice reaches all others, with its place and tables, and not the one that published it."""
    one, by_one = await place.broadcast()
    _, by_two = await place.broadcast()
    _, by_three = await place.broadcast()
    one.publish("acme/main", ["plans", "users"])
    one.publish("globex/main")
    one.publish("umläut \u0000\n'", {"täble"})
    expected = {
        Notice("acme/main", frozenset(("plans", "users"))),
        Notice("globex/main"),
        Notice("umläut \u0000\n'", frozenset(("täble",))),
    }
    for heard in (by_two, by_three):
        await until(lambda heard=heard: len(heard.notices) == 3)
        assert set(heard.notices) == expected
    assert by_one.notices == []
    one.publish(None)
    await until(lambda: by_two.notices[-1] == EVERYTHING)
    assert (one.counts.published, one.counts.said) == (4, 4)


async def test_heard_moment_covers_all_notices_of_before(place: Place) -> None:
    """Once heard() has passed the moment at which somebody else has said something, it has been delivered."""
    one, _ = await place.broadcast()
    two, heard = await place.broadcast()
    for number in range(20):
        one.publish(f"place {number}", ["t"])
        await until(lambda number=number: one.counts.said == number + 1)
        said = time.monotonic()
        await until(lambda said=said: two.heard() >= said)
        assert Notice(f"place {number}", frozenset(("t",))) in heard.notices
    assert heard.lost == 1, "only when hearing began"


async def test_heard_moment_stays_young(place: Place) -> None:
    """Without any traffic heard() follows the clock, by a few beats."""
    one, _ = await place.broadcast()
    one.heard()
    for _ in range(10):
        await asyncio.sleep(0.05)
        assert time.monotonic() - one.heard() < 0.5


async def test_prefix_separates(place: Place) -> None:
    """Who uses another prefix on the same server is not heard."""
    one, _ = await place.broadcast()
    place.prefix += "x"
    _, stranger = await place.broadcast()
    one.publish("place")
    await until(lambda: one.counts.said == 1)
    await asyncio.sleep(0.1)
    assert stranger.notices == []


async def test_many_tables_are_all_said(place: Place) -> None:
    """More tables than fit into one message arrive in several, or as all tables of the place."""
    one, _ = await place.broadcast()
    _, heard = await place.broadcast()
    tables = {f"table_{number}_" + "x" * 40 for number in range(1000)}
    one.publish("place", tables)
    one.publish("other", ["x" * 9000])
    one.publish("y" * 9000)
    await until(lambda: one.counts.said == 3)
    await asyncio.sleep(0.1)
    of_place = [notice.tables or frozenset() for notice in heard.notices if notice.place == "place"]
    assert frozenset().union(*of_place) == tables
    if place.kind == "postgresql":
        assert len(of_place) > 1
        assert Notice("other") in heard.notices
        assert EVERYTHING in heard.notices
    else:
        assert Notice("other", frozenset(("x" * 9000,))) in heard.notices
        assert Notice("y" * 9000) in heard.notices


async def test_burst_is_said_in_few_messages(place: Place) -> None:
    """Ten thousand notices of few places become a few messages, and publishing them takes no time."""
    one, _ = await place.broadcast()
    two, heard = await place.broadcast()
    began = time.monotonic()
    for number in range(10_000):
        one.publish(f"place {number % 20}", [f"t{number % 7}"])
    assert time.monotonic() - began < 0.5
    await until(lambda: len({(n.place, t) for n in heard.notices for t in n.tables or ()}) == 140)
    assert len(heard.notices) <= 40
    assert two.counts.heard == len(heard.notices)


@pytest.mark.timed
async def test_delay_between_two_processes(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Another process hears within milliseconds; the figure is printed."""
    _, heard = await place.broadcast()
    url = place.server.dsn()
    program = [sys.executable, "-m", "tests.test_cache_broadcast", place.kind, url, place.prefix]
    child = await asyncio.create_subprocess_exec(*program, stdout=PIPE)
    try:
        assert child.stdout is not None
        await asyncio.wait_for(child.stdout.read(), 20)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    await until(lambda: len(heard.notices) == 200)
    # CLOCK_MONOTONIC is one for all processes of a machine
    delays = sorted(
        moment - float(notice.place or "nan")
        for notice, moment in zip(heard.notices, heard.moments, strict=True)
    )
    with capsys.disabled():
        print(f"\n{place.kind}: delay p50 {delays[100] * 1e3:.2f} ms, p99 {delays[197] * 1e3:.2f} ms")
    assert delays[0] > 0
    assert delays[197] < 0.25


async def _say_from_here(kind: str, url: str, prefix: str) -> None:
    heard = Heard()
    options: dict[str, Any] = {"on_message": heard.message, "on_lost": heard.gap, "prefix": prefix}
    made: Linked = (
        RedisBroadcast(url, **options)
        if kind == "redis"
        else PostgresqlBroadcast(lambda: asyncpg.connect(url), **options)
    )
    await made.start(5)
    for _ in range(200):
        made.publish(repr(time.monotonic()), ["t"])
        await asyncio.sleep(0.002)
    await made.close()
    assert made.counts.said == 200


# --- what is missed is noticed ---------------------------------------------------------------------------


async def test_cut_connection_is_a_loss_and_is_made_again(place: Place) -> None:
    """When the connection breaks whoever listens is told at once, and again when hearing begins anew."""
    async with through_proxy(place) as proxy:
        one, _ = await place.broadcast()
        two, heard = await place.broadcast(proxy.port)
        assert heard.lost == 1
        proxy.refuse()
        proxy.reset()
        await until(lambda: not two.healthy())
        assert heard.lost == 2
        frozen = two.heard()
        one.publish("missed", ["t"])
        await asyncio.sleep(0.15)
        assert two.heard() == frozen
        assert heard.lost == 2
        proxy.accept()
        await until(two.healthy)
        assert heard.lost == 3
        assert two.heard() > frozen
        one.publish("heard", ["t"])
        await until(lambda: Notice("heard", frozenset("t")) in heard.notices)
        assert Notice("missed", frozenset("t")) not in heard.notices


async def test_what_could_not_be_said_is_said_later(place: Place) -> None:
    """A writer that was cut off says what it has to say when it is back, merged; others hear it all."""
    async with through_proxy(place) as proxy:
        one, _ = await place.broadcast(proxy.port)
        _, heard = await place.broadcast()
        proxy.refuse()
        proxy.reset()
        for number in range(50):
            one.publish("place", [f"t{number}"])
        one.publish("all of it", ["t"])
        one.publish("all of it")
        await asyncio.sleep(0.1)
        assert heard.notices == []
        proxy.accept()
        await until(lambda: len(heard.notices) == 2)
        assert set(heard.notices) == {
            Notice("place", frozenset(f"t{number}" for number in range(50))),
            Notice("all of it"),
        }


@pytest.mark.parametrize("direction", [None, Direction.TO_CLIENT])
async def test_silent_connection_is_a_loss(place: Place, direction: Direction | None) -> None:
    """Where bytes vanish, either way, heard() stands still, and the connection is given up."""
    async with through_proxy(place) as proxy:
        one, _ = await place.broadcast()
        two, heard = await place.broadcast(proxy.port)
        proxy.blackhole(direction)
        await asyncio.sleep(0.1)
        frozen = two.heard()
        one.publish("missed", ["t"])
        await until(lambda: not two.healthy())
        assert two.heard() == frozen
        assert heard.lost == 2
        proxy.heal()
        await until(two.healthy)
        assert heard.lost == 3


async def test_slow_connection_is_heard_and_never_blocks(place: Place) -> None:
    """Over a slow line notices come late and heard() says so; nothing is taken for lost."""
    async with through_proxy(place) as proxy:
        one, _ = await place.broadcast()
        two, heard = await place.broadcast(proxy.port, patience=5.0)
        proxy.add(Latency(0.1, 0.05))
        for number in range(20):
            began, waits = time.monotonic(), resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            one.publish(f"place {number}", ["t"])
            two.publish(f"from the slow one {number}", ["t"])
            waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - waits
            # what takes long without ever waiting for anything was not let run
            assert time.monotonic() - began < 0.05 or not waits
            await asyncio.sleep(0.02)
        await until(lambda: len(heard.notices) == 20)
        said = time.monotonic()
        await until(lambda: two.heard() > said)
        assert heard.lost == 1


async def test_frozen_redis_is_noticed(own_redis: RedisServer) -> None:
    """A frozen server stops heard(); thawed, all that was to be said is said, and all is flushed."""
    place = Place("redis", own_redis)
    async with place.stack:
        one, _ = await place.broadcast()
        two, heard = await place.broadcast()
        own_redis.freeze()
        await asyncio.sleep(0.05)
        frozen = two.heard()
        heard.stale.add("later")
        one.publish("later", ["t"])
        began = time.monotonic()
        ticks = 0
        while two.healthy() or one.healthy():
            await asyncio.sleep(0.01)
            ticks += 1
        assert time.monotonic() - began < 2.5
        assert ticks > 15, "the loop was blocked"
        assert two.heard() <= frozen + 0.1
        own_redis.thaw()
        await until(lambda: two.healthy() and one.healthy() and not one.unsaid)
        said = time.monotonic()
        await until(lambda: two.heard() > said)
        assert heard.stale == set()
        assert heard.lost == 3


@pytest.mark.parametrize(
    "harm", ["restart", "flush", "delete", "kill clients", "set", "garbage", "largest", "negative", "list"]
)
async def test_redis_that_lost_its_numbers_is_a_loss(own_redis: RedisServer, harm: str) -> None:
    """Restarted, flushed, its number gone or changed, clients killed: all is flushed, then it goes on."""
    place = Place("redis", own_redis)
    async with place.stack:
        one, by_one = await place.broadcast()
        two, by_two = await place.broadcast()
        for number in range(5):
            one.publish(f"place {number}")
        await until(lambda: len(by_two.notices) == 5)
        before = [by_one.lost, by_two.lost]
        if harm == "restart":
            own_redis.kill()
            own_redis.start()
        else:
            number = f"{place.prefix}:notices:number"
            commands = {
                "flush": ("FLUSHALL",),
                "delete": ("DEL", number),
                "set": ("SET", number, "1000000"),
                "garbage": ("SET", number, "garbage"),
                "largest": ("SET", number, str(2**63 - 1)),
                "negative": ("SET", number, "-1000"),
                "list": ("EVAL", "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x')", "1", number),
                "kill clients": ("CLIENT", "KILL", "TYPE", "pubsub"),
            }
            async with Redis.from_url(own_redis.dsn()) as client:
                await client.execute_command(*commands[harm])
        await until(lambda: by_one.lost > before[0] and by_two.lost > before[1])
        await until(lambda: one.healthy() and two.healthy())
        moment = time.monotonic()
        one.publish("again", ["t"])
        await until(lambda: Notice("again", frozenset("t")) in by_two.notices)
        await until(lambda: two.heard() > moment)


async def test_nothing_is_missed_through_restarts_unnoticed(own_redis: RedisServer) -> None:
    """Whatever was written is either heard or covered by a loss that was told after it: through chaos."""
    place = Place("redis", own_redis)
    async with place.stack:
        one, _ = await place.broadcast()
        two, heard = await place.broadcast()
        for turn in range(3):
            for number in range(60):
                name = f"{turn}:{number}"
                heard.stale.add(name)
                one.publish(name)
                await asyncio.sleep(0.002)
                if number == 30:
                    own_redis.kill()
            own_redis.start()
            await until(lambda: one.healthy() and two.healthy() and not one.unsaid)
            said = time.monotonic()
            await until(lambda said=said: two.heard() > said)
            assert heard.stale == set()


async def test_postgresql_that_moved_is_found_again(postgresql: PostgresqlCluster) -> None:
    """Where the primary goes silent, all is flushed, and ``connect`` is asked for the one of now."""
    place = Place("postgresql", postgresql.primary)
    async with place.stack, through_proxy(place) as proxy:
        ports = [proxy.port]

        async def connect() -> Any:
            url = postgresql.primary.dsn().replace(f":{postgresql.primary.port}", f":{ports[-1]}")
            return await asyncpg.connect(url, timeout=1)

        ends = []
        for _ in range(2):
            heard = Heard()
            options: dict[str, Any] = {"prefix": place.prefix, "patience": 0.4}
            made = PostgresqlBroadcast(connect, on_message=heard.message, on_lost=heard.gap, **options)
            await made.start(5)
            place.stack.push_async_callback(made.close)
            ends.append((made, heard))
        (one, _), (two, heard) = ends
        proxy.blackhole()
        heard.stale.add("while silent")
        one.publish("while silent", ["t"])
        ports.append(postgresql.primary.port)
        await until(lambda: heard.lost == 2)
        await until(lambda: one.healthy() and two.healthy() and not one.unsaid)
        said = time.monotonic()
        await until(lambda: two.heard() > said)
        assert heard.stale == set()
        one.renew()
        await until(lambda: one.counts.joined == 3)


async def test_killed_backend_is_a_loss(postgresql: PostgresqlCluster) -> None:
    """An administrator who ends the session makes it connect again, and is no error that anybody sees."""
    place = Place("postgresql", postgresql.primary)
    async with place.stack:
        one, heard = await place.broadcast(beat=30.0)
        assert isinstance(one, PostgresqlBroadcast)
        pid = one._link.get_server_pid()
        admin = await asyncpg.connect(postgresql.primary.dsn("admin"))
        await admin.execute("SELECT pg_terminate_backend($1)", pid)
        await admin.close()
        await until(lambda: heard.lost == 2, 0.5)  # not at the next beat
        await until(lambda: heard.lost == 3)
        assert one.healthy()


async def test_messages_of_strangers_are_counted_as_losses(place: Place) -> None:
    """A message that no process of ours has written may have been meant to say anything: all is flushed."""
    one, heard = await place.broadcast()
    rubbish = ["", "x", "[]", '["a","b"]', '["a",1,null]', '["a","b",[1]]', "1 2 3", "[" * 5000, "9" * 30]
    for count, text in enumerate(rubbish, start=1):
        if place.kind == "redis":
            async with Redis.from_url(place.server.dsn()) as client:
                await client.publish(f"{place.prefix}:notices", text)
        else:
            link = await asyncpg.connect(place.server.dsn())
            await link.execute("SELECT pg_notify($1, $2)", f"{place.prefix}_notices", text)
            await link.close()
        await until(lambda count=count: one.counts.malformed + one.counts.parted == count)
        await until(one.healthy)
    assert heard.notices == []
    assert heard.lost == 1 + one.counts.malformed + 2 * one.counts.parted


# --- start, close, listeners -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_absent_server_delays_the_start_only_as_long_as_allowed(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a server start() returns, nothing is heard, publishing is free, and close() leaves nothing."""

    class Absent:
        host, port = "127.0.0.1", 1

        def dsn(self) -> str:
            scheme = "redis" if kind == "redis" else "postgresql"
            return f"{scheme}://user:{CANARY}@127.0.0.1:1/0"

    caplog.set_level(logging.DEBUG)
    heard = Heard()
    made = Place(kind, Absent()).make(heard, 1)
    async with taking(1):
        await made.start(0.1)
    assert not made.healthy()
    assert made.heard() == -math.inf
    for number in range(5000):
        made.publish(f"place {number}")
    assert len(made.unsaid) == 1, "too many places to tell apart"
    await asyncio.sleep(0.2)
    haul = Haul()
    haul.add("broadcast", made)
    await made.close()
    await made.close()
    haul.texts.append(("log", caplog.text))
    assert haul.search(CANARY) == []
    made.publish("place")
    assert running() == []
    assert heard.lost == 0


async def test_close_says_what_is_left(place: Place) -> None:
    """What was published just before closing still goes out."""
    one, _ = await place.broadcast()
    _, heard = await place.broadcast()
    one.publish("last words")
    await one.close()
    await until(lambda: heard.notices == [Notice("last words")])
    assert not one.healthy()


@pytest.mark.timed
async def test_close_is_bounded(place: Place) -> None:
    """Closing ends soon where the server has gone silent, with things left to say."""
    async with through_proxy(place) as proxy:
        one, _ = await place.broadcast(proxy.port)
        proxy.blackhole()
        one.publish("never heard")
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await one.close()
        assert time.monotonic() - began < 3
        assert running() == []


async def test_failing_listener_does_not_make_others_deaf(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in on_message or on_lost is logged; what follows is delivered."""
    one, _ = await place.broadcast()
    two, heard = await place.broadcast()
    calls = []

    def fail(*arguments: object) -> None:
        calls.append(arguments)
        raise RuntimeError("listener")

    two._on_message = two._on_lost = fail
    one.publish("a")
    await until(lambda: calls)
    two._on_message = heard.message
    one.publish("b")
    await until(lambda: heard.notices == [Notice("b")])
    assert "a listener of the cache failed" in caplog.text


async def test_nobody_and_alone() -> None:
    """Who hears nobody knows nothing; who is alone knows all."""
    nobody, alone = Nobody(), Alone(lambda: 42.0)
    for each in (nobody, alone):
        await each.start()
        each.publish("place")
        assert each.healthy()
        await each.close()
    assert nobody.heard() == -math.inf
    assert alone.heard() == 42.0


if __name__ == "__main__":
    asyncio.run(_say_from_here(*sys.argv[1:4]))
