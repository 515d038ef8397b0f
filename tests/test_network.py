"""What the network does to connections: blackholes, hangs, breaks in mid result, slow lines, names that move.

Whatever happens, a caller hears in time, with the right rows or a typed error, and the next caller gets rows
of its own.
"""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router import Router, addresses, errors
from router.events import ConnectionClosed, ConnectionOpened, RetryScheduled
from tests.engines import Engine, Recorder, only
from tests.faults import Bandwidth, Break, Cut, Direction, Hang, Proxy, Stall
from tests.faults.cluster import Proxied
from tests.lateness import Lateness

pytestmark = only("postgresql", "mariadb")

TO_SERVER, TO_CLIENT = Direction
ROWS = 4000
ONCE = {"retries": {"attempts": 1}}


def rows(engine: Engine) -> str:
    """Return a query of many rows, some 400 kB, each telling its number."""
    if engine.dialect == "postgresql":
        return f"SELECT n, repeat('x', 100) AS filling FROM generate_series(1, {ROWS}) n ORDER BY n"
    return f"SELECT seq AS n, REPEAT('x', 100) AS filling FROM seq_1_to_{ROWS} ORDER BY seq"


async def own_rows(router: Router) -> None:
    """Fail if one of several callers gets another's row, or an old one."""
    asked = [f"caller {number}" for number in range(6)]
    ask = (router.fetch_value("SELECT :v", {"v": each}, tenant="acme") for each in asked)
    got = await asyncio.gather(*ask)
    assert got == asked


async def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Wait for a condition; raise TimeoutError if it does not come."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def within(limit: float) -> AsyncIterator[None]:
    """Fail if the block takes more than ``limit`` seconds and the loop's own lateness, or much less."""
    async with Lateness() as late:
        started = time.monotonic()
        yield
        took = time.monotonic() - started
    assert limit - 0.05 <= took <= limit + 0.05 + late.total


def connected(*proxies: Proxy) -> int:
    """Return how many sockets of clients are open to the proxies, as the kernel has it: proc(5), net/tcp."""
    ports = {proxy.port for proxy in proxies}
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(each[3] == "01" and int(each[2].rpartition(":")[2], 16) in ports for each in fields)


def lent(router: Router) -> tuple[int, int]:
    """Return how many connections are lent or under way, and how many callers wait."""
    pools = router.status().pools
    return sum(pool.size - pool.idle for pool in pools), sum(pool.waiting for pool in pools)


# --- blackholes ------------------------------------------------------------------------------------------


@pytest.mark.timed
@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
async def test_a_request_into_a_blackhole(proxied: Proxied, items: str, write: bool) -> None:
    """It ends in time, its slot is free at once, its connection is not lent again (fault case 23)."""
    async with proxied.engine.open(connections=1) as router:
        heard = Recorder(router)
        assert await router.fetch_value("SELECT 1", tenant="acme", primary=True) == 1
        (old,) = heard.of(ConnectionOpened)
        heard.clear()
        proxied.primary.blackhole()
        expected: type[errors.RouterError] = errors.StatementTimeout
        call: Callable[..., Awaitable[Any]] = router.fetch_value
        sql, given = "SELECT 2", {"primary": True}
        if write:
            expected, call, given = errors.CommitOutcomeUnknown, router.execute, {}
            sql = f"INSERT INTO {items} (amount) VALUES (1)"
        async with within(0.3):
            with pytest.raises(expected) as caught:
                await call(sql, tenant="acme", timeout=0.3, **given)
        assert (caught.value.node, lent(router)) == ("primary", (0, 0))
        assert heard.of(RetryScheduled) == []
        assert len([each for each in heard.of(ConnectionClosed) if each.node is old.node]) == 1
        proxied.heal()
        await own_rows(router)
        assert await router.fetch_value("SELECT 3", tenant="acme", primary=True) == 3


