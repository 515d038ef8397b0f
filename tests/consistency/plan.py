"""What is to be done, as values that go to another process: the plan of a history, and a user on the way."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.consistency.history import Past


@dataclass(frozen=True, slots=True)
class Guarantees:
    """Say which guarantees are on; with one off, the checker must find what it was for."""

    level: str = "session"  # that reads are given for which the history claims "session"
    tokens: bool = True  # whether a session is opened after those that its user has seen
    once: bool = True  # whether a write of unknown outcome is left alone
    without: str = ""  # a rule of the cache that is switched off, see mutants


ALL = Guarantees()


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold what one process has configured its own way, as deployments drift: no promise may depend on it."""

    cluster: dict[str, Any]
    defaults: dict[str, Any]
    logins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Caching:
    """Say how the reads of a history are cached, and how the processes hear of each other's writes."""

    broadcast: str = "none"  # alone: only the first process writes, and it hears of nobody else
    section: dict[str, Any] = field(default_factory=dict)  # what the broadcast needs besides
    tables: int = 3
    damaged: float = 0.0  # share of tokens that arrive damaged, and so stand for all there is then
    shares: tuple[float, ...] = (0.0, 0.0, 0.3, 0.5)  # of writes, among what one user does
    bounded: int = 1  # how often a session reads at the level bounded, of twenty

    def writes(self, process: int) -> bool:
        """Tell whether a process writes."""
        return self.broadcast != "alone" or process == 0

    def configured(self, process: int) -> dict[str, Any]:
        """Return the section of the configuration for one of the processes."""
        kind = self.broadcast if self.writes(process) else "none"
        little = {"entries": 40} if process == 1 else {}  # answers have to leave there
        return {"broadcast": kind, **little, **self.section}


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold what every process must know to take part in one history."""

    sections: dict[str, Any]  # of the configuration
    folder: str
    table: str
    seed: int
    tenants: tuple[str, ...]
    clients: int  # in each process
    processes: int
    guarantees: Guarantees = ALL
    settings: tuple[Settings, ...] = ()  # what each process has its own way
    caching: Caching | None = None

    @property
    def tables(self) -> int:
        """Return how many tables the items are spread over."""
        return 1 if self.caching is None else self.caching.tables

    def configured(self, process: int) -> dict[str, Any]:
        """Return the sections of the configuration for one of the processes."""
        cache = {} if self.caching is None else {"cache": self.caching.configured(process)}
        return {**self._drifted(process), **cache}

    def _drifted(self, process: int) -> dict[str, Any]:
        if not self.settings:
            return self.sections
        own = self.settings[process % len(self.settings)]
        main = {**self.sections["clusters"]["main"], **own.cluster}
        main["credentials"] = {name: main["credentials"][name] for name in own.logins}
        defaults = {**self.sections["defaults"], **own.defaults}
        return {**self.sections, "clusters": {"main": main}, "defaults": defaults}


class Carried(NamedTuple):
    """Hold what a user brings to a session: a token, in its own process the session itself, and its past."""

    past: Past
    token: Any


@dataclass(slots=True)
class Journey:
    """Hold a user on the way through processes: who they are, and what they bring to the next session."""

    number: int
    tenant: str
    table: str  # of the history that they belong to
    writes: float  # share of writes among what they do
    stop: int = 0
    items: tuple[int, ...] = ()  # that they looked at last
    carried: tuple[Carried, ...] = ()
