"""What may happen to Redis while it is used; each does its harm for some seconds and leaves it running."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from redis.asyncio import Redis

from tests.chaos.cases import off_loop
from tests.servers import RedisServer

Trouble = Callable[["Victim", float], Awaitable[None]]
_PAUSE = 0.03  # seconds between two attacks
_MARK = 8  # bytes of the edition before each value


class Victim:
    """Hold a Redis server, the names that are used on it, and chance."""

    def __init__(self, server: RedisServer, prefix: str, rng: random.Random) -> None:
        self.server, self.rng = server, rng
        self.changed = 0  # values that were replaced
        self._prefix = prefix
        self._client: Any = Redis.from_url(server.dsn())

    async def values(self) -> dict[bytes, bytes]:
        """Return all that is stored."""
        names = await self._client.keys(f"{self._prefix}*")
        found = await self._client.mget(names) if names else []
        return {name: value for name, value in zip(names, found, strict=True) if value is not None}

    async def replace(self, values: dict[bytes, bytes]) -> None:
        """Store other values; they live as long as those before."""
        async with self._client.pipeline(transaction=False) as pipe:
            for name, value in values.items():
                pipe.set(name, value, keepttl=True)
            await pipe.execute()
        self.changed += len(values)

    async def flush(self) -> None:
        """Drop everything."""
        await self._client.flushall()

    async def say(self, text: bytes) -> None:
        """Publish what no process of ours would."""
        await self._client.publish(f"{self._prefix}:notices", text)

    async def close(self) -> None:
        """End the connection."""
        await self._client.aclose()


async def killed(victim: Victim, seconds: float) -> None:
    """Kill the server, as the crash of its machine would, and start it again, empty."""
    await off_loop(victim.server.kill)
    await asyncio.sleep(seconds)
    await off_loop(victim.server.start)


async def frozen(victim: Victim, seconds: float) -> None:
    """Halt the server: it takes connections and answers nothing."""
    await off_loop(victim.server.freeze)
    await asyncio.sleep(seconds)
    await off_loop(victim.server.thaw)


async def restarted(victim: Victim, seconds: float) -> None:
    """Restart the server."""
    await off_loop(victim.server.stop)
    await off_loop(victim.server.start)
    await asyncio.sleep(seconds)


async def flushed(victim: Victim, seconds: float) -> None:
    """Flush the server again and again."""
    await _again(victim.flush, seconds)


async def garbage(victim: Victim, seconds: float) -> None:
    """Put bytes that mean nothing, or nearly something, under every name, and say such things."""
    rng = victim.rng

    def spoilt(value: bytes) -> bytes:
        mark, rest = value[:_MARK], value[_MARK:]
        at = rng.randrange(len(rest) or 1)
        return rng.choice(
            (
                b"",
                rng.randbytes(rng.randrange(1, 300)),
                mark + rng.randbytes(rng.randrange(300)),
                mark + rest[:at],
                mark + rest[:at] + bytes([rest[at] ^ 1 << rng.randrange(8)]) + rest[at + 1 :]
                if rest
                else b"1",
            )
        )

    async def spoil() -> None:
        there = await victim.values()
        # seldom what counts messages or marks all values: a change of it costs all that is cached at once
        kept = (b"number", b"edition") if rng.random() < 0.9 else ()
        await victim.replace(
            {name: spoilt(value) for name, value in there.items() if not name.endswith(kept)}
        )
        if rng.random() < 0.1:
            await victim.say(rng.randbytes(50))

    await _again(spoil, seconds)


async def swapped(victim: Victim, seconds: float) -> None:
    """Put the answers of one tenant under the names of others, just as they are."""

    async def swap() -> None:
        answers = {name: value for name, value in (await victim.values()).items() if b"rc1" in value[:16]}
        values = list(answers.values())
        victim.rng.shuffle(values)
        await victim.replace(dict(zip(answers, values, strict=True)))

    await _again(swap, seconds)


async def replayed(victim: Victim, seconds: float) -> None:
    """Put back what was there some time ago, answers and generations alike."""
    before = await victim.values()

    async def replay() -> None:
        nonlocal before
        await asyncio.sleep(10 * _PAUSE)
        now = await victim.values()
        await victim.replace({name: value for name, value in before.items() if b"notices" not in name})
        before = now

    await _again(replay, seconds)


async def _again(attack: Callable[[], Awaitable[None]], seconds: float) -> None:
    ends = monotonic() + seconds
    while monotonic() < ends:
        await attack()
        await asyncio.sleep(_PAUSE)


TROUBLES: dict[str, Trouble] = {
    "answers another tenant's values": swapped,
    "answers what it had before": replayed,
    "answers garbage": garbage,
    "flushed": flushed,
    "restarted": restarted,
    "killed": killed,
    "frozen": frozen,
}