async def test_giving_up_does_not_pile_up(proxied: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given up is gone in bounded time: clean-up, tasks and sockets (fault case 23)."""
    monkeypatch.setattr("router.pools.lending._CLEANUP", 0.2)
    tasks = len(asyncio.all_tasks())
    async with proxied.engine.open(connections=8, defaults=ONCE) as router:
        assert router._pools is not None
        given = {"tenant": "acme", "primary": True}
        await asyncio.gather(*(router.fetch_all(proxied.engine.sleep(0.1), **given) for _ in range(8)))
        proxied.primary.blackhole()
        for _ in range(4):  # the first eight on open connections, the others while they connect
            ended = await asyncio.gather(
                *(router.fetch_value("SELECT 1", timeout=0.1, **given) for _ in range(8)),
                return_exceptions=True,
            )
            known = errors.StatementTimeout | errors.ConnectError | errors.PoolTimeout
            assert [each for each in ended if not isinstance(each, known)] == []
        reaper = router._pools.reaper
        await until(lambda: len(reaper) == 0)
        assert lent(router) == (0, 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: connected(*proxied.nodes) == 0)


async def test_a_connection_given_up_in_mid_send_is_closed(
    proxied: Proxied, items: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server does not take is not waited for beyond the clean-up's time (fault case 23)."""
    monkeypatch.setattr("router.pools.lending._CLEANUP", 0.2)
    column = "BYTEA" if proxied.engine.dialect == "postgresql" else "LONGBLOB"
    async with proxied.engine.open(connections=1, defaults=ONCE) as router:
        sql = f"INSERT INTO {items}_big (value) VALUES (:value)"
        await router.execute(f"CREATE TABLE {items}_big (value {column})", tenant="acme")
        await router.execute(sql, {"value": b""}, tenant="acme")
        before = connected(proxied.primary)
        stall = Stall()
        proxied.primary.add(stall)
        with pytest.raises(errors.CommitOutcomeUnknown):
            await router.execute(sql, {"value": bytes(15_000_000)}, tenant="acme", timeout=0.6)
        assert lent(router) == (0, 0)
        await until(lambda: connected(proxied.primary) < before)
        proxied.primary.remove(stall)
        await own_rows(router)


# --- connecting ------------------------------------------------------------------------------------------


@pytest.mark.timed
async def test_a_server_that_accepts_and_says_nothing(proxied: Proxied) -> None:
    """The connect timeout bounds it, not the longer one of waiting for a connection (fault case 24)."""
    settings = {**ONCE, "timeouts": {"connect": "300ms", "acquire": "20s"}}
    async with proxied.engine.open(defaults=settings) as router:
        async with router.session("acme") as session, session.transaction():  # holds what is open
            proxied.primary.add(Hang())
            why = r"cannot connect to main/primary.*no answer within 0.3 s"
            async with within(0.3):
                with pytest.raises(errors.ConnectError, match=why):
                    await router.fetch_value("SELECT 1", tenant="acme", primary=True)
            proxied.heal()
        await own_rows(router)


async def test_who_waits_behind_a_hanging_connect(proxied: Proxied) -> None:
    """The slot passes on when the connect is given up, and the next one connects itself (fault case 24)."""
    settings = {**ONCE, "timeouts": {"connect": "500ms", "acquire": "20s"}}
    async with proxied.engine.open(connections=2, defaults=settings) as router:
        given = {"tenant": "acme", "primary": True}
        async with router.session("acme") as session, session.connection():  # holds what is open
            seen, hang = proxied.primary.traffic.ever, Hang()
            proxied.primary.add(hang)
            first = asyncio.create_task(router.fetch_value("SELECT 1", **given))
            await until(lambda: proxied.primary.traffic.ever > seen)
            second = asyncio.create_task(router.fetch_value("SELECT 2", **given))
            await until(lambda: lent(router)[1] == 1)
            assert not first.done()
            proxied.primary.silence()  # the one that hangs goes on to; new ones work
            proxied.primary.remove(hang)
            with pytest.raises(errors.ConnectError):
                await first
            assert await second == 2


async def test_a_hanging_connect_keeps_nobody_from_open_connections(proxied: Proxied) -> None:
    """While one caller waits for its connect, others use what is idle (fault case 24)."""
    settings = {**ONCE, "timeouts": {"connect": "20s", "acquire": "20s"}}
    async with proxied.engine.open(connections=2, defaults=settings) as router:
        given = {"tenant": "acme", "primary": True}
        assert await router.fetch_value("SELECT 1", **given) == 1
        hang = Hang()
        proxied.primary.add(hang)
        seen = proxied.primary.traffic.ever
        long = asyncio.create_task(router.fetch_all(proxied.engine.sleep(0.2), **given))
        other = asyncio.create_task(router.fetch_value("SELECT 2", **given))
        await until(lambda: proxied.primary.traffic.ever > seen)
        await long
        assert await router.fetch_value("SELECT 3", **given) == 3
        proxied.primary.remove(hang)
        assert await other == 2


# --- breaks in mid result --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [Break.RESET, Break.CLOSE, Break.HALF_CLOSE], ids=lambda how: how.name.lower()
)
async def test_a_read_broken_in_mid_result(proxied: Proxied, how: Break) -> None:
    """It is made anew elsewhere and gives each row once; where every try breaks, the error says so."""
    async with proxied.engine.open() as router:
        heard = Recorder(router)
        sql = rows(proxied.engine)
        cuts = [Cut(100_000, how, direction=TO_CLIENT, times=1) for _ in proxied.replicas]
        for proxy, cut in zip(proxied.replicas, cuts, strict=True):
            proxy.add(cut)
        got = await router.fetch_all(sql, tenant="acme", timeout=20)
        assert [row[0] for row in got] == list(range(1, ROWS + 1))
        assert len(heard.of(RetryScheduled)) == sum(cut.fired for cut in cuts) >= 1
        for proxy in proxied.nodes:
            proxy.add(Cut(100_000, how, direction=TO_CLIENT))
        with pytest.raises(errors.ConnectionLost) as caught:
            await router.fetch_all(sql, tenant="acme", timeout=20)
        assert caught.value.attempts
        assert lent(router) == (0, 0)
        proxied.heal()
        await own_rows(router)


