"""Make the place of a tenant on its server: a schema, a database or a file, and who may what in it.

Everything is made only if it is not there, so that what stopped half way is run again. A place that has
tables already is refused unless the caller says that they are this tenant's: somebody who was called the same
may have left them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router import building
from router.config import ClusterConfig, Config, LoginConfig, NodeConfig, TenantConfig
from router.credentials import Passwords
from router.drivers import tls
from router.drivers.driver import Connection, Endpoint, Setup
from router.drivers.registry import driver_for
from router.errors import DatabaseNotFound, NoPrimary, PermissionDenied, RouterError, UsageError
from router.events import Event
from router.groundwork import Step, places, powers, server_of, steps, users
from router.pools.opening import Opener
from router.pools.reaper import Reaper
from router.stores.calls import Function
from router.topology import Node, Role

_CONNECT = 10.0  # seconds
_STATEMENT = 60.0  # seconds; a database is made by copying another
_CLOSE = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Provision:
    """Say how a tenant's place is made: as whom, and whether tables that are there already are its own.

    Without ``admin`` it is made as the user that requests are; that one may seldom make databases.
    """

    admin: LoginConfig | None = None
    adopt: bool = False
    functions: Mapping[str, Function] = field(default_factory=dict)  # for ${call:...}


@dataclass(frozen=True, slots=True)
class Done:
    """Say of a step whether it was done before."""

    step: Step
    before: bool


async def make(tenant: TenantConfig, config: Config, how: Provision) -> tuple[Done, ...]:
    """Make the place of ``tenant``, a tenant of ``config``, and say what was there before.

    Where it cannot be finished the error says what was made until then. Raises UsageError for a place that
    has tables already, NoPrimary, and what connecting and running raise.
    """
    cluster = config.clusters[tenant.cluster]
    if not steps(tenant, cluster):
        return ()
    done: list[Done] = []
    clocks = building.Clocks()
    keeper = building.keeper(config, how.functions, _unheard, clocks, random.Random())  # noqa: S311  # jitter
    server = _Server(tenant.cluster, cluster, how.admin, Passwords(_unheard, clocks.wall, keeper))
    try:
        await _check_role(server, tenant, cluster)
        if not how.adopt:
            await _check_empty(server, tenant, cluster)
        for step in steps(tenant, cluster, await server.hosts()):
            before = step.unless is not None and await _is_there(server, step.database, step.unless)
            if not before:
                await server.run(step)
            done.append(Done(step, before))
    except RouterError as error:
        made = [each.step.what for each in done if each.step.makes and not each.before]
        error.add_note(f"made until then: {', '.join(made) or 'nothing'}")
        if isinstance(error, PermissionDenied):
            error.add_note("name a user of the database who may, with --admin-user (Provision(admin=...))")
        raise
    finally:
        await server.close()
        await keeper.close()
    return tuple(done)


def _unheard(event: Event) -> None:
    """Let an event go: whoever waits for this is told by the error."""


async def _is_there(server: _Server, database: str, sql: str) -> bool:
    try:
        return bool(await server.ask(database, sql))
    except DatabaseNotFound:
        return False


async def _check_role(server: _Server, tenant: TenantConfig, cluster: ClusterConfig) -> None:
    """Refuse a role that is an administrator's or a user's: all that serves tenants would be its member."""
    asked = powers(tenant, cluster)
    if asked is not None and await server.ask(*asked):
        raise UsageError(
            f"the role {tenant.role} is there already and is no tenant's: it may log in, or do more than a "
            "tenant may. Name another one"
        )


async def _check_empty(server: _Server, tenant: TenantConfig, cluster: ClusterConfig) -> None:
    for place in places(tenant, cluster):
        try:
            ((count,),) = await server.ask(place.database, place.count)
        except DatabaseNotFound:
            continue
        if count:
            raise UsageError(
                f"{place.what} exists already, with {count} tables, views and sequences in it. If they are "
                "this tenant's, say so with --adopt (adopt=True); else give another name, or drop them"
            )


class _Server:
    """Hold the connections to the server that takes the cluster's writes, one for each database."""

    def __init__(
        self, name: str, config: ClusterConfig, admin: LoginConfig | None, passwords: Passwords
    ) -> None:
        self._config, self._admin, self._passwords = config, admin, passwords
        self._cluster = building.cluster(name, config)
        self._driver = driver_for(config.engine)
        self._node: tuple[Node, NodeConfig] | None = None  # that takes writes, once it is known
        self._open: dict[str, Connection] = {}
        self._reaper = Reaper()

    async def ask(self, database: str, sql: str) -> list[Any]:
        """Return the rows of a query; raises DatabaseNotFound, also for a file that is not there."""
        file = Path(self._cluster.primary.path) / f"{database}.db"
        if self._config.engine == "sqlite" and not file.exists():  # to connect would make it
            raise DatabaseNotFound(f"there is no file {file}")
        return await self._rows(await self._connection(database), sql)

    async def run(self, step: Step) -> None:
        """Run a step."""
        connection = await self._connection(step.database)
        try:
            await connection.execute_raw(step.sql, _STATEMENT)
        except Exception as exc:
            raise self._error(exc, step.what) from None

    async def hosts(self) -> dict[str, str]:
        """Return the hosts of the accounts that MySQL takes the users of requests for, by their names."""
        if self._config.engine not in ("mysql", "mariadb"):
            return {}
        node, described = await self._writable()
        found = {}
        for user, writer in zip(users(self._config), (True, False), strict=True):
            login = self._config.login(described, writer=writer)
            connection = await self._connect(node, described, "", login)
            try:
                ((account,),) = await self._rows(connection, "SELECT CURRENT_USER()")
            finally:
                await _end(connection)
            found[user] = str(account).rpartition("@")[2]
        return found

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._open.values():
            await _end(connection)
        await self._reaper.drain(_CLOSE)

    async def _rows(self, connection: Connection, sql: str) -> list[Any]:
        try:
            return list(await connection.fetch_all(sql, (), _STATEMENT))
        except Exception as exc:
            raise self._error(exc, "what is there") from None

    async def _connection(self, database: str) -> Connection:
        node, described = await self._writable()
        if database not in self._open:
            self._open[database] = await self._connect(node, described, database, self._login(described))
        return self._open[database]

    async def _writable(self) -> tuple[Node, NodeConfig]:
        """Return the server that takes writes: the configured primary, or a replica that was promoted."""
        failures: list[RouterError] = []
        pairs = zip(self._cluster.nodes, self._config.nodes, strict=False)  # SQLite's readers are no servers
        for node, described in pairs if self._node is None else ():
            if not self._driver.probes:
                self._node = node, described
                break
            database = server_of(self._config)
            try:
                connection = await self._connect(node, described, database, self._login(described))
            except RouterError as error:
                failures.append(error)
                continue
            try:
                writable = (await connection.probe()).writable
            except Exception as exc:
                failures.append(self._error(exc, f"asking {node.label} for its role"))
                writable = False
            if writable:
                self._node, self._open[database] = (node, described), connection
                break
            await _end(connection)
        if self._node is None:
            if failures:
                raise failures[0]
            raise NoPrimary("no server of the cluster takes writes").at(cluster=self._cluster.name)
        return self._node

    def _login(self, described: NodeConfig) -> LoginConfig | None:
        return self._admin or self._config.login(described, writer=True)

    async def _connect(
        self, node: Node, described: NodeConfig, database: str, login: LoginConfig | None
    ) -> Connection:
        paths = self._config.tls
        context = tls.context(
            self._config.tls_mode(described), ca=paths.ca, certificate=paths.certificate, key=paths.key
        )
        endpoint = Endpoint(
            node.in_role(Role.PRIMARY),
            database,
            building.login(login, self._passwords),
            readonly=False,
            tls=context,
            options=self._cluster.options,
            application="router-onboarding",
            setup=Setup(pooled=self._config.pooler is not None),
        )
        made = await Opener(endpoint, self._driver, self._reaper).open(_CONNECT)
        if isinstance(made, RouterError):
            raise made
        return made

    def _error(self, exc: Exception, doing: str) -> RouterError:
        error = exc if isinstance(exc, RouterError) else self._driver.translate(exc)
        error.add_note(f"while making a tenant's place: {doing}")
        return error.at(cluster=self._cluster.name)


async def _end(connection: Connection) -> None:
    try:
        await connection.close(_CLOSE)
    except Exception:  # it has served
        connection.terminate()
