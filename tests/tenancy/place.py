"""One PostgreSQL server with many tenants: schemas of one database, and databases of their own."""

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from router.config import Config, parse
from tests.servers import PostgresqlCluster

BUDGET = 20
"""Connections of all tenants together, the one that watches the server included."""
READ = "SELECT id, tenant, seats FROM plans WHERE id = :id"
READ_DATABASE = "SELECT id, current_database() AS tenant, seats FROM plans WHERE id = :id"
ROLE = "router_app"
"""Who the router connects as; all tenants' places are its own."""
ROWS = 10
"""Rows of each tenant's table; each tells whose it is."""
_TABLE = "CREATE TABLE plans (id integer PRIMARY KEY, tenant varchar(40) NOT NULL, seats integer NOT NULL)"
_FILL = f"INSERT INTO plans SELECT id, %L, 5 FROM generate_series(1, {ROWS}) AS id"
_MAKE = f"""
CREATE PROCEDURE public.make(first integer, last integer) LANGUAGE plpgsql AS $$
BEGIN
  FOR number IN first..last LOOP
    EXECUTE format('CREATE SCHEMA %I', 's' || number);
    EXECUTE format('SET search_path TO %I', 's' || number);
    EXECUTE '{_TABLE}';
    EXECUTE format('{_FILL}', 's' || number);
    IF number % 500 = 0 THEN COMMIT; END IF;
  END LOOP;
END $$;
"""


class Place:
    """Make tenants once, when a family first asks; remove them, and the server if it is not lent."""

    def __init__(self, cluster: PostgresqlCluster | None = None) -> None:
        self._stack = ExitStack()
        self._cluster = cluster
        self._lent = cluster is not None
        self._prefix = f"m{secrets.token_hex(3)}"
        self._schemas = 0
        self._databases: list[str] = []

    @property
    def shared(self) -> str:
        """Return the name of the database that all schemas are in."""
        return f"{self._prefix}_schemas"

    async def cluster(self) -> PostgresqlCluster:
        """Return the server, started."""
        if self._cluster is None:
            self._cluster = PostgresqlCluster(0)
            self._stack.callback(self._cluster.close)
            await asyncio.to_thread(self._cluster.start)
        return self._cluster

    async def schemas(self, count: int) -> list[str]:
        """Return tenants s1, s2, ... that have a schema each; more are made if there are not as many."""
        cluster, database = await self.cluster(), self.shared
        if not self._schemas:
            await asyncio.to_thread(self._create, cluster, database, _MAKE)
        if count > self._schemas:
            middle = (self._schemas + count) // 2
            parts = [(self._schemas + 1, middle), (middle + 1, count)]  # two cores make them sooner
            calls = [f"SET ROLE {ROLE}; CALL public.make({first}, {last})" for first, last in parts]
            await asyncio.gather(*(asyncio.to_thread(cluster.run, call, database) for call in calls))
            self._schemas = count
        return [f"s{number}" for number in range(1, count + 1)]

    async def databases(self, count: int) -> list[str]:
        """Return tenants d1, d2, ... that have a database each, all copies of one."""
        cluster, template = await self.cluster(), f"{self._prefix}_template"
        if not self._databases:
            script = f"SET ROLE {ROLE}; {_TABLE}; " + _FILL.replace("%L", "'one of many'")
            await asyncio.to_thread(self._create, cluster, template, script)
        await asyncio.to_thread(self._copy, cluster, template, range(len(self._databases) + 1, count + 1))
        return [f"d{number}" for number in range(1, count + 1)]

    def _create(self, cluster: PostgresqlCluster, database: str, script: str) -> None:
        cluster.create_database(database)
        if self._lent:
            self._stack.callback(cluster.drop_database, database)
        cluster.run(script, database)

    def _copy(self, cluster: PostgresqlCluster, template: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            name = self.database(f"d{number}")
            cluster.run(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template} STRATEGY file_copy")
            if self._lent:
                self._stack.callback(cluster.drop_database, name)
            self._databases.append(name)

    def database(self, tenant: str) -> str:
        """Return the name of the database that a tenant of :meth:`databases` has."""
        return f"{self._prefix}_{tenant}"

    def config(self, *args: Any, **given: Any) -> Config:
        """Return a configuration as :meth:`document` describes it."""
        return parse(self.document(*args, **given), Path())

    def document(
        self,
        tenants: Iterable[str],
        *,
        connections: int = BUDGET - 1,
        application: str | None = None,
        own: dict[str, dict[str, Any]] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Return what describes tenants on one cluster; ``application`` names its connections on the server.

        ``own`` is what single tenants set, ``more`` further sections such as ``defaults``.
        """
        assert self._cluster is not None, "the tenants are made first"
        primary = self._cluster.primary
        section: dict[str, Any] = {
            "engine": "postgresql",
            "primary": {"host": primary.host, "port": primary.port},
            "database": self.shared,
            "credentials": {"writer": {"username": ROLE, "password": primary.password(ROLE)}},
            "connections": {"max": connections},
        }
        if application is not None:
            section["server_settings"] = {"application_name": application}
        listed = {tenant: {**self._tenant(tenant), **(own or {}).get(tenant, {})} for tenant in tenants}
        return {"version": 1, "clusters": {"main": section}, "tenants": listed, **more}

    def _tenant(self, tenant: str) -> dict[str, Any]:
        placed = (
            {"isolation": "schema", "schema": tenant}
            if tenant.startswith("s")
            else {"isolation": "database", "database": self.database(tenant)}
        )
        return {"tenant": tenant, "cluster": "main", **placed}

    def close(self) -> None:
        """Remove what was made."""
        self._stack.close()
