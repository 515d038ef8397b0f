"""Mistakes: how a check tells one, and how each becomes a Problem with the place where it was written.

No message holds a configured value, unless it is a name that passed through ``identifiers.shown``: a value
may be a password in the wrong line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from router.errors import Problem

Loc = tuple[str | int, ...]  # the keys and list positions that lead to a value


_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


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
    absent: bool = False  # a key is missed at ``loc``; that may be because its value was wrong


class Report:
    """Collect the mistakes of one file; ``places`` is empty for a configuration built in code."""

    def __init__(self, file: str, places: Mapping[Loc, Place], problems: list[Problem]) -> None:
        self.file = file
        self.places = places
        self.problems = problems
        self._told: set[tuple[str, int, int]] = set()
        self.close_places()

    def close_places(self) -> None:
        """Tell no more about places with a mistake so far: what follows would be its consequence."""
        self._told.update(problem[:3] for problem in self.problems)

    def add(self, found: Found) -> None:
        """Add a mistake, unless its place is closed."""
        problem = self.problem(found)
        if problem[:3] not in self._told:
            self.problems.append(problem)

    def problem(self, found: Found) -> Problem:
        """Return the mistake with its file, line and column; a missing place is that of what contains it."""
        way, remedy = dotted(found.loc[:-1] if found.hidden else found.loc), found.remedy
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
    """Return ``clusters.main.replicas[0].port`` for the way to a value.

    A key that is no plain word is shown as ``?``: in ``{password:hunter2}`` the key holds the password.
    """
    text = ""
    for part in loc:
        plain = isinstance(part, str) and _WORD.fullmatch(part)
        text += f"[{part}]" if isinstance(part, int) else f".{part if plain else '?'}"
    return text.removeprefix(".")


def dig(error: ValidationError, model: type[BaseModel]) -> Iterator[Found]:
    """Yield the mistakes in a pydantic error over ``model``, in our words and without any input."""
    for detail in error.errors(include_url=False):
        loc = tuple(part for part in detail["loc"] if part != "[key]")
        context = detail.get("ctx", {})
        bare = detail["input"] is None
        if detail["type"] == "extra_forbidden":
            yield _unknown_key(loc, known_keys(model, loc[:-1]), bare)
        elif detail["type"] == "missing":
            yield Found(loc[:-1], f"has no {loc[-1]!r}", f"Add {loc[-1]}: ...", absent=True)
        elif isinstance(cause := context.get("error"), ValueError):
            at_key = "[key]" in detail["loc"]
            hidden = bare and loc[-1] not in known_keys(model, loc[:-1])
            fact, remedy = getattr(cause, "fact", "is refused"), getattr(cause, "remedy", "")
            yield Found(loc, f"has a key whose value {fact}" if hidden else fact, remedy, at_key, hidden)
        elif detail["type"] == "too_short" and len(detail["input"]) >= context["min_length"]:
            continue  # too short only without the items that are wrong themselves
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
    return tuple(field.alias or name for name, field in found.model_fields.items()) if found else ()


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for arg in get_args(annotation) if (model := _model_within(arg))), None)


def _unknown_key(loc: Loc, known: tuple[str, ...], bare: bool) -> Found:
    close = get_close_matches(str(loc[-1]), known, n=1)
    remedy = f"Did you mean {close[0]!r}? " if close else ""
    remedy += f"Known keys: {', '.join(known)}" if known else ""
    if bare:
        # {hunter2}, or {password:hunter2} without the space, is a key without a value: the password is in it
        return Found(
            loc, "has an unknown key without a value, not shown: it may be a secret", remedy, True, True
        )
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
    "too_short": lambda context: (f"has fewer items than {context['min_length']}", "Add what is missing"),
    "too_long": lambda context: (f"has more items than {context['max_length']}", "Take some away"),
    "literal_error": lambda context: (f"must be {context['expected']}", "Choose one of these"),
    "enum": lambda context: (f"must be {context['expected']}", "Choose one of these"),
}
