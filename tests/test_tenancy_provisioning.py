"""Making a tenant's place on real servers: who owns it, who may what in it, and what a failure leaves."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from router import Router, onboarding
from router.config import LoginConfig, Secret, SecretReference
from router.errors import DatabaseError, PermissionDenied, RouterError, UsageError
from router.provisioning import Provision
from tests.servers import MariadbCluster, PostgresqlCluster

PASSWORD = "canary-" + secrets.token_hex(4)
WRITE = "INSERT INTO plans VALUES (1)"
READ = "SELECT id FROM plans"


def login(user: str, password: str = PASSWORD) -> LoginConfig:
    """Return a login whose password is written out."""
    return LoginConfig(username=user, password=SecretReference.parse(Secret(password)))


def configure(folder: Path, cluster: dict[str, Any]) -> Path:
    """Write a configuration with one cluster and no tenant."""
    section = {"connections": {"max": 4}, **cluster}
    text = yaml.safe_dump({"version": 1, "clusters": {"main": section}})
    (folder / "router.yaml").write_text(text)
    return folder


class Names:
    """Name users and places that no other test has."""

    def __init__(self) -> None:
        self.prefix = f"p{secrets.token_hex(3)}"

    def __getattr__(self, name: str) -> str:
        return f"{self.prefix}_{name}"


# --- PostgreSQL ------------------------------------------------------------------------------------------


class Postgresql:
    """Give a writer and a reader with no rights of their own, and an admin who is no superuser."""

    def __init__(self, server: PostgresqlCluster, folder: Path) -> None:
        self.server, self.names = server, Names()
        n = self.names
        for sql in (
            f"CREATE ROLE {n.writer} LOGIN PASSWORD '{PASSWORD}'",
            f"CREATE ROLE {n.reader} LOGIN PASSWORD '{PASSWORD}'",
            f"CREATE ROLE {n.admin} LOGIN CREATEDB CREATEROLE PASSWORD '{PASSWORD}' IN ROLE {n.writer}",
            f"GRANT CREATE ON DATABASE app TO {n.admin}",
        ):
            server.run(sql)
        self.admin = login(n.admin)
        primary, replica = server.servers[:2]
        self.folder = configure(
            folder,
            {
                "engine": "postgresql",
                "primary": {"host": primary.host, "port": primary.port},
                "replicas": [{"host": replica.host, "port": replica.port}],
                "database": "app",
                "credentials": {
                    "writer": {"username": n.writer, "password": PASSWORD},
                    "reader": {"username": n.reader, "password": PASSWORD},
                },
            },
        )

    def drop(self) -> None:
        """Remove all that was made."""
        n = self.names
        for database in self.server.run(
            f"SELECT datname FROM pg_database WHERE datname LIKE '{n.prefix}%'"
        ).split():
            self.server.run(f"DROP DATABASE {database} WITH (FORCE)")
        roles = self.server.run(f"SELECT rolname FROM pg_roles WHERE rolname LIKE '{n.prefix}%'").split()
        for role in roles:
            self.server.run(f"DROP OWNED BY {role} CASCADE")
        for role in roles:
            self.server.run(f"DROP ROLE {role}")


@pytest.fixture
def postgres(postgresql: PostgresqlCluster, tmp_path: Path) -> Iterator[Postgresql]:
    """Give users of the shared cluster."""
    made = Postgresql(postgresql, tmp_path)
    yield made
    made.drop()


async def used(folder: Path, tenant: str, server: PostgresqlCluster | MariadbCluster) -> list[str]:
    """Write as the tenant and read it on a replica; return what the replica's answer says."""
    async with Router.open(folder) as router:
        await router.execute("CREATE TABLE plans (id INT)", tenant=tenant)
        await router.execute(WRITE, tenant=tenant)
        await asyncio.to_thread(server.wait_for_replicas)
        async with router.session(tenant, consistency="eventual") as session:
            rows = await session.fetch_all(READ)
            route = router.explain(READ, tenant=tenant, consistency="eventual")
    assert [tuple(row) for row in rows] == [(1,)]
    return [route.role]


@pytest.mark.parametrize("isolation", ["schema", "database"])
async def test_postgresql_place_serves_writer_and_reader(postgres: Postgresql, isolation: str) -> None:
    """An admin who is no superuser makes it; the writer owns it, the reader sees what the writer makes."""
    n, tenant = postgres.names, postgres.names.acme
    content = {"tenant": tenant, "cluster": "main", "isolation": isolation}
    how = Provision(postgres.admin)
    added = await onboarding.add(postgres.folder, content, provision=how)
    assert [each.before for each in added.done if each.step.makes] == [False]
    assert await used(postgres.folder, tenant, postgres.server) == ["replica"]
    if isolation == "schema":
        owner = f"SELECT nspowner::regrole FROM pg_namespace WHERE nspname = '{tenant}'"
    else:
        owner = f"SELECT datdba::regrole FROM pg_database WHERE datname = '{tenant}'"
    assert postgres.server.run(owner) == n.writer
    await onboarding.remove(postgres.folder, tenant)
    again = await onboarding.add(postgres.folder, content, provision=Provision(postgres.admin, adopt=True))
    assert [each.before for each in again.done if each.step.makes] == [True]


async def test_postgresql_role_owns_what_its_tenant_makes(postgres: Postgresql) -> None:
    """With a role of its own a tenant's tables are that role's, whoever logs in."""
    tenant, role = postgres.names.acme, postgres.names.own
    content = {"tenant": tenant, "cluster": "main", "isolation": "schema", "role": role}
    added = await onboarding.add(postgres.folder, content, provision=Provision(postgres.admin))
    assert [each.step.what for each in added.done if each.step.makes] == [
        f"the role {role}",
        f"the schema {tenant} in app",
    ]
    await used(postgres.folder, tenant, postgres.server)
    owner = f"SELECT tableowner FROM pg_tables WHERE schemaname = '{tenant}'"
    assert postgres.server.run(owner) == role


