"""Where requests go, in the words of OpenTelemetry: system, namespace, server and peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, Literal, get_args

from router.drivers.registry import driver_for
from router.errors import UsageError
from router.lexer import Dialect
from router.tenants import Placement
from router.topology import Engine, Node

Namespace = Literal["schema", "database", "none"]
"""How much of a tenant's place is told: database and schema, the database alone, or nothing."""

Where = Callable[[str, str | None], Placement | None]
Attributes = Mapping[str, str | int]
_BOUND: Final = 10_000  # placements and nodes remembered


class Places:
    """Know the places of tenants, from ``where``."""

    def __init__(self, where: Where, namespace: Namespace) -> None:
        if namespace not in get_args(Namespace):
            raise UsageError(f"namespace is one of {', '.join(get_args(Namespace))}, not {namespace!r}")
        self._where = where
        self._namespace = namespace
        self._told = lru_cache(_BOUND)(self._tell)
        self.server = lru_cache(_BOUND)(server)

    def of(self, tenant: str, schema: str | None) -> Attributes:
        """Return system and namespace of what (tenant, schema) resolves to."""
        placement = self._where(tenant, schema)
        return {} if placement is None else self._told(placement)

    def _tell(self, placement: Placement) -> Attributes:
        engine = placement.cluster.engine
        found: dict[str, str | int] = {"db.system.name": engine}
        name = _namespace(engine, placement.database, placement.physical, self._namespace)
        return found | {"db.namespace": name} if name else found


def dialect_of(placement: Placement | None) -> Dialect:
    """Return the dialect that a tenant's statements are in."""
    return Dialect.POSTGRESQL if placement is None else _dialect(placement.cluster.engine)


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
