"""The remote tier: real Redis and memcached; whatever goes wrong with them is a miss, within the limit."""

import asyncio
import gc
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from router.cache.broadcast_redis import RedisBroadcast
from router.cache.notices import Notice
from router.cache.remote import Remote
from router.cache.stores import open_store
from router.cache.urls import parse_url
from router.config.secret import Secret
from router.errors import ConfigurationError, MissingExtra
from tests import certificates
from tests.conftest import start_or_skip
from tests.faults.proxy import Proxy
from tests.faults.toxics import Latency
from tests.lateness import taking
from tests.servers import CANARY, MemcachedServer, RedisServer
from tests.servers.process import free_port
from tests.test_secrets_never_shown import Haul

KINDS = ("redis", "memcached")
CachingServer = RedisServer | MemcachedServer


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest) -> CachingServer:
    """Give the session's server of each kind; its values stay, so each test takes a prefix of its own."""
    server: CachingServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(params=KINDS)
def own(request: pytest.FixtureRequest) -> Iterator[CachingServer]:
    """Start a server of each kind that the test may break."""
    server = start_or_skip({"redis": RedisServer, "memcached": MemcachedServer}[request.param])
    yield server
    server.close()


def through(proxy: Proxy, server: CachingServer) -> str:
    """Return the server's URL, with the proxy in its place."""
    return server.dsn().replace(f":{server.port}", f":{proxy.port}")


class Clock:
    """Tell the time, and be put forward where a test would have to wait."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@asynccontextmanager
async def remote(url: str, **options: Any) -> AsyncIterator[Remote]:
    """Open a tier under a prefix of its own; see that closing it leaves no task."""
    options.setdefault("prefix", f"t{random.getrandbits(48):x}")
    options.setdefault("limit", 5.0)  # a busy machine is not what most tests are about
    tier = Remote(url, **options)
    try:
        yield tier
    finally:
        await tier.close()
        assert running() == []


def running() -> list[str]:
    """Return the names of the cache's tasks that have not ended."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("cache")]


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.01)


# --- values ----------------------------------------------------------------------------------------------


async def test_values_come_back_byte_by_byte(shared: CachingServer) -> None:
    """Any bytes come back as they were, in the order asked, with None for what is not there."""
    async with remote(shared.dsn()) as tier:
        values = {"a": bytes(range(256)) * 3, "b": b"", "c": b"\r\nEND\r\n"}
        assert await tier.set_many(values, 60)
        assert await tier.get_many(["c", "none", "a", "b", "a"]) == [
            values["c"],
            None,
            values["a"],
            b"",
            values["a"],
        ]
        assert await tier.get_many([]) == []
        assert (tier.counts.hits, tier.counts.misses, tier.counts.stored) == (1, 0, 3)
        assert tier.counts.bytes_written == 775


async def test_any_text_is_a_key(shared: CachingServer) -> None:
    """Spaces, letters of all scripts and great length make keys that differ, on memcached too."""
    keys = ["a b", "a_b", "ä", "x" * 500, "x" * 501, "line\r\nget a", ""]
    async with remote(shared.dsn()) as tier:
        for number, key in enumerate(keys):
            assert await tier.set(key, b"%d" % number, 60)
        assert await tier.get_many(keys) == [b"%d" % number for number in range(len(keys))]


async def test_value_ends_with_its_time(shared: CachingServer) -> None:
    """A value is gone after its time; memcached, which counts whole seconds, keeps none for less than one."""
    async with remote(shared.dsn()) as tier:
        short = isinstance(shared, RedisServer)
        assert await tier.set("brief", b"x", 0.1) == short
        assert await tier.set("long", b"x", 40 * 24 * 3600)
        await asyncio.sleep(0.12)
        assert await tier.get_many(["brief", "long"]) == [None, b"x"]


async def test_add_keeps_the_first(shared: CachingServer) -> None:
    """Of those who add at once, one is told that it did; deleted, the next may."""
    async with remote(shared.dsn()) as tier:
        kept = await asyncio.gather(*(tier.add("k", b"%d" % n, 60) for n in range(10)))
        assert sum(kept) == 1
        assert await tier.get_many(["k"]) == [b"%d" % kept.index(True)]
        assert await tier.delete("k")
        assert await tier.get_many(["k"]) == [None]
        assert await tier.add("k", b"again", 60)


