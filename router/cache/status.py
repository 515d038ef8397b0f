"""What the cache of this process holds, and what became of the reads that it could have answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.cache.cache import Cache
from router.cache.tally import Tally


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """Show the cache of this process at one moment; tenants that never used it are left out."""

    entries: int
    size: int  # bytes
    evictions: int
    flushes: int
    heard: bool  # whether other processes are heard, where that is configured
    remote: bool | None  # whether the shared tier is in use; None if there is none
    tenants: dict[str, Tally]

    @property
    def ratio(self) -> float | None:
        """Return the share of all look-ups that the database did not see; ``None`` before the first."""
        total = Tally()
        for each in self.tenants.values():
            total.include(each)
        return total.ratio


def status_of(cache: Cache, *, tenants: bool = True) -> CacheStatus:
    """Return what a cache holds and has counted; without ``tenants`` not for each of them."""
    return CacheStatus(
        len(cache.memory),
        cache.memory.bytes,
        cache.memory.evictions,
        cache.flushes,
        all(each.healthy() for each in cache.broadcasts.values()),
        None if cache.tier is None else cache.tier.remote.up,
        summed(tallies(cache)) if tenants else {},
    )


def tallies(cache: Cache) -> list[tuple[str, Tally]]:
    """Return what was counted for each tenant that has used the cache.

    A thread that serves metrics may ask while the loop counts.
    """
    return [(tenant, tally) for tenant, tally in list(cache.tallies.items()) if tally.used]


def summed(counted: Iterable[tuple[str, Tally]]) -> dict[str, Tally]:
    """Return copies of what was counted by name, added up."""
    found: dict[str, Tally] = {}
    for name, tally in counted:
        found.setdefault(name, Tally()).include(tally)
    return found
