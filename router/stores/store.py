"""What a store of secrets is asked, and what it answers: values, or why there are none.

A store answers in words and raises nothing: the frames and texts of its client hold tokens and secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.config.references import Stored
from router.config.secret import Secret
from router.identifiers import shown


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what a store keeps under a path: fields by name, the whole text, or both.

    ``lease`` is for how many seconds the store vouches for it; ``None`` until somebody changes it.
    """

    fields: Mapping[str, Secret] = field(default_factory=dict)
    whole: Secret | None = None
    lease: float | None = None

    def value(self, wanted: Stored) -> Secret | None:
        """Return the part that a reference wants, if there is one."""
        return self.whole if wanted.field is None else self.fields.get(wanted.field)

    def lacks(self, wanted: Iterable[Stored]) -> str:
        """Say what is missing of these parts, "" if nothing is."""
        fields = sorted({each.field or "" for each in wanted if self.value(each) is None})
        if fields == [""]:
            return "it is not one text. Name a field of it"
        return f"it has no {', '.join(shown(field) for field in fields if field)}" if fields else ""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Say why there is no answer, without anything that is secret."""

    why: str


class Store(Protocol):
    """Read secrets; times are in seconds."""

    async def prepare(self, timeout: float) -> Unanswered | None:
        """Bring in what asking takes, until that has gone well once; ``timeout`` is that of questions."""

    async def read(self, path: str, timeout: float) -> Answer | Unanswered:
        """Return what is kept under ``path``."""

    def close(self) -> None:
        """Let go of what it holds."""
