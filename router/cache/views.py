"""Understand the text of a view, for the engines whose catalogs do not tell which tables it shows."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from router.cache.refusal import Refusal
from router.cache.rules import never
from router.errors import StatementError
from router.statements import Dialect, parse


class View(NamedTuple):
    """Hold what the text of a view says."""

    tables: frozenset[str]
    refusal: Refusal | None  # why no read of it is cached; UNKNOWN_TABLE: its tables are not known


PLAIN: Final = View(frozenset(), None)
_UNREADABLE: Final = View(frozenset(), Refusal.UNKNOWN_TABLE)


@lru_cache(maxsize=4096)
def view(text: str, dialect: Dialect) -> View:
    """Return what a view's query shows; many schemas have the same views, and parsing takes milliseconds."""
    try:
        statement = parse(text, dialect)
    except StatementError:
        return _UNREADABLE
    refusal = never(statement)
    if not statement.tables and refusal is not Refusal.NO_TABLES:
        return _UNREADABLE
    return View(statement.tables, Refusal.UNKNOWN_TABLE if refusal is Refusal.UNCLEAR_TABLES else refusal)
