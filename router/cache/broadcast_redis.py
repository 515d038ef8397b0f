"""A broadcast through Redis: numbered messages, so that a lost one is noticed.

A script adds one to a number and publishes the message with it, at one moment. Who hears every number has
heard every message; who asks for the number knows up to which one it should have. Redis restarted, flushed or
cut off shows as a number that is not the next one, or as a connection that ended: then all is taken for lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from router.cache.linked import Linked
from router.cache.notices import NOTHING, Notice, encode
from router.cache.sequence import Gap, Sequence
from router.cache.urls import CacheUrl, parse_url
from router.config.secret import Secret

# A number that somebody has spoilt begins anew, which all take for a loss: else they would be deaf for ever.
_SAY = """
for i = 1, #ARGV do
  local number = redis.pcall('INCR', KEYS[1])
  if type(number) == 'table' or number < 1 then
    redis.call('DEL', KEYS[1])
    number = redis.call('INCR', KEYS[1])
  end
  redis.call('PUBLISH', KEYS[2], number .. ' ' .. ARGV[i])
end
return #ARGV
"""


class RedisBroadcast(Linked):
    """Tell and hear through a channel of Redis; ``prefix`` begins its name and that of the number's key."""

    kind = "redis"

    def __init__(self, url: str | Secret, *, prefix: str = "router", **options: Any) -> None:
        super().__init__(**options)
        self._url = parse_url(url)
        self._channel = f"{prefix}:notices"
        self._number = f"{prefix}:notices:number"

    async def session(self) -> None:
        """Hear, speak and ask for the number, until one of them fails."""
        client = _client(self._url, self.patience)
        ears = client.pubsub()
        try:
            async with asyncio.timeout(self.patience):
                await ears.subscribe(self._channel)
                await ears.get_message(
                    timeout=self.patience
                )  # the answer: what is published from now on comes
            sequence = Sequence()
            async with asyncio.TaskGroup() as tasks:
                name = "cache broadcast redis"
                hello = self.clock()
                tasks.create_task(self._hear(ears, sequence, hello), name=f"{name} hearing")
                await self._say(client, (NOTHING,))
                tasks.create_task(self._speak(client), name=f"{name} speaking")
                await self._ask(client, sequence)
        finally:
            await _close(client, ears, self.patience)

    async def _hear(self, ears: PubSub, sequence: Sequence, hello: float) -> None:
        async for message in ears.listen():
            if message["type"] != "message":
                continue
            number, _, text = message["data"].decode(errors="replace").partition(" ")
            if not number.isdecimal():
                self.deliver("")  # malformed
            elif sequence.last is not None:
                moment = sequence.came(int(number))
                self.deliver(text)
                self.reached(moment)
            elif self.deliver(text):  # our own first message: all later ones will come
                sequence.begin(int(number))
                self.join(hello)
        raise Gap  # nothing is subscribed any more

    async def _speak(self, client: Redis) -> None:
        while True:
            await self.something.wait()
            notices = self.take()
            try:
                await self._say(client, notices)
            except BaseException:
                self.failed(notices)
                raise
            self.told(notices)

    async def _say(self, client: Redis, notices: Iterable[Notice]) -> None:
        texts = [encode(self.sender, notice) for notice in notices]
        if texts:
            async with asyncio.timeout(self.patience):
                answer: Any = client.eval(_SAY, 2, self._number, self._channel, *texts)
                await answer

    async def _ask(self, client: Redis, sequence: Sequence) -> None:
        """Ask for the number again and again, to know up to when all messages have come."""
        began = self.clock()
        while True:
            await asyncio.sleep(self.beat * self.rng.uniform(0.8, 1.2))
            asked, before = self.clock(), sequence.last
            if before is None:
                if asked - began > self.patience:
                    raise Gap  # our own first message has not come
                continue
            async with asyncio.timeout(self.patience):
                answer = await client.get(self._number)
            self.reached(sequence.answered(int(answer or 0), asked, before))
            if sequence.overdue(asked - self.patience):
                raise Gap


def _client(url: CacheUrl, patience: float) -> Redis:
    options: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "db": url.database,
        "username": url.username,
        "password": url.password.reveal() if url.password else None,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": patience,
        "socket_timeout": None,
    }
    if url.kind == "rediss":
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": url.authority}
    kind = SSLConnection if url.kind == "rediss" else Connection
    return Redis(connection_pool=ConnectionPool(connection_class=kind, **options))


async def _close(client: Redis, ears: PubSub, patience: float) -> None:
    try:
        async with asyncio.timeout(patience):
            await ears.aclose()  # type: ignore[no-untyped-call]
            await client.connection_pool.disconnect()
    except Exception:  # noqa: S110  # the server is gone, and so is the connection
        pass