async def test_clear_forgets_own_values_only(shared: CachingServer) -> None:
    """After clear no process gets a value of before, nor one that is written late; others keep theirs."""
    async with (
        remote(shared.dsn()) as stranger,
        remote(shared.dsn()) as one,
        remote(shared.dsn(), prefix=one._prefix) as two,
    ):
        assert await stranger.set("k", b"theirs", 60)
        assert await one.set("k", b"old", 60)
        assert await two.get_many(["k"]) == [b"old"]
        assert await one.clear()
        assert await two.set("late", b"by one that has not heard of it", 60)
        assert await one.get_many(["k", "late"]) == [None, None]
        assert await two.get_many(["k", "late"]) == [None, None]
        assert await two.set("k", b"new", 60)
        assert await one.get_many(["k"]) == [b"new"]
        assert await stranger.get_many(["k"]) == [b"theirs"]


async def test_flushed_server_has_no_values_and_takes_new_ones(own: CachingServer) -> None:
    """A server that lost everything, by a restart, answers with misses; then it is used as before."""
    async with remote(own.dsn()) as tier:
        assert await tier.set("k", b"1", 60)
        own.kill()
        own.start()
        assert await tier.get_many(["k"]) in ([None], None)
        await tier.get_many(["k"])
        assert await tier.set("k", b"2", 60)
        assert await tier.get_many(["k"]) == [b"2"]


async def test_garbage_in_place_of_the_edition_heals(redis: RedisServer) -> None:
    """An edition that somebody else has overwritten makes all values misses, until the next is written."""
    async with remote(redis.dsn()) as tier, remote(redis.dsn(), prefix=tier._prefix) as other:
        assert await tier.set("k", b"1", 60)
        store = open_store(parse_url(redis.dsn()), 1)
        await store.set(tier._edition_name, b"garbage", None)
        await store.close()
        assert await tier.get_many(["k"]) == [None]
        assert await other.set("k", b"2", 60)
        assert await tier.get_many(["k"]) == [b"2"]


async def test_large_value_is_not_sent(shared: CachingServer) -> None:
    """A value over the limit goes nowhere and harms nothing; the largest that is allowed comes back."""
    async with remote(shared.dsn(), limit=5.0, largest=2 * 1024 * 1024) as tier:
        most = tier._largest
        assert not await tier.set("k", bytes(most + 1), 60)
        assert await tier.set("k", b"x" * most, 60)
        assert await tier.get_many(["k"]) == [b"x" * most]
        assert (tier.counts.oversized, tier.counts.failures) == (1, 0)
        assert most == (2 * 1024 * 1024 if isinstance(shared, RedisServer) else 1_000_000 - 8)


async def test_put_soon_writes_in_the_background_and_drops_what_is_too_much(shared: CachingServer) -> None:
    """Values put soon arrive; over the bound they are dropped and counted; there is no task afterwards."""
    async with remote(shared.dsn()) as tier:
        for number in range(1005):
            tier.put_soon(f"k{number}", b"v", 60)
        assert tier.counts.dropped == 5
        tier.put_soon("k7", b"newer", 60)
        await until(lambda: tier._soon._task is None)
        assert await tier.get_many(["k7", "k999", "k1000"]) == [b"newer", b"v", None]
        tier.put_soon("big", b"x" * 900_000, 60)
        for number in range(20):
            tier.put_soon(f"big{number}", b"x" * 900_000, 60)
        assert tier.counts.dropped > 5


# --- what goes wrong -------------------------------------------------------------------------------------


@pytest.mark.timed
@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_dead_server_costs_the_limit_once(own: CachingServer, how: str) -> None:
    """Calls under way when the server dies end within the limit; later ones cost nothing until it is back."""
    heard: list[tuple[bool, str]] = []
    clock = Clock()
    async with remote(
        own.dsn(), limit=0.05, clock=clock, on_state=lambda up, why: heard.append((up, why))
    ) as tier:
        assert await tier.set("k", b"1", 60)
        {"frozen": own.freeze, "killed": own.kill}[how]()
        async with taking(0.05 + 0.2):
            found = await asyncio.gather(*(_timed(tier) for _ in range(50)))
            assert all(each in (None, [b"1"]) for each in found)  # the signal may come a moment later
        for _ in range(3):  # refusals cost nothing, so it takes some
            await tier.get_many(["k"])
        assert not tier.up
        began = time.monotonic()
        for _ in range(1000):
            assert await tier.get_many(["k"]) is None
        assert time.monotonic() - began < 0.1
        assert [up for up, _ in heard] == [False]
        clock.ahead += 1.3
        began = time.monotonic()
        assert await tier.get_many(["k"]) is None  # a probe begins: in the background
        assert time.monotonic() - began < 0.02
        {"frozen": own.thaw, "killed": own.start}[how]()
        await _back(tier, clock)
        assert [up for up, _ in heard] == [False, True]


