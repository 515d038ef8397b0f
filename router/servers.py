"""What is known of one server, and the numbers that it is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from router.balancing import Load
from router.breaker import Breaker
from router.standing import Lag, Limits, Observation, Out, Standing
from router.topology import Node, Role

SILENT = 2
"""Probes without an answer, one after the other, that mean that a server does not answer."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Bound what a cluster's health judges by; times are in seconds."""

    lag: Limits = field(default_factory=Limits)
    interval: float = 2.0  # between probes of a node
    timeout: float = 1.0  # of a probe
    quick: float = 0.1  # between probes after a sign of change
    follow: bool = True  # a promotion is followed; else only the configured primary takes writes

    @property
    def fresh(self) -> float:
        """Return how long an answer is believed when no further one comes."""
        return 3 * self.interval + self.timeout


@dataclass(slots=True, eq=False)
class Server:
    """Hold what is known of one server."""

    node: Node  # in its role of now
    roles: dict[Role, Node]
    load: Load = field(default_factory=Load)
    seen: Observation | None = None
    before: Observation | None = None
    latest: Observation | None = None  # as seen, or of a request that asked in between
    follows: frozenset[str] = frozenset()  # reigns of which it has been known to have something
    asked: bool = False  # whether any probe has ended
    misses: int = 0  # probes without an answer since the last good one
    refused: str = ""  # how connecting failed, since the last good probe
    doubted: bool = False  # it refused a write as a replica would, since the last good probe
    breaker: Breaker = field(default_factory=Breaker)
    standing: Standing = field(default_factory=lambda: Standing(Out.UNKNOWN, Lag()))

    @classmethod
    def of(cls, node: Node) -> Self:
        """Return what is known before anybody has asked: the configured role."""
        return cls(
            node,
            {
                role: node if role is node.role else node.in_role(role)
                for role in (Role.PRIMARY, Role.REPLICA)
            },
        )

    @property
    def claims(self) -> bool:
        """Tell whether it takes writes, as far as is known now."""
        seen = self.seen
        return seen is not None and seen.writable and not self.failing

    @property
    def failing(self) -> bool:
        """Tell whether it is known not to serve now."""
        return bool(self.refused) or self.doubted or self.misses >= SILENT

    @property
    def words(self) -> str:
        """Say what it says, or that it says nothing."""
        if self.refused:
            return self.refused
        if self.misses:
            return "does not answer"
        if self.seen is None:
            return "was not asked yet"
        if self.doubted:
            return "has refused a write"
        return "takes writes" if self.seen.writable else "is a replica"
