"""What makes a PostgreSQL session a tenant's: its search path, its role, and the setting of its rows.

One statement sets all of it, undoes what the binding before had set, and answers with what is in force now:
PostgreSQL leaves a schema that is missing, or may not be used, out of the search path without a word, and a
superuser sees all rows. An error takes everything back, so that a failed binding leaves the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from time import monotonic
from typing import Any, NamedTuple

import asyncpg

from router.drivers.driver import Binding, Endpoint
from router.drivers.postgresql_along import CHECK, Trust, check, commands, messages
from router.errors import DatabaseNotFound, PermissionDenied, RouterError
from router.identifiers import quote

_PATH, _ROLE = "search_path", "role"
_PATHS = frozenset({_PATH})
_NOTHING = Binding()
_EXISTS = "SELECT true FROM pg_catalog.pg_namespace WHERE nspname = $1"
_UNSEEN = "(SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user)"
_MISSING, _UNUSABLE = "router.schema_is_missing", "router.schema_may_not_be_used"
_NOT_TAKEN, _SEES_ALL = "router.role_was_not_taken", "router.row_security_does_not_hold"
_REFUSED = (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError)


class InForce(NamedTuple):
    """Hold what the server says of a session once it is bound."""

    schema: str | None  # the first of the search path that is there and may be used
    user: str
    unseen: bool | None  # whether row security does not hold for the user; None where it was not asked


class Bound:
    """Remember what bindings have changed in a session, and what was there before."""

    __slots__ = ("_changed", "_check", "_home", "_trust")

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._check: Any = None  # what asks whether the tenant's schema is there
        self._home: dict[str, str] = {}
        self._changed: frozenset[str] = frozenset()

    async def bind(
        self, raw: Any, endpoint: Endpoint, binding: Binding | None, timeout: float | None
    ) -> None:
        """Set a session to a binding; raise if the tenant's place is not there, or not the tenant's alone."""
        wanted = binding or _NOTHING
        settings = self._settings(wanted, endpoint.extensions)
        if self._trusts(wanted, endpoint):
            try:
                if settings:
                    await raw.execute("; ".join(commands(settings)), timeout=timeout)
            except _REFUSED:
                self._trust.drop(wanted)
            else:
                self._changed |= settings.keys()
                return
        text = _text(len(settings), wanted.setting is not None)
        given = [each for pair in settings.items() for each in pair]
        failure: RouterError
        if self._check is None:
            self._check = await raw.prepare(CHECK, timeout=timeout)
        try:
            path, role, *_, schema, user, unseen = await raw.fetchrow(text, *given, timeout=timeout)
        except _REFUSED as exc:
            if wanted.role is None:
                raise
            failure = _refused(exc, wanted.role)
        else:
            self._home = self._home or {_PATH: path, _ROLE: role}
            self._changed |= settings.keys()
            found = doubt(wanted, InForce(schema, user, unseen))
            if found is None:
                self._trust.add(wanted, settings_of(wanted, endpoint.extensions), monotonic())
                return
            failure = found
            if wanted.schema is not None and schema != wanted.schema:
                exists = await raw.fetchval(_EXISTS, wanted.schema, timeout=timeout)
                failure = found if exists else _missing(wanted.schema, endpoint.database)
        raise failure

    def along(self, endpoint: Endpoint, binding: Binding | None) -> bytes | None:
        """Return the messages that bind a session; ``None`` if it takes more than messages.

        They look whether the tenant's schema is there if that was not found lately, and each time if there
        are further ones in the path: names that were its tables might be found in those. Alone in the path
        it is not missed, for nothing is found then.
        """
        if binding is None or not self._home:
            return None
        schema = binding.schema
        ahead = self._trust.ahead(binding, self._changed, monotonic())
        looks = ahead is None or (bool(endpoint.extensions) and schema is not None)
        if ahead is None and self._changed <= _PATHS and binding[1:] == (None, None, None):
            ahead = messages(settings_of(binding, endpoint.extensions)), _PATHS
        if ahead is None or (looks and self._check is None):
            return None
        self._changed |= ahead[1]
        return ahead[0] + (check(self._check.get_name(), schema or "") if looks else b"")

    def confirm(self, endpoint: Endpoint, binding: Binding) -> None:
        """Take note that messages have bound a session."""
        now = monotonic()
        if not self._trust.holds(binding, now):  # so they have looked
            self._trust.add(binding, settings_of(binding, endpoint.extensions), now)

    def _trusts(self, binding: Binding, endpoint: Endpoint) -> bool:
        """Tell whether a binding was found in order lately, and that is enough."""
        return bool(self._home) and not endpoint.extensions and self._trust.holds(binding, monotonic())

    def distrust(self, binding: Binding | None) -> None:
        """Verify a binding the next time."""
        self._trust.drop(binding or _NOTHING)
        self._check = None  # it may be what was missing

    def reset(self) -> None:
        """Take note that all settings are as they were when the session began."""
        self._changed = frozenset()

    def _settings(self, binding: Binding, extensions: Sequence[str]) -> dict[str, str]:
        """Return the settings to make; one of rows that is not wanted is emptied, which shows none."""
        undone = {name: self._home.get(name, "") for name in self._changed}
        return undone | settings_of(binding, extensions)


def place_of(binding: Binding | None) -> str | None:
    """Name what names without a schema lead to, ``None`` if no binding says it.

    The role counts: without a schema the path may begin with "$user", and what it may not use is left out.
    """
    if binding is None or not (binding.schema or binding.role):
        return None
    return f"{binding.schema or ''}:{binding.role}" if binding.role else binding.schema


def shares(binding: Binding | None) -> bool:
    """Tell whether statements that were prepared for other tenants may do for a binding, if they fit.

    Not where a role says what is seen: PostgreSQL before 15.9, 16.5 and 17.1 could go on under the policies
    of the role that a statement was prepared for.
    """
    return binding is not None and binding.schema is not None and binding.role is None


def settings_of(binding: Binding, extensions: Sequence[str]) -> dict[str, str]:
    """Return the settings that make a session a tenant's."""
    settings = {}
    if binding.role is not None:
        settings[_ROLE] = binding.role
    if binding.schema is not None:
        settings[_PATH] = ", ".join(quote(each, '"') for each in (binding.schema, *extensions))
    if binding.setting is not None:
        settings[binding.setting] = binding.value or ""
    return settings


