"""The isolation models, each with the places of its tenants on a real server.

Every place has two tables. ``owned`` is the visitors' own. ``told`` says whose it is by its types: its
``mood`` is of an enum with labels of its own, its ``shape`` is a number for every other tenant and text for
the rest, all under one statement text.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from router.statements import Dialect
from router.visiting import Place
from tests.engines import Engine, Mariadb, Postgresql, PostgresqlSchemas, Sqlite
from tests.servers import MariadbCluster, PostgresqlCluster
from tests.servers.pgbouncer import Pgbouncer

TABLE = "owned"
MOST = 4  # connections to each node
_MARKS = f"SELECT tenant, mark, count(*) FROM {TABLE} GROUP BY tenant, mark"


class Found(NamedTuple):
    """Say how many rows of a mark are in a tenant's place, and whose they say they are."""

    place: str
    tenant: str
    mark: int
    rows: int


def shape(tenant: str) -> int | str:
    """Return what a tenant's table has in the column whose type differs, where it is not shared."""
    number = int(tenant[1:])
    shared = tenant.startswith((Rows.letter, PooledRows.letter))
    return number if number % 2 or shared else str(number)


class Model:
    """Hold some tenants that are kept apart in one way."""

    name = ""
    letter = ""  # the tenants' names begin with it

    def __init__(self, count: int, engine: Engine) -> None:
        self.tenants = tuple(f"{self.letter}{number:03}" for number in range(count))
        self.engine = engine

    def create(self) -> None:
        """Make the places and their tables."""
        self.engine.create(*self.tenants)
        self.fill()

    def fill(self) -> None:
        """Make the tables."""
        raise NotImplementedError

    def found(self) -> Iterator[Found]:
        """Yield what the server has, asked past the router."""
        raise NotImplementedError

    def cluster(self, most: int) -> dict[str, Any]:
        """Return the section of the cluster, with so many connections to each node."""
        return {**self.engine.cluster(), "connections": {"max": most, "waiting": 100_000}}

    @property
    def most(self) -> int:
        """Return how many connections there may be at once."""
        return MOST * (1 + len(self.engine.replicas))

    def sections(self) -> dict[str, dict[str, Any]]:
        """Return the sections of the tenants."""
        return {
            tenant: {"tenant": tenant, "cluster": self.name, **self.engine.tenant(tenant)}
            for tenant in self.tenants
        }

    def pattern(self) -> dict[str, Any] | None:
        """Return the rule that the tenants follow, ``None`` if each is listed."""
        return None

    def drop(self) -> None:
        """Remove the places."""
        self.engine.drop()


class Files(Model):
    """A SQLite file for each tenant."""

    name, letter = "files", "f"
    engine: Sqlite

    def sections(self) -> dict[str, dict[str, Any]]:
        return {}

    def pattern(self) -> dict[str, Any]:
        rule = {"match": f"{self.letter}[0-9]+", "cluster": self.name}
        return {**rule, "isolation": "database", "database": "{tenant}"}

    def fill(self) -> None:
        for tenant in self.tenants:
            with contextlib.closing(sqlite3.connect(self.engine.file(tenant))) as file:
                kind = "INTEGER" if isinstance(shape(tenant), int) else "TEXT"
                file.execute(Place(TABLE, "", Dialect.SQLITE, None).create)
                file.execute(f"CREATE TABLE told (tenant TEXT, mood TEXT, shape {kind})")
                file.executemany("INSERT INTO told VALUES (?, ?, ?)", [(tenant, tenant, shape(tenant))] * 2)
                file.commit()

    def found(self) -> Iterator[Found]:
        for tenant in self.tenants:
            with contextlib.closing(sqlite3.connect(self.engine.file(tenant))) as file:
                yield from (Found(tenant, *row) for row in file.execute(_MARKS).fetchall())


class Databases(Model):
    """A PostgreSQL database for each tenant."""

    name, letter = "databases", "d"
    engine: Postgresql

    def fill(self) -> None:
        for tenant in self.tenants:
            texts = ["SET ROLE router_app", *_tables(tenant)]
            self.engine.server.run(";".join(texts), self.engine.database(tenant))

    def found(self) -> Iterator[Found]:
        for tenant in self.tenants:
            yield from _read(self.engine.server.run(_MARKS, self.engine.database(tenant)), "|", tenant)


