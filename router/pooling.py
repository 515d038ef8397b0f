"""Say what cannot be done through a pooler that gives each transaction another session of the server.

PgBouncer's pool_mode=transaction is one. What a statement leaves behind in the session would be found by
whoever gets that session next, and not by its author (PgBouncer manual, "SQL feature map for pooling modes").
"""

from __future__ import annotations

import re

from router.statements import Dirt, Kind, Statement

_LASTING = frozenset(
    {
        "pg_advisory_lock",
        "pg_advisory_lock_shared",
        "pg_advisory_unlock",
        "pg_advisory_unlock_shared",
        "pg_try_advisory_lock",
        "pg_try_advisory_lock_shared",
        "setseed",
    }
)
_OF_THE_SESSION = frozenset({"currval", "lastval"})  # answer for what the session did before
_LOCAL = re.compile(r"\s*SET\s+(LOCAL|TRANSACTION|CONSTRAINTS)\b", re.IGNORECASE)
_SET_CONFIG = re.compile(r"\bset_config\s*\(", re.IGNORECASE)
_SET_LOCALLY = re.compile(r"\bset_config\s*\([^()]*,\s*true\s*\)", re.IGNORECASE)
_TEMPORARY = re.compile(
    r"\s*CREATE\s+((GLOBAL|LOCAL)\s+)?TEMP(ORARY)?\b|\bINTO\s+TEMP(ORARY)?\b", re.IGNORECASE
)
_DROPPED = re.compile(r"\bON\s+COMMIT\s+DROP\b", re.IGNORECASE)


def refusal(statement: Statement, *, inside: bool) -> str | None:
    """Return why a statement is refused, with the remedy; ``None`` if it may run.

    ``inside`` says that it runs in a transaction, which has one session from begin to end. A text that calls
    functions of the user's own is let pass, and so is a raw one: what they do is out of sight.
    """
    if statement.kind is Kind.SESSION and statement.dirt is not Dirt.NONE:
        if inside and _LOCAL.match(statement.text):
            return None
        return _told("changes the session", "Use SET LOCAL inside of a transaction", inside)
    functions = statement.functions
    if not functions.isdisjoint(_LASTING):
        return _told("changes the session", "Use pg_advisory_xact_lock inside of a transaction", inside)
    if "set_config" in functions and not (inside and _sets_locally(statement.text)):
        return _told("changes the session", "Use set_config(..., true) inside of a transaction", inside)
    if not inside and not functions.isdisjoint(_OF_THE_SESSION):
        return _told("asks what the session did before", "Run it in the transaction of the INSERT", inside)
    if _TEMPORARY.search(statement.text) and not (inside and _DROPPED.search(statement.text)):
        return _told("makes a temporary table", "Use ON COMMIT DROP inside of a transaction", inside)
    return None


def _sets_locally(text: str) -> bool:
    return len(_SET_CONFIG.findall(text)) == len(_SET_LOCALLY.findall(text))


def _told(what: str, remedy: str, inside: bool) -> str:
    lent = "the transaction ends" if inside else "it has run"
    return f"the statement {what}, which the cluster's pooler gives to somebody else once {lent}. {remedy}"
