"""A table of tenants: how it is made, and the statements that read and write it.

``settings`` holds as JSON what a tenant's YAML file says. NULL stands for a tenant that was removed: a row
that is gone is no change that polling could see.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from router.identifiers import check_physical_name, quote
from router.statements import Dialect

CATALOG: Final = "_catalog"
"""What events name in the place of a tenant where the table itself is asked; no tenant has this id."""


class Texts(NamedTuple):
    """Hold the statements on a table, with ``:name`` parameters."""

    find: str  # of :tenant, its settings
    changed: str  # tenants whose row changed in the last :seconds of the server's clock, and when
    page: str  # up to :most tenants after :after, with their settings
    put: str  # :settings of :tenant, whether it was there or not
    remove: str  # :tenant
    hold: str  # of :tenant, its settings, which nobody else changes before the transaction ends
    insert: str  # :settings of :tenant, a new one
    revive: str  # :settings of :tenant, one that was removed
    change: str  # :settings of :tenant, one that is there


def texts(dialect: Dialect, name: str) -> Texts:
    """Return the statements on the table of that name."""
    text, since, put, lock = _DIFFERENT[dialect]
    given = {"table": _quoted(dialect, name), "text": text, "since": since, "put": put, "lock": lock}
    return Texts(*(each.format_map(given) for each in _TEXTS))


def ddl(dialect: Dialect, name: str = "router_tenants") -> tuple[str, ...]:
    """Return the statements that make the table, and what keeps ``changed_at`` and tells of changes."""
    table, index, function = (_quoted(dialect, f"{name}{end}") for end in ("", "_changed_at", "_changed"))
    return tuple(
        text.format(table=table, index=index, function=function, channel=name) for text in _DDL[dialect]
    )


def decode(text: str) -> dict[str, Any]:
    """Return settings as data; raises ValueError for what is no JSON object, or has a key twice."""
    found = json.loads(text, object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError("the settings are no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _quoted(dialect: Dialect, name: str) -> str:
    return quote(check_physical_name(name), "`" if dialect is Dialect.MYSQL else '"')


_TEXTS = Texts(
    find="SELECT {text} AS settings FROM {table} WHERE tenant = :tenant",
    changed="SELECT tenant, changed_at FROM {table} WHERE changed_at >= {since}",
    page="SELECT tenant, {text} AS settings FROM {table} "
    "WHERE tenant > :after AND settings IS NOT NULL ORDER BY tenant LIMIT :most",
    put="INSERT INTO {table} (tenant, settings) VALUES (:tenant, :settings) {put}",
    remove="UPDATE {table} SET settings = NULL WHERE tenant = :tenant",
    hold="SELECT {text} AS settings FROM {table} WHERE tenant = :tenant{lock}",
    insert="INSERT INTO {table} (tenant, settings) VALUES (:tenant, :settings)",
    revive="UPDATE {table} SET settings = :settings WHERE tenant = :tenant AND settings IS NULL",
    change="UPDATE {table} SET settings = :settings WHERE tenant = :tenant",
)
_UPSERT = "ON CONFLICT (tenant) DO UPDATE SET settings = excluded.settings"

# by dialect: settings as text, the moment :seconds ago, what makes an insert an update, what holds a row
_DIFFERENT: dict[Dialect, tuple[str, str, str, str]] = {
    Dialect.POSTGRESQL: (
        "CAST(settings AS text)",
        "now() - make_interval(secs => CAST(:seconds AS double precision))",
        _UPSERT,
        " FOR UPDATE",
    ),
    Dialect.MYSQL: (
        "settings",
        "NOW(6) - INTERVAL :seconds SECOND",
        "ON DUPLICATE KEY UPDATE settings = VALUES(settings)",
        " FOR UPDATE",
    ),
    Dialect.SQLITE: (
        "settings",
        "strftime('%Y-%m-%d %H:%M:%f', 'now', CAST(-:seconds AS TEXT) || ' seconds')",
        _UPSERT,
        "",  # who begins to write holds the whole file
    ),
}

_DDL: dict[Dialect, tuple[str, ...]] = {
    Dialect.POSTGRESQL: (
        "CREATE TABLE {table} (\n"
        "    tenant text PRIMARY KEY,\n"
        "    settings jsonb CHECK (jsonb_typeof(settings) = 'object'),\n"
        "    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()\n"
        ")",
        "CREATE INDEX {index} ON {table} (changed_at)",
        "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n"
        "    IF TG_OP = 'DELETE' THEN\n"
        "        PERFORM pg_notify('{channel}', OLD.tenant);\n"
        "        RETURN OLD;\n"
        "    END IF;\n"
        "    NEW.changed_at := clock_timestamp();\n"
        "    PERFORM pg_notify('{channel}', NEW.tenant);\n"
        "    RETURN NEW;\n"
        "END $$",
        "CREATE TRIGGER {function} BEFORE INSERT OR UPDATE OR DELETE ON {table}\n"
        "    FOR EACH ROW EXECUTE FUNCTION {function}()",
    ),
    Dialect.MYSQL: (
        "CREATE TABLE {table} (\n"
        "    tenant VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,\n"
        "    settings JSON,\n"
        "    changed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)"
        " ON UPDATE CURRENT_TIMESTAMP(6),\n"
        "    KEY {index} (changed_at)\n"
        ")",
    ),
    Dialect.SQLITE: (
        "CREATE TABLE {table} (\n"
        "    tenant TEXT PRIMARY KEY,\n"
        "    settings TEXT,\n"
        "    changed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))\n"
        ")",
        "CREATE INDEX {index} ON {table} (changed_at)",
        "CREATE TRIGGER {function} AFTER UPDATE OF settings ON {table} FOR EACH ROW BEGIN\n"
        "    UPDATE {table} SET changed_at = strftime('%Y-%m-%d %H:%M:%f', 'now')"
        " WHERE tenant = NEW.tenant;\n"
        "END",
    ),
}
