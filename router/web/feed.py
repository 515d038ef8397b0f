"""One picture a second for all who watch: computed once, sent to each, and nothing while nobody watches."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.errors import RouterError
from router.live import Live
from router.picture import Picture
from router.web.answers import refusal

Render = Callable[[Picture], bytes]

INTERVAL: Final = 1.0
"""Seconds from one picture to the next."""

_PATIENCE: Final = 10.0  # seconds that a viewer has to take what it is sent
_AGAIN: Final = b"retry: 2000\n\n"  # milliseconds after which browsers come back
_BYE: Final = b"event: bye\ndata: {}\n\n"  # the last one: the server stops, and may come back


class Feed:
    """Send pictures of ``live`` to at most ``most`` viewers, as server-sent events.

    ``kinds`` are the forms that they come in, each with what renders it; that happens in a thread, once for
    all viewers of the kind.
    """

    def __init__(self, live: Live, kinds: Mapping[str, Render], *, most: int = 16) -> None:
        self._live, self._kinds, self._most, self._interval = live, kinds, most, INTERVAL
        self._viewers: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[Mapping[str, bytes]] | None = None
        self.closed = False

    @property
    def full(self) -> bool:
        """Tell whether nobody more may watch."""
        return self.closed or self._viewers.total() >= self._most

    def close(self) -> None:
        """Say good-bye to all who watch; nobody may watch any more."""
        self.closed = True
        if self._task is not None:
            self._task.cancel()

    async def frames(self, kind: str, gone: asyncio.Future[None]) -> AsyncGenerator[bytes, None]:
        """Yield events of one kind until ``gone`` is done; who takes long misses those in between."""
        self._viewers[kind] += 1
        try:
            while not gone.done():
                upcoming = self._upcoming()
                await asyncio.wait((upcoming, gone), return_when=asyncio.FIRST_COMPLETED)
                if upcoming.cancelled():
                    yield _BYE
                    return
                if upcoming.done() and kind in upcoming.result():
                    yield upcoming.result()[kind]
        finally:
            self._viewers[kind] -= 1

    def _upcoming(self) -> asyncio.Future[Mapping[str, bytes]]:
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = loop.create_future()
            if self.closed:
                self._next.cancel()
        if (self._task is None or self._task.done()) and not self.closed:
            self._task = loop.create_task(self._run(), name="router console")
            self._task.add_done_callback(self._ended)
        return self._next

    def _ended(self, task: asyncio.Task[None]) -> None:
        if (self.closed or task.cancelled() or task.exception() is not None) and self._next is not None:
            self._next.cancel()
            self._next = None
        if not task.cancelled() and (error := task.exception()) is not None and not _expected(error):
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the console has no picture", "exception": error, "task": task}
            )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.time()
        while self._viewers.total() and not _exiting():
            picture = await self._live.picture()
            wanted = [kind for kind, count in self._viewers.items() if count]
            made = await asyncio.to_thread(self._made, wanted, picture)
            upcoming, self._next = self._next, None
            if upcoming is not None and not upcoming.done():
                upcoming.set_result(made)
            turn = max(turn + self._interval, loop.time())
            await asyncio.sleep(turn - loop.time())
        self.closed = self.closed or _exiting()

    def _made(self, kinds: list[str], picture: Picture) -> Mapping[str, bytes]:
        return {kind: _event(self._kinds[kind](picture)) for kind in kinds}


def _event(data: bytes) -> bytes:
    return b"event: picture\ndata: " + data + b"\n\n"


def _expected(error: BaseException) -> bool:
    return isinstance(error, RouterError)  # the router was closed


def _exiting() -> bool:
    """Tell whether the server that this runs in was told to stop.

    uvicorn then waits for all answers to end, and tells nobody. Its handler of the signal is a method of the
    server, which knows; of another server nothing is known, and nothing lost: it cuts what does not end.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGTERM)
    return getattr(getattr(handler, "__self__", None), "should_exit", False) is True


class Stream(Response):
    """Answer with the events of a feed until the viewer goes or takes nothing any more."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, kind: str) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})  # a proxy that collects them would be no news
        del self.headers["content-length"]
        self._feed, self._kind = feed, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a viewer."""
        start: dict[str, Any] = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": _AGAIN, "more_body": True})
        if scope["method"] != "HEAD":
            gone = asyncio.ensure_future(_gone(receive))
            try:
                await self._send_all(gone, send)
            except TimeoutError:
                return  # an answer without an end makes the server cut the connection
            finally:
                gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, gone: asyncio.Future[None], send: Send) -> None:
        async with aclosing(self._feed.frames(self._kind, gone)) as events:
            async for event in events:
                async with asyncio.timeout(_PATIENCE):
                    await send({"type": "http.response.body", "body": event, "more_body": True})


async def _gone(receive: Receive) -> None:
    """Return when the viewer has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def watch(feed: Feed, kind: str) -> Response:
    """Return the stream of a feed, or that nobody more may watch."""
    if feed.full:
        return refusal(503, "too many watch already, or the server stops", Retry_After=10)
    return Stream(feed, kind)
