"""The router's own log lines: each says in fields what it is about, and in which request and trace.

The one place that loggers are made, so that no line lacks the ids. The fields are attributes of the record,
as ``logging`` has it with ``extra``: any formatter can show them.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from router.context import NOBODY, Context, current

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class Log(_Adapter):
    """Log with the fields of the present context; those given as ``extra`` go before."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the line with all its fields."""
        kwargs["extra"] = {**of(current()), **(kwargs.get("extra") or {})}
        return msg, kwargs


def log_of(name: str) -> Log:
    """Return the log of a part of the router."""
    return Log(logging.getLogger(f"router.{name}"))


def of(context: Context | None, **fields: object) -> dict[str, object]:
    """Return the fields of a line about something that was done in ``context``, and those given."""
    said = context or NOBODY
    ids = {"context_id": said.context_id, "trace_id": said.trace_id, "span_id": said.span_id}
    return {**ids, **fields}
