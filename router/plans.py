"""Make the plan of a statement fit to be kept and shown: without literals, bounded, comparable."""

from __future__ import annotations

import re
from typing import Final

PLAN_LIMIT: Final = 4_000
"""Characters of a plan that are kept."""

# Quoted names stay; what is quoted otherwise goes, and so do numbers but those in names, of parameters ($1),
# of estimates (rows=10) and of parts of the plan itself (SubPlan 1).
_LITERAL: Final = re.compile(
    r"""(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`)
    | '(?:[^']|'')*'?
    | (?<![\w$.=])(?<!Plan\ )(?<!Planned:\ )\d+(?:\.\d*)?(?:[eE][+-]?\d+)?
    """,
    re.VERBOSE,
)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_ESTIMATE: Final = re.compile(r"\s*\((?:cost|rows|~)[^)]*\)")


def without_literals(plan: str) -> str:
    """Return a plan with ``?`` for each literal in it."""
    return _LITERAL.sub(lambda found: found["name"] or "?", plan)


def kept(plan: str) -> str:
    """Return what is kept of a plan, as a server has told it."""
    text = _UNPRINTABLE.sub(" ", without_literals(plan))  # names may hold anything
    return text if len(text) <= PLAN_LIMIT else f"{text[:PLAN_LIMIT]}\n..."


def shape(plan: str) -> str:
    """Return what two plans have in common that differ in estimates only."""
    return _ESTIMATE.sub("", plan)
