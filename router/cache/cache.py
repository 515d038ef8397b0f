"""The one owner of cached answers: entries, the marks that overrule them, and the reads under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from math import inf
from typing import Any

from router.cache.broadcast import Broadcast, OnLost, OnMessage
from router.cache.entries import ENTRY, Entry
from router.cache.flights import Flights
from router.cache.keys import key_size
from router.cache.known import Known
from router.cache.marks import EVERYTHING, Marks, Place, Writing
from router.cache.memory import Memory
from router.cache.notices import Notice
from router.cache.refusal import Unstored
from router.cache.scope import Scope
from router.cache.tally import Tally, add
from router.cache.tier import Tier
from router.cache.worth import Worth
from router.statements import Dialect

Broadcasts = Callable[[OnMessage, OnLost], Mapping[str, Broadcast]]
_REFRESHES = 16  # reads at once that renew what is about to get too old
_PATIENCE = 0.2  # seconds that opening a router waits until others are heard; until then little is kept


def _nobody(tenant: str | None, reason: str) -> None:
    """Tell nobody."""


class Cache:
    """Keep answers for one router; does nothing until the first read that may be cached."""

    def __init__(
        self,
        *,
        size: int,
        entries: int,
        largest: int,
        broadcasts: Broadcasts,
        tier: Tier | None = None,
        clock: Callable[[], float],
        forgotten: Callable[[str | None, str], None] = _nobody,
    ) -> None:
        self.enabled = size > 0
        #: since the first read that may be cached, or always where others may have cached something: until
        #: then nobody takes note of writes
        self.active = False
        self.largest = largest
        self.memory: Memory[Entry] = Memory(size, entries, dead=_dead)
        self.flights = Flights(clock)
        self.broadcasts = dict(broadcasts(self.noticed, self.lost))  # by cluster; several may share one
        self.tier = tier
        self.tallies: dict[str, Tally] = {}  # by tenant
        self.worths: dict[str, Worth] = {}
        self._known: dict[tuple[str, Hashable], Known] = {}
        self.flushes = 0
        self.forgotten = forgotten  # is told whose answers have all gone, None for everybody's, and why
        self._clock = clock
        self.marks = Marks(clock)
        self.began = inf
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life --------------------------------------------------------------------------------------------

    def activate(self) -> None:
        """Begin to take note of writes."""
        self.active = True
        self.began = self._clock()  # nothing is known of writes before

    async def start(self) -> None:
        """Begin to hear other processes, and to tell them what is written here."""
        speakers = self._speakers()
        if self.enabled and (speakers or self.tier is not None):
            self.activate()
            await asyncio.gather(*(each.start(_PATIENCE) for each in speakers))

    def join(self, cluster: str, broadcast: Broadcast) -> None:
        """Have a cluster's writes told, and hear of them, by ``broadcast`` from now on."""
        known = any(each is broadcast for each in self.broadcasts.values())
        before = self.broadcasts.get(cluster)
        self.broadcasts[cluster] = broadcast
        if self.enabled and broadcast.speaks and not known:
            self.activate()
            self.beside(broadcast.start(_PATIENCE))
        if before is not None:
            self._leave(before)

    def part(self, cluster: str) -> None:
        """Tell of a cluster's writes no more: there is none by that name."""
        before = self.broadcasts.pop(cluster, None)
        if before is not None:
            self._leave(before)

    def _leave(self, broadcast: Broadcast) -> None:
        if not any(each is broadcast for each in self.broadcasts.values()):
            self.beside(broadcast.close())

    def _speakers(self) -> Iterable[Broadcast]:
        """Return by what others are told, each once."""
        return {id(each): each for each in self.broadcasts.values() if each.speaks}.values()

    def rest(self) -> None:
        """End what runs beside requests."""
        for task in self._tasks:
            task.cancel()

    def cancel(self) -> None:
        """End everything, without waiting for it."""
        self.rest()
        self.active = False
        for broadcast in self._speakers():
            broadcast.cancel()
        if self.tier is not None:
            self.tier.cancel()

    async def close(self) -> None:
        """End everything; what the last requests have written is still told to other processes."""
        self.rest()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        await asyncio.gather(
            *(each.close() for each in {id(b): b for b in self.broadcasts.values()}.values())
        )
        if self.tier is not None:
            await self.tier.close()
        self.active = False

    def beside(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run something beside requests, if not too much does so already."""
        if len(self._tasks) >= _REFRESHES:
            work.close()
            return False
        task = asyncio.get_running_loop().create_task(work, name="router-cache-refresh")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def known_of(
        self, cluster: str, dialect: Dialect, declared: tuple[tuple[str, tuple[str, ...]], ...]
    ) -> Known:
        """Return what is known of a cluster's schemas, for tenants that declare the same."""
        known = self._known.get((cluster, declared))
        if known is None:
            known = self._known[cluster, declared] = Known(dialect, dict(declared), self._clock)
        return known

    # --- writes ------------------------------------------------------------------------------------------

    def begin(self, writing: Writing | None, places: Iterable[Place], facts: object = None) -> Writing:
        """Take note that places are about to be written, in what may have begun before."""
        writing = writing or Writing(facts)
        self.marks.begin(writing, places)
        return writing

    def committed(self, writing: Writing) -> None:
        """Take note that writes are visible, and tell other processes."""
        places = tuple(writing.marks)
        self.marks.end(writing, self._clock())
        self._tell(places)

    def undone(self, writing: Writing) -> None:
        """Take note that writes never were."""
        self.marks.end(writing, None)

    def unknown(self, writing: Writing, grace: float) -> None:
        """Take note of writes that may still be applied for ``grace`` seconds, in which nothing is kept."""
        places = tuple(writing.marks)
        self.marks.end(writing, self._clock() + grace)
        self._tell(places)
        asyncio.get_running_loop().call_later(grace, self._tell, places)

    def invalidate(self, places: Iterable[Place]) -> None:
        """Let go of all that was read from these places up to now, here and in other processes."""
        places = tuple(places)
        self.marks.raised(places, self._clock())
        self._tell(places)

    def lost(self) -> None:
        """Let go of everything, here: something may have been written of which nothing was heard."""
        self._forget("broadcast_lost")

    def _forget(self, reason: str) -> None:
        self.flushes += 1
        self.marks.raised((EVERYTHING,), self._clock())
        if len(self.memory) or reason != "broadcast_lost":  # else it begins to hear others: nothing has gone
            self.forgotten(None, reason)

    def flush(self) -> None:
        """Let go of everything, here and in other processes."""
        self._forget("asked")
        for broadcast in self._speakers():
            broadcast.publish(None)
        if self.tier is not None:
            self.tier.forget()

    async def all_told(self, patience: float) -> bool:
        """Wait until all that is to be told has gone out; tell whether it has after ``patience`` seconds."""
        waits = [each.all_told(patience) for each in self._speakers()]
        if self.tier is not None:
            waits.append(self.tier.all_told(patience))
        return all(await asyncio.gather(*waits))

    def _tell(self, places: Iterable[Place]) -> None:
        """Tell other processes that places were written."""
        told: dict[Place, set[str]] = {}
        for each in places:
            database = each._replace(schema=None, table=None)
            # a schema of which all may have changed is told as one whose name ends in a dot
            told.setdefault(database, set()).add(
                "" if each.schema is None else f"{each.schema}.{each.table or ''}"
            )
        for database, tables in told.items():
            name = f"{database.cluster}/{database.database}"
            spoken = self.broadcasts.get(database.cluster)
            if spoken is not None:  # else a reload has taken the cluster away, here and elsewhere
                spoken.publish(name, None if "" in tables else tables)
        if self.tier is not None and told:
            self.tier.written(places)

    def noticed(self, notice: Notice, at: float) -> None:
        """Take note of what another process has written, some time before ``at``."""
        if notice.place is None:
            self._forget("told")
            return
        cluster, _, database = notice.place.partition("/")
        place = Place(cluster, database)
        if notice.tables is None or any(each.endswith(".") for each in notice.tables):
            for (name, _), known in self._known.items():
                if name == cluster:
                    known.forget(database)  # the schema itself may be another
        if notice.tables is None:
            self.marks.raised((place,), at)
            return
        for each in notice.tables:
            schema, _, table = each.partition(".")
            self.marks.raised((place._replace(schema=schema, table=table or None),), at)

    # --- entries -----------------------------------------------------------------------------------------

    def store(self, key: Hashable, entry: Entry, scope: Scope) -> bool:
        """Keep an entry, unless a write has overtaken it while it was read."""
        why = None
        if entry.as_of < self.began:
            why = Unstored.AGE
        elif not entry.alive:
            why = Unstored.WRITTEN
        elif (other := self.memory.get(key)) is not None and other.as_of > entry.as_of and other.alive:
            why = Unstored.OLDER  # of two reads at the same time the slower one
        elif not self.memory.put(key, entry, entry.value.size + key_size(key) + ENTRY):
            why = Unstored.NOT_ADMITTED
        if why is None:
            scope.tally.stored += 1
        else:
            add(scope.tally.unstored, why)
        return why is None


def _dead(entry: Entry) -> bool:
    return not entry.alive
