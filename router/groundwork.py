"""What a tenant's place needs on its server: statements that make it, count what is there, and drop it.

Pure: nothing here asks a server. Names are checked by allow-list when they are configured, and quoted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from router.config import ClusterConfig, TenantConfig
from router.errors import UsageError
from router.identifiers import check_physical_name, quote

_MAINTENANCE = "postgres"  # every PostgreSQL server has it, and no tenant

_double = partial(quote, mark='"')
_back = partial(quote, mark="`")


@dataclass(frozen=True, slots=True)
class Step:
    """Hold one statement: what it is for, and the database that it runs in.

    ``unless`` is a query that has a row if it need not run. ``makes`` tells those that make something, which
    then is there, from those that only say who may what.
    """

    what: str
    database: str
    sql: str
    unless: str | None = None
    makes: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Name where only one tenant's tables are to be; ``count`` gives the number of those in ``database``."""

    what: str
    database: str
    count: str


# --- what is needed --------------------------------------------------------------------------------------


def steps(
    tenant: TenantConfig, cluster: ClusterConfig, hosts: Mapping[str, str] | None = None
) -> tuple[Step, ...]:
    """Return what makes the place of ``tenant``, in order; nothing where it shares the tables of others.

    ``hosts`` are those of MySQL's accounts, by the user's name; any host where it does not say.
    """
    if cluster.engine == "sqlite":
        return tuple(
            Step(f"the file {name}.db", name, "PRAGMA journal_mode = WAL", "SELECT 1", True)
            for name in _files(tenant)
        )
    if cluster.engine == "postgresql":
        return tuple(_postgresql(tenant, cluster))
    return tuple(_mysql(tenant, cluster, hosts or {}))


def places(tenant: TenantConfig, cluster: ClusterConfig) -> tuple[Place, ...]:
    """Return the places that are to be the tenant's alone."""
    if tenant.isolation == "row":
        return ()
    if cluster.engine == "sqlite":
        tables = "SELECT count(*) FROM sqlite_master"
        return tuple(Place(f"the file {name}.db", name, tables) for name in _files(tenant))
    database = tenant.database or ""
    if cluster.engine != "postgresql":
        return tuple(
            Place(f"the database {name}", "", f"{_TABLES} {_text(name)}") for name in _databases(tenant)
        )
    if tenant.isolation == "database":
        return (Place(f"the database {database}", database, _RELATIONS),)
    return tuple(
        Place(f"the schema {name} in {database}", database, f"{_RELATIONS} AND n.nspname = {_text(name)}")
        for name in _schemas(tenant)
    )


def powers(tenant: TenantConfig, cluster: ClusterConfig) -> tuple[str, str] | None:
    """Return a database, and what has a row there if the tenant's role is one that no tenant may have."""
    if tenant.role is None:
        return None
    if cluster.engine == "postgresql":
        return server_of(cluster), f"{_ROLE} {_text(tenant.role)} AND {_POWERS}"
    quoted = _text(tenant.role).replace("'", "''")
    return "", f"{_GLOBAL} '{quoted}@%'"


_RELATIONS = (
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN "
    "('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
)
_DATABASE = "SELECT 1 FROM pg_database WHERE datname ="
_SCHEMA = "SELECT 1 FROM pg_namespace WHERE nspname ="
_ROLE = "SELECT 1 FROM pg_roles WHERE rolname ="
_POWERS = "(rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolcanlogin)"
_GLOBAL = "SELECT 1 FROM information_schema.user_privileges WHERE privilege_type <> 'USAGE' AND grantee LIKE"
_SCHEMATA = "SELECT 1 FROM information_schema.schemata WHERE schema_name ="
_TABLES = "SELECT count(*) FROM information_schema.tables WHERE table_schema ="


def drops(tenant: TenantConfig, cluster: ClusterConfig) -> tuple[str, ...]:
    """Return what would remove the tenant's place with all its rows; nothing here runs it."""
    if tenant.isolation == "row":
        return ()
    if cluster.engine == "sqlite":
        return tuple(f"rm {cluster.primary.path}/{name}.db*" for name in _files(tenant))
    if cluster.engine != "postgresql":
        return tuple(f"DROP DATABASE {_back(name)};" for name in _databases(tenant))
    if tenant.isolation == "database":
        return (f"DROP DATABASE {_double(tenant.database or '')};",)
    return tuple(
        f"DROP SCHEMA {_double(name)} CASCADE;  -- in {tenant.database}" for name in _schemas(tenant)
    )


def _text(name: str | None) -> str:
    """Return the literal of a name; those that may be placed have no character that a literal minds."""
    return f"'{check_physical_name(name or '')}'"


def _files(tenant: TenantConfig) -> list[str]:
    main = tenant.database or ""
    return [main, *(f"{main}.{name}" for name in sorted(set(tenant.schemas.values())))]


# --- PostgreSQL ------------------------------------------------------------------------------------------


def _schemas(tenant: TenantConfig) -> list[str]:
    """Return the tenant's schemas, each once, its main one first."""
    return list(dict.fromkeys(filter(None, (tenant.schema, *tenant.schemas.values()))))


def server_of(cluster: ClusterConfig) -> str:
    """Return a database that exists before any tenant's does; "" where a connection needs none."""
    return (cluster.database or _MAINTENANCE) if cluster.engine == "postgresql" else ""


