"""Find where a tenant by row could see rows of others: what PostgreSQL's catalog says of its tables.

It reads and proves nothing: a policy that names the right setting may still let too much through. What is
found is certain, what is not found may be there. Pure; :func:`facts` alone asks a server.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router.identifiers import quote
from router.rows import Row

Ask = Callable[[str, tuple[object, ...]], Awaitable[Sequence[Row]]]
_INVOKER = 150_000  # the first version whose views can read as who asks
# The first in which a prepared statement never goes on under the policies of another role (CVE-2024-10976).
_SAFE = {12: 120_021, 13: 130_017, 14: 140_014, 15: 150_009, 16: 160_005, 17: 170_001}

_SERVER = (
    "SELECT current_schemas(false)::text[] AS path, session_user::text AS login, "
    "current_setting('server_version_num')::int AS version"
)
_TABLES = """
    SELECT c.oid::bigint AS id, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
        c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
        pg_get_userbyid(c.relowner)::text AS owner, coalesce(c.reloptions, '{}')::text[] AS options
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname::text = ANY($1::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT EXISTS (
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    ) ORDER BY 2, 3
"""
_POLICIES = """
    SELECT p.polrelid::bigint AS id, p.polname::text AS name, p.polpermissive AS permissive,
        p.polcmd::text AS command, pg_get_expr(p.polqual, p.polrelid) AS seen,
        pg_get_expr(p.polwithcheck, p.polrelid) AS written
    FROM pg_policy p WHERE p.polrelid = ANY($1::bigint[]::oid[]) AND EXISTS (
        SELECT FROM unnest(p.polroles) held, pg_roles u WHERE u.rolname::text = ANY($2::text[])
        AND (held = 0 OR pg_has_role(u.oid, held, 'USAGE'))) ORDER BY 1, 2
"""
_USERS = """
    SELECT u.rolname::text AS name, u.rolsuper AS super, u.rolbypassrls AS bypasses,
        ARRAY(SELECT c.oid::bigint FROM pg_class c WHERE c.oid = ANY($1::bigint[]::oid[])
            AND pg_has_role(u.oid, c.relowner, 'MEMBER')) AS owns,
        ARRAY(SELECT c.oid::bigint FROM pg_class c WHERE c.oid = ANY($1::bigint[]::oid[])
            AND has_table_privilege(u.oid, c.oid, 'TRUNCATE')) AS empties
    FROM pg_roles u WHERE u.rolname::text = ANY($2::text[]) ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class RowFinding:
    """Say where rows of one tenant could be seen, or written, by another."""

    cluster: str
    database: str
    name: str  # of a table, or of a user
    fact: str
    remedy: str


class Where(NamedTuple):
    """Name the tables that are looked at, and for whom: the places of tenants by row in one database."""

    schemas: frozenset[str]  # with the tenants' tables, or after them in the search path
    path: bool  # whether some have none of their own, and find theirs by the user's search path
    users: frozenset[str]  # that their statements run as
    setting: str
    shared: frozenset[str]  # tables that all tenants may see, as ``schema.table``


class Facts(NamedTuple):
    """Hold what the catalog says."""

    version: int
    tables: Sequence[Row]
    policies: Sequence[Row]
    users: Sequence[Row]


async def facts(ask: Ask, where: Where) -> Facts:
    """Return what the catalog of a database says of tables, their policies, and who uses them."""
    server = (await ask(_SERVER, ()))[0]
    schemas = where.schemas | (set(server.path) if where.path else set())
    tables = await ask(_TABLES, (sorted(schemas),))
    tables = [row for row in tables if f"{row.schema}.{row.name}" not in where.shared]
    ids, users = [row.id for row in tables], sorted({server.login, *where.users})
    policies = await ask(_POLICIES, (ids, users))
    owned = [row.id for row in tables if row.kind in "rp"]
    return Facts(server.version, tables, policies, await ask(_USERS, (owned, users)))


def findings(found: Facts, where: Where) -> Iterator[tuple[str, str, str]]:
    """Yield name, fact and remedy of each place where row security does not hold."""
    safe = _SAFE.get(found.version // 10_000, 0 if found.version >= 180_000 else found.version + 1)
    if found.version < safe:
        fact = f"is PostgreSQL {found.version // 10_000}.{found.version % 10_000}: after SET ROLE a prepared "
        fact += "statement may go on under the policies of the role before (CVE-2024-10976)"
        yield "the server", fact, "Install its latest minor version"
    for user in found.users:
        yield from _user(user, found.tables)
    for table in found.tables:
        name = f"{quote(table.schema, chr(34))}.{quote(table.name, chr(34))}"
        policies = [row for row in found.policies if row.id == table.id]
        for fact, remedy in _table(table, name, policies, where.setting, found.version):
            yield f"{table.schema}.{table.name}", fact, remedy


def _user(user: Row, tables: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    if user.super or user.bypasses:
        what = "is a superuser" if user.super else "has BYPASSRLS"
        yield user.name, f"{what}: no policy holds for it", "Log in as another, or take it away"
        return
    if user.owns:
        fact = f"owns {_some(user.owns, tables)}, or may act as the owner: it may switch row security off"
        yield user.name, fact, "Let another role own the tables, and grant only what is needed"
    if emptied := set(user.empties) - set(user.owns):
        fact = f"may truncate {_some(emptied, tables)}: no policy holds for that"
        yield user.name, fact, f"REVOKE TRUNCATE ON ... FROM {quote(user.name, chr(34))}"


def _some(ids: Iterable[int], tables: Sequence[Row]) -> str:
    wanted = set(ids)
    names = [f"{row.schema}.{row.name}" for row in tables if row.id in wanted]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _table(
    table: Row, name: str, policies: Sequence[Row], setting: str, version: int
) -> Iterator[tuple[str, str]]:
    if table.kind in "mf":
        what = "materialized view" if table.kind == "m" else "foreign table"
        yield f"is a {what}, which knows no row security", "Move it to a schema that no tenant reads"
    elif table.kind == "v":
        if not {"security_invoker=true", "security_invoker=on", "security_invoker=1"} & set(table.options):
            remedy = f"ALTER VIEW {name} SET (security_invoker = true)"
            yield (
                f"is a view that reads as its owner, {table.owner}",
                remedy if version >= _INVOKER else "Drop it: only PostgreSQL 15 and later can change that",
            )
    elif not table.enabled:
        remedy = f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        yield "has no row security", f"{remedy}; then give it a policy"
    else:
        if not table.forced:
            yield "does not hold its owner to its policies", f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"
        if not any(each.permissive for each in policies):
            yield "has no policy for the router's users, who see no row of it", _example(name, setting)
        yield from _policies(policies, name, setting)


def _policies(policies: Sequence[Row], name: str, setting: str) -> Iterator[tuple[str, str]]:
    # restrictive ones hold beside all others
    if any(not each.permissive and each.command == "*" and not _flaw(each, setting) for each in policies):
        return
    for each in policies:
        if each.permissive and (flaw := _flaw(each, setting)):
            yield f"has a policy {each.name!r} that {flaw}", _example(name, setting)


def _flaw(policy: Row, setting: str) -> str:
    read = rf"current_setting\('{re.escape(setting)}'::text(?:, \w+)?\)"
    for expression in (policy.seen, policy.written):
        if expression is None:
            continue
        uses = len(re.findall(read, expression, re.IGNORECASE))
        if not uses:
            return f"does not look at {setting}"
        if uses > len(re.findall(rf"NULLIF\({read}, ''::text\)", expression, re.IGNORECASE)):
            return f"looks at {setting} without NULLIF: where it is not set it may read as ''"
    return ""


def _example(name: str, setting: str) -> str:
    return f"CREATE POLICY tenants ON {name} USING (tenant = NULLIF(current_setting('{setting}', true), ''))"
