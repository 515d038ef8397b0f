"""What metrics look at when they are rendered: the parts of an open router."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from router.audit.audit import AuditStatus
from router.backend import Backend
from router.cache.cache import Cache
from router.finding import Finder
from router.pools.registry import Pools
from router.stores.keeper import Condition


@dataclass(frozen=True, slots=True)
class Parts:
    """Hold the parts; they are only read, by whichever thread renders. ``clock`` is the monotonic one."""

    backends: Mapping[str, Backend]
    pools: Pools
    cache: Cache
    tenants: Collection[str]  # all that are known
    slow: Callable[[int], Iterable[tuple[str, float]]]  # so many statements: those that cost most
    clock: Callable[[], float]
    secrets: Callable[[], Iterable[Condition]]  # how it stands with each that a store keeps
    finder: Finder | None = None  # of tenants without a file
    audit: Callable[[], AuditStatus] | None = None
