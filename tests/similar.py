"""Three schemas of one PostgreSQL database that have tables of the same names, over one connection."""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from router import Router
from router.config import parse
from tests.servers import PostgresqlCluster

A, B, C = TENANTS = ("alpha", "beta", "gamma")


class Place:
    """Give tables of one name in three schemas, over one connection, with nothing tried twice."""

    def __init__(self, cluster: PostgresqlCluster) -> None:
        self.cluster = cluster
        self.database = f"p{secrets.token_hex(4)}"
        cluster.create_database(self.database)
        self.run("CREATE SCHEMA helpers; GRANT USAGE ON SCHEMA helpers TO router_app;")

    def run(self, sql: str) -> str:
        """Run SQL with all rights, in another session."""
        return self.cluster.run(sql, self.database)

    def fresh(self, script: str = "", odd: str | None = None) -> None:
        """Make the schemas anew; run a script in each, in beta the odd one; ``{s}`` is the schema's name."""
        lines = [
            f"DROP SCHEMA IF EXISTS {s} CASCADE; CREATE SCHEMA {s} AUTHORIZATION router_app;" for s in TENANTS
        ]
        scripts = [odd if s == B and odd is not None else script for s in TENANTS]
        self.run("".join([*lines, *map(self._in, TENANTS, scripts)]))

    def alter(self, schema: str, script: str) -> None:
        """Run a script in one schema."""
        self.run(self._in(schema, script))

    @staticmethod
    def _in(schema: str, script: str) -> str:
        found = script.replace("{s}", schema)
        return f"SET search_path = {schema}; SET ROLE router_app; {found}; RESET ROLE;" if script else ""

    def open(self, **cluster: Any) -> Router:
        """Return a router, to be opened."""
        primary = self.cluster.primary
        main = {
            "engine": "postgresql",
            "primary": {"host": primary.host, "port": primary.port},
            "credentials": {"writer": {"username": "router_app", "password": primary.password("router_app")}},
            "database": self.database,
            "connections": {"max": 1},
            **cluster,
        }
        tenants = {name: {"cluster": "main", "isolation": "schema", "schema": name} for name in TENANTS}
        defaults = {"retries": {"attempts": 1}}
        return Router(
            parse({"version": 1, "clusters": {"main": main}, "tenants": tenants, "defaults": defaults})
        )


@pytest.fixture(scope="module")
def place(postgresql: PostgresqlCluster) -> Iterator[Place]:
    """Make a database with three schemas."""
    made = Place(postgresql)
    yield made
    postgresql.drop_database(made.database)


@pytest.fixture
async def router(place: Place) -> AsyncIterator[Router]:
    """Open a router with one connection for all three."""
    async with place.open() as opened:
        yield opened
