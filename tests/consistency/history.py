"""What happened, as values: who read or wrote what, when, how it ended, and what they had to know by then.

The data is an append-only table for each tenant: a row is (tenant, item, number), each number is written once
in the whole history, and a read returns the numbers of one item. So a read shows exactly which writes it saw.
Times are of the machine's monotonic clock, which all processes share.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from router.reasons import Reason


class Kind(StrEnum):
    """Say what an operation does to its item."""

    READ = "read"
    WRITE = "write"
    TOKEN = "token"  # takes a token, which shows nothing; noted only where it told of a loss


class Outcome(StrEnum):
    """Say what the client was told."""

    OK = "ok"
    FAILED = "failed"  # it has had no effect, and never will
    UNKNOWN = "unknown"  # it may have been applied


class Level(StrEnum):
    """Say what a read was promised."""

    EVENTUAL = "eventual"  # nothing about time, only that its rows are real
    BOUNDED = "bounded"  # all that was acknowledged ``Operation.within`` seconds before
    SESSION = "session"  # all that its session has written or read, and what came with a token
    STRONG = "strong"  # all that was acknowledged before


class Past(NamedTuple):
    """Name what a token stands for: the first ``operations`` operations of a session, and their past."""

    session: int
    operations: int


@dataclass(frozen=True, slots=True)
class Opening:
    """Hold the opening of a session, after the pasts that it was given."""

    session: int
    process: int
    client: int
    tenant: str
    at: float
    after: tuple[Past, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """Hold one read or write of one item."""

    session: int
    process: int
    tenant: str
    kind: Kind
    item: int
    numbers: tuple[int, ...]  # written, or read, in the order of the rows
    began: float
    ended: float
    outcome: Outcome = Outcome.OK
    level: Level = Level.SESSION
    within: float = 0.0  # seconds, of a bounded read
    cache: float = 0.0  # seconds that a cached answer may be old; 0: none is asked for
    how: str = ""  # by which way of the library
    node: str = ""
    replica: bool = False  # whether that was one then
    reason: str = ""  # of the route, or the error
    told: bool = False  # that writes of its past are lost
    foreign: tuple[str, ...] = ()  # tenants of rows that are another tenant's

    @property
    def cached(self) -> bool:
        """Tell whether memory has answered."""
        return self.reason == Reason.CACHED

    def __str__(self) -> str:
        """Return it in words, for the one who has to find out what went wrong."""
        what = " ".join(map(str, self.numbers)) or "nothing"
        verb = {Kind.READ: "read", Kind.WRITE: "wrote", Kind.TOKEN: "took a token, saw"}[self.kind]
        end = "" if self.outcome is Outcome.OK else f", {self.outcome}"
        asked = f", cache={self.cache:g}" if self.cache else ""
        return (
            f"session {self.session} (process {self.process}, {self.tenant}) {verb} {what} "
            f"in item {self.item} from {self.began:.4f} to {self.ended:.4f} by {self.how or 'hand'} "
            f"on {self.node or '?'} ({self.level}, {self.reason or 'no reason'}{end}{asked})"
        )


@dataclass(frozen=True, slots=True)
class Failover:
    """Hold a change of the primary; ``clean`` if the new one had received everything of the old one.

    ``kept`` if the old one went on without a restart, with the connections that it had.
    """

    began: float
    ended: float
    clean: bool
    kept: bool = False


class Row(NamedTuple):
    """Hold a row as it is in the end on the primary: in whose table, and what it says."""

    place: str
    tenant: str
    item: int
    number: int


@dataclass(slots=True)
class History:
    """Hold all that happened; ``final`` is ``None`` if nobody has looked at the end."""

    openings: list[Opening] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)  # those of one session in their order
    failovers: list[Failover] = field(default_factory=list)
    final: list[Row] | None = None
    strays: list[str] = field(default_factory=list)  # errors that nobody caught, told to the event loops
    notes: dict[str, Any] = field(default_factory=dict)  # seed, engine, ...

    def save(self, path: Path) -> None:
        """Write it as one JSON list a line, the kind first."""
        with path.open("w") as file:
            for kind, value in self._lines():
                file.write(json.dumps([kind, value], separators=(",", ":")) + "\n")

    def _lines(self) -> Iterator[tuple[str, Any]]:
        yield "notes", self.notes
        for opening in self.openings:
            yield "opening", asdict(opening)
        for operation in self.operations:
            yield "operation", _short(operation)
        for failover in self.failovers:
            yield "failover", asdict(failover)
        yield "strays", self.strays
        if self.final is not None:
            yield "final", self.final

    @classmethod
    def load(cls, path: Path) -> "History":
        """Read what :meth:`save` has written."""
        made = cls()
        for line in path.read_text().splitlines():
            kind, value = json.loads(line)
            if kind == "notes":
                made.notes = value
            elif kind == "opening":
                after = tuple(Past(*past) for past in value.pop("after"))
                made.openings.append(Opening(**value, after=after))
            elif kind == "operation":
                made.operations.append(_operation(value))
            elif kind == "failover":
                made.failovers.append(Failover(**value))
            elif kind == "strays":
                made.strays = value
            else:
                made.final = [Row(*row) for row in value]
        return made


_DEFAULTS = {each.name: each.default for each in fields(Operation)}


def _short(operation: Operation) -> dict[str, Any]:
    """Leave out what is as usual: 200,000 of them are to be read by eye."""
    return {key: value for key, value in asdict(operation).items() if value != _DEFAULTS[key]}


def _operation(value: dict[str, Any]) -> Operation:
    value["numbers"] = tuple(value["numbers"])
    value["foreign"] = tuple(value.get("foreign", ()))
    for key, kind in (("kind", Kind), ("outcome", Outcome), ("level", Level)):
        if key in value:
            value[key] = kind(value[key])
    return Operation(**value)
