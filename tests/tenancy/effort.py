"""How much the figures of many tenants are measured with."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """Say how much to do."""

    schemas: int  # of one database
    databases: int  # of one server
    rounds: int  # of each load that is compared
    seconds: float  # of a round
    warm: float  # seconds in which connections meet tenants, before those rounds
    fresh: int  # tenants whose first query is timed
    quiet: float  # seconds of a round with quiet tenants, and with a loud one beside them
    visits: int  # such rounds
    files: int  # of tenants that are loaded
    reloads: int


FULL: Final = Effort(
    schemas=10_000,
    databases=1_000,
    rounds=10,
    seconds=2.0,
    warm=15.0,
    fresh=500,
    quiet=4.0,
    visits=10,
    files=100_000,
    reloads=10,
)
QUICK: Final = Effort(
    schemas=1_500,
    databases=22,
    rounds=3,
    seconds=0.6,
    warm=3.0,
    fresh=40,
    quiet=1.3,
    visits=2,
    files=10_000,
    reloads=1,
)
