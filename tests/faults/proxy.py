"""A TCP proxy for one server, on a thread and an event loop of its own, that does harm on demand.

The methods are plain calls for tests: thread-safe, and done when they return. The router under test may block
its loop or be frozen; the proxy goes on.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from tests.faults.link import Link
from tests.faults.statements import Statements
from tests.faults.toxics import Blackhole, Break, Direction, Toxic

T = TypeVar("T")
Kind = TypeVar("Kind", bound=Toxic)
_PATIENCE = 30.0  # seconds that a call waits for the proxy's thread on a loaded machine


class Address(Protocol):
    """Say where a server listens."""

    host: str
    port: int


@dataclass(frozen=True)
class Traffic:
    """Count what a proxy has seen so far."""

    ever: int  # connections accepted
    now: int  # connections whose client end is open
    to_server: int  # bytes passed on
    to_client: int
    statements: int  # that clients sent, passed on or not


class Proxy:
    """Stand before one server; ``with Proxy(server) as proxy`` starts it and closes it."""

    def __init__(
        self,
        target: Address,
        host: str = "127.0.0.1",
        port: int = 0,
        statements: Callable[[], Statements] = Statements,
    ) -> None:
        self.target = target  # where the next connections lead: assign another server to switch
        self.host = host
        self.port = port  # once started, the one that was free if 0 was given
        self._statements = statements
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._toxics: tuple[Toxic, ...] = ()
        self._changed = asyncio.Event()
        self._ever = 0
        self._passed = dict.fromkeys(Direction, 0)
        self._counted = 0

    def __repr__(self) -> str:
        return f"<Proxy {self.host}:{self.port} to {self.target.host}:{self.target.port} {self._toxics}>"

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._call(self._listen())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections, the listener and the thread."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    # --- control -----------------------------------------------------------------------------------------

    def add(self, *toxics: Toxic) -> None:
        """Let these work from now on, beside those that do already."""
        self._call(self._set((*self._toxics, *toxics)))

    def remove(self, *toxics: Toxic) -> None:
        """Let these work no longer."""
        self._call(self._set(tuple(each for each in self._toxics if each not in toxics)))

    def heal(self) -> None:
        """Remove all toxics, reset the connections that have gone silent, and accept new ones."""
        self._call(self._set((), healed=True))
        self.accept()

    def blackhole(self, direction: Direction | None = None) -> None:
        """Let all bytes vanish until healed."""
        self.add(Blackhole(direction=direction))

    def reset(self) -> None:
        """Reset all connections that are open."""
        self._call(self._break(Break.RESET))

    def silence(self) -> None:
        """Let all connections that are open go silent until healed; new ones work."""
        self._call(self._break(Break.SILENCE))

    def half_close(self, direction: Direction) -> None:
        """End the streams of all open connections in one direction; the other goes on."""
        self._call(self._break(Break.HALF_CLOSE, direction))

    def refuse(self) -> None:
        """Close the listener, so that new connections are refused; open ones go on."""
        self._call(self._deafen())

    def accept(self) -> None:
        """Listen again on the same port."""
        self._call(self._listen())

    @property
    def traffic(self) -> Traffic:
        """Return the counts of this moment."""
        return self._call(self._count())

    # --- on the proxy's own loop -------------------------------------------------------------------------

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        made = socket.socket()
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((self.host, self.port))
            made.listen(200)
            made.setblocking(False)
        except BaseException:
            made.close()
            raise
        self.port = made.getsockname()[1]
        self._listener = made
        self._loop.add_reader(made, self._accept, made)

    async def _deafen(self) -> None:
        if self._listener is None:
            return
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        # not `sock_accept`: cancelled, it may have accepted one that nobody closes
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ever += 1
        link = Link(self, client, self._statements())
        self._links.add(link)
        task = self._loop.create_task(self._serve(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            self._links.discard(link)
            self._counted += link.statements.count

    async def _set(self, toxics: tuple[Toxic, ...], healed: bool = False) -> None:
        self._toxics = toxics
        self._changed.set()
        self._changed = asyncio.Event()
        holes = self.active(Blackhole, None)
        for link in list(self._links):
            if (link.lost and not holes) or (link.silent and healed):
                link.break_off(Break.RESET)

    async def _break(self, how: Break, direction: Direction = Direction.TO_CLIENT) -> None:
        for link in list(self._links):
            link.break_off(how, direction)
        await asyncio.sleep(0)  # the tasks act on it

    async def _end(self) -> None:
        await self._deafen()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        for link in self._links:  # one that was cancelled before it began to run has closed nothing
            link.close()

    async def _count(self) -> Traffic:
        return Traffic(
            self._ever,
            sum(not link.left for link in self._links),
            self._passed[Direction.TO_SERVER],
            self._passed[Direction.TO_CLIENT],
            self._counted + sum(link.statements.count for link in self._links),
        )

    # --- for the links -----------------------------------------------------------------------------------

    def active(self, kind: type[Kind], direction: Direction | None) -> list[Kind]:
        """Return the toxics of a kind that work in a direction now; in any direction if none is given."""
        return [
            each
            for each in self._toxics
            if isinstance(each, kind) and (direction is None or each.works(direction))
        ]

    def passed(self, direction: Direction, count: int) -> None:
        """Take note of bytes that were passed on."""
        self._passed[direction] += count

    async def pause(self, seconds: float) -> None:
        """Wait for so long, or until the toxics change."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self._changed.wait()

    async def while_there(
        self,
        kind: type[Kind],
        most: Callable[[Kind], float] = lambda _: float("inf"),
        direction: Direction | None = None,
        began: float | None = None,
    ) -> None:
        """Wait while a toxic of a kind works, at most as long as ``most`` says from ``began`` on."""
        start = self._loop.time() if began is None else began
        while found := self.active(kind, direction):
            left = start + max(map(most, found)) - self._loop.time()
            if left <= 0:
                return
            await self.pause(left)
