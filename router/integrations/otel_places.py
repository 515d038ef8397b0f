"""Where requests go, in the words of OpenTelemetry: system, namespace, server and peer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Literal, get_args

from router.config import Config
from router.drivers.registry import driver_for
from router.errors import UsageError
from router.lexer import Dialect
from router.topology import Engine, Node

Namespace = Literal["schema", "database", "none"]
"""How much of a tenant's place is told: database and schema, the database alone, or nothing."""

Attributes = Mapping[str, str | int]
_BOUND: Final = 10_000  # placements and nodes remembered


class Places:
    """Know the places of a configuration."""

    def __init__(self, config: Config, namespace: Namespace) -> None:
        if namespace not in get_args(Namespace):
            raise UsageError(f"namespace is one of {', '.join(get_args(Namespace))}, not {namespace!r}")
        self._config = config
        self._namespace = namespace
        self.of = lru_cache(_BOUND)(self._of)
        self.server = lru_cache(_BOUND)(server)

    def _of(self, tenant: str, schema: str | None) -> Attributes:
        """Return system and namespace of what (tenant, schema) resolves to."""
        config = self._config.tenants.get(tenant)
        if config is None:
            return {}
        engine = self._config.clusters[config.cluster].engine
        physical = config.schema if schema is None else config.schemas.get(schema)
        found: dict[str, str | int] = {"db.system.name": engine}
        name = _namespace(engine, config.database or "", physical, self._namespace)
        return found | {"db.namespace": name} if name else found


def dialect_of(config: Config, tenant: str) -> Dialect:
    """Return the dialect that a tenant's statements are in."""
    found = config.tenants.get(tenant)
    return Dialect.POSTGRESQL if found is None else _dialect(config.clusters[found.cluster].engine)


@lru_cache
def _dialect(engine: str) -> Dialect:
    return driver_for(engine).dialect


def _namespace(engine: str, database: str, physical: str | None, how: Namespace) -> str:
    """Return the name of a place as the conventions for its engine want it; "" for none."""
    if how == "none":
        return ""
    if engine in (Engine.MYSQL, Engine.MARIADB):  # where a schema is a database
        return physical or database
    parts = (database, physical) if how == "schema" else (database,)
    return "|".join(part for part in parts if part)


def server(node: Node) -> Attributes:
    """Return the address of a node; as peer too, where it was configured by its address."""
    if not node.host:
        return {}
    if node.host.startswith("/"):
        return {"server.address": node.host, "network.transport": "unix", "network.peer.address": node.host}
    found: dict[str, str | int] = {"server.address": node.host, "server.port": node.port}
    try:
        ip_address(node.host)
    except ValueError:
        return found  # a name: which of its addresses was connected to, the driver knows alone
    return found | {"network.peer.address": node.host, "network.peer.port": node.port}