class Schemas(Model):
    """A PostgreSQL schema for each tenant, all in one database."""

    name, letter = "schemas", "s"
    engine: PostgresqlSchemas

    def fill(self) -> None:
        texts = []
        for tenant in self.tenants:
            texts += [f"SET ROLE {self.owner(tenant)}", f"SET search_path = {tenant}", *_tables(tenant)]
        self.engine.server.run(";".join(texts), self.engine.database(""))

    def owner(self, tenant: str) -> str:
        """Return the role that a tenant's tables belong to."""
        return "router_app"

    def found(self) -> Iterator[Found]:
        text = " UNION ALL ".join(
            f"SELECT '{tenant}', tenant, mark, count(*) FROM {tenant}.{TABLE} GROUP BY tenant, mark"
            for tenant in self.tenants
        )
        yield from _read(self.engine.server.run(text, self.engine.database("")), "|")


class Roles(Schemas):
    """A PostgreSQL schema for each tenant, and a role that alone may use it."""

    name, letter = "roles", "o"

    def create(self) -> None:
        texts = []
        for tenant in self.tenants:
            role = self.owner(tenant)
            texts += [f"CREATE ROLE {role} NOLOGIN", f"GRANT {role} TO router_app, router_ro"]
        self.engine.server.run(";".join(texts))
        super().create()

    def fill(self) -> None:
        texts = [f"ALTER SCHEMA {tenant} OWNER TO {self.owner(tenant)}" for tenant in self.tenants]
        self.engine.server.run(";".join(texts), self.engine.database(""))
        super().fill()

    def owner(self, tenant: str) -> str:
        return f"{self.engine.prefix}_{tenant}"

    def sections(self) -> dict[str, dict[str, Any]]:
        return {
            tenant: {**section, "role": self.owner(tenant)} for tenant, section in super().sections().items()
        }

    def drop(self) -> None:
        super().drop()
        self.engine.server.run(f"DROP ROLE IF EXISTS {', '.join(map(self.owner, self.tenants))}")


class Rows(Model):
    """Rows of all tenants in the same tables of PostgreSQL, kept apart by row security."""

    name, letter = "rows", "r"
    engine: PostgresqlSchemas

    def create(self) -> None:
        self.engine.create()
        self.fill()

    def fill(self) -> None:
        labels = ", ".join(f"'{tenant}'" for tenant in self.tenants)
        values = ", ".join(f"('{tenant}', '{tenant}', {shape(tenant)})" for tenant in self.tenants * 2)
        texts = [
            "SET ROLE router_app",
            Place(TABLE, "", Dialect.POSTGRESQL, None).create,
            f"CREATE TYPE mood AS ENUM ({labels})",
            "CREATE TABLE told (tenant TEXT, mood mood, shape INT)",
            f"INSERT INTO told VALUES {values}",
        ]
        own = "tenant = NULLIF(current_setting('app.tenant', true), '')"
        for table in (TABLE, "told"):
            texts += [
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
                f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
                f"CREATE POLICY own ON {table} USING ({own})",
            ]
        self.engine.server.run(";".join(texts), self.engine.database(""))

    def found(self) -> Iterator[Found]:
        text = f"SELECT tenant, tenant, mark, count(*) FROM {TABLE} GROUP BY tenant, mark"
        yield from _read(self.engine.server.run(text, self.engine.database("")), "|")

    def sections(self) -> dict[str, dict[str, Any]]:
        section = {"cluster": self.name, "isolation": "row", "database": self.engine.database("")}
        return {tenant: {"tenant": tenant, **section} for tenant in self.tenants}


