"""Read one YAML file strictly: plain data, with the place of every key and value.

It works on the parser's events, so that what is refused (aliases, anchors, tags, depth) is refused at its
first sight, before anything is expanded. The values are those of YAML 1.2's core rules; plain text that
YAML 1.1 tools read as something else (``no``, ``22:22``, ``012``) is refused, since two readers of one file
must not disagree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from router.config.files import read_text
from router.config.problems import Flaw, Loc, Place
from router.errors import Problem

try:  # the C parser is some ten times faster
    from yaml.cyaml import CParser as _Parser  # type: ignore[attr-defined]
except ImportError:  # PyYAML built without libyaml

    class _Parser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):  # type: ignore[no-redef]
        """Give the same events in pure Python."""

        def __init__(self, stream: str) -> None:
            yaml.reader.Reader.__init__(self, stream)
            yaml.scanner.Scanner.__init__(self)
            yaml.parser.Parser.__init__(self)


MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_PROBLEMS = 100  # of one file; a hostile file has no more to teach

_CORE = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*|(?=[eE])))(?:[eE][-+]?[0-9]+)?")
_NUMERIC_START = frozenset("0123456789+-.")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})
_SURPRISES = (
    (re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"), "a number in base 60"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?"), "a date"),
    (re.compile(r"[-+]?0[xX][0-9a-fA-F_]+"), "a hexadecimal number"),
    (re.compile(r"[-+]?0[bB][01_]+"), "a binary number"),
    (re.compile(r"[-+]?0[oO]?[0-9_]+"), "an octal number"),
    (re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?"), "a number"),
    (re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), "a number that is not finite"),
)
_FORBIDDEN = re.compile("[\x00-\x08\t\x0b-\x1f\x7f-\x84\x86-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


class _StopError(Exception):
    """End the reading of a file that cannot be read on."""


@dataclass(slots=True, repr=False)
class Document:
    """Hold what a file says, where it says it, and what is wrong with it as YAML.

    With problems, ``data`` is what could be read, so that other mistakes can be told at once; it is ``None``
    if that is nothing.
    """

    file: str
    data: Any = None
    places: dict[Loc, Place] = field(default_factory=lambda: {(): Place(1, 1, 1, 1)})
    problems: list[Problem] = field(default_factory=list)


def read(path: str, file: str) -> Document:
    """Read the YAML file at ``path``; ``file`` is its name in messages. Raises nothing: see ``problems``."""
    text = text_of(path, file)
    return read_string(text, file) if isinstance(text, str) else text


def text_of(path: str, file: str) -> str | Document:
    """Return the text of a file, or what is wrong with it."""
    try:
        return read_text(path, MAX_BYTES)
    except Flaw as flaw:
        return Document(file, problems=[Problem(file, 0, 0, f"the file {flaw.fact}", flaw.remedy)])


def read_string(text: str, file: str) -> Document:
    """Read YAML from ``text``; see :func:`read`."""
    document = Document(file)
    if (match := _FORBIDDEN.search(text)) is not None:
        document.problems.append(_forbidden(file, text, match))
        return document
    try:
        document.data = _Builder(document, text).document()
    except _StopError:
        pass
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax(file, error))
    return document


def _forbidden(file: str, text: str, match: re.Match[str]) -> Problem:
    line = text.count("\n", 0, match.start()) + 1
    column = match.start() - text.rfind("\n", 0, match.start())
    if match[0] == "\t":
        return Problem(file, line, column, "there is a tab character", "Use spaces, or \\t in a quoted text")
    return Problem(file, line, column, f"there is the character U+{ord(match[0]):04X}", "Remove it")


def _syntax(file: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    # the parser's words name characters and anchors only, never a whole value
    words = (error.problem or "it cannot be understood")[:120]
    return Problem(
        file,
        line,
        column,
        f"this is not YAML: {ascii(words)[1:-1]}",
        "Check indentation, quotes and brackets",
    )


class _Scalar(NamedTuple):
    """Hold a typed scalar; ``surprise`` is what else a YAML reader may take it for."""

    value: Any
    surprise: str | None = None


def typed(text: str) -> _Scalar:
    """Return the value of a plain scalar by YAML 1.2's core rules, or what is surprising about it."""
    if text in _CORE:
        return _Scalar(_CORE[text])
    if text[0] not in _NUMERIC_START:
        return _Scalar(text, "true or false") if text.lower() in _WORDS else _Scalar(text)
    if _INTEGER.fullmatch(text):
        return _Scalar(int(text))
    if len(text) <= 40 and _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return _Scalar(number)
    return _Scalar(text, next((what for pattern, what in _SURPRISES if pattern.fullmatch(text)), None))


