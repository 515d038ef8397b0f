"""Ask MySQL or MariaDB for the plan of a statement whose parameters are not known, without running it.

Both plan for values: with NULL they see that nothing can be found, and stop. A date as text does for columns
of all types: it becomes the number 2000 where a number is compared, and finds what indexes there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_VALUE = "'2000-01-01'"
_PLACE = re.compile(r"%%|(?P<rows>\b(?:limit|offset)\s+(?:\d+|%s)(?:\s*,\s*(?:\d+|%s))?)|%s", re.IGNORECASE)


def question(sql: str, parameters: int) -> str:
    """Return the statement that asks for the plan of a query with so many ``%s`` in it."""
    return f"EXPLAIN {_PLACE.sub(_filled, sql) if parameters else sql}"


def _filled(place: re.Match[str]) -> str:
    if place["rows"]:
        return place["rows"].replace("%s", "1")  # a number of rows is never text
    return "%" if place[0] == "%%" else _VALUE


def line(row: Mapping[str, Any]) -> str:
    """Return one row of the answer as a line."""
    words = [row["select_type"], row["table"], row["type"]]
    words += [f"{name}={row[name]}" for name in ("key", "ref") if row[name] is not None]
    words += [f"(rows={row['rows']})"] if row["rows"] is not None else []
    return "  ".join(str(word) for word in (*words, row["Extra"]) if word)