class _Pooled(Model):
    """Lead to the same places through PgBouncer, whose sessions are fewer than the connections to it."""

    engine: PostgresqlSchemas
    pgbouncer: Pgbouncer | None = None

    def create(self) -> None:
        super().create()
        self.pgbouncer = Pgbouncer(self.engine.server, {"": MOST // 2}, database=self.engine.database(""))
        self.pgbouncer.start()

    def cluster(self, most: int) -> dict[str, Any]:
        assert self.pgbouncer is not None
        primary = {"host": self.pgbouncer.host, "port": self.pgbouncer.port}
        through = {"primary": primary, "replicas": [], "pooler": "pgbouncer-transaction"}
        return {**super().cluster(most), **through}

    def sections(self) -> dict[str, dict[str, Any]]:
        return {tenant: {**each, "database": "primary"} for tenant, each in super().sections().items()}

    @property
    def most(self) -> int:
        return MOST

    def drop(self) -> None:
        if self.pgbouncer is not None:
            self.pgbouncer.close()
        super().drop()


class PooledRows(_Pooled, Rows):
    """Rows behind PgBouncer."""

    name, letter = "pooled-rows", "p"


class PooledRoles(_Pooled, Roles):
    """Schemas and roles behind PgBouncer."""

    name, letter = "pooled-roles", "q"


class Mariadbs(Model):
    """A MariaDB database for each tenant, all over the same connections."""

    name, letter = "mariadbs", "m"
    engine: Mariadb

    def fill(self) -> None:
        texts = []
        for tenant in self.tenants:
            database = self.engine.tenant(tenant)["database"]
            kind = "INT" if isinstance(shape(tenant), int) else "VARCHAR(20)"
            texts += [
                f"USE `{database}`",
                Place(TABLE, "", Dialect.MYSQL, None).create,
                f"CREATE TABLE told (tenant VARCHAR(20), mood ENUM('calm', '{tenant}'), shape {kind})",
                f"INSERT INTO told VALUES ('{tenant}', '{tenant}', '{shape(tenant)}'),"
                f" ('{tenant}', '{tenant}', '{shape(tenant)}')",
            ]
        self.engine.server.run(";".join(texts), "mysql")

    def found(self) -> Iterator[Found]:
        for tenant in self.tenants:
            yield from _read(
                self.engine.server.run(_MARKS, self.engine.tenant(tenant)["database"]), "\t", tenant
            )


def _tables(tenant: str) -> list[str]:
    """Return what makes the tables of one place of PostgreSQL; the enum's labels are the tenant's own."""
    kind = "INT" if isinstance(shape(tenant), int) else "TEXT"
    row = f"('{tenant}', '{tenant}', '{shape(tenant)}')"
    return [
        Place(TABLE, "", Dialect.POSTGRESQL, None).create,
        f"CREATE TYPE mood AS ENUM ('calm', '{tenant}')",
        f"CREATE TABLE told (tenant TEXT, mood mood, shape {kind})",
        f"INSERT INTO told VALUES {row}, {row}",
    ]


def _read(text: str, between: str, *place: str) -> Iterator[Found]:
    for line in text.splitlines():
        *first, tenant, mark, rows = (*place, *line.split(between))
        yield Found(first[0], tenant, int(mark), int(rows))


#: out of a hundred tenants
SHARES = {
    Files: 10,
    Databases: 4,
    Schemas: 26,
    Rows: 18,
    Roles: 10,
    PooledRows: 8,
    PooledRoles: 6,
    Mariadbs: 18,
}


def models(
    folder: Path, postgresql: PostgresqlCluster, mariadb: MariadbCluster, tenants: int
) -> tuple[Model, ...]:
    """Return all models for so many tenants together."""

    def engine(kind: type[Model]) -> Engine:
        if kind is Files:
            return Sqlite(folder)
        if kind is Mariadbs:
            return Mariadb(folder, mariadb)
        return (Postgresql if kind is Databases else PostgresqlSchemas)(folder, postgresql)

    return tuple(kind(max(tenants * share // 100, 2), engine(kind)) for kind, share in SHARES.items())


def document(
    models: Iterable[Model],
    most: int,
    patience: str,
    own: Mapping[str, dict[str, Any]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the configuration of one router for all of them; ``own`` is what single tenants set beside."""
    chosen = list(models)
    return {
        "version": 1,
        "clusters": {model.name: model.cluster(most) for model in chosen},
        "defaults": {
            "timeouts": {"acquire": patience, "statement": patience},
            "slow_query": "1h",
            "retries": {"attempts": 5, "min_wait": "5ms", "max_wait": "50ms"},
        },
        "patterns": [rule for model in chosen if (rule := model.pattern()) is not None],
        "catalog": {"cache": 5},  # of those that follow a rule; the rest leave, whatever they are doing
        "tenants": {
            tenant: {**section, **(own or {}).get(tenant, {})}
            for model in chosen
            for tenant, section in model.sections().items()
        },
        **more,
    }
