"""What the remote tier did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RemoteCounts:
    """Count since the start; ``hits`` and ``misses`` are of the first key of a call: others accompany it."""

    hits: int = 0
    misses: int = 0
    stored: int = 0  # values written
    failures: int = 0  # the server refused, or the connection broke
    timeouts: int = 0  # no answer within the limit
    skipped: int = 0  # not even asked: the server is left alone until it answers a probe
    crowded: int = 0  # no connection came free in time: too many asked at once
    oversized: int = 0  # values that were too large to be sent
    dropped: int = 0  # of values to be written soon: the queue was full
    trips: int = 0  # how often the server was left alone
    bytes_read: int = 0
    bytes_written: int = 0
