"""Where tenants' rows are, so that no two tenants are put in the same place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from router.config.models import ClusterConfig, TenantFile
from router.config.problems import Found
from router.config.values import TenantConfig

Server = tuple[str, str, int]

_ANY = ""  # where names without a schema lead to, as the server has it for the user


class Place(NamedTuple):
    """Name a schema of a database, all of the database, or one tenant's rows in a schema's tables."""

    server: Server
    database: str
    schema: str | None  # None: all of the database
    key: str | None = None  # of the rows, in tables that tenants share


def check(tenant: TenantFile, cluster: ClusterConfig) -> Iterator[Found]:
    """Yield what is wrong with where ``tenant`` is put on ``cluster``."""
    if tenant.role is not None and cluster.engine == "sqlite":
        yield Found(("role",), "is given, but SQLite has no roles", "Remove it", at_key=True)
    elif tenant.role == "none":
        yield Found(("role",), "is the word for no role", "Choose another name, or remove it")
    if tenant.key is not None and tenant.isolation != "row":
        yield Found(("key",), "is for isolation: row", "Remove it or change isolation", at_key=True)
    if tenant.isolation == "database":
        if tenant.database is None:
            remedy = "Add database: the name of this tenant's own database"
            yield Found((), "has no 'database'", remedy, absent=True)
        if tenant.schema_ is not None:
            yield Found(("schema",), "is for isolation: schema", "Remove it or change isolation", at_key=True)
    elif tenant.isolation == "row":
        yield from _check_rows(tenant, cluster)
    else:
        yield from _check_schema(tenant, cluster)


def _check_rows(tenant: TenantFile, cluster: ClusterConfig) -> Iterator[Found]:
    if cluster.engine != "postgresql":
        fact = f"is row, but {cluster.engine} has no row security"
        yield Found(("isolation",), fact, "Choose isolation: database or schema")
    elif tenant.database is None and cluster.database is None:
        yield _NO_DATABASE


def _check_schema(tenant: TenantFile, cluster: ClusterConfig) -> Iterator[Found]:
    postgresql = cluster.engine == "postgresql"
    if cluster.engine == "sqlite":
        yield Found(("isolation",), "is schema, but SQLite has no schemas", "Choose isolation: database")
        return
    if tenant.schema_ is None:
        remedy = "Add schema: the name of this tenant's own schema"
        yield Found((), "has no 'schema'", remedy, absent=True)
    elif tenant.schema_ == "public":
        yield Found(("schema",), "is reserved: all tenants share it", "Choose a schema of the tenant's own")
    if postgresql and tenant.database is None and cluster.database is None:
        yield _NO_DATABASE
    if not postgresql and tenant.database is not None:
        remedy = "Remove it: on MySQL and MariaDB the schema is the database"
        yield Found(("database",), "is given beside schema", remedy, at_key=True)


_NO_DATABASE = Found(
    (),
    "has no 'database' and neither has its cluster",
    "Add database here, or to the cluster for all its tenants",
    absent=True,
)


def server_of(cluster: ClusterConfig) -> Server:
    """Return the server, not the cluster's name, since two clusters may be on one server."""
    primary = cluster.primary
    return cluster.engine, (primary.path or primary.host or "").lower(), primary.port or 0


def places_of(tenant: TenantConfig, server: Server) -> frozenset[Place]:
    """Return all places that a tenant has on a server."""
    database, own = tenant.database or "", tenant.schema
    if server[0] in ("mysql", "mariadb"):  # a schema is a database there
        names = (tenant.database if tenant.isolation == "database" else own, *tenant.schemas.values())
        return frozenset(Place(server, name, None) for name in names if name)
    if tenant.isolation == "database":
        return frozenset((Place(server, database, None),))
    key = None if tenant.row is None else tenant.row[1]
    schemas = (own if key is None else own or _ANY, *tenant.schemas.values())
    return frozenset(Place(server, database, name, key) for name in schemas if name is not None)


def overlap(one: Place, two: Place) -> bool:
    """Say whether who has one of these places would see rows in the other."""
    if one[:2] != two[:2]:
        return False
    if one.schema is None or two.schema is None:
        return True
    if one.key is None or two.key is None:
        return one.schema == two.schema
    return one.key == two.key