async def _timed(tier: Remote) -> Any:
    return await tier.get_many(["k"])


async def _back(tier: Remote, clock: Clock) -> None:
    for _ in range(50):
        if await tier.get_many(["k"]) is not None:
            return
        clock.ahead += 0.2
        await asyncio.sleep(0.02)
    pytest.fail("the server is back and is not used")


@pytest.mark.timed
async def test_slow_server_is_a_miss_within_the_limit(shared: CachingServer) -> None:
    """Answers that take longer than the limit are misses; connections in the making are given up in time."""
    with Proxy(shared) as proxy:
        clock = Clock()
        async with remote(through(proxy, shared), limit=0.05, clock=clock) as tier:
            proxy.add(slow := Latency(0.2))
            async with taking(0.2, least=0.045):
                assert await tier.get_many(["k"]) is None
            assert tier.counts.timeouts == 1
            proxy.remove(slow)
            await _back(tier, clock)


async def test_server_without_a_listener_or_name_is_a_miss() -> None:
    """Refused connections, unknown hosts and unroutable addresses are misses, and trip the breaker."""
    for url in ("redis://127.0.0.1:1/0", "memcached://127.0.0.1:1", "redis://no-such-host.invalid"):
        async with remote(url) as tier:
            for _ in range(5):
                assert await tier.get_many(["k"]) is None
                assert not await tier.set("k", b"v", 60)
            assert not tier.up


@pytest.mark.parametrize(
    "answer", [b"garbage\r\n", b"\x00" * 4096, b"-ERR no\r\n", b"$5\r\nab", b"END\r\n" * 2, b""]
)
@pytest.mark.parametrize("kind", KINDS)
async def test_garbage_is_a_miss(kind: str, answer: bytes) -> None:
    """A server that answers nonsense is a miss, and left alone when it goes on."""

    serving = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with suppress(ConnectionError):
            while await reader.read(4096) and answer:
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with remote(f"{kind}://127.0.0.1:{port}", limit=0.05) as tier:
        for _ in range(5):
            assert await tier.get_many(["k"]) in (None, [None])
            assert not await tier.set("k", b"v", 60)
    server.close()
    await asyncio.gather(*serving)


async def test_wrong_password_is_a_miss_and_not_asked_for_ever(redis: RedisServer) -> None:
    """A server that refuses the password is left alone after some tries."""
    async with remote(f"redis://:wrong@{redis.host}:{redis.port}/0") as tier:
        for _ in range(10):
            assert await tier.get_many(["k"]) is None
        assert tier.counts.failures == 3
        assert tier.counts.skipped == 7
        assert "AuthenticationError" in repr(tier)


