"""Mistakes: how a check tells one, and how each becomes a Problem with the place where it was written.

No message holds a configured value, unless it is a name that passed through ``identifiers.shown``: a value
may be a password in the wrong line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from router.errors import Problem
from router.identifiers import shown

Loc = tuple[str | int, ...]  # the keys and list positions that lead to a value


class Place(NamedTuple):
    """Hold where a value and its key are written; lines and columns from 1."""

    line: int
    column: int
    key_line: int
    key_column: int


class Flaw(ValueError):
    """Tell one mistake in a value: the fact as its text, and what to do as ``remedy``."""

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(fact)
        self.fact = fact
        self.remedy = remedy


class Found(NamedTuple):
    """Hold one mistake and the way to it, before it has a file and a line."""

    loc: Loc
    message: str
    remedy: str
    at_key: bool = False
    hidden: bool = False  # the last key on the way may hold a secret: it shows the place, never itself

    @property
    def absence(self) -> bool:
        """Tell whether something is missed, rather than wrong."""
        return self.message.startswith(("has no ", "has neither "))


class Report:
    """Collect the mistakes of one file; ``places`` is empty for a configuration built in code."""

    def __init__(self, file: str, places: Mapping[Loc, Place], problems: list[Problem]) -> None:
        self.file = file
        self.places = places
        self.problems = problems
        self._told = {(problem.line, problem.column) for problem in problems}

    def add(self, found: Found) -> None:
        """Add a mistake, unless the reader has told one at the very same place."""
        problem = self.problem(found)
        if not problem.line or (problem.line, problem.column) not in self._told:
            self.problems.append(problem)

    def problem(self, found: Found) -> Problem:
        """Return the mistake with its file, line and column; a missing place is that of what contains it."""
        way, remedy = dotted(found.loc[:-1] if found.hidden else found.loc), found.remedy.rstrip(".")
        if not self.places:
            place = ".".join(filter(None, (self.file, way)))
            return Problem(place or "configuration", 0, 0, f"it {found.message}", remedy)
        message = f"{way or 'the file'} {found.message}"
        loc = found.loc
        while loc not in self.places and loc:
            loc = loc[:-1]
        at = self.places[loc]
        if found.at_key and loc == found.loc:
            return Problem(self.file, at.key_line, at.key_column, message, remedy)
        return Problem(self.file, at.line, at.column, message, remedy)


def dotted(loc: Loc) -> str:
    """Return ``clusters.main.replicas[0].port`` for the way to a value; keys are escaped."""
    text = ""
    for part in loc:
        plain = isinstance(part, str) and part.replace("-", "_").isidentifier() and part.isascii()
        text += f"[{part}]" if isinstance(part, int) else f".{part if plain else shown(part)}"
    return text.removeprefix(".")


def dig(error: ValidationError, model: type[BaseModel]) -> Iterator[Found]:
    """Yield the mistakes in a pydantic error over ``model``, in our words and without any input."""
    for detail in error.errors(include_url=False, include_input=False):
        loc = tuple(part for part in detail["loc"] if part != "[key]")
        context = detail.get("ctx", {})
        if detail["type"] == "extra_forbidden":
            yield _unknown_key(loc, known_keys(model, loc[:-1]))
        elif detail["type"] == "missing":
            yield Found(loc[:-1], f"has no {loc[-1]!r}", f"Add {loc[-1]}: ...")
        elif isinstance(cause := context.get("error"), ValueError):
            at_key = "[key]" in detail["loc"]
            yield Found(loc, getattr(cause, "fact", "is refused"), getattr(cause, "remedy", ""), at_key)
        else:
            yield Found(loc, *_MESSAGES.get(detail["type"], _unforeseen)(context))


def known_keys(model: type[BaseModel], loc: Loc) -> tuple[str, ...]:
    """Return the keys that ``model`` allows in the mapping at ``loc``."""
    found: type[BaseModel] | None = model
    for part in loc:
        if found is None or not isinstance(part, str):
            continue  # a list position: the model stays
        if part in found.model_fields:
            found = _model_within(found.model_fields[part].annotation)
    return tuple(found.model_fields) if found else ()


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for arg in get_args(annotation) if (model := _model_within(arg))), None)


def _unknown_key(loc: Loc, known: tuple[str, ...]) -> Found:
    close = get_close_matches(str(loc[-1]), known, n=1)
    remedy = f"Did you mean {close[0]!r}? " if close else ""
    remedy += f"Known keys: {', '.join(known)}" if known else ""
    if "password" in known and not close:
        # {password:hunter2} without the space is one key with the password in it
        return Found(loc, "has an unknown key, not shown since a password may be in it", remedy, True, True)
    return Found(loc, "is an unknown key", remedy, at_key=True)


def _unforeseen(context: Mapping[str, Any]) -> tuple[str, str]:
    return "is not valid", "See the JSON Schema that `router schema` prints"


def _type(what: str, remedy: str) -> Callable[[Mapping[str, Any]], tuple[str, str]]:
    return lambda context: (f"must be {what}", remedy)


def _limit(words: str, key: str) -> Callable[[Mapping[str, Any]], tuple[str, str]]:
    return lambda context: (f"must be {words} {context[key]:g}", "Write a number in that range")


_TEXT = _type("text", 'Write text, in quotes if it looks like a number: "123"')
_MAPPING = _type("a mapping of keys to values", "Write it as key: value lines")
_LIST = _type("a list", "Write it as [a, b] or as lines that begin with '- '")
_INTEGER = _type("a whole number", "Write it in digits, without quotes or unit")
_NUMBER = _type("a number", "Write it in digits, without quotes or unit")

_MESSAGES: dict[str, Callable[[Mapping[str, Any]], tuple[str, str]]] = {
    "string_type": _TEXT,
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "tuple_type": _LIST,
    "int_type": _INTEGER,
    "int_from_float": _INTEGER,
    "float_type": _NUMBER,
    "finite_number": _NUMBER,
    "greater_than": _limit("greater than", "gt"),
    "greater_than_equal": _limit("at least", "ge"),
    "less_than_equal": _limit("at most", "le"),
    "literal_error": lambda context: (f"must be {context['expected']}", "Choose one of these"),
    "enum": lambda context: (f"must be {context['expected']}", "Choose one of these"),
}
