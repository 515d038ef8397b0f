"""Roles of tenants on MariaDB: taken with the database, and given back."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from router import Router, errors
from router.config import Config, parse
from router.errors import PermissionDenied
from tests.servers import MariadbCluster

STATE = "SELECT CURRENT_ROLE() AS role, DATABASE() AS place, CONNECTION_ID() AS id"


class Places:
    """Make databases that only a role may use, and a login that may take these roles."""

    def __init__(self, cluster: MariadbCluster) -> None:
        self.cluster, self.prefix = cluster, f"b{secrets.token_hex(3)}"
        self.login = f"{self.prefix}_login"
        script = [f"CREATE USER {self.login} IDENTIFIED BY '{self.login}';"]
        script += [f"CREATE DATABASE {self.prefix}_{name};" for name in ("one", "two", "plain")]
        script += [f"CREATE ROLE {self.prefix}_{name};" for name in ("one", "two", "other")]
        for own in (f"{self.prefix}_one", f"{self.prefix}_two"):
            script += [f"GRANT ALL ON {own}.* TO {own};", f"GRANT {own} TO {self.login};"]
        script.append(f"GRANT ALL ON {self.prefix}_plain.* TO {self.login};")
        cluster.run("".join(script), "mysql")

    def config(self) -> Config:
        """Return a configuration with one connection for tenants with roles and without."""
        primary = self.cluster.primary
        tenants: dict[str, dict[str, Any]] = {
            name: {"cluster": "main", "isolation": "schema", "schema": f"{self.prefix}_{name}"}
            for name in ("one", "two", "plain")
        }
        tenants["other"] = {**tenants["plain"], "schema": f"{self.prefix}_other"}
        for name in ("one", "two", "other"):
            tenants[name]["role"] = f"{self.prefix}_{name}"
        main = {
            "engine": "mariadb",
            "primary": {"host": primary.host, "port": primary.port},
            "credentials": {"writer": {"username": self.login, "password": self.login}},
            "connections": {"max": 1},
        }
        return parse({"version": 1, "clusters": {"main": main}, "tenants": tenants})

    def drop(self) -> None:
        """Remove all of it."""
        script = [f"DROP DATABASE {self.prefix}_{name};" for name in ("one", "two", "plain")]
        script += [f"DROP ROLE {self.prefix}_{name};" for name in ("one", "two", "other")]
        self.cluster.run("".join(script) + f"DROP USER {self.login}", "mysql")


@pytest.fixture(scope="module")
def places(mariadb: MariadbCluster) -> Iterator[Places]:
    """Make the places."""
    made = Places(mariadb)
    yield made
    made.drop()


async def test_a_tenants_role_is_taken_and_given_back(places: Places) -> None:
    """One after the other over one connection: each has its role and its database, one without has none."""
    async with Router.open(places.config()) as router:
        ids = set()
        for tenant in ("one", "two", "plain", "two", "one", "plain"):
            row = await router.fetch_one(STATE, tenant=tenant)
            name = f"{places.prefix}_{tenant}"
            assert row is not None
            assert (row.role, row.place) == (None if tenant == "plain" else name, name)
            with pytest.raises(errors.DatabaseError):
                await router.execute(
                    f"CREATE TABLE {places.prefix}_{'one' if tenant == 'two' else 'two'}.t (a INT)",
                    tenant=tenant,
                )
            ids.add(row.id)
        assert len(ids) == 1


async def test_a_reset_gives_the_role_back(places: Places) -> None:
    """What resets a session leaves the role as it is on MariaDB; the next tenant does not have it."""
    async with Router.open(places.config()) as router:
        before = await router.fetch_one(STATE, tenant="one")
        await router.execute("SET @left = 1", tenant="one")
        after = await router.fetch_one(STATE, tenant="plain")
        assert before is not None
        assert after is not None
        assert (after.role, after.place, after.id) == (None, f"{places.prefix}_plain", before.id)


async def test_a_role_that_may_not_be_taken_is_an_error(places: Places) -> None:
    """Refused with the remedy; the connection serves the others."""
    async with Router.open(places.config()) as router:
        for tenant in ("one", "plain"):
            with pytest.raises(PermissionDenied, match=r"there is no role .*_other.* grant it") as caught:
                await router.fetch_one(STATE, tenant="other")
            assert caught.value.sent is errors.Sent.NO
            row = await router.fetch_one(STATE, tenant=tenant)
            assert row is not None
            assert row.place == f"{places.prefix}_{tenant}"