class _Builder:
    """Build the data of one document from the parser's events, noting places and problems."""

    def __init__(self, document: Document, text: str) -> None:
        self._file, self._places, self._problems = document.file, document.places, document.problems
        self._next: Callable[[], Any] = _Parser(text).get_event  # PyYAML's hints know too little of events

    def document(self) -> Any:
        """Return the data of the only document."""
        self._next()  # the start of the stream
        start = self._next()
        if isinstance(start, StreamEndEvent):
            self._refuse_at(0, 0, "the file is empty", "Write the configuration, or remove the file")
            raise _StopError
        assert isinstance(start, DocumentStartEvent)  # noqa: S101 - the parser's grammar; for the type checker
        if start.version or start.tags:
            self._refuse(start, "there is a directive (%...)", "Remove it")
        data = self._value(self._next(), ())
        self._next()  # the end of the document
        if not isinstance(further := self._next(), StreamEndEvent):
            self._refuse(further, "there is a second document", "Remove it: one document a file")
        return data

    def _value(self, event: Any, loc: Loc) -> Any:
        if isinstance(event, AliasEvent):
            self._refuse(event, "there is an alias (*name)", "Write the value out")
            return None
        self._check_node(event)
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if len(loc) >= MAX_DEPTH:
            self._refuse(event, f"nesting is deeper than {MAX_DEPTH} levels", "Use fewer levels")
            raise _StopError
        if isinstance(event, MappingStartEvent):
            return self._mapping(loc)
        return self._sequence(loc)

    def _check_node(self, event: Any) -> None:
        if event.anchor is not None:
            self._refuse(event, "there is an anchor (&name)", "Remove it, and write repeated values out")
        if event.tag is not None:
            self._refuse(event, "there is a tag (!name)", "Remove it; types are known from the keys")

    def _scalar(self, event: ScalarEvent) -> Any:
        if event.style:
            return event.value
        scalar = typed(event.value)
        if scalar.surprise:
            # Numbers are not repeated here: an unquoted password can look like one.
            word = scalar.surprise == "true or false"
            what = f"the unquoted {event.value}" if word else "this unquoted text"
            remedy = f'Write "{event.value}" for the text, else true or false' if word else (
                "Write it in quotes if it is text, else as a plain decimal number"
            )  # fmt: skip
            self._refuse(event, f"{what} is {scalar.surprise} to some YAML readers", remedy)
        return scalar.value

    def _mapping(self, loc: Loc) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            key = self._key(event, loc)
            value_event = self._next()
            if key is None or key in data:
                if key is not None:
                    self._refuse(event, "this key is a duplicate of an earlier one", "Remove one of the two")
                self._value(value_event, (*loc, ""))
                continue
            inner, mark, start = (*loc, key), event.start_mark, value_event.start_mark
            self._places[inner] = Place(start.line + 1, start.column + 1, mark.line + 1, mark.column + 1)
            data[key] = self._value(value_event, inner)
        return data

    def _key(self, event: Any, loc: Loc) -> str | None:
        """Return the key, or ``None`` if it is refused."""
        if not isinstance(event, ScalarEvent):
            self._refuse(event, "this key is not text", "Use a plain word as key")
            self._value(event, (*loc, ""))
            return None
        self._check_node(event)
        if event.style:
            return str(event.value)
        scalar = typed(event.value)
        if event.value == "<<":
            self._refuse(event, "there is a merge key (<<)", "Write the values out")
        elif scalar.surprise or not isinstance(scalar.value, str):
            self._refuse(event, "this key is not text to all YAML readers", "Write it in quotes")
        else:
            return scalar.value
        return None

    def _sequence(self, loc: Loc) -> list[Any]:
        data: list[Any] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            inner, mark = (*loc, len(data)), event.start_mark
            self._places[inner] = Place(*(mark.line + 1, mark.column + 1) * 2)
            data.append(self._value(event, inner))
        return data

    def _refuse(self, event: Any, message: str, remedy: str) -> None:
        mark = event.start_mark
        self._refuse_at(mark.line + 1, mark.column + 1, message, remedy)

    def _refuse_at(self, line: int, column: int, message: str, remedy: str) -> None:
        self._problems.append(Problem(self._file, line, column, message, remedy))
        if len(self._problems) >= MAX_PROBLEMS:
            raise _StopError
