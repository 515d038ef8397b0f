"""What a proxy can do to the bytes that pass: values, added to a proxy and removed from it.

All times are in seconds. Without a ``direction`` a toxic works both ways.
"""

from dataclasses import dataclass, field
from enum import Enum


class Direction(Enum):
    """Say which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class Break(Enum):
    """Say how a connection ends."""

    RESET = "reset"  # RST to both ends, as a crashed machine that is up again
    CLOSE = "close"  # an orderly end of both directions
    HALF_CLOSE = "half close"  # the receiver sees the end of the stream, the other direction goes on
    SILENCE = (
        "silence"  # nothing passes any more and nobody is told, as a firewall that forgot the connection
    )


@dataclass(eq=False, kw_only=True)
class Toxic:
    """Base of all toxics."""

    direction: Direction | None = None

    def works(self, direction: Direction) -> bool:
        """Tell whether bytes in this direction are concerned."""
        return self.direction in (None, direction)


@dataclass(eq=False)
class Latency(Toxic):
    """Delay each chunk, the order kept."""

    seconds: float
    jitter: float = 0.0  # added or taken away at random, up to this


@dataclass(eq=False)
class Bandwidth(Toxic):
    """Let so many bytes a second pass, in small pieces."""

    rate: float


@dataclass(eq=False)
class Stall(Toxic):
    """Hold all bytes until removed, then deliver them: a partition that TCP outlives."""


@dataclass(eq=False)
class Blackhole(Toxic):
    """Let all bytes vanish; new connections are accepted and meet silence.

    Whatever was connected while bytes vanished is reset once it is removed: its stream has a hole.
    """


@dataclass(eq=False)
class Hang(Toxic):
    """Accept new connections and say nothing for so long, or until removed; those that are open go on."""

    seconds: float = float("inf")


@dataclass(eq=False)
class Cut(Toxic):
    """Let ``after`` bytes pass on a connection, then break it; with 0, at the first byte that comes."""

    after: int
    how: Break = Break.RESET
    from_start: bool = False  # count from the connection's first byte, not from when this was added
    times: float = float("inf")  # connections that it breaks at most
    fired: int = field(default=0, init=False)  # connections that it has broken


@dataclass(eq=False)
class Record(Toxic):
    """Keep a copy of the bytes that arrive at the proxy."""

    data: bytearray = field(default_factory=bytearray, init=False)
