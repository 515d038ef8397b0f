"""Send what binds a session along with the statement that it is bound for: one round trip instead of two.

The settings go to the server as messages of the extended protocol, written to asyncpg's transport at once
before asyncpg's own Bind, Execute and Sync. Up to the Sync all is one transaction: if any of it fails,
nothing was done. asyncpg reads over the answers that it has not asked for: in the state it is in then, it
drops ParseComplete and BindComplete, and of several CommandComplete the last one counts. That is not written
anywhere, so it is only relied on in the versions of asyncpg where it was looked up and tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import asyncpg

from router.drivers.driver import Binding
from router.identifiers import quote

_TRIED = {(0, 30), (0, 31), (0, 32)}
WORKS = tuple(int(part) for part in asyncpg.__version__.split(".")[:2]) in _TRIED
#: seconds after which a binding is verified again, although it was found in order before
TRUSTED = 60.0
_MOST = 20_000  # bindings remembered
_UNKNOWN: tuple[float, frozenset[str], bytes] = (0.0, frozenset(), b"")
#: A query without a row, which fails where another schema than $1 comes first in the path, or none. What is
#: cast holds no constant alone, which the planner would cast already.
CHECK = (
    "SELECT WHERE CASE WHEN coalesce(pg_catalog.current_schema(), '') "
    "OPERATOR(pg_catalog.<>) $1::pg_catalog.name "
    "THEN ('not ' OPERATOR(pg_catalog.||) coalesce(pg_catalog.current_schema(), '')::pg_catalog.text)"
    "::pg_catalog.int4 IS NULL END"
)
# Bind without parameters of the unnamed statement to the unnamed portal; Execute all of it.
_EXECUTE = b"E\0\0\0\x09\0\0\0\0\0"
_RUN = b"B\0\0\0\x0c\0\0\0\0\0\0\0\0" + _EXECUTE


class Trust:
    """Remember which bindings a server has found in order lately, and the messages that make them."""

    __slots__ = ("__weakref__", "_known")

    def __init__(self) -> None:
        self._known: dict[Binding, tuple[float, frozenset[str], bytes]] = {}

    def holds(self, binding: Binding, now: float) -> bool:
        """Tell whether a binding need not be verified."""
        known = self._known.get(binding)
        return known is not None and known[0] > now

    def ahead(self, binding: Binding, changed: Set[str], now: float) -> tuple[bytes, Set[str]] | None:
        """Return the messages that bind a session, and the settings that they change.

        ``None`` if they would leave something ``changed`` by another binding, or have to be verified.
        """
        until, settings, made = self._known.get(binding, _UNKNOWN)
        return (made, settings) if until > now and changed <= settings else None

    def add(self, binding: Binding, settings: Mapping[str, str], now: float) -> None:
        """Take note that a binding, which makes these settings, was verified."""
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[binding] = now + TRUSTED, frozenset(settings), messages(settings)

    def drop(self, binding: Binding) -> None:
        """Take note that a binding may not be in order any more."""
        self._known.pop(binding, None)


def commands(settings: Mapping[str, str]) -> list[str]:
    """Return the commands that make settings; they cost the server less than a query that does."""
    return [f"SET {_name(name)} TO {_value(name, value)}" for name, value in settings.items()]


def messages(settings: Mapping[str, str]) -> bytes:
    """Return the messages that run :func:`commands`, without a Sync."""
    made = []
    for command in commands(settings):
        text = command.encode()
        made.append(b"P" + (len(text) + 8).to_bytes(4) + b"\0" + text + b"\0\0\0" + _RUN)
    return b"".join(made)


def check(name: str, schema: str) -> bytes:
    """Return the messages that run :data:`CHECK`, which was prepared under a name."""
    value = schema.encode()
    bind = b"\0" + name.encode() + b"\0\0\0\0\x01" + len(value).to_bytes(4) + value + b"\0\0"
    return b"B" + (len(bind) + 4).to_bytes(4) + bind + _EXECUTE


def _name(setting: str) -> str:
    return ".".join(quote(part, '"') for part in setting.split("."))


def _value(name: str, value: str) -> str:
    # the path is a list of names, quoted already, and may be empty; in a literal only the quote is special,
    # see the settings that a session starts with
    return value if name == "search_path" and value else "'" + value.replace("'", "''") + "'"
