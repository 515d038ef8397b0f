"""Say which statements would make a session another tenant's, where a role or a setting says whose it is.

A guard against accidents, such as a ``RESET ALL`` in an old script. It is none against somebody who may write
any statement: what functions of the user's own do is out of sight, and so are raw texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from router.lexer import EXECUTABLE, LITERAL, QUOTED, WORD, Token, lex
from router.reasons import Reason
from router.statements import Statement

_MOST, _LONGEST = 4_096, 10_000  # texts of which the answer is remembered, and their characters
_ROLES = frozenset({"role", "session_authorization"})
#: Run, as SQL, what a literal says.
_CODE_VERBS = frozenset({"do", "prepare", "execute"})
_CODE_FUNCTIONS = frozenset(
    {"query_to_xml", "query_to_xml_and_xmlschema", "query_to_xmlschema", "ts_stat", "crosstab", "connectby"}
)
_CODE = r"set_config|pg_settings|\brole\b|authorization|\breset\b|\bdiscard\b|\bexecute\b|\bu&"
_REMEDY = "Ask for a session of the tenant that is meant"


class Guard:
    """Refuse statements that would change a role, or the setting that row security looks at."""

    __slots__ = ("_code", "_known", "_protected")

    def __init__(self, setting: str | None) -> None:
        self._protected = _ROLES if setting is None else _ROLES | {setting}
        code = _CODE if setting is None else rf"{_CODE}|{re.escape(setting)}"
        self._code = re.compile(code, re.IGNORECASE)
        self._known: dict[str, str | None] = {}

    def refusal(self, statement: Statement) -> str | None:
        """Return why a statement is refused, with the remedy; ``None`` if it may run."""
        text = statement.text
        try:
            return self._known[text]
        except KeyError:
            pass
        if statement.verdict is Reason.RAW:
            return None
        found = next(self._changes(statement, lex(text, statement.dialect)), None)
        why = None if found is None else f"the statement {found}: that says whose session it is. {_REMEDY}"
        if len(text) <= _LONGEST:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[text] = why
        return why

    def _changes(self, statement: Statement, tokens: Sequence[Token]) -> Iterator[str]:
        verb = tokens[0].value
        values = [each.value.lower() for each in tokens if each.kind in (WORD, QUOTED)]
        if any(each.kind == EXECUTABLE for each in tokens):
            yield "has a comment that the server runs, which may change the role"
        if verb in ("set", "reset", "discard"):
            name = _name(tokens)
            if name in self._protected or name == "authorization":
                yield f"changes {name if name != 'authorization' else 'session authorization'}"
            elif verb != "set" and name == "all":
                yield f"resets role and settings ({verb} all)"
            elif any(statement.text[each.start : each.start + 2].lower() == "u&" for each in tokens):
                yield "names what it changes with Unicode escapes, which are not read"
        if "pg_settings" in values and "update" in values:
            yield "changes settings through pg_settings"
        yield from self._set_configs(statement.text, tokens)
        if verb in _CODE_VERBS or not statement.functions.isdisjoint(_CODE_FUNCTIONS):
            for token in tokens:
                if token.kind == LITERAL and self._code.search(statement.text, token.start, token.end):
                    yield "runs a text that may change role or settings"

    def _set_configs(self, text: str, tokens: Sequence[Token]) -> Iterator[str]:
        """Yield what calls of set_config change that they must not: they name it in a plain literal."""
        for index, token in enumerate(tokens[:-1]):
            called = token.kind in (WORD, QUOTED) and tokens[index + 1].value == "("
            if not called or token.value.lower() != "set_config":
                continue
            first, after = (*tokens[index + 2 : index + 4], token, token)[:2]
            name = text[first.start : first.end].lower()
            if first.kind != LITERAL or name[0] != "'" or after.value != ",":
                yield "calls set_config with a name that is not a plain literal and may be the role"
            elif name.strip("'") in self._protected:
                yield f"changes {name.strip(chr(39))}"


def _name(tokens: Sequence[Token]) -> str:
    """Return what a SET, RESET or DISCARD changes, in lower case as settings are compared."""
    rest = [each.value.lower() for each in tokens[1:]]
    while len(rest) > 1 and rest[0] in ("session", "local", "global") and rest[1] != "characteristics":
        rest = rest[1:]
    if len(rest) > 2 and rest[1] == ".":
        return f"{rest[0]}.{rest[2]}"
    return rest[0] if rest else ""
