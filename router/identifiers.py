"""The names that may reach a server: tenants, databases, schemas. Checked by allow-list, in this one place.

A name is a secret to nobody but may be hostile: messages show it escaped and cut to 80 characters.
PostgreSQL cuts names at 63 bytes without an error, so that two longer names can mean the same schema;
hence the limit. The allowed characters are one byte each, so characters and bytes are the same number.
"""

from __future__ import annotations

import re

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PHYSICAL = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_LOGICAL = re.compile(r"[a-z][a-z0-9_-]{0,62}")

_TENANT_RULE = "Use 1 to 63 of a-z, 0-9, '_' and '-', beginning with a letter or digit"
_PHYSICAL_RULE = "Use 1 to 63 of a-z, 0-9 and '_', beginning with a letter or '_'"
_LOGICAL_RULE = "Use 1 to 63 of a-z, 0-9, '_' and '-', beginning with a letter"

# Names that every tenant could see or that belong to the server: a tenant placed there shares its rows.
_RESERVED = frozenset(
    {
        "public",
        "information_schema",
        "template0",
        "template1",
        "mysql",
        "performance_schema",
        "sys",
        "ndbinfo",
    }
)
_RESERVED_PREFIXES = ("pg_", "sqlite_")
_SHOWN = 80


class InvalidName(ValueError):
    """Refuse a name; the message is the fact, ``remedy`` the rule that it breaks."""

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(f"{fact}. {remedy}")
        self.fact = fact
        self.remedy = remedy


def shown(text: str) -> str:
    """Return ``text`` for a message: quoted, control and non-ASCII characters escaped, cut to 80."""
    return ascii(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!a}... ({len(text)} characters)"


def _matched(pattern: re.Pattern[str], text: object, what: str, rule: str) -> str:
    if not isinstance(text, str):
        raise InvalidName(f"must be text, not {type(text).__name__}, to be a {what}", rule)
    if pattern.fullmatch(text) is None:
        raise InvalidName(f"{shown(text)} is not a valid {what}", rule)
    return text


def check_tenant_id(text: str) -> str:
    """Return ``text`` if it may be a tenant id, else raise :class:`InvalidName` (a ``ValueError``)."""
    return _matched(_TENANT, text, "tenant id", _TENANT_RULE)


def check_physical_name(text: str, *, public: bool = False) -> str:
    """Return ``text`` if it may name a database or schema on a server, else raise :class:`InvalidName`.

    Names that the server owns or that all tenants share are refused; ``public`` lets that one through.
    """
    _matched(_PHYSICAL, text, "database or schema name", _PHYSICAL_RULE)
    if (text in _RESERVED and not (public and text == "public")) or text.startswith(_RESERVED_PREFIXES):
        raise InvalidName(
            f"{shown(text)} is reserved by the server or shared by all tenants", "Choose a name of your own"
        )
    return text


def check_logical_name(text: str) -> str:
    """Return ``text`` if it may name a logical schema, cluster, node or tier; else :class:`InvalidName`."""
    return _matched(_LOGICAL, text, "name", _LOGICAL_RULE)


def quote(name: str, mark: str) -> str:
    """Return ``name`` as a quoted SQL identifier; ``mark`` is ``"`` (standard) or `````` (MySQL).

    Any text but the empty one and text with NUL can be quoted; else :class:`InvalidName` is raised.
    """
    if mark not in ('"', "`"):
        raise InvalidName(f"{shown(mark)} does not quote identifiers", "Use '\"' or '`'")
    if not name or "\0" in name:
        raise InvalidName(f"{shown(name)} cannot be quoted", "Use a name that is not empty and has no NUL")
    return f"{mark}{name.replace(mark, mark + mark)}{mark}"
