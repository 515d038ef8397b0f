"""What the application says of the work under way: who does it, for which request and trace.

It follows the task, as context variables do, and is stamped on every event that is told meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

_NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
# https://www.w3.org/TR/trace-context/#traceparent-header; a version after 00 may say more at the end
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Context:
    """Say for whom and for what something is done; each part is ``None`` where nobody has said."""

    context_id: str | None = None  # the application's own, such as the id of its request
    trace_id: str | None = None  # 32 hexadecimal digits, as in W3C traceparent
    span_id: str | None = None  # 16 hexadecimal digits
    actor: str | None = None  # who acts, for the audit: a user, a job
    tags: Mapping[str, str] = field(default_factory=lambda: _NO_TAGS)  # such as the route; never secrets
    sampled: bool = True  # whether the trace is kept, as far as is known: nothing should link to another


NOBODY: Final = Context()

_current: ContextVar[Context] = ContextVar("router.context", default=NOBODY)
current = _current.get


@contextmanager
def acting(
    *,
    actor: str | None = None,
    context_id: str | None = None,
    trace_id: str | None = None,
    span_id: str | None = None,
    traceparent: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Context]:
    """Say for whom and for what the block is; what is left out stays as it was, tags are added.

    ``traceparent`` is the header of that name as it came with a request; one that is not valid says nothing.
    """
    before = _current.get()
    given: dict[str, Any] = {} if traceparent is None else trace_in(traceparent)
    words = {"actor": actor, "context_id": context_id, "trace_id": trace_id, "span_id": span_id}
    given |= {name: value for name, value in words.items() if value is not None}
    if trace_id is not None:
        given.setdefault("sampled", True)  # what was known of another trace says nothing of this one
    if tags:
        given["tags"] = MappingProxyType({**before.tags, **tags})
    context = replace(before, **given)
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def named(context_id: str | None) -> Context | None:
    """Return the present context under another id; ``None`` without one: who tells it stamps it then."""
    return None if context_id is None else replace(_current.get(), context_id=context_id)


def renewed(said: Context) -> Context:
    """Return what was said some time ago, but for what the application says now; the id stays."""
    now = _current.get()
    if now is NOBODY:
        return said
    trace = said if now.trace_id is None else now
    actor, tags = now.actor or said.actor, now.tags or said.tags
    return Context(said.context_id, trace.trace_id, trace.span_id, actor, tags, trace.sampled)


def trace_in(traceparent: str) -> dict[str, Any]:
    """Return what a W3C ``traceparent`` header says, as fields of a Context; nothing if it is not valid."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return {}
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return {}
    return {"trace_id": trace_id, "span_id": span_id, "sampled": bool(int(flags, 16) & 1)}
