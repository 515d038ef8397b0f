"""One connection through a proxy: two streams of bytes, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import TYPE_CHECKING, Any

from tests.faults.statements import Statements
from tests.faults.toxics import Bandwidth, Blackhole, Break, Cut, Direction, Hang, Latency, Record, Stall

if TYPE_CHECKING:
    from tests.faults.proxy import Proxy

_CHUNK = 65_536  # bytes read at once
_QUEUED = 64  # chunks held for one direction, before the sender is slowed down
_SLICE = 0.02  # seconds between two pieces on a slow line
_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: drop what is unsent and answer with RST, socket(7)


class Link:
    """Carry one client's connection to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, statements: Statements) -> None:
        self.proxy = proxy
        self.statements = statements
        self.left = False  # the client has closed its end
        self.silent = False
        self.lost = False  # bytes have vanished: the streams must not go on
        server = socket.socket()
        server.setblocking(False)
        self._ends = (client, server)
        self._to_server = Flow(self, Direction.TO_SERVER, client, server)
        self._to_client = Flow(self, Direction.TO_CLIENT, server, client)
        self._end: asyncio.Future[Break] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Carry bytes until both sides have ended, or the connection is broken."""
        work = asyncio.gather(self._to_server.read(), self._carry())
        ended: asyncio.Future[Any] = self._end
        try:
            await asyncio.wait((ended, work), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            self.close(self._end.result() if self._end.done() else Break.CLOSE)

    async def _carry(self) -> None:
        """Connect to the server and carry bytes both ways; a server that refuses resets the client."""
        proxy = self.proxy
        await proxy.while_there(Hang, lambda hang: hang.seconds)
        if proxy.active(Blackhole, None):
            self.lost = True
            await asyncio.Event().wait()  # until healed, which resets it
        try:
            target = proxy.target
            await asyncio.get_running_loop().sock_connect(self._ends[1], (target.host, target.port))
            self._ends[1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.break_off(Break.RESET)
            return
        await asyncio.gather(self._to_server.write(), self._to_client.read(), self._to_client.write())

    def break_off(self, how: Break, direction: Direction = Direction.TO_CLIENT) -> None:
        """End the connection, or one direction of it."""
        if how is Break.SILENCE:
            self.silent = True
        elif how is Break.HALF_CLOSE:
            (self._to_client if direction is Direction.TO_CLIENT else self._to_server).finish()
        elif not self._end.done():
            self._end.set_result(how)

    def close(self, how: Break = Break.CLOSE) -> None:
        """Close both sockets at once."""
        for end in self._ends:
            if how is Break.RESET:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            end.close()


class Flow:
    """Carry the bytes of one direction."""

    def __init__(self, link: Link, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        self._link = link
        self._proxy = link.proxy
        self._direction = direction
        self._source = source
        self._sink = sink
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED)
        self._passed = 0
        self._marks: dict[Cut, int] = {}
        self._finished = False

    async def read(self) -> None:
        """Take bytes from the sender; its end travels behind them."""
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            try:
                data = await loop.sock_recv(self._source, _CHUNK)
            except OSError:
                self._link.left = self._direction is Direction.TO_SERVER or self._link.left
                if not self._vanishes():  # a reset vanishes too where everything does
                    self._link.break_off(Break.RESET)
                    return
                data = b""
            for record in self._proxy.active(Record, self._direction):
                record.data += data
            if self._direction is Direction.TO_SERVER:
                self._link.statements.feed(data)
                self._link.left = not data
            await self._queue.put((loop.time(), data))

    async def write(self) -> None:
        """Hand the bytes on, as far as the toxics let them through."""
        data = b"-"
        while data:
            stamp, data = await self._queue.get()
            await self._delay(stamp)
            await self._proxy.while_there(Stall, direction=self._direction)
            if self._vanishes():
                continue
            try:
                await self._pass(data)
            except OSError:
                self._link.break_off(Break.RESET)

    def finish(self) -> None:
        """Tell the receiver that nothing more comes, and let what comes vanish."""
        self._finished = True
        with contextlib.suppress(OSError):  # the receiver has left
            self._sink.shutdown(socket.SHUT_WR)

    def _vanishes(self) -> bool:
        if self._proxy.active(Blackhole, self._direction):
            self._link.lost = True
            return True
        return self._finished or self._link.silent

    async def _delay(self, stamp: float) -> None:
        spread = random.uniform(-1, 1)

        def most(latency: Latency) -> float:
            return latency.seconds + spread * latency.jitter

        await self._proxy.while_there(Latency, most, self._direction, began=stamp)

    async def _pass(self, data: bytes) -> None:
        if not data:
            self.finish()
            return
        cut, most = self._cut()
        await self._send(data if cut is None else data[:most])
        if cut is not None and most <= len(data):
            cut.fired += 1
            self._finished = True
            self._link.break_off(cut.how, self._direction)

    def _cut(self) -> tuple[Cut | None, int]:
        """Return the cut that comes first, and how many bytes it lets through before."""
        found: tuple[Cut | None, int] = (None, 0)
        for cut in self._proxy.active(Cut, self._direction):
            if cut.fired < cut.times:
                begun = self._marks.setdefault(cut, 0 if cut.from_start else self._passed)
                left = max(begun + cut.after - self._passed, 0)
                if found[0] is None or left < found[1]:
                    found = (cut, left)
        return found

    async def _send(self, data: bytes) -> None:
        while data and not self._vanishes():
            slow = self._proxy.active(Bandwidth, self._direction)
            rate = min((each.rate for each in slow), default=0.0)
            piece = data[: max(int(rate * _SLICE), 1)] if slow else data
            await asyncio.get_running_loop().sock_sendall(self._sink, piece)
            self._passed += len(piece)
            self._proxy.passed(self._direction, len(piece))
            data = data[len(piece) :]
            if slow:
                await asyncio.sleep(len(piece) / rate)
