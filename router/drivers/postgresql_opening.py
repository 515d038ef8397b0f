"""How sessions of PostgreSQL are opened by asyncpg, and what their rows are."""

from __future__ import annotations

from typing import Any, cast

import asyncpg

from router.drivers.driver import Endpoint
from router.drivers.sockets import keep_alive

# How often a server at work looks whether its client is still there (PostgreSQL 14 and later).
_CHECK = {"client_connection_check_interval": "5s"}


class PostgresqlRow(asyncpg.Record):
    """asyncpg's own record with attribute access added: rows cost what the driver's cost."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the row has no column {name!r}; it has {list(self.keys())}") from None

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={value!r}' for name, value in self.items())})"


async def session(endpoint: Endpoint, timeout: float, options: dict[str, Any]) -> asyncpg.Connection:
    """Open a session; ``options`` are asyncpg's own."""
    settings = {**_settings(endpoint), **options.pop("server_settings", {})}
    try:
        return await _connect(endpoint, timeout, settings, options)
    except (asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError):
        # an older server or a relative of PostgreSQL's does not have it, another system cannot do it
        without = {name: value for name, value in settings.items() if name not in _CHECK}
        return await _connect(endpoint, timeout, without, options)


def _settings(endpoint: Endpoint) -> dict[str, str]:
    """Return the settings that a session starts with; a reset of it returns to them."""
    # the lexer reads a backslash in a plain string as itself
    settings = {"application_name": endpoint.application, "standard_conforming_strings": "on"}
    if endpoint.setup.pooled:
        return settings  # PgBouncer keeps track of these two, and refuses a client that asks for others
    if endpoint.readonly:
        settings["default_transaction_read_only"] = "on"
    if endpoint.setup.wall is not None:
        settings["statement_timeout"] = f"{endpoint.setup.wall * 1000:.0f}"
    return {**settings, **_CHECK}


async def _connect(
    endpoint: Endpoint, timeout: float, settings: dict[str, str], options: dict[str, Any]
) -> asyncpg.Connection:
    connect: Any = asyncpg.connect  # its stubs know neither record_class nor a TLS mode as text
    raw: asyncpg.Connection = await connect(
        host=endpoint.node.host,
        port=endpoint.node.port,
        user=endpoint.login.username,
        password=await endpoint.login.password(),
        database=endpoint.database,
        # False, not None: asyncpg reads None as "prefer", which may fall back to plain text
        ssl=False if endpoint.tls is None else endpoint.tls,
        timeout=timeout,
        server_settings=settings,
        record_class=PostgresqlRow,
        **options,
    )
    keep_alive(cast("Any", raw)._transport)
    return raw