async def test_a_stream_broken_in_mid_result(proxied: Proxied) -> None:
    """The rows so far are right, then comes the error; nothing is read twice."""
    async with proxied.engine.open() as router, router.session("acme") as session:
        for proxy in proxied.nodes:
            proxy.add(Cut(100_000, direction=TO_CLIENT))
        got: list[int] = []
        with pytest.raises(errors.ConnectionLost):
            async for row in session.stream(rows(proxied.engine), batch=50):
                got.append(row[0])  # noqa: PERF401 - what came before the error counts
        assert got == list(range(1, len(got) + 1))
        assert 0 < len(got) < ROWS
        proxied.heal()
        await own_rows(router)


async def test_the_line_to_the_server_closed_while_it_works(proxied: Proxied) -> None:
    """The answer may still come, or the error; the connection is not used for anybody else."""
    async with proxied.engine.open(connections=1, defaults=ONCE) as router:
        given = {"tenant": "acme", "primary": True}
        await router.fetch_value("SELECT 1", **given)
        asked = asyncio.create_task(router.fetch_all(proxied.engine.sleep(0.3), **given))
        await until(lambda: lent(router)[0] == 1)
        proxied.primary.half_close(TO_SERVER)
        await asyncio.wait([asked])
        assert asked.exception() is None or isinstance(asked.exception(), errors.ConnectionLost)
        await asyncio.sleep(0.05)  # the server's own end is on its way
        await own_rows(router)
        assert await router.fetch_value("SELECT 42", **given) == 42


@pytest.mark.timed
async def test_a_slow_line(proxied: Proxied) -> None:
    """All rows come if there is time; if not the request ends, and the rest of them reaches nobody."""
    async with proxied.engine.open(connections=1) as router:
        sql, given = rows(proxied.engine), {"tenant": "acme", "primary": True}
        slow = Bandwidth(1_500_000, direction=TO_CLIENT)
        proxied.primary.add(slow)
        got = await router.fetch_all(sql, timeout=20, **given)
        assert [row[0] for row in got] == list(range(1, ROWS + 1))
        proxied.primary.add(Bandwidth(100_000, direction=TO_CLIENT))
        async with within(0.4):
            with pytest.raises(errors.StatementTimeout):
                await router.fetch_all(sql, timeout=0.4, **given)
        proxied.heal()
        assert await router.fetch_value("SELECT 42", **given) == 42
        await own_rows(router)


@only("postgresql")
async def test_a_write_lost_before_it_ran(proxied: Proxied, items: str) -> None:
    """What is lost while the server prepares it has not run, so it is sent again and applied once."""
    async with proxied.engine.open() as router:
        await router.fetch_value("SELECT 1", tenant="acme", primary=True)
        cut = Cut(0, direction=TO_CLIENT, times=1)
        proxied.primary.add(cut)
        await router.execute(f"INSERT INTO {items} (amount) VALUES (1)", tenant="acme")
        assert cut.fired == 1
        assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 1


# --- names -----------------------------------------------------------------------------------------------


class Names:
    """Stand in for the resolver, for one made-up name."""

    name = "db.router.test"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address: str | None = "127.0.0.1"
        self.asked = 0
        self.answer = threading.Event()
        self.answer.set()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.resolve)

    def resolve(self, host: Any, *args: Any, **options: Any) -> Any:
        """Answer for the name; leave others to the system."""
        if host not in (self.name, self.name.encode()):
            return self._real(host, *args, **options)
        self.asked += 1
        self.answer.wait(20)
        if self.address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._real(self.address, *args, **options)

    def cluster(self, proxy: Proxy) -> dict[str, Any]:
        """Return the section of a cluster whose only node has the name."""
        return {
            "primary": {"host": self.name, "port": proxy.port},
            "replicas": [],
            "tls": {"mode": "disable"},
        }


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names(monkeypatch)
    yield made
    made.answer.set()


