"""Tenants of all models in one PostgreSQL database, over the same few connections."""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from router import Router
from router.config import Config, parse
from tests.servers import PostgresqlCluster
from tests.servers.binaries import find
from tests.servers.pgbouncer import Pgbouncer

#: (tenant, what is set of it); each has one row in ``owned``, which names it, and an enum of its own
ROWS = ("row_a", "row_b", "row_p")  # row_p by the search path of the user, the others in the schema "shared"
ROLES = ("role_a", "role_b")  # a schema and a role
SCHEMAS = ("schema_a", "schema_b")
TENANTS = (*ROWS, *ROLES, *SCHEMAS)
MOODS = {"role_a": "calm", "role_b": "storm", "schema_a": "fog", "schema_b": "sun"}

POLICY = """
    CREATE TABLE {schema}.owned (tenant TEXT NOT NULL DEFAULT current_setting('app.tenant'), n INT);
    ALTER TABLE {schema}.owned ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY tenants ON {schema}.owned
        USING (tenant = NULLIF(current_setting('app.tenant', true), ''));
    GRANT USAGE ON SCHEMA {schema} TO router_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.owned TO router_app;
"""


class Isolated:
    """Make the places of :data:`TENANTS` and configurations that lead there."""

    def __init__(self, cluster: PostgresqlCluster) -> None:
        self.cluster = cluster
        self.database = f"i{secrets.token_hex(4)}"
        self.roles = {name: f"{self.database}_{name}" for name in (*ROLES, "stranger", "almighty")}
        cluster.create_database(self.database)
        script = ["CREATE SCHEMA shared; CREATE SCHEMA closed;", POLICY.format(schema="shared")]
        script.append(POLICY.format(schema="public"))
        script += [f"CREATE ROLE {each} NOLOGIN;" for each in self.roles.values()]
        script.append("ALTER ROLE {almighty} BYPASSRLS; GRANT {almighty} TO router_app;".format(**self.roles))
        for tenant in ROWS:
            place, key = "public" if tenant == "row_p" else "shared", self.key(tenant).replace("'", "''")
            script.append(f"INSERT INTO {place}.owned VALUES ('{key}', 0);")
        for tenant, mood in MOODS.items():
            owner = self.roles.get(tenant, "router_app")
            script += [
                f"GRANT {owner} TO router_app;" if tenant in ROLES else "",
                f"CREATE SCHEMA {tenant} AUTHORIZATION {owner}; SET ROLE {owner};",
                f"CREATE TYPE {tenant}.mood AS ENUM ('{mood}');",
                f"CREATE TABLE {tenant}.owned (tenant TEXT DEFAULT '{tenant}', n INT,",
                f"feels {tenant}.mood DEFAULT '{mood}');",
                f"INSERT INTO {tenant}.owned (n) VALUES (0); RESET ROLE;",
            ]
        self.run("\n".join(script))

    def run(self, sql: str) -> str:
        """Run SQL with all rights."""
        return self.cluster.run(sql, self.database)

    def key(self, tenant: str) -> str:
        """Return what the rows of a tenant have in ``owned.tenant``."""
        return "it's \\ 7" if tenant == "row_a" else tenant

    def section(self, tenant: str) -> dict[str, Any]:
        """Return the section of a tenant."""
        if tenant in ROWS:
            key = {"key": self.key(tenant)} if tenant == "row_a" else {}
            return {"isolation": "row", **key, **({} if tenant == "row_p" else {"schema": "shared"})}
        role = {"role": self.roles[tenant]} if tenant in ROLES else {}
        return {"isolation": "schema", "schema": tenant, **role}

    def config(
        self,
        *,
        connections: int = 1,
        tenants: dict[str, Any] | None = None,
        user: str = "router_app",
        **more: Any,
    ) -> Config:
        """Return a configuration of all tenants, and of those given."""
        primary = self.cluster.primary
        login = {"username": user, "password": primary.password(user)}
        main = {
            "engine": "postgresql",
            "primary": {"host": primary.host, "port": primary.port},
            "credentials": {"writer": login},
            "database": self.database,
            "connections": {"max": connections},
            **more.pop("cluster", {}),
        }
        listed = {**{each: self.section(each) for each in TENANTS}, **(tenants or {})}
        return parse(
            {
                "version": 1,
                "clusters": {"main": main},
                "tenants": {name: {"cluster": "main", **each} for name, each in listed.items()},
                **more,
            }
        )

    def drop(self) -> None:
        """Remove all of it."""
        self.cluster.drop_database(self.database)
        self.cluster.run(f"DROP ROLE {', '.join(self.roles.values())}")


class Pooled(Isolated):
    """Lead to the same places through PgBouncer too, once it is started."""

    def __init__(self, cluster: PostgresqlCluster, sessions: int) -> None:
        find("pgbouncer")  # before anything is made
        super().__init__(cluster)
        self.pgbouncer = Pgbouncer(cluster, {"": sessions}, database=self.database)

    def start(self) -> None:
        """Start PgBouncer."""
        self.pgbouncer.start()

    def through(self) -> dict[str, Any]:
        """Return the section of the cluster behind PgBouncer."""
        return {
            "primary": {"host": self.pgbouncer.host, "port": self.pgbouncer.port},
            "database": "primary",
            "pooler": "pgbouncer-transaction",
        }

    def drop(self) -> None:
        """Remove all of it."""
        self.pgbouncer.close()
        super().drop()


@pytest.fixture(scope="module")
def isolated(postgresql: PostgresqlCluster) -> Iterator[Isolated]:
    """Make tenants of all models."""
    made = Isolated(postgresql)
    yield made
    made.drop()


@pytest.fixture
async def router(isolated: Isolated) -> AsyncIterator[Router]:
    """Open a router with one connection for all tenants."""
    async with Router.open(isolated.config()) as opened:
        yield opened
