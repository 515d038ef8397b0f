"""A broadcast through PostgreSQL's LISTEN and NOTIFY, on one connection to the primary.

The server delivers in the order of commits, to everyone who listens, and ends a connection rather than leave
something out. So a message to itself that comes back says that all of before have come.

Each message is a transaction that takes a lock for a moment, shared by all of the database's NOTIFY. The
connection needs a session of its own: through a pooler that lends servers by transaction nothing is heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from router.cache.linked import Linked
from router.cache.notices import Notice, encode_within

_SIZE = 7900  # bytes; PostgreSQL takes less than 8000
_IDLE = 8  # beats between beats while nobody asks what was heard
_CLOSE = 0.5  # seconds
_SAY = "SELECT pg_notify(channel, message) FROM unnest($1::text[], $2::text[]) AS said (channel, message)"


class PostgresqlBroadcast(Linked):
    """Tell and hear through a channel of one database.

    ``connect`` makes an asyncpg connection to the primary that nobody else uses; it is asked again whenever
    one ends, as after a failover. Where a primary was left behind that still answers, call ``renew``.
    """

    kind = "postgresql"

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], *, prefix: str = "router", **options: Any
    ) -> None:
        super().__init__(**options)
        self._connect = connect
        self._channel = f"{prefix}_notices"
        self._own = f"{prefix}_{self.sender}"  # for messages to itself, which would be others' load
        self._wanted = True
        self._link: Any = None
        self._beats = 0

    def heard(self) -> float:
        """Return the moment up to which all notices have certainly come, and keep it young from now on."""
        if not self._wanted:
            self._wanted = True
            self.something.set()
        return super().heard()

    def renew(self) -> None:
        """Connect anew: another server has become the primary."""
        if self._link is not None:
            self._link.terminate()

    async def session(self) -> None:
        """Listen, and tell what is to be told, with a message to itself behind it each time."""
        async with asyncio.timeout(self.patience * 2):
            self._link = link = await self._connect()
        back, ended = asyncio.Event(), asyncio.Event()

        def end(_: Any) -> None:
            ended.set()
            back.set()
            self.something.set()  # no need to wait for the next beat to find out

        def came_back(_link: Any, _pid: int, _channel: str, text: str) -> None:
            if text == str(self._beats):  # nobody else can pretend that we have heard
                back.set()

        link.add_termination_listener(end)
        try:
            async with asyncio.timeout(self.patience):
                await link.execute("SET synchronous_commit = off")  # a lost message is noticed anyway
                await link.add_listener(self._channel, lambda _link, _pid, _channel, text: self.deliver(text))
                await link.add_listener(self._own, came_back)
            await self._beat(link, back, ended, joined=False)
            while True:
                await self._pause()
                await self._beat(link, back, ended, joined=True)
        finally:
            self._link = None
            await _close(link)

    async def _beat(self, link: Any, back: asyncio.Event, ended: asyncio.Event, joined: bool) -> None:
        """Tell what is to be told, wait for the message to itself, and take note of what that means."""
        asked = self.clock()
        self._beats += 1
        notices = self.take()
        back.clear()
        try:
            async with asyncio.timeout(self.patience):
                await self._say(link, notices)
        except BaseException:
            self.failed(notices)
            raise
        self.told(notices)
        async with asyncio.timeout(self.patience):
            await back.wait()
        if ended.is_set():
            raise ConnectionResetError
        if joined:
            self.reached(asked)
        else:
            self.join(asked)

    async def _say(self, link: Any, notices: list[Notice]) -> None:
        texts = [text for notice in notices for text in encode_within(self.sender, notice, _SIZE)]
        await link.execute(_SAY, [*[self._channel] * len(texts), self._own], [*texts, str(self._beats)])

    async def _pause(self) -> None:
        """Wait for something to tell, or until the next message to itself is due."""
        pause = self.beat if self._wanted else self.beat * _IDLE
        self._wanted = False
        with suppress(TimeoutError):
            async with asyncio.timeout(pause * self.rng.uniform(0.8, 1.2)):
                await self.something.wait()


async def _close(link: Any) -> None:
    """Say goodbye if that is quick; else the server finds out by itself."""
    try:
        async with asyncio.timeout(_CLOSE):
            await link.close(timeout=_CLOSE)
    except Exception:
        link.terminate()
