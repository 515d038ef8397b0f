"""Where tenants' rows are, so that no two tenants are put in the same place."""

from __future__ import annotations

from collections.abc import Iterator

from router.config.models import ClusterConfig, TenantFile
from router.config.problems import Found

Server = tuple[str, str, int]
Place = tuple[Server, str, str | None]  # a schema of a database; with None all of it


def check(tenant: TenantFile, cluster: ClusterConfig) -> Iterator[Found]:
    """Yield what is wrong with where ``tenant`` is put on ``cluster``."""
    postgresql = cluster.engine == "postgresql"
    yield from _check_pooler(tenant, cluster)
    if tenant.isolation == "database":
        if tenant.database is None:
            remedy = "Add database: the name of this tenant's own database"
            yield Found((), "has no 'database'", remedy, absent=True)
        if tenant.schema_ is not None:
            yield Found(("schema",), "is for isolation: schema", "Remove it or change isolation", at_key=True)
        return
    if cluster.engine == "sqlite":
        yield Found(("isolation",), "is schema, but SQLite has no schemas", "Choose isolation: database")
        return
    if tenant.schema_ is None:
        remedy = "Add schema: the name of this tenant's own schema"
        yield Found((), "has no 'schema'", remedy, absent=True)
    if postgresql and tenant.database is None and cluster.database is None:
        remedy = "Add database here, or to the cluster for all its tenants"
        yield Found((), "has no 'database' and neither has its cluster", remedy, absent=True)
    if not postgresql and tenant.database is not None:
        remedy = "Remove it: on MySQL and MariaDB the schema is the database"
        yield Found(("database",), "is given beside schema", remedy, at_key=True)


def _check_pooler(tenant: TenantFile, cluster: ClusterConfig) -> Iterator[Found]:
    """Yield what needs a session of its own, where a pooler gives each transaction another one."""
    if cluster.pooler is None:
        return
    fact = f"needs a search path, which pooler: {cluster.pooler} of its cluster does not keep"
    if tenant.isolation != "database":
        yield Found(("isolation",), f"is schema: it {fact}", "Choose isolation: database")
    elif tenant.schemas:
        remedy = "Give each its own tenant, or remove pooler and connect to the server itself"
        yield Found(("schemas",), fact, remedy, at_key=True)


class Claims:
    """Remember who has which place; a tenant's whole database excludes everyone else's schemas in it."""

    def __init__(self) -> None:
        self._holders: dict[Place, str] = {}
        self._first_in: dict[tuple[Server, str], str] = {}

    def claim(self, file: str, tenant: TenantFile, cluster: ClusterConfig) -> str | None:
        """Take the places of ``tenant`` for ``file``; return the file that has one of them, if any."""
        for server, database, schema in set(_places(tenant, cluster)):
            first = self._first_in.setdefault((server, database), file)
            if schema is None:
                holder = first
            else:
                holder = self._holders.get((server, database, None)) or file
                if holder == file:
                    holder = self._holders.setdefault((server, database, schema), file)
            if holder != file:
                return holder
            self._holders.setdefault((server, database, schema), file)
        return None


def _places(tenant: TenantFile, cluster: ClusterConfig) -> Iterator[Place]:
    # The server, not the cluster's name, since two clusters may be on one server.
    primary = cluster.primary
    server = (cluster.engine, (primary.path or primary.host or "").lower(), primary.port or 0)
    own: str | None = tenant.schema_ if tenant.isolation == "schema" else tenant.database
    names = [own, *tenant.schemas.values()]
    if cluster.engine in ("mysql", "mariadb"):  # a schema is a database there
        yield from ((server, name, None) for name in names if name)
    elif tenant.isolation == "database":
        yield server, tenant.database or "", None
    else:
        database = tenant.database or cluster.database or ""
        yield from ((server, database, name) for name in names if name)