async def test_a_name_that_leads_elsewhere(proxied: Proxied, names: Names) -> None:
    """It is resolved at each connect, so a new answer is followed at once (fault case 22)."""
    first = proxied.primary
    with Proxy(proxied.engine.server.primary, "127.0.0.2", first.port) as second:
        async with proxied.engine.open(cluster=names.cluster(first)) as router:
            assert await router.fetch_value("SELECT 1", tenant="acme") == 1
            names.address = "127.0.0.2"
            assert await router.fetch_value("SELECT 2", tenant="acme") == 2
            assert second.traffic.ever == 0  # what is open is used on
            first.refuse()
            first.reset()
            assert await router.fetch_value("SELECT 3", tenant="acme") == 3
            assert second.traffic.ever >= 1


async def test_connections_to_where_a_name_led_before_are_let_go(
    proxied: Proxied, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A managed database moves behind its name; a name that leads nowhere moves nothing (fault case 22)."""
    monkeypatch.setattr(addresses, "_EVERY", 0.05)
    first = proxied.primary
    with Proxy(proxied.engine.server.primary, "127.0.0.2", first.port) as second:
        async with proxied.engine.open(cluster=names.cluster(first)) as router:
            async with router.session("acme") as session, session.transaction() as tx:
                assert await tx.fetch_value("SELECT 1") == 1
                names.address = None
                asked = names.asked
                await until(lambda: names.asked > asked + 2)
                assert router.status().pools[0].size == 1
                names.address = "127.0.0.2"
                asked = names.asked
                await until(lambda: names.asked > asked + 2)
                assert await tx.fetch_value("SELECT 2") == 2  # what runs comes to its end where it is
            assert await router.fetch_value("SELECT 3", tenant="acme") == 3
            assert second.traffic.ever >= 1


async def test_a_name_that_vanishes_for_a_while(proxied: Proxied, names: Names) -> None:
    """Open connections go on; who needs a new one is told which node and why (fault case 22)."""
    cluster = names.cluster(proxied.primary)
    async with proxied.engine.open(cluster=cluster, connections=2, defaults=ONCE) as router:
        assert await router.fetch_value("SELECT 1", tenant="acme") == 1
        names.address = None
        assert await router.fetch_value("SELECT 2", tenant="acme") == 2
        async with router.session("acme") as session, session.transaction() as tx:
            assert await tx.fetch_value("SELECT 3") == 3
            with pytest.raises(errors.ConnectError) as caught:
                await router.fetch_value("SELECT 4", tenant="acme")
            for part in ("main/primary", names.name, "cannot be resolved"):
                assert part in str(caught.value)
            names.address = "127.0.0.1"
            assert await router.fetch_value("SELECT 5", tenant="acme") == 5


@pytest.mark.timed
async def test_a_resolver_that_hangs(proxied: Proxied, names: Names) -> None:
    """The connect timeout bounds it too, and the loop goes on (fault cases 22, 24)."""
    settings = {**ONCE, "timeouts": {"connect": "300ms", "acquire": "20s"}}
    async with proxied.engine.open(cluster=names.cluster(proxied.primary), defaults=settings) as router:
        async with router.session("acme") as session, session.transaction():  # holds what is open
            names.answer.clear()
            async with within(0.3):
                with pytest.raises(errors.ConnectError, match="no answer within"):
                    await router.fetch_value("SELECT 1", tenant="acme")
            names.answer.set()
        assert await router.fetch_value("SELECT 2", tenant="acme") == 2


# --- the sockets -----------------------------------------------------------------------------------------


async def test_the_kernel_is_asked_to_notice_a_peer_that_vanished(router: Router) -> None:
    """Keepalive probes and a bound on what is sent without an answer: 30 s at most (fault case 23)."""
    async with router.session("acme") as session, session.connection() as lease:
        raw = lease.connection.driver_connection
        transport = raw._transport if hasattr(raw, "_transport") else raw._writer.transport
        link = transport.get_extra_info("socket")
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        found = [
            link.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
        ]
        assert found == [5, 5, 5, 30_000]
        assert found[0] + found[1] * found[2] == found[3] / 1000
