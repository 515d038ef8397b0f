"""Read what can be read of a section that has mistakes, so that the rest of it is checked in the same run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from router.config.problems import Found, Loc, dig
from router.config.section import Section

_ATTEMPTS = 5  # a value taken out can make what holds it wrong, but sections are not nested deeper than this

Model = TypeVar("Model", bound=Section)


class Salvaged(NamedTuple, Generic[Model]):
    """Hold a section without its wrong values, and the places that they had; ``None`` if nothing is left."""

    section: Model | None
    removed: tuple[Loc, ...]

    def tellable(self, flaws: Iterable[Found]) -> list[Found]:
        """Return the flaws that are no mere consequence of what was taken out."""
        holes = {loc[:-1] for loc in self.removed if loc}
        return [found for found in flaws if not (found.absent and found.loc in holes)]


def salvage(model: type[Model], data: Any, folder: Path) -> Salvaged[Model]:
    """Return what can be read of ``data``; the mistakes in it have been told by who validated the whole."""
    removed: tuple[Loc, ...] = ()
    for _ in range(_ATTEMPTS):
        try:
            return Salvaged(model.model_validate(data, context=folder), removed)
        except ValidationError as error:
            wrong = tuple(found.loc for found in dig(error, model))
        removed += wrong
        data = without(data, wrong)
    return Salvaged(None, removed)


def without(data: Any, wrong: Sequence[Loc]) -> Any:
    """Return ``data`` without the values at the places ``wrong``; the data itself is not changed.

    A list ends before its first wrong item: the items after it would get other positions.
    """
    here = {loc[0] for loc in wrong if len(loc) == 1}

    def inner(part: str | int, value: Any) -> Any:
        below = [loc[1:] for loc in wrong if len(loc) > 1 and loc[0] == part]
        return without(value, below) if below else value

    if isinstance(data, Mapping):
        return {key: inner(key, value) for key, value in data.items() if key not in here}
    if isinstance(data, list):
        end = min((part for part in here if isinstance(part, int)), default=len(data))
        return [inner(index, value) for index, value in enumerate(data[:end])]
    return data
