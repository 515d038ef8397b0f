"""How much is done to find a row of another tenant."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """Say how much to do: a number of reads, or as many as there are in a time."""

    tenants: int
    tasks: int  # at the same time
    reads: int  # at least
    calm: float | None  # seconds without faults, None for until the reads are made
    moves: int  # of two tenants into each other's places, an even number
    rough: float  # seconds in which sessions are ended on the servers
    mutant: float  # seconds at most in which each mistake must be found


FULL: Final = Effort(tenants=200, tasks=1_000, reads=1_000_000, calm=None, moves=20, rough=60, mutant=10)
QUICK: Final = Effort(tenants=200, tasks=100, reads=2_000, calm=8, moves=2, rough=2, mutant=8)