def _postgresql(tenant: TenantConfig, cluster: ClusterConfig) -> Iterator[Step]:
    writer, reader = users(cluster)
    server, database = server_of(cluster), tenant.database or ""
    owner = tenant.role or writer
    if tenant.role is not None:
        yield from _role(tenant.role, server, writer, reader)
    if tenant.isolation == "row":
        return
    # with a role all statements run as it, whoever logs in
    reads = None if tenant.role is not None or reader == writer else reader
    if tenant.isolation == "database":
        yield Step(
            f"the database {database}",
            server,
            f"CREATE DATABASE {_double(database)} OWNER {_double(owner)}",
            f"{_DATABASE} {_text(database)}",
            makes=True,
        )
        if reads is not None:
            yield from _readable("public", database, owner, reads)
    for name in _schemas(tenant):
        yield Step(
            f"the schema {name} in {database}",
            database,
            f"CREATE SCHEMA {_double(name)} AUTHORIZATION {_double(owner)}",
            f"{_SCHEMA} {_text(name)}",
            makes=True,
        )
        yield Step(
            f"what {owner} may in it",
            database,
            f"GRANT USAGE, CREATE ON SCHEMA {_double(name)} TO {_double(owner)}",
        )
        if reads is not None:
            yield from _readable(name, database, owner, reads)


def _role(role: str, server: str, writer: str, reader: str) -> Iterator[Step]:
    create = f"CREATE ROLE {_double(role)} NOLOGIN"
    yield Step(f"the role {role}", server, create, f"{_ROLE} {_text(role)}", makes=True)
    for member in dict.fromkeys((writer, reader)):
        what = f"that {member} may act as it"
        yield Step(what, server, f"GRANT {_double(role)} TO {_double(member)}")
    # who is no superuser makes something for another role only as its member
    superuser = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolsuper"
    yield Step("that it can be made the owner", server, f"GRANT {_double(role)} TO CURRENT_USER", superuser)


def _readable(schema: str, database: str, owner: str, reader: str) -> Iterator[Step]:
    """Yield what lets the reader see the tables in a schema: those that are there, and those to come."""
    what, name, who = f"what {reader} may in {schema}", _double(schema), _double(reader)
    yield Step(what, database, f"GRANT USAGE ON SCHEMA {name} TO {who}")
    yield Step(what, database, f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {who}")
    yield Step(
        what,
        database,
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {_double(owner)} IN SCHEMA {name} "
        f"GRANT SELECT ON TABLES TO {who}",
    )


# --- MySQL and MariaDB -----------------------------------------------------------------------------------

_WRITES = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE TEMPORARY TABLES, "
    "LOCK TABLES, CREATE VIEW, SHOW VIEW, TRIGGER, EXECUTE"
)
_READS = "SELECT, SHOW VIEW, EXECUTE"


def _databases(tenant: TenantConfig) -> list[str]:
    main = tenant.schema or tenant.database or ""
    return list(dict.fromkeys((main, *tenant.schemas.values())))


def _mysql(tenant: TenantConfig, cluster: ClusterConfig, hosts: Mapping[str, str]) -> Iterator[Step]:
    writer, reader = users(cluster)

    def account(user: str) -> str:
        return f"{_back(user)}@{_back(hosts.get(user, '%'))}"

    if tenant.role is not None:
        create = f"CREATE ROLE IF NOT EXISTS {_back(tenant.role)}"
        yield Step(f"the role {tenant.role}", "", create, makes=True)
        for member in dict.fromkeys((writer, reader)):
            what = f"that {member} may act as it"
            yield Step(what, "", f"GRANT {_back(tenant.role)} TO {account(member)}")
    for name in _databases(tenant):
        exists = f"{_SCHEMATA} {_text(name)}"
        yield Step(f"the database {name}", "", f"CREATE DATABASE IF NOT EXISTS {_back(name)}", exists, True)
        # in a grant "_" means any character, so that one for a_b would also be one for axb
        pattern = _back(name.replace("_", r"\_"))
        if tenant.role is not None:
            what = f"what {tenant.role} may in it"
            yield Step(what, "", f"GRANT {_WRITES} ON {pattern}.* TO {_back(tenant.role)}")
            continue
        yield Step(f"what {writer} may in it", "", f"GRANT {_WRITES} ON {pattern}.* TO {account(writer)}")
        if reader != writer:
            yield Step(f"what {reader} may in it", "", f"GRANT {_READS} ON {pattern}.* TO {account(reader)}")


def users(cluster: ClusterConfig) -> tuple[str, str]:
    """Return the users that requests are made as, on the primary and on replicas."""
    writer = cluster.login(cluster.primary, writer=True)
    reader = cluster.login((cluster.replicas or (cluster.primary,))[0], writer=False)
    if writer is None or reader is None:
        raise UsageError("the cluster has no credentials. Add them to router.yaml")
    names = writer.username, reader.username
    if not (isinstance(names[0], str) and isinstance(names[1], str)):
        raise UsageError(
            "the cluster's users come from a store, and are others tomorrow: nothing can be granted to them "
            "by name. Grant it to the role that they are members of, and leave --provision out"
        )
    return names[0], names[1]