def doubt(binding: Binding, found: InForce) -> RouterError | None:
    """Return what is wrong with what is in force, ``None`` if it is the tenant's."""
    if binding.schema is not None and found.schema != binding.schema:
        return PermissionDenied(
            f"{found.user} may not use the schema {binding.schema!r}. GRANT USAGE ON SCHEMA "
            f"{quote(binding.schema, chr(34))} TO {quote(found.user, chr(34))}"
        )
    if binding.role is not None and found.user != binding.role:
        return PermissionDenied(f"statements would run as {found.user}, not as the role {binding.role!r}")
    if binding.setting is not None and found.unseen is not False:
        return PermissionDenied(
            f"row security does not hold for {found.user}, a superuser or one with BYPASSRLS: all tenants' "
            "rows would be seen. Log in as another, or give the tenant a role"
        )
    return None


def text_of(binding: Binding, extensions: Sequence[str]) -> str:
    """Return what makes one transaction a tenant's, and fails if it is not then; see :func:`explained`.

    A simple query returns no rows through asyncpg, so it asks for settings that do not exist.
    """
    columns = [
        f"pg_catalog.set_config({_literal(name)}, {_literal(value)}, true)"
        for name, value in settings_of(binding, extensions).items()
    ]
    schema, role = binding.schema, binding.role
    if schema is not None:
        there = f"EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {_literal(schema)})"
        columns.append(
            f"CASE WHEN pg_catalog.current_schema() IS DISTINCT FROM {_literal(schema)} THEN "
            f"CASE WHEN {there} THEN {_fail(_UNUSABLE)} ELSE {_fail(_MISSING)} END END"
        )
    if role is not None:
        columns.append(f"CASE WHEN current_user <> {_literal(role)} THEN {_fail(_NOT_TAKEN)} END")
    if binding.setting is not None:
        columns.append(f"CASE WHEN {_UNSEEN} IS DISTINCT FROM false THEN {_fail(_SEES_ALL)} END")
    return f"SELECT {', '.join(columns)}" if columns else ""


def explained(binding: Binding, endpoint: Endpoint, exc: asyncpg.PostgresError) -> RouterError | None:
    """Return our error for what :func:`text_of` has met; ``None`` if it is something else."""
    if isinstance(exc, asyncpg.UndefinedObjectError):
        user = binding.role or endpoint.login.username
        if _MISSING in str(exc) and binding.schema is not None:
            return _missing(binding.schema, endpoint.database)
        found = {
            _UNUSABLE: InForce(None, user, False),
            _NOT_TAKEN: InForce(binding.schema, endpoint.login.username, False),
            _SEES_ALL: InForce(binding.schema, user, True),
        }
        return next((doubt(binding, each) for name, each in found.items() if name in str(exc)), None)
    if isinstance(exc, _REFUSED) and binding.role is not None:
        return _refused(exc, binding.role)
    return None


def _literal(text: str) -> str:
    """Return a text as the server reads it whatever ``standard_conforming_strings`` says."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if "\\" not in text else "E'" + quoted.replace("\\", "\\\\") + "'"


def _fail(name: str) -> str:
    return f"pg_catalog.current_setting('{name}')"


@cache
def _text(settings: int, rows: bool) -> str:
    """Return the statement that makes so many settings; the columns are evaluated from left to right."""
    made = [f"pg_catalog.set_config(${2 * n + 1}, ${2 * n + 2}, false)" for n in range(settings)]
    columns = [
        f"pg_catalog.current_setting('{_PATH}')",
        f"pg_catalog.current_setting('{_ROLE}')",
        *made,
        "pg_catalog.current_schema()",
        "current_user",
        _UNSEEN if rows else "NULL::pg_catalog.bool",
    ]
    return f"SELECT {', '.join(columns)}"


def _missing(schema: str, database: str) -> RouterError:
    return DatabaseNotFound(
        f"schema {schema!r} does not exist in database {database!r}. "
        "Create it, or correct the tenant's configuration"
    )


def _refused(exc: asyncpg.PostgresError, role: str) -> RouterError:
    """Return our error for a role that the server does not let us take."""
    if isinstance(exc, asyncpg.InvalidParameterValueError):
        text = f"role {role!r} does not exist. Create it, or correct the tenant's configuration"
        return DatabaseNotFound(text, code=exc.sqlstate, cause=exc)
    text = f"{exc.args[0]}. GRANT {quote(role, chr(34))} TO the user that the router logs in as"
    return PermissionDenied(text, code=exc.sqlstate, cause=exc)
