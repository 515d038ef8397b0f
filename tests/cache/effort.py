"""How much the figures of the cache are measured with."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """Say how much to do."""

    most_bytes: int  # of the store whose process is watched
    distinct: int  # keys put into it
    keys: int  # of a Zipf trace; there is room for one in a hundred
    requests: int  # of it
    looks: int  # at the time of a hit
    herds: int  # of readers of one key at the same time
    processes: int  # that share rows
    together: float  # seconds in which they read and write
    trouble: float  # seconds of each trouble of Redis


FULL: Final = Effort(
    64 << 20,
    distinct=10_000_000,
    keys=200_000,
    requests=1_000_000,
    looks=150,
    herds=20,
    processes=4,
    together=30.0,
    trouble=6.0,
)
QUICK: Final = Effort(
    16 << 20,
    distinct=60_000,
    keys=50_000,
    requests=150_000,
    looks=25,
    herds=3,
    processes=4,
    together=6.0,
    trouble=1.2,
)