async def test_postgresql_who_may_not_is_told_whom_to_name(postgres: Postgresql) -> None:
    """The user of requests may make nothing, so nothing is made or written, and the error says what helps."""
    content = {"tenant": postgres.names.acme, "cluster": "main", "isolation": "schema"}
    with pytest.raises(PermissionDenied, match="--admin-user") as caught:
        await onboarding.add(postgres.folder, content, provision=Provision())
    assert "made until then: nothing" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert not list((postgres.folder / "tenants").iterdir())


async def test_postgresql_half_made_place_is_finished_by_the_same_again(postgres: Postgresql) -> None:
    """What a failure leaves is named by the error, and is no obstacle afterwards."""
    n, tenant = postgres.names, postgres.names.acme
    content = {"tenant": tenant, "cluster": "main", "isolation": "schema"}
    postgres.server.run(f"ALTER ROLE {n.reader} RENAME TO {n.gone}")
    with pytest.raises(DatabaseError, match=f"made until then: the schema {tenant} in app"):
        await onboarding.add(postgres.folder, content, provision=Provision(postgres.admin))
    assert not list((postgres.folder / "tenants").iterdir())
    postgres.server.run(f"ALTER ROLE {n.gone} RENAME TO {n.reader}")
    postgres.server.run(f"ALTER ROLE {n.reader} PASSWORD '{PASSWORD}'")
    added = await onboarding.add(postgres.folder, content, provision=Provision(postgres.admin))
    assert [each.before for each in added.done if each.step.makes] == [True]
    await used(postgres.folder, tenant, postgres.server)


# --- MariaDB ---------------------------------------------------------------------------------------------


class Mariadb:
    """Give a writer and a reader who may nothing, and may log in from one address only."""

    def __init__(self, server: MariadbCluster, folder: Path) -> None:
        self.server, self.names = server, Names()
        n, primary, replica = self.names, *server.servers[:2]
        self.users = [f"'{name}'@'127.0.0.1'" for name in (n.writer, n.reader)]
        for user in self.users:
            server.run(f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'")
        self.admin = login("admin", primary.password("admin"))
        self.folder = configure(
            folder,
            {
                "engine": "mariadb",
                "primary": {"host": primary.host, "port": primary.port},
                "replicas": [{"host": replica.host, "port": replica.port}],
                "credentials": {
                    "writer": {"username": n.writer, "password": PASSWORD},
                    "reader": {"username": n.reader, "password": PASSWORD},
                },
            },
        )

    def drop(self) -> None:
        """Remove all that was made."""
        for database in self.server.run(f"SHOW DATABASES LIKE '{self.names.prefix}%'").split():
            self.server.run(f"DROP DATABASE {database}")
        for user in self.users:
            self.server.run(f"DROP USER {user}")


@pytest.fixture
def maria(mariadb: MariadbCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mariadb]:
    """Give users of the shared cluster."""
    made = Mariadb(mariadb, tmp_path_factory.mktemp("maria"))
    yield made
    with suppress(RuntimeError):
        made.drop()


async def test_mariadb_place_serves_writer_and_reader(maria: Mariadb) -> None:
    """The grants are for the accounts that the users are taken for, and for this database only."""
    tenant = maria.names.a_b
    content = {"tenant": tenant, "cluster": "main", "isolation": "database"}
    await onboarding.add(maria.folder, content, provision=Provision(maria.admin))
    assert await used(maria.folder, tenant, maria.server) == ["replica"]
    other = tenant.replace("_", "x")
    maria.server.run(f"CREATE DATABASE {other}")
    (maria.folder / "tenants" / f"{other}.yaml").write_text(
        f"tenant: {other}\ncluster: main\nisolation: database\ndatabase: {other}\n"
    )
    async with Router.open(maria.folder) as router:
        with pytest.raises(RouterError, match="denied"):
            await router.execute("CREATE TABLE plans (id INT)", tenant=other)
    maria.server.run(f"DROP DATABASE {other}")


async def test_mariadb_role_may_what_its_tenant_may(maria: Mariadb) -> None:
    """With a role of its own the users may nothing by themselves: it is the role that may."""
    tenant, role = maria.names.acme, maria.names.own
    content = {"tenant": tenant, "cluster": "main", "isolation": "database", "role": role}
    await onboarding.add(maria.folder, content, provision=Provision(maria.admin))
    assert await used(maria.folder, tenant, maria.server) == ["replica"]
    grants = maria.server.run(f"SHOW GRANTS FOR {maria.users[0]}")
    assert f"`{role}`" in grants
    assert f"`{tenant}`" not in grants.replace("\\", "")
    maria.server.run(f"DROP ROLE {role}")


async def test_a_role_with_powers_is_no_tenants(postgres: Postgresql, maria: Mariadb) -> None:
    """Nobody is made a member of an administrator's role by a slip; nothing was made then."""
    admin = login("admin", postgres.server.servers[0].password("admin"))
    for made, role, how in (
        (postgres, "admin", admin),
        (postgres, postgres.names.reader, admin),
        (maria, "admin", maria.admin),
    ):
        content = {"tenant": "x1", "cluster": "main", "isolation": "schema", "role": role}
        with pytest.raises(UsageError, match="is no tenant's"):
            await onboarding.add(made.folder, content, provision=Provision(how))
