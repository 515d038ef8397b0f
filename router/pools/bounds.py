"""What a pool may grow to, and how large it is at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound the connections to a node, over all its pools. ``idle``, ``lifetime``, ``leak_after``: seconds.

    ``min`` are kept when idle. ``waiting`` tasks may stand in the queues; a unit of work that holds a
    connection for ``leak_after`` is reported, none is if that is 0. ``each`` bounds every pool by itself.
    """

    min: int = 0
    max: int = 10
    idle: float = 600.0
    lifetime: float = 1800.0
    waiting: int = 1000
    leak_after: float = 60.0
    each: float = inf


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
    max: int  # of the node, which its pools share
    shares: tuple[Share, ...] = ()  # of the tenants that hold or wait


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """Show a node's connections at one moment, over all its pools that have any."""

    node: str
    size: int  # all of them, those that are being opened or cleaned included
    idle: int
    in_use: int
    opening: int
    waiting: int  # requests
    max: int
    pools: int
