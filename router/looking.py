"""Look for an answer in the tier that processes share, and turn positions into moments of this process."""

from __future__ import annotations

from math import inf
from typing import Self

from router.backend import Target
from router.cache.entries import Entry
from router.cache.envelope import Envelope
from router.cache.marks import Mark, Place
from router.cache.tier import Key, Tier
from router.cache.values import freeze
from router.drivers.driver import Binding
from router.execution import Executor
from router.positions import parse_position
from router.requests import Request

_NOBODY = Binding()


class Look:
    """Hold what was found for one read, and under which name its answer may be kept."""

    __slots__ = ("_envelope", "_executor", "_key", "_places", "_target", "_tier")

    def __init__(self, executor: Executor, target: Target, tier: Tier, places: tuple[Place, ...]) -> None:
        self._executor = executor
        self._target = target
        self._tier = tier
        self._places = places
        self._key: Key | None = None
        self._envelope: Envelope | None = None

    @classmethod
    async def begin(
        cls, executor: Executor, target: Target, tier: Tier, request: Request, places: tuple[Place, ...]
    ) -> Self:
        """Return what is there for a read; takes no longer than the tier may."""
        look = cls(executor, target, tier, places)
        look._key, look._envelope = await tier.find(
            target.placement.tenant,
            _who(target),
            request.verb,
            request.statement.text,
            request.args,
            places,
        )
        return look

    def entry(self, marks: tuple[Mark, ...], ttl: float) -> Entry | None:
        """Return the answer as an entry of this process, unless it is too old or not to be judged here."""
        envelope, health = self._envelope, self._target.backend.health
        snapshot, now = health.snapshot(), self._executor.clock()
        if envelope is None or envelope.reign is None or envelope.reign != snapshot.reign.name:
            return None
        try:
            position = parse_position(envelope.position or "")
            frozen = freeze(self._tier.value(envelope), self._executor.cache.largest)
        except ValueError:
            return None
        age = max(self._executor.teller.wall() - envelope.read_at, 0.0)
        as_of = health.lineage.history.current(position)
        node = snapshot.primary or next(iter(snapshot.replicas), None)
        if frozen is None or node is None or as_of == -inf or age > ttl:
            return None
        return Entry(
            frozen,
            places=self._places,
            marks=marks,
            as_of=as_of,
            until=now,  # its own clock may differ from ours
            born=now - age,
            position=position,
            reign=snapshot.reign.began,
            node=node,
            cost=0.0,
        )

    def keep(self, entry: Entry, ttl: float) -> None:
        """Keep an answer for other processes, if it is new enough and can be told there how new it is."""
        key, reign = self._key, self._target.backend.health.snapshot().reign
        if key is None or entry.position is None or reign.name is None or reign.began != entry.reign:
            return
        if entry.as_of < key.since:
            return
        age = max(self._executor.clock() - entry.born, 0.0)
        self._tier.keep(key, entry.value.thaw(), position=entry.position, reign=reign.name, age=age, ttl=ttl)


def _who(target: Target) -> str:
    """Return who asks: what they may see depends on it, and a configuration may give a tenant another key."""
    _, role, setting, value = target.binding or _NOBODY
    users = target.backend.users
    return users if role is None and setting is None else repr((users, role, setting, value))
