"""Keep what stores gave: read when it is needed, used until it is due, the last good one kept in trouble.

Who needs a secret waits for a store only where nothing else helps, and the store has only so much time. All
who need the same one at the same time share the question.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from router.config.references import Stored
from router.config.secret import Secret
from router.sharing import Shared
from router.stores import rotation
from router.stores.rotation import Held, Turn
from router.stores.store import Answer, Store, Unanswered

_PATIENCE = 0.25  # seconds to wait for news while the last good answer would do
_FAREWELL = 0.5  # seconds that questions are given to end when the router is closed


class Good(NamedTuple):
    """Hold what is wanted of a secret, and until when it is good."""

    values: Mapping[Stored, Secret]
    until: float


class Failure(NamedTuple):
    """Tell that a secret could not be read."""

    user: str  # who needs it
    source: str  # as configured, without the field
    why: str
    kept: bool  # the last good one is used


class Condition(NamedTuple):
    """Say how it stands with a secret."""

    source: str  # as configured, without the field
    age: float | None  # seconds since it was last read well; ``None`` if it never was
    failing: bool  # whether the last reading went wrong


class Keeper:
    """Hold the secrets of a router; ``refresh`` and ``timeout`` are in seconds, ``clock`` is monotonic.

    ``failed`` is told of each reading that went wrong, once for each user.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        refresh: float,
        timeout: float,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        failed: Callable[[Failure], None],
    ) -> None:
        self._stores = stores
        self._refresh = refresh
        self._timeout = timeout
        self._clock = clock
        self._rng = rng
        self._failed = failed
        self._entries: dict[str, _Entry] = {}
        self._preparing = {name: Shared(partial(store.prepare, timeout)) for name, store in stores.items()}
        self._ready: set[str] = set()  # stores that have been prepared

    def expect(self, wanted: Iterable[tuple[Stored, str]]) -> None:
        """Expect these secrets to be needed, each by a user, and forget all others.

        An answer that lacks a field which is expected is none: the last good one stays.
        """
        known: dict[str, dict[Stored, str]] = {}
        for part, user in wanted:
            known.setdefault(part.source, {})[part] = user
        for source, entry in list(self._entries.items()):
            if source not in known and not entry.shared.tasks:
                del self._entries[source]
        for parts in known.values():
            entry = self._entry(next(iter(parts)))
            entry.wanted = frozenset(parts)
            entry.users = tuple(sorted(set(parts.values())))

    def _entry(self, part: Stored) -> _Entry:
        found = self._entries.get(part.source)
        if found is None:
            found = self._entries[part.source] = _Entry(part, self._ask)
        return found

    async def get(self, parts: tuple[Stored, ...], oldest: float = math.inf) -> Good | Unanswered:
        """Return parts of a secret as they are now, read at most ``oldest`` seconds ago if that is soon done.

        They are of one secret, and so of one answer.
        """
        entry = self._entry(parts[0])
        held = entry.held
        if held.answer is not None and held.answer.lacks(parts):
            held = replace(held, answer=None)  # somebody has added what is wanted since
        turn = rotation.turn(held, self._clock(), oldest)
        if turn is Turn.LOOK or turn is Turn.ASK:
            patience = _PATIENCE if turn is Turn.LOOK else None
            await asyncio.wait((entry.shared.current(),), timeout=patience)
        return self._outcome(entry, parts)

    async def renew(self, parts: tuple[Stored, ...]) -> Good | Unanswered:
        """Return what the store says to a question that is asked from now on, or what is good without it."""
        entry = self._entry(parts[0])
        await asyncio.wait((entry.shared.next(),))
        return self._outcome(entry, parts)

    def _outcome(self, entry: _Entry, parts: tuple[Stored, ...]) -> Good | Unanswered:
        held = entry.held
        if held.answer is None or not held.usable(self._clock()):
            return Unanswered(held.why or "the router is being closed")
        if lacks := held.answer.lacks(parts):
            return Unanswered(held.why or lacks)
        values = {each: held.answer.value(each) for each in parts}
        return Good({each: value for each, value in values.items() if value is not None}, held.end_at)

    async def _ask(self, entry: _Entry) -> None:
        got: Answer | Unanswered | None = await self._prepare(entry.store)
        asked = self._clock()
        got = got or await self._answer(entry)
        if isinstance(got, Answer):
            lacks = got.lacks(entry.wanted)
            if not lacks:
                entry.held = rotation.read(got, asked, self._refresh, self._rng.random())
                return
            got = Unanswered(lacks)
        now = self._clock()
        entry.held = rotation.failed(entry.held, now, got.why)
        for user in entry.users:
            self._failed(Failure(user, entry.source, got.why, entry.held.usable(now)))

    async def _prepare(self, store: str) -> Unanswered | None:
        if store in self._ready:
            return None
        trouble = await asyncio.shield(self._preparing[store].current())
        if trouble is None:
            self._ready.add(store)
        return trouble

    async def _answer(self, entry: _Entry) -> Answer | Unanswered:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._stores[entry.store].read(entry.path, self._timeout)
        except TimeoutError:
            return Unanswered(f"no answer within {self._timeout:g} s")

    def conditions(self) -> Iterator[Condition]:
        """Yield how it stands with each secret; any thread may ask."""
        now = self._clock()
        for entry in list(self._entries.values()):
            held = entry.held
            age = None if held.answer is None else now - held.read_at
            yield Condition(entry.source, age, held.failed_at is not None)

    async def close(self) -> None:
        """Give up on what is being asked."""
        tasks: list[asyncio.Task[Any]] = [
            task for entry in self._entries.values() for task in entry.shared.tasks
        ]
        tasks += [task for shared in self._preparing.values() for task in shared.tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_FAREWELL)
        for store in self._stores.values():
            store.close()


class _Entry:
    """Hold one secret, and the question for it that all share."""

    def __init__(self, wanted: Stored, ask: Callable[[_Entry], Awaitable[None]]) -> None:
        self.source = wanted.source
        self.store = wanted.store
        self.path = wanted.path
        self.wanted: frozenset[Stored] = frozenset()
        self.users: tuple[str, ...] = ()
        self.held = Held()
        self.shared = Shared(partial(ask, self))
