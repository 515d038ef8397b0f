"""What a record says of a write: who, what, when, where, and what became of it; never a value. Pure.

The text is the normalised one, in which literals and parameters are question marks. Tags and ids are the
application's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from router import errors
from router.context import NOBODY, Context
from router.errors import DatabaseError, RouterError, Sent
from router.events import CommitUnknown, RequestEvent, RequestFailed, RequestFinished, TransactionCommitted
from router.statements import Statement

Facts = dict[str, Any]


class Outcome(StrEnum):
    """Say what became of a write."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"  # refused, or never sent
    UNKNOWN = "unknown"  # sent, and not answered
    SENT = "sent"  # about to be sent outside of a transaction; another record says what became of it


class Place(NamedTuple):
    """Say where a tenant's data are."""

    cluster: str
    database: str
    physical: str | None  # the schema inside the database
    position: str | None  # the last known one of the primary: the write came after it
    ddl_commits: bool = False  # a transaction ends at DDL, as on MySQL


def record(event: RequestEvent, place: Place, longest: int) -> Facts:
    """Return what there is to say of a write that has ended; its transaction may not have."""
    facts = {
        **_place(place),
        **_context(event.context or NOBODY),
        **_text(event.normalized, longest),
        "type": "write",
        "at": round(event.at, 6),
        "tenant": event.tenant,
        "schema": event.schema,
        "node": None if event.node is None else event.node.name,
        "kind": str(event.kind),
        "reason": str(event.reason),
        "fingerprint": event.fingerprint,
        "tables": sorted(event.tables),
        "unit": event.unit,
        "attempts": event.attempts,
        "outcome": str(outcome_of(event)),
    }
    if isinstance(event, RequestFinished):
        facts["rows"] = event.rows
    elif isinstance(event, RequestFailed):
        facts["error"] = event.error
        facts["code"] = event.code
    return facts


def announced(
    at: float, context: Context, who: tuple[str, str | None], place: Place, statement: Statement, longest: int
) -> Facts:
    """Return what there is to say of what is about to be sent; ``who`` are tenant and schema."""
    return {
        **_place(place),
        **_context(context),
        **_text(statement.normalized, longest),
        "type": "write",
        "at": round(at, 6),
        "tenant": who[0],
        "schema": who[1],
        "kind": str(statement.kind),
        "fingerprint": statement.fingerprint,
        "tables": sorted(statement.tables),
        "outcome": str(Outcome.SENT),
    }


def _place(place: Place) -> Facts:
    return {name: getattr(place, name) for name in ("cluster", "database", "physical", "position")}


def _context(context: Context) -> Facts:
    return {
        "actor": context.actor,
        "trace": context.trace_id,
        "span": context.span_id,
        "context": context.context_id,
        "tags": {str(name): str(value) for name, value in context.tags.items()},
    }


def _text(text: str, longest: int) -> Facts:
    return {"text": text} if len(text) <= longest else {"text": text[:longest], "characters": len(text)}


def outcome_of(event: RequestEvent) -> Outcome:
    """Return what became of a write as far as its own answer says."""
    if not isinstance(event, RequestFailed):
        return Outcome.COMMITTED
    if event.node is None:
        return Outcome.FAILED
    return Outcome.UNKNOWN if _unanswered(event.error) else Outcome.FAILED


def _unanswered(name: str) -> bool:
    """Tell whether an error of this name leaves open what the server did; a cancellation does."""
    error = getattr(errors, name, None)
    if not (isinstance(error, type) and issubclass(error, RouterError)):
        return True
    return error.sent is Sent.UNKNOWN and not issubclass(error, DatabaseError)


ENDS: Mapping[type, Outcome] = {TransactionCommitted: Outcome.COMMITTED, CommitUnknown: Outcome.UNKNOWN}
"""What the end of a transaction means for the writes in it; every other end has undone them."""
