"""The text of a tenant's file: written anew, or changed in one place with all else as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from router.config.problems import Flaw
from router.config.reader import read_string

_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
_WORD = re.compile(r"[A-Za-z]*")


def written(tenant: Mapping[str, Any]) -> str:
    """Return the text of a file that says what ``tenant`` does, one key a line."""
    return "".join(f"{_scalar(key)}: {_flow(value)}\n" for key, value in tenant.items())


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(key))}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    """Return one value; text without quotes only if it is read as the same text."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value):
        plain = read_string(f"a: {value}\n", "")
        if plain.data == {"a": value} and not plain.problems:
            return value
    return json.dumps(value, ensure_ascii=False)


def marked(text: str, suspended: bool) -> str:
    """Return the text of a tenant's file with ``suspended`` set: one word or one line is another.

    Raises :class:`Flaw` where that cannot be done, such as in a file that is no list of ``key: value``.
    """
    before = read_string(text, "")
    if before.problems or not isinstance(before.data, dict):
        raise Flaw("cannot be read", "Run `router check` and correct it")
    word, place = json.dumps(suspended), before.places.get(("suspended",))
    if place is not None:
        lines = text.splitlines(keepends=True)
        line, start = lines[place.line - 1], place.column - 1
        end = _WORD.match(line, start).end()  # type: ignore[union-attr]  # it matches nothing at the least
        lines[place.line - 1] = f"{line[:start]}{word}{line[end:]}"
        changed = "".join(lines)
    else:
        indent = " " * (min(each.key_column for loc, each in before.places.items() if len(loc) == 1) - 1)
        changed = f"{text}{'' if text.endswith(chr(10)) else chr(10)}{indent}suspended: {word}\n"
    after = read_string(changed, "")
    if after.problems or after.data != {**before.data, "suspended": suspended}:
        raise Flaw("cannot be changed in one line", f"Write suspended: {word} into it yourself")
    return changed
