"""What a request has waited for before its statement was sent, step by step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Waits:
    """Add up seconds."""

    queue: float = 0.0  # for a connection to come free, or for a primary
    connect: float = 0.0  # opening a connection
    bind: float = 0.0  # setting a connection to the tenant's schema
    catch_up: float = 0.0  # asking a replica, or waiting until it has what the read must see

    @property
    def total(self) -> float:
        """Return all of it."""
        return self.queue + self.connect + self.bind + self.catch_up


NO_WAITS = Waits()
"""Of a request that found an idle connection; never changed."""
