"""The second tier: answers that processes share through a server, each believed only after it was checked.

Beside the answers the server holds a *generation* for each table, schema and database: a random word that
every write replaces. An answer carries the generations that were there before it was read, and counts only
while they still are. All of it is read in one round trip.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import NamedTuple

from router.cache.envelope import Envelope, Seal
from router.cache.marks import Place
from router.cache.packing import pack, unpack
from router.cache.remote import Remote
from router.cache.values import Value
from router.positions import Position

_LIFETIME = 86_400.0  # seconds; an answer whose generation has gone is none any more
_RETRY = 0.25  # seconds until what could not be told is told again
_MOST = 10_000  # generations that wait to be replaced; beyond that all answers are dropped
_SKEW = 2.0  # seconds by which the wall clocks of two processes may differ


class Key(NamedTuple):
    """Name an answer, and what its generations were when it was looked for."""

    tenant: str
    name: str
    generations: tuple[str, ...]
    since: float  # moment: only what holds all that was committed before it may be kept


class Tier:
    """Look for answers, keep them, replace generations; what fails is a miss and costs nothing further."""

    def __init__(
        self,
        remote: Remote,
        seal: Seal,
        *,
        largest: int,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.remote = remote
        self._seal = seal
        self._largest = largest
        self._clock, self._wall = clock, wall
        self._owed: set[str] = set()  # generations to be replaced
        self._telling: set[str] = set()  # those that are being replaced
        self._all_owed = False
        self._task: asyncio.Task[None] | None = None

    async def find(
        self, tenant: str, user: str, verb: str, text: str, args: tuple[object, ...], places: Iterable[Place]
    ) -> tuple[Key | None, Envelope | None]:
        """Return the key of an answer, ``None`` if none can be kept, and the answer if there is one.

        A replica may lack what was written just before the generations were looked at: its answer must not be
        kept under them. So the key says how new an answer has to be.
        """
        around = _around(places)
        first = around[0]
        name = self._seal.key(
            tenant=tenant, cluster=first.cluster, database=first.database, schema=first.schema, user=user,
            verb=verb, statement=text, parameters=args,
        )  # fmt: skip
        if name is None:
            return None, None
        names = [_generation(each) for each in around]
        began = self._clock()
        found = await self.remote.get_many([name, *names])
        if found is None:
            return None, None
        data, *generations = found
        if None in generations:
            return await self._begin(tenant, name, names, generations, began), None
        words = tuple(_text(each) for each in generations)
        key = Key(tenant, name, words, min(began, self._written(words)))
        envelope = None if data is None else self._seal.open(data, tenant=tenant, key=name)
        if (
            envelope is None
            or envelope.generations != words
            or not self._owed.union(self._telling).isdisjoint(names)
        ):
            return key, None
        return key, envelope

    async def _begin(
        self, tenant: str, name: str, names: list[str], generations: list[bytes | None], began: float
    ) -> Key | None:
        """Begin the generations that are missing; whoever was first decides what they are."""
        fresh = self._fresh()
        missing = [each for each, word in zip(names, generations, strict=True) if word is None]
        begun = await asyncio.gather(*(self.remote.add(each, fresh, _LIFETIME) for each in missing))
        if not all(begun):
            await self._replace_old([each for each, done in zip(missing, begun, strict=True) if not done])
            return None
        words = tuple(_text(fresh if word is None else word) for word in generations)
        return Key(tenant, name, words, began)

    async def _replace_old(self, names: list[str]) -> None:
        """Begin generations anew that are there and do not count, since all was dropped once.

        Nothing is kept by who does that: what a writer has just said may be among what is replaced.
        """
        found = await self.remote.get_many(names)
        if found is not None:
            old = [each for each, word in zip(names, found, strict=True) if word is None]
            await self.remote.set_many(dict.fromkeys(old, self._fresh()), _LIFETIME)

    def _written(self, words: tuple[str, ...]) -> float:
        """Return the moment, on our clock, when the last of these generations had certainly begun."""
        return self._clock() - self._wall() + max(map(_began, words)) + _SKEW

    def value(self, envelope: Envelope) -> Value:
        """Return the rows of an envelope; raises ValueError if they are none."""
        return unpack(envelope.body)

    def keep(self, key: Key, value: Value, *, position: Position, reign: str, age: float, ttl: float) -> None:
        """Keep an answer that was read ``age`` seconds ago, soon and beside."""
        body = pack(value, self._largest)
        if body is None:
            return
        data = self._seal.seal(
            body, tenant=key.tenant, key=key.name, position=position.tagged, reign=reign, tables=(),
            generations=key.generations, read_at=self._wall() - age,
        )  # fmt: skip
        self.remote.put_soon(key.name, data, ttl)

    # --- writes ------------------------------------------------------------------------------------------

    def written(self, places: Iterable[Place]) -> None:
        """Replace the generations of what was written; until that is done it is tried again and again."""
        self._owed.update(map(_generation, places))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._replace(), name="router-cache-tier", context=Context()
            )

    async def all_told(self, patience: float) -> bool:
        """Wait until all generations are replaced; tell whether they are after ``patience`` seconds."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=patience)
        return not (self._owed or self._telling or self._all_owed)

    def forget(self) -> None:
        """Drop all answers."""
        self._all_owed = True
        self.written(())

    async def _replace(self) -> None:
        while self._owed or self._all_owed:
            # what is written again meanwhile is replaced again: it may have been read in between
            self._telling, self._owed = self._owed, set()
            if len(self._telling) > _MOST or self._all_owed:
                done = await self.remote.clear()
                self._all_owed = self._all_owed and not done
            else:
                done = await self.remote.set_many(dict.fromkeys(self._telling, self._fresh()), _LIFETIME)
            if not done:
                self._owed |= self._telling
                await asyncio.sleep(_RETRY)
            self._telling = set()

    def _fresh(self) -> bytes:
        return f"{secrets.token_hex(8)}:{int(self._wall())}".encode()

    async def close(self) -> None:
        """End; what could not be told within a moment is not."""
        if self._task is not None and not self._task.done():
            await asyncio.wait((self._task,), timeout=_RETRY if self.remote.up else 0)
            self.cancel()
            await asyncio.wait((self._task,), timeout=_RETRY)
        await self.remote.close()

    def cancel(self) -> None:
        """End what runs, without waiting for it."""
        if self._task is not None:
            self._task.cancel()


def _around(places: Iterable[Place]) -> list[Place]:
    """Return places, and the schemas and databases they are in."""
    tables = sorted(places)
    schemas = sorted({each._replace(table=None) for each in tables})
    return [*tables, *schemas, *sorted({each._replace(schema=None) for each in schemas})]


def _generation(place: Place) -> str:
    return f"g/{place.cluster}/{place.database}/{place.schema or ''}/{place.table or ''}"


def _text(word: bytes | None) -> str:
    return "" if word is None else word.decode("ascii", "replace")


def _began(word: str) -> float:
    """Return when a generation began, as the wall clock of its process had it."""
    digits = word.rpartition(":")[2]
    return float(digits) if digits.isdigit() else float("inf")
