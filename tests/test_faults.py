"""The fault proxy does what it says: shown with plain sockets before any test relies on it."""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.faults import (
    Bandwidth,
    Blackhole,
    Break,
    Cut,
    Direction,
    Hang,
    Latency,
    MysqlStatements,
    PostgresqlStatements,
    Proxy,
    Record,
    Stall,
)
from tests.servers.process import wait_until

TO_SERVER, TO_CLIENT = Direction


class Echo:
    """Send back whatever comes, with a mark of its own before each piece if it has one."""

    def __init__(self, mark: bytes = b"") -> None:
        self.mark = mark
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        self.ends: list[str] = []  # how the connections ended

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        how = "end"
        with link:
            try:
                while data := link.recv(65_536):
                    link.sendall(self.mark + data)
            except OSError as exc:
                how = type(exc).__name__
        self.ends.append(how)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo) as made:
        yield made


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Callable[[], socket.socket]]:
    """Connect as often as a test asks; a read waits 10 s at most."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((proxy.host, proxy.port), timeout=10))


Client = Callable[[], socket.socket]


def ask(link: socket.socket, text: bytes) -> bytes:
    link.sendall(text)
    return receive(link, len(text))


def receive(link: socket.socket, count: int) -> bytes:
    """Return so many bytes, fewer where the stream ends before."""
    found = b""
    while len(found) < count and (data := link.recv(count - len(found))):
        found += data
    return found


def silent(link: socket.socket, seconds: float = 0.15) -> bool:
    """Tell whether nothing comes, not even an end."""
    link.settimeout(seconds)
    try:
        link.recv(1)
    except TimeoutError:
        return True
    finally:
        link.settimeout(10)
    return False


def until(condition: Callable[[], bool]) -> None:
    wait_until(condition, 10, lambda: "it did not come to that")


def test_without_toxics_all_bytes_pass(proxy: Proxy, client: Client) -> None:
    """Large data comes back unchanged; connections and bytes are counted, both ways."""
    data = random.randbytes(3_000_000)
    link, other = client(), client()
    sender = threading.Thread(target=link.sendall, args=(data,))
    sender.start()
    assert receive(link, len(data)) == data
    sender.join()
    assert ask(other, b"hello") == b"hello"
    traffic = proxy.traffic
    assert (traffic.ever, traffic.now) == (2, 2)
    assert (traffic.to_server, traffic.to_client) == (len(data) + 5, len(data) + 5)
    link.close()
    until(lambda: proxy.traffic.now == 1)


def test_the_end_of_a_stream_passes(echo: Echo, client: Client) -> None:
    """Who closes one direction still reads what the other end sends, and then its end."""
    link = client()
    link.sendall(b"last words")
    link.shutdown(socket.SHUT_WR)
    assert receive(link, 100) == b"last words"
    until(lambda: echo.ends == ["end"])


def test_a_reset_passes(echo: Echo, client: Client) -> None:
    """A client that resets is seen to reset by the server."""
    link = client()
    assert ask(link, b"x") == b"x"
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()
    until(lambda: echo.ends == ["ConnectionResetError"])


def test_latency(proxy: Proxy, client: Client) -> None:
    """Each chunk is late, in order, and not the later for those before it; removed, it is gone at once."""
    link = client()
    late = Latency(0.2, direction=TO_CLIENT)
    proxy.add(late)
    started = time.monotonic()
    for number in range(10):
        link.sendall(bytes([number]))
        time.sleep(0.005)
    assert receive(link, 10) == bytes(range(10))
    assert 0.2 <= time.monotonic() - started < 1.5  # one after the other would be 2 s
    proxy.add(Latency(60, jitter=1))
    link.sendall(b"held")
    assert silent(link)
    proxy.heal()
    assert receive(link, 4) == b"held"


def test_bandwidth(proxy: Proxy, client: Client) -> None:
    """Bytes come at the rate that was set, none is lost."""
    link = client()
    proxy.add(Bandwidth(50_000, direction=TO_CLIENT))
    data = random.randbytes(15_000)
    started = time.monotonic()
    assert ask(link, data) == data
    assert time.monotonic() - started >= 0.28


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_cut_lets_exactly_so_many_bytes_pass(
    proxy: Proxy, client: Client, direction: Direction, after: int
) -> None:
    """The count begins when the cut is armed, on each connection for itself; then the stream ends."""
    link = client()
    assert ask(link, b"before") == b"before"
    before = proxy.traffic
    cut = Cut(after, Break.CLOSE, direction=direction)
    proxy.add(cut)
    link.sendall(b"0123456789")
    until(lambda: cut.fired == 1)
    got = receive(link, 100)
    if direction is TO_CLIENT:
        assert got == b"0123456789"[:after]
    passed = proxy.traffic.to_server - before.to_server, proxy.traffic.to_client - before.to_client
    assert passed[direction is TO_CLIENT] == after
    again = client()
    again.sendall(b"0123456789")
    until(lambda: cut.fired == 2)


def test_a_cut_may_be_limited_and_count_from_the_start(proxy: Proxy, client: Client) -> None:
    """With ``times`` later connections go on; with ``from_start`` bytes before arming count too."""
    link = client()
    assert ask(link, b"1234") == b"1234"
    proxy.add(Cut(6, from_start=True, times=1, direction=TO_SERVER))
    link.sendall(b"5678")
    with pytest.raises(ConnectionResetError):
        while link.recv(100):
            pass
    assert ask(client(), b"a longer text than that") == b"a longer text than that"


@pytest.mark.parametrize("how", Break)
def test_how_a_cut_connection_ends(proxy: Proxy, echo: Echo, client: Client, how: Break) -> None:
    """Reset raises, close and half close end the stream, silence says nothing."""
    link = client()
    proxy.add(Cut(3, how, direction=TO_CLIENT))
    link.sendall(b"abcdef")
    assert receive(link, 3) == b"abc"
    if how is Break.RESET:
        with pytest.raises(ConnectionResetError):
            link.recv(1)
        until(lambda: len(echo.ends) == 1)
    elif how is Break.SILENCE:
        assert silent(link)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    else:
        assert link.recv(1) == b""
    if how is Break.HALF_CLOSE:
        sent = proxy.traffic.to_server
        link.sendall(b"still heard")
        until(lambda: proxy.traffic.to_server == sent + 11)


def test_reset_and_half_close_at_once(proxy: Proxy, echo: Echo, client: Client) -> None:
    """They work on the connections that are open, without a byte being sent."""
    link, other = client(), client()
    assert (ask(link, b"x"), ask(other, b"x")) == (b"x", b"x")
    proxy.half_close(TO_SERVER)
    until(lambda: echo.ends == ["end", "end"])
    assert link.recv(1) == b""  # the server has answered the end with its own
    link = client()
    assert ask(link, b"x") == b"x"
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        link.recv(1)
    until(lambda: len(echo.ends) == 3)
    assert echo.ends[-1] == "ConnectionResetError"


def test_a_blackhole(proxy: Proxy, echo: Echo, client: Client) -> None:
    """Bytes and ends vanish, new connections meet silence; healed, what lost bytes is reset."""
    link, idle, leaving = client(), client(), client()
    for each in (link, idle, leaving):
        assert ask(each, b"x") == b"x"
    proxy.blackhole()
    link.sendall(b"lost")
    leaving.close()
    fresh = client()
    fresh.sendall(b"lost too")
    assert silent(link)
    assert silent(fresh)
    until(lambda: proxy.traffic.now == 3)
    assert echo.ends == []
    proxy.heal()
    for each in (link, fresh):
        with pytest.raises(ConnectionResetError):
            each.recv(1)
    assert ask(idle, b"goes on") == b"goes on"
    assert ask(client(), b"anew") == b"anew"


def test_a_blackhole_in_one_direction(proxy: Proxy, client: Client) -> None:
    """What the client sends arrives, the answer does not."""
    link = client()
    assert ask(link, b"x") == b"x"
    before = proxy.traffic
    proxy.blackhole(TO_CLIENT)
    link.sendall(b"heard")
    assert silent(link)
    assert proxy.traffic.to_server - before.to_server == 5
    assert proxy.traffic.to_client == before.to_client


def test_silence_is_for_the_connections_that_are_open(proxy: Proxy, client: Client) -> None:
    """A firewall has forgotten them; new ones work."""
    link = client()
    assert ask(link, b"x") == b"x"
    proxy.silence()
    link.sendall(b"x")
    assert silent(link)
    assert ask(client(), b"y") == b"y"


def test_a_stall_holds_and_then_delivers(proxy: Proxy, client: Client) -> None:
    """Nothing is lost of what was sent meanwhile."""
    link = client()
    stall = Stall(direction=TO_SERVER)
    proxy.add(stall)
    link.sendall(b"one")
    assert silent(link)
    link.sendall(b"two")
    proxy.remove(stall)
    assert receive(link, 6) == b"onetwo"


def test_a_hang_is_for_new_connections(proxy: Proxy, echo: Echo, client: Client) -> None:
    """They are accepted and meet silence, for a time or until it is removed; open ones go on."""
    link = client()
    assert ask(link, b"x") == b"x"
    proxy.add(Hang())
    fresh = client()
    fresh.sendall(b"early")
    assert silent(fresh)
    assert ask(link, b"y") == b"y"
    proxy.heal()
    assert receive(fresh, 5) == b"early"
    proxy.add(Hang(0.2))
    started = time.monotonic()
    assert ask(client(), b"late") == b"late"
    assert time.monotonic() - started >= 0.2


def test_refusing(proxy: Proxy, client: Client) -> None:
    """New connections are refused, open ones go on; accepted again on the same port."""
    link = client()
    assert ask(link, b"x") == b"x"
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        client()
    assert ask(link, b"y") == b"y"
    proxy.heal()
    assert ask(client(), b"z") == b"z"


def test_another_target(proxy: Proxy, client: Client) -> None:
    """New connections lead to the new server; where nobody listens they are reset."""
    link = client()
    assert ask(link, b"w") == b"w"  # it leads somewhere by now
    other = Echo(b"other: ")
    proxy.target = other
    assert ask(link, b"x") == b"x"
    fresh = client()
    fresh.sendall(b"x")
    assert receive(fresh, 8) == b"other: x"
    other.close()
    with pytest.raises(ConnectionResetError):
        client().recv(1)


def test_any_address_of_the_machine(echo: Echo) -> None:
    """A proxy can stand on another loopback address, at the same port."""
    with Proxy(echo) as first, Proxy(echo, "127.0.0.2", first.port) as second:
        assert first.port == second.port
        with socket.create_connection(("127.0.0.2", second.port), timeout=10) as link:
            assert ask(link, b"x") == b"x"
        assert (first.traffic.ever, second.traffic.ever) == (0, 1)


def test_a_record_keeps_what_was_sent(proxy: Proxy, client: Client) -> None:
    """Also what does not get through."""
    record = Record(direction=TO_SERVER)
    proxy.add(record, Blackhole())
    client().sendall(b"secret")
    until(lambda: record.data == b"secret")


def test_closing_leaves_nothing(echo: Echo) -> None:
    """Connections in every state end, and so do thread and listener; closing twice is nothing."""
    before = threading.active_count()
    proxy = Proxy(echo)
    with proxy:
        links = [socket.create_connection((proxy.host, proxy.port), timeout=10) for _ in range(3)]
        assert ask(links[0], b"x") == b"x"
        proxy.blackhole()
        links[0].sendall(b"x")
        proxy.add(Hang(), Latency(60), Stall())
        links[1].sendall(b"x")
    for link in links:
        with link:
            assert link.recv(1) == b""
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port), timeout=10)
    until(lambda: threading.active_count() <= before)


# --- counting statements ---------------------------------------------------------------------------------


def postgresql(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def mysql(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


STARTUP = struct.pack("!ii", 20, 196_608) + b"user\0me\0\0\0\0\0"
POSTGRESQL = (
    STARTUP
    + postgresql(b"p", b"password, E and Q")
    + postgresql(b"Q", b"SELECT 1\0")
    + postgresql(b"P", b"\0Q" * 40)
    + postgresql(b"B", b"E" * 300)
    + postgresql(b"E", b"\0\0\0\0\0")
    + postgresql(b"S")
    + postgresql(b"Q", b"")
    + postgresql(b"X")
)
LOGIN = struct.pack("<iIB23s", 0x200, 1 << 24, 45, b"") + b"me\0"
MYSQL = (
    mysql(1, LOGIN)
    + mysql(3, b"")  # an answer in the course of the login
    + mysql(0, b"\x03SELECT 1")
    + mysql(0, b"\x02database")
    + mysql(0, b"\x03" + b"\x03" * 1000)
    + mysql(1, b"\x03more of it")
    + mysql(0, b"\x17rest")
    + mysql(0, b"\x01")
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 100_000])
def test_statements_are_counted_in_whatever_pieces_they_come(size: int) -> None:
    """Queries and executions count; logins, parsing, binding and texts that look like one do not."""
    for counter, data in ((PostgresqlStatements(), POSTGRESQL), (MysqlStatements(), MYSQL)):
        for start in range(0, len(data), size):
            counter.feed(data[start : start + size])
        assert counter.count == 3


def test_an_encrypted_connection_is_not_counted() -> None:
    """What follows the request for TLS is not looked at, whatever it looks like."""
    counter = PostgresqlStatements()
    counter.feed(struct.pack("!ii", 8, 80_877_103) + b"Q\0\0\0\4" * 10)
    assert counter.count == 0
    other = MysqlStatements()
    other.feed(mysql(1, struct.pack("<iIB23s", 0xA00, 1 << 24, 45, b"")) + mysql(0, b"\x03SELECT") * 10)
    assert other.count == 0
