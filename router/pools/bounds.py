"""What a pool may grow to, and how large it is at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound a pool. ``idle``, ``lifetime`` and ``leak_after`` are in seconds; ``min`` are kept when idle.

    ``waiting`` tasks may stand in the queue; a unit of work that holds a connection for ``leak_after`` is
    reported, none is if that is 0.
    """

    min: int = 0
    max: int = 10
    idle: float = 600.0
    lifetime: float = 1800.0
    waiting: int = 1000
    leak_after: float = 60.0


class Share(NamedTuple):
    """Say how many connections a tenant holds, and how many of its requests wait for one."""

    tenant: str  # "" for the router's own work
    in_use: int
    waiting: int


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """Show a pool at one moment."""

    node: str
    database: str
    user: str
    size: int
    idle: int
    in_use: int
    waiting: int
    max: int
    shares: tuple[Share, ...] = ()  # of the tenants that hold or wait
