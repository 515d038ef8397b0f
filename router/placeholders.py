"""Read the texts that SQLAlchemy sends: their parameters stand as only one driver reads them."""

from __future__ import annotations

import re
from functools import lru_cache

_PLACEHOLDER = re.compile(r"\$\d+|%s|\?")


@lru_cache(maxsize=4096)
def without_placeholders(sql: str) -> str:
    """Return a text that can be looked at, with a number for each parameter."""
    return _PLACEHOLDER.sub("1", sql)


def parameters_of(sql: str) -> int:
    """Return how many values a text takes; ``$1`` is one, however often it stands there."""
    found: list[str] = _PLACEHOLDER.findall(sql)
    return len({each if each.startswith("$") else index for index, each in enumerate(found)})