async def test_failing_listener_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An error of who listens to the state is logged; the call is a miss as any other."""

    def listener(up: bool, reason: str) -> None:
        raise RuntimeError("listener")

    async with remote("memcached://127.0.0.1:1", on_state=listener) as tier:
        for _ in range(4):
            assert await tier.get_many(["k"]) is None
    assert "a listener of the cache failed" in caplog.text


@pytest.mark.timed
async def test_many_callers_share_few_connections(shared: CachingServer) -> None:
    """No more connections are opened than allowed, however many ask; who waits too long gets a miss."""
    with Proxy(shared) as proxy:
        async with remote(through(proxy, shared), connections=3, limit=5.0) as tier:
            assert await tier.set("k", b"v", 60)
            assert await asyncio.gather(*(_timed(tier) for _ in range(200))) == [[b"v"]] * 200
            assert proxy.traffic.ever <= 3
            tier._limit = 0.2
            proxy.add(Latency(0.02))
            found = await asyncio.gather(*(_timed(tier) for _ in range(200)))
            assert [b"v"] in found
            assert tier.counts.crowded == found.count(None) > 100
            assert tier.up, "a crowd here is not the server's fault"


# --- cancellation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.004])
async def test_cancelled_calls_give_nobody_anothers_value(shared: CachingServer, delay: float) -> None:
    """After thousands of cancelled calls every value is still that of its key, and no connection is lost.

    A connection on which a command was cancelled has its answer still coming: reused, each later caller would
    get the answer of the one before.
    """
    keys, wrong, right = 40, 0, 0
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(shared))
        proxy.add(Latency(delay, delay / 2))
        async with remote(through(proxy, shared), connections=8, limit=2.0) as tier:
            for number in range(keys):
                assert await tier.set(f"k{number}", _value(number, 0), 60)
            rng = random.Random(7)

            async def one(number: int, turn: int) -> None:
                nonlocal wrong, right
                if turn % 3 == 0:
                    await tier.set(f"k{number}", _value(number, turn), 60)
                    return
                found = await tier.get_many([f"k{number}", f"k{(number + 1) % keys}"])
                if found is None:
                    return
                for offset, value in enumerate(found):
                    if value is not None and value.split(b":")[0] != b"%d" % ((number + offset) % keys):
                        wrong += 1
                    right += value is not None

            for turn in range(30):
                tasks = [asyncio.create_task(one(rng.randrange(keys), turn)) for _ in range(30)]
                await asyncio.sleep(rng.random() * (delay + 0.003))
                for task in tasks:
                    if rng.random() < 0.6:
                        task.cancel()
                    if rng.random() < 0.2:
                        asyncio.get_running_loop().call_soon(task.cancel)  # once more, while it cleans up
                await asyncio.gather(*tasks, return_exceptions=True)
            proxy.heal()
            # written after all that, each value must be exactly the last: not even an older one of its key
            for number in range(keys):
                await tier.set(f"k{number}", _value(number, 999), 60)
            for _ in range(3):
                for number in range(keys):
                    assert await tier.get_many([f"k{number}"]) == [_value(number, 999)]
            assert wrong == 0
            assert right > 100, tier.counts
            found_all = await asyncio.gather(*(tier.get_many([f"k{number}"]) for number in range(keys)))
            assert found_all == [[_value(number, 999)] for number in range(keys)], "connections were lost"
    gc.collect()


def _value(number: int, turn: int) -> bytes:
    return b"%d:%d:" % (number, turn) + b"x" * (number * 97)


async def test_timed_out_calls_give_nobody_anothers_value(shared: CachingServer) -> None:
    """The same where our own limit ends the calls, again and again in the middle of an answer."""
    with Proxy(shared) as proxy:
        async with remote(through(proxy, shared), limit=0.005, connections=4) as tier:
            tier._limit = 2.0
            for number in range(10):
                assert await tier.set(f"k{number}", _value(number, 0) + bytes(50_000), 60)
            tier._limit = 0.005
            proxy.add(Latency(0.004, 0.004))
            for _ in range(60):
                for number, found in enumerate(
                    await asyncio.gather(*(tier.get_many([f"k{number}"]) for number in range(10)))
                ):
                    assert found is None or found[0] is None or found[0].startswith(b"%d:" % number)
                tier._breaker = type(tier._breaker)()  # as if a probe had gone well at once
            assert tier.counts.timeouts > 10
            proxy.heal()
            tier._limit = 2.0
            for number in range(10):
                assert await tier.get_many([f"k{number}"]) == [_value(number, 0) + bytes(50_000)]


async def test_nothing_but_cancellation_is_raised(shared: CachingServer) -> None:
    """A cancelled call raises CancelledError, not a miss: its task is to end."""
    with Proxy(shared) as proxy:
        async with remote(through(proxy, shared), limit=5) as tier:
            assert await tier.set("k", b"v", 60)
            proxy.blackhole()
            task = asyncio.create_task(_timed(tier))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert tier.counts.timeouts == tier.counts.failures == 0


@pytest.mark.timed
async def test_close_is_bounded_and_final(own: CachingServer) -> None:
    """Closing ends within its bound on a frozen server with work under way; afterwards all is a miss."""
    tier = Remote(own.dsn(), limit=5.0)
    assert await tier.set("k", b"v", 60)
    own.freeze()
    for number in range(100):
        tier.put_soon(f"k{number}", b"x" * 500_000, 60)
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await tier.close()
    await tier.close()
    assert time.monotonic() - began < 3
    assert running() == []
    assert await tier.get_many(["k"]) is None
    tier.put_soon("k", b"v", 60)
    assert running() == []
    own.thaw()


# --- encryption ------------------------------------------------------------------------------------------


@pytest.mark.skipif(certificates.missing(), reason="there is no openssl program")
async def test_rediss_checks_who_the_server_is(tmp_path: Path) -> None:
    """Over TLS values and notices pass; a server whose certificate is not trusted is a miss."""
    server, port = start_or_skip(RedisServer), free_port()
    try:
        authority = certificates.Authority(tmp_path / "ca")
        for name, text in zip(("cert", "key"), authority.issue("IP:127.0.0.1"), strict=True):
            (tmp_path / name).write_text(text)
        async with Redis.from_url(server.dsn()) as admin:
            settings = ["tls-cert-file", tmp_path / "cert", "tls-key-file", tmp_path / "key"]
            settings += [
                "tls-ca-cert-file",
                authority.certificate,
                "tls-auth-clients",
                "no",
                "tls-port",
                port,
            ]
            await admin.execute_command("CONFIG", "SET", *map(str, settings))
        url = server.dsn().replace("redis:", "rediss:").replace(f":{server.port}", f":{port}")
        trusting = f"{url}?ssl_ca_certs={authority.certificate}"
        async with remote(trusting) as tier, remote(url) as doubting:
            assert await tier.set("k", b"v", 60)
            assert await tier.get_many(["k"]) == [b"v"]
            assert await doubting.get_many(["k"]) is None
        notices: list[Notice] = []
        one, two = (
            RedisBroadcast(
                trusting, on_message=lambda notice, _: notices.append(notice), on_lost=lambda: None
            )
            for _ in range(2)
        )
        await asyncio.gather(one.start(5), two.start(5))
        one.publish("place")
        await until(lambda: notices == [Notice("place")])
        await asyncio.gather(one.close(), two.close())
    finally:
        server.close()


# --- URLs and secrets ------------------------------------------------------------------------------------


def test_urls_are_taken_apart() -> None:
    """User, password, database and port are read, percent signs decoded, defaults filled in."""
    url = parse_url("rediss://app:p%40ss@cache:7000/3?ssl_ca_certs=/etc/ca.pem")
    assert (url.host, url.port, url.database, url.username, url.authority) == (
        "cache",
        7000,
        3,
        "app",
        "/etc/ca.pem",
    )
    assert url.password == Secret("p@ss")
    assert str(parse_url("memcached://m")) == "memcached://m:11211"
    assert str(parse_url(Secret("redis://[::1]"))) == "redis://::1:6379/0"


@pytest.mark.parametrize(
    "url",
    [
        f"http://{CANARY}@host",
        f"redis://:{CANARY}@",
        f"redis://:{CANARY}@host:port",
        f"redis://:{CANARY}@host/first",
        f"redis://:{CANARY}@host/0?ssl_cert_reqs=none",
        f"memcached://:{CANARY}@host",
        f"{CANARY}",
    ],
)
def test_wrong_urls_are_refused_without_being_repeated(url: str) -> None:
    """A URL that cannot be meant is refused, and the refusal shows nothing of it."""
    haul = Haul()
    with pytest.raises(ConfigurationError) as caught:
        parse_url(Secret(url))
    haul.caught("a wrong URL", caught.value)
    assert haul.search(CANARY) == []


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client's package the error says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "aiomcache", None)
    monkeypatch.delitem(sys.modules, "router.cache.store_memcached", raising=False)
    monkeypatch.delitem(sys.modules, "aiocache.backends.memcached", raising=False)
    with pytest.raises(MissingExtra, match=r"tenant-router\[memcached\]"):
        Remote("memcached://127.0.0.1")


async def test_password_is_never_shown(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Not in a repr, a log, what is told of the state, or the frames of a call cancelled while connecting."""
    caplog.set_level(logging.DEBUG)
    haul = Haul()
    with Proxy(redis) as proxy:
        proxy.add(Latency(0.02))
        async with remote(
            through(proxy, redis), limit=1.0, on_state=lambda up, why: haul.add("state", (up, why))
        ) as tier:
            haul.add("tier", tier)
            for delay in (0.0, 0.01, 0.03, 0.05, 0.07, 0.09):
                task = asyncio.create_task(_timed(tier))
                await asyncio.sleep(delay)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    try:
                        await task
                    except asyncio.CancelledError as exc:
                        haul.caught(f"cancelled after {delay}", exc)
                        raise
            proxy.refuse()
            proxy.reset()
            for _ in range(4):
                await tier.get_many(["k"])
            haul.add("tier", tier)
            assert not tier.up
    for record in caplog.records:
        haul.texts.append(("log", record.getMessage()))
    assert haul.search(CANARY) == []
