"""Say what cannot be done through a pooler that gives each transaction another session of the server.

PgBouncer's pool_mode=transaction is one. What a statement leaves behind in the session would be found by
whoever gets that session next, and not by its author (PgBouncer manual, "SQL feature map for pooling modes").
"""

from __future__ import annotations

import re

from router.lexer import lex
from router.reasons import Reason
from router.scan import Scan, parts, scan
from router.statements import Dirt, Kind, Statement
from router.verbs import VERBS

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
    r"\s*CREATE\s+((GLOBAL|LOCAL)\s+)?TEMP(ORARY)?\b|\bINTO\s+TEMP(ORARY)?\b|\bpg_temp(_\d+)?\b",
    re.IGNORECASE,
)
# A block of code is one literal to the lexer. SET begins a statement in it; in UPDATE a table comes first.
_BLOCK = re.compile(r"(?:\s|/\*.*?\*/|--[^\n]*\n)*DO\b", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(
    r"(?:[;$]|\b(?:begin|then|else|loop)\b)\s*(?:set(?!\s+local\b)|reset|discard|listen|unlisten)\b"
    r"|\bpg_(?:try_)?advisory_(?:un)?lock|\bexecute\b.*\b(?:re)?set\b",
    re.IGNORECASE | re.DOTALL,
)
_DROPPED = re.compile(r"\bON\s+COMMIT\s+DROP\b", re.IGNORECASE)


def refusal(statement: Statement, inside: bool) -> str | None:
    """Return why a statement is refused, with the remedy; ``None`` if it may run.

    ``inside`` says that it runs in a transaction, which has one session from begin to end. A text that calls
    functions of the user's own is let pass, and so is a raw one: what they do is out of sight.
    """
    return _refusal(statement.text, statement, inside)


def raw_refusal(statement: Statement) -> str | None:
    """Return why a raw text is refused where a session is a tenant's for one transaction only."""
    if statement.verdict is not Reason.RAW:
        return None
    text, dialect = statement.text, statement.dialect
    for tokens in parts(lex(text, dialect)):
        first = tokens[0].value
        verb = VERBS[dialect].get(first)
        if verb is not None and verb.kind is Kind.TRANSACTION:
            return (
                f"the text would end its transaction ({first}), and what comes after would run where names "
                "lead the login, not the tenant. Run it without, or past the pooler"
            )
        why = _refusal(text[tokens[0].start : tokens[-1].end], scan(text, tokens, dialect), inside=True)
        if why is not None:
            return why
    return None


def _refusal(text: str, found: Statement | Scan, inside: bool) -> str | None:
    if _TEMPORARY.search(text) and not (inside and _DROPPED.search(text)):
        return _told("makes a temporary table", "Use ON COMMIT DROP inside of a transaction", inside)
    if found.kind is Kind.SESSION and found.dirt is not Dirt.NONE:
        if inside and _LOCAL.match(text):
            return None
        return _told("changes the session", "Use SET LOCAL inside of a transaction", inside)
    if _BLOCK.match(text) and (_CODE.search(text) or not _sets_locally(text)):
        return _told("runs code that changes the session", "Use SET LOCAL inside of a transaction", inside)
    if found.kind is Kind.WRITE and "pg_settings" in text.lower():  # updating this view is SET
        return _told("changes the session", "Use SET LOCAL inside of a transaction", inside)
    functions = found.functions
    if not functions.isdisjoint(_LASTING):
        return _told("changes the session", "Use pg_advisory_xact_lock inside of a transaction", inside)
    if "set_config" in functions and not (inside and _sets_locally(text)):
        return _told("changes the session", "Use set_config(..., true) inside of a transaction", inside)
    if not inside and not functions.isdisjoint(_OF_THE_SESSION):
        return _told("asks what the session did before", "Run it in the transaction of the INSERT", inside)
    return None


def _sets_locally(text: str) -> bool:
    return len(_SET_CONFIG.findall(text)) == len(_SET_LOCALLY.findall(text))


def _told(what: str, remedy: str, inside: bool) -> str:
    lent = "the transaction ends" if inside else "it has run"
    return f"the statement {what}, which the cluster's pooler gives to somebody else once {lent}. {remedy}"
