"""How much the figures of what is observed are measured with."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """Say how much to do."""

    blocks: int  # of requests whose processor time is taken together
    rounds: int  # of load with a bad listener, and as many without
    seconds: float  # of a round
    scrapes: int  # of ten thousand tenants
    trace: int  # requests of a trace


FULL: Final = Effort(blocks=1_500, rounds=20, seconds=0.5, scrapes=10, trace=500_000)
QUICK: Final = Effort(blocks=250, rounds=10, seconds=0.2, scrapes=3, trace=100_000)
