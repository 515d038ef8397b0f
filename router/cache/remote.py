"""The remote tier: values that processes share, never worth waiting for.

Every call ends within its limit, and whatever goes wrong in it is a miss. A server that does not answer costs
that limit once: it is left alone until it has answered a probe, which runs in the background.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from hashlib import blake2b
from time import monotonic
from typing import TypeVar

from router.breaker import Breaker, lost, probed, tripped
from router.cache.counts import RemoteCounts
from router.cache.soon import Soon
from router.cache.stores import Store, open_store
from router.cache.urls import parse_url
from router.config.secret import Secret
from router.frames import drop_frames
from router.logs import log_of

T = TypeVar("T")

_LIMIT = 0.05  # seconds of a call, connecting included
_TIMER = 0.9  # of the limit: a timer is late, and a caller has to be back within it
_FAIR = 0.8  # of the limit: a server that was given less is not judged by it
_PATIENCE = 1.0  # seconds of a probe, which nobody waits for, and of closing
_PROBES = 1.0  # seconds between probes of a server that is left alone
_MARK = 8  # bytes of an edition before each value
_TRUSTED = 1.0  # seconds that a writer takes the edition it saw for the present one
_log = log_of("cache")


class Remote:
    """Keep bytes on a server that other processes use too; nothing is raised but ``CancelledError``.

    All values carry the present *edition*, a random mark that every read fetches along: ``clear`` writes
    another, so that no value of before counts, without naming any. Whoever loses the edition (the server was
    flushed) has lost all values with it. ``on_state`` is told True or False and a word when the server is
    used again or left alone.
    """

    def __init__(
        self,
        url: str | Secret,
        *,
        prefix: str = "router",
        limit: float = _LIMIT,
        connections: int = 16,
        largest: int = 1024 * 1024,
        clock: Callable[[], float] = monotonic,
        rng: random.Random | None = None,
        on_state: Callable[[bool, str], None] = lambda up, reason: None,
    ) -> None:
        place = parse_url(url)
        self._place = str(place)
        self._store: Store = open_store(place, connections)
        self._largest = min(largest, self._store.largest - _MARK)
        self._prefix = prefix
        self._edition_name = f"{prefix}:edition"  # no key makes it: those come behind a slash
        self._limit = limit
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  # jitter only
        self._on_state = on_state
        self._turns = asyncio.Semaphore(connections)
        self._breaker = Breaker()
        self._probe: asyncio.Task[None] | None = None
        self._next_probe = 0.0
        self._edition: bytes | None = None
        self._edition_seen = 0.0
        self._closed = False
        self._soon = Soon(self.set)
        self.counts = RemoteCounts()

    def __repr__(self) -> str:
        state = f"left alone: {self._breaker.reason}" if self._breaker.banned else "in use"
        return f"<Remote {self._place} {state}>"

    @property
    def place(self) -> str:
        """Return where the server is, without a password."""
        return self._place

    @property
    def up(self) -> bool:
        """Tell whether the server is used: it is not known to be out of order."""
        return not self._breaker.banned

    # --- values ------------------------------------------------------------------------------------------

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None] | None:
        """Return the values of the keys, None where there is none; None for all: the tier failed."""
        names = [self._name(key) for key in keys]
        found = await self._ask(lambda: self._fetch(names))
        if found is None:
            return None
        values = [found.get(name) for name in names]
        if values:
            self.counts.hits += values[0] is not None
            self.counts.misses += values[0] is None
        self.counts.bytes_read += sum(len(value) for value in values if value is not None)
        return values

    async def set(self, key: str, value: bytes, ttl: float) -> bool:
        """Keep a value for ``ttl`` seconds; tell whether it was kept."""
        return await self.set_many({key: value}, ttl)

    async def set_many(self, values: Mapping[str, bytes], ttl: float) -> bool:
        """Keep all values for ``ttl`` seconds; tell whether they were kept: if not, some may have been."""
        if not self._fits(values, ttl):
            return False

        async def work() -> bool:
            edition = await self._present()
            await self._store.set_many(
                {self._name(key): edition + value for key, value in values.items()}, ttl
            )
            return True

        return self._stored(values, await self._ask(work))

    async def add(self, key: str, value: bytes, ttl: float) -> bool:
        """Keep a value for ``ttl`` seconds if there is none; tell whether it was kept."""
        if not self._fits({key: value}, ttl):
            return False

        async def work() -> bool:
            return await self._store.add(self._name(key), await self._present() + value, ttl)

        return self._stored({key: value}, await self._ask(work))

    def put_soon(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value soon, in the background; drop it where too many wait."""
        if self._closed or (self._breaker.banned and not self._may_ask()):
            self.counts.skipped += 1
        elif not self._soon.put(key, value, ttl):
            self.counts.dropped += 1

    async def delete(self, key: str) -> bool:
        """Forget a value; tell whether the server did."""

        async def work() -> bool:
            await self._store.delete(self._name(key))
            return True

        return await self._ask(work) is True

    async def clear(self) -> bool:
        """Forget all values under this prefix and nothing else; tell whether that is certain."""

        async def work() -> bool:
            edition = secrets.token_bytes(_MARK)
            await self._store.set(self._edition_name, edition, None)
            self._learn(edition)
            return True

        return await self._ask(work) is True

    async def close(self) -> None:
        """Close all connections and end all tasks, within seconds; what waits to be written is lost."""
        self._closed = True
        await self._soon.close()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait((self._probe,), timeout=_PATIENCE)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._store.close()
        except Exception as exc:
            _log.debug("closing %s: %s", self._place, type(exc).__name__)

    # --- editions ----------------------------------------------------------------------------------------

    async def _fetch(self, names: list[str]) -> dict[str, bytes]:
        """Return the values of the present edition."""
        asked = list(dict.fromkeys((self._edition_name, *names)))
        edition, *values = await self._answers(asked)
        self._learn(edition)
        mark = self._edition
        if mark is None:
            return {}
        return {
            name: value[_MARK:]
            for name, value in zip(asked[1:], values, strict=True)
            if value is not None and value.startswith(mark)
        }

    async def _answers(self, names: list[str]) -> Sequence[bytes | None]:
        answers = await self._store.get_many(names)
        if len(answers) != len(names):  # AIOCACHE_DISABLE=1 in the environment makes it so, for one
            raise ValueError("as many values as names were expected")
        return answers

    def _learn(self, edition: bytes | None) -> None:
        self._edition = edition if edition is not None and len(edition) == _MARK else None
        self._edition_seen = self._clock()

    async def _present(self) -> bytes:
        """Return the present edition, or begin one.

        A writer may use the last one for a moment after a ``clear`` elsewhere: nobody takes what it wrote.
        """
        if self._edition is not None and self._clock() - self._edition_seen < _TRUSTED:
            return self._edition
        name, fresh = self._edition_name, secrets.token_bytes(_MARK)
        self._learn((await self._answers([name]))[0])
        if self._edition is None and not await self._store.add(name, fresh, None):
            self._learn((await self._answers([name]))[0])
            if self._edition is None:  # somebody's garbage
                await self._store.set(name, fresh, None)
        if self._edition is None:
            self._learn(fresh)
        return self._edition or fresh

    # --- within the limit --------------------------------------------------------------------------------

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Return what ``work`` returns, or None where it failed or was not tried."""
        if not self._may_ask():
            self.counts.skipped += 1
            return None
        asked: float | None = None
        try:
            async with asyncio.timeout(self._limit * _TIMER):
                async with self._turns:
                    if self._breaker.banned:  # since we began to wait
                        self.counts.skipped += 1
                        return None
                    asked = self._clock()
                    return await work()
        except TimeoutError:
            self._late(asked)
        except asyncio.CancelledError as exc:
            drop_frames(exc)  # those of a connection that is being opened hold the password
            raise
        except Exception as exc:
            self.counts.failures += 1
            self._apply(lost(self._breaker, type(exc).__name__, self._clock(), self._rng))
        return None

    def _late(self, asked: float | None) -> None:
        now = self._clock()
        if asked is None or now - asked < _FAIR * self._limit:  # most of it went by in waiting for a turn
            self.counts.crowded += 1
            return
        self.counts.timeouts += 1
        # Where much more than the limit has passed, this process was busy: that says little of the server.
        verdict = lost if now - asked > 2 * self._limit else tripped
        self._apply(verdict(self._breaker, "no answer", now, self._rng))

    def _may_ask(self) -> bool:
        if self._closed:
            return False
        if not self._breaker.banned:
            return True
        if self._probe is None and self._clock() >= self._next_probe:
            self._next_probe = self._clock() + _PROBES * self._rng.uniform(0.8, 1.2)
            self._probe = asyncio.get_running_loop().create_task(
                self._probing(), name="cache probe", context=Context()
            )
        return False

    async def _probing(self) -> None:
        """Ask for the edition with more patience than a caller has; its connection stays for later calls."""
        try:
            async with asyncio.timeout(_PATIENCE):
                self._learn((await self._answers([self._edition_name]))[0])
        except Exception as exc:
            _log.debug("probing %s: %s", self._place, type(exc).__name__)
        else:
            self._apply(probed(self._breaker, self._clock()))
        finally:
            self._probe = None

    def _apply(self, breaker: Breaker) -> None:
        before, self._breaker = self._breaker, breaker
        if before.banned == breaker.banned:
            return
        if breaker.banned:
            self.counts.trips += 1
            self._next_probe = breaker.until
        try:
            self._on_state(not breaker.banned, breaker.reason)
        except Exception:  # whoever listens must not make a cache fail
            _log.exception("a listener of the cache failed")

    # --- names and sizes ---------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        """Return the server's name of a key; memcached takes no spaces and at most 250 bytes."""
        plain = len(key) <= 150 and key.isascii() and key.isprintable() and " " not in key
        return f"{self._prefix}/{key if plain else blake2b(key.encode(), digest_size=24).hexdigest()}"

    def _fits(self, values: Mapping[str, bytes], ttl: float) -> bool:
        large = sum(len(value) > self._largest for value in values.values())
        self.counts.oversized += large
        return bool(values) and not large and ttl >= self._store.shortest

    def _stored(self, values: Mapping[str, bytes], done: bool | None) -> bool:
        if done:
            self.counts.stored += len(values)
            self.counts.bytes_written += sum(map(len, values.values()))
        return done is True
