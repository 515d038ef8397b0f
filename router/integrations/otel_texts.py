"""What a trace says of a statement: its verb and tables in few words, and its text without literals."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from router.errors import StatementError
from router.events import RequestEvent
from router.lexer import EXECUTABLE, LITERAL, ODD, WORD, Dialect, Token, lex
from router.verbs import CHANGES, QUERIES, VERBS, Kind

TEXT_LIMIT: Final = 8_000
"""Characters of a statement that are shown."""

_SUMMARY_LIMIT = 255  # characters, by the OpenTelemetry conventions for databases
_BOUND = 1_024  # texts in a generation
_PLACEHOLDER = re.compile(r"\$\d+|%s|\?")
_FIRST = re.compile(r"\W*(\w+)")
_HIDDEN = frozenset((LITERAL, EXECUTABLE, ODD))
_VERBS = {word: word.upper() for known in VERBS.values() for word in (*known, *QUERIES, *CHANGES)}


class Shown(NamedTuple):
    """Hold what is shown of one text."""

    operation: str | None  # such as SELECT; None where the text begins with no word that we know
    collection: str | None  # the table, where there is exactly one
    summary: str | None  # operation and tables
    text: str | None  # None where the text cannot be understood, so that nobody knows what is in it


class Texts:
    """Look at each text of a dialect once; remember two generations, as ``router.statements`` does."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._young: dict[str, Shown] = {}
        self._old: dict[str, Shown] = {}

    def of(self, event: RequestEvent) -> Shown:
        """Return what to show of an event's text."""
        if len(event.sql) > TEXT_LIMIT:  # neither remembered nor read again: it may be megabytes
            return long(event.normalized, event.kind, event.tables)
        found = self._young.get(event.sql)
        if found is None:
            found = self._old.pop(event.sql, None)
            if found is None:
                found = shown(event.sql, self._dialect, event.kind, event.tables)
            if len(self._young) >= _BOUND:
                self._old, self._young = self._young, {}
            self._young[event.sql] = found
        return found


def shown(text: str, dialect: Dialect, kind: str, tables: frozenset[str]) -> Shown:
    """Return what to show of a text."""
    try:
        tokens = lex(text, dialect)
    except StatementError:
        text = _PLACEHOLDER.sub("1", text)  # the ORM's, as it is sent; a literal is shown as a placeholder
        try:
            tokens = lex(text, dialect)
        except StatementError:
            return Shown(None, None, None, None)
    word = next((token.value for token in tokens if token.kind == WORD), "")
    return _shown(word, kind, tables, _without_literals(text, tokens))


def long(normalized: str, kind: str, tables: frozenset[str]) -> Shown:
    """Return what to show of a long text, of which the normalized form is known; a raw one has none."""
    if normalized in ("", "(raw)"):
        return Shown(None, None, None, None)
    word = _FIRST.match(normalized)
    return _shown("" if word is None else word[1], kind, tables, normalized[:TEXT_LIMIT])


def _shown(word: str, kind: str, tables: frozenset[str], text: str) -> Shown:
    operation, names = _operation(word, kind), sorted(tables)
    summary = None if operation is None else _summary(operation, names)
    return Shown(operation, names[0] if len(names) == 1 else None, summary, text)


def _operation(word: str, kind: str) -> str | None:
    """Return the verb of a text by its first word, of a query with ``WITH`` the one that it is about."""
    if word == "with" and kind == Kind.READ:
        return "SELECT"
    return "WITH" if word == "with" else _VERBS.get(word)


def _summary(operation: str, names: list[str]) -> str:
    """Return operation and tables; whole names, as many as there is room for."""
    summary = operation
    for name in names:
        if len(summary) + 1 + len(name) > _SUMMARY_LIMIT:
            break
        summary += f" {name}"
    return summary


def _without_literals(text: str, tokens: list[Token]) -> str:
    """Return the text as written, but for literals and comments: those may hold what nobody should read."""
    pieces: list[str] = []
    end = 0
    for token in tokens:
        between = text[end : token.start]
        pieces.append(between if not between or between.isspace() else " " if pieces else "")
        pieces.append("?" if token.kind in _HIDDEN else text[token.start : token.end])
        end = token.end
    return "".join(pieces).strip()
