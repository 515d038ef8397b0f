"""Whom a process can tell to let go of answers, and whether they can be had now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from router.cache.cache import Cache
from router.cache.remote import Remote

_PAUSE = 0.1  # seconds between two tries


@dataclass(frozen=True, slots=True)
class Reach:
    """Say by what other processes are told, and whether the servers for it answer."""

    broadcasts: dict[str, str]  # kind by cluster; none and alone tell nobody
    deaf: tuple[str, ...]  # clusters whose broadcast has no connection
    tier: str | None  # where the shared tier is; None: there is none
    seconds: float | None  # that it took to answer; None: it did not


async def reach(cache: Cache, clock: Callable[[], float], patience: float) -> Reach:
    """Return whom a cache can tell, after ``patience`` seconds at most."""
    speakers = {id(each): each for each in cache.broadcasts.values() if each.speaks}
    remote = None if cache.tier is None else cache.tier.remote
    *_, seconds = await asyncio.gather(
        *(each.start(patience) for each in speakers.values()), _answer(remote, clock, patience)
    )
    return Reach(
        {cluster: each.kind for cluster, each in cache.broadcasts.items()},
        tuple(cluster for cluster, each in cache.broadcasts.items() if not each.healthy()),
        None if remote is None else remote.place,
        seconds,
    )


async def _answer(remote: Remote | None, clock: Callable[[], float], patience: float) -> float | None:
    """Return how long an answer takes; the first call has to connect, for which its time may be too short."""
    end = clock() + patience
    while remote is not None:
        for _ in range(2):
            began = clock()
            answered = await remote.get_many(("reach",)) is not None
            took = clock() - began
        if answered:
            return took
        if clock() >= end:
            break
        await asyncio.sleep(_PAUSE)
    return None
