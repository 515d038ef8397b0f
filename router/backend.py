"""Everything that serves one cluster: its driver, pools, statements, health; and the targets in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from router.addresses import Addresses
from router.balancing import Policy, choose
from router.budget import RetryBudget
from router.cache.scope import Scope
from router.drivers.driver import Connection, Driver, Endpoint, Login, Setup
from router.errors import MissingExtra, StatementTimeout
from router.health import Health
from router.holding import Holding, Patience
from router.pools.bounds import Limits
from router.pools.holders import Holder
from router.pools.lease import Lease
from router.pools.pool import Pool
from router.pools.registry import Pools
from router.probing import Prober
from router.standing import Observation
from router.statements import Dialect, Statement, Statements
from router.tenants import Placement
from router.topology import Cluster, Node, Role
from router.volatility import Volatility
from router.waits import Waits

_REFUSED = 1_000  # texts remembered that a replica refused


@dataclass(frozen=True, slots=True)
class Access:
    """Say how to connect to one server, whatever its role."""

    writer: Login
    reader: Login
    monitor: Login | None  # None: whoever serves the node's requests
    tls: Any  # what Endpoint.tls takes
    limits: Limits
    setup: Setup = field(default_factory=Setup)

    def login(self, role: Role) -> Login:
        """Return who serves requests on the node in a role."""
        return self.writer if role is Role.PRIMARY else self.reader


class Backend:
    """Hold the working parts of one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        driver: Driver,
        access: Mapping[str, Access],
        pools: Pools,
        health: Health,
        *,
        policy: Policy,
        patience: Patience,
        extensions: tuple[str, ...],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.cluster = cluster
        self.driver = driver
        self.statements = Statements(driver.dialect)
        self.health = health
        self.holding = Holding(health, patience, clock)
        self.volatility = Volatility(clock) if driver.dialect is Dialect.POSTGRESQL else None
        self.refused: dict[str, None] = {}  # texts that a replica refused as writes, oldest first
        self.requests = 0  # ever asked for, units of work included; read when a retry is wanted
        self.pooled = access[cluster.primary.name].setup.pooled
        self.clock = clock
        self._budget = RetryBudget(clock())
        self._access = access
        self._pools = pools
        self._policy = policy
        self._extensions = extensions
        self._rng = rng
        self._choices = 0
        self._database = cluster.database  # one that probes may connect to
        self._prober = Prober(health, driver, self._probed, pools.reaper, clock)
        self._addresses = Addresses(health, pools.relocate, rng)
        health.moved = pools.leave
        health.silent = pools.abort

    @property
    def users(self) -> str:
        """Return who the cluster's requests are made as: what they may see depends on it."""
        logins = {(each.writer.username, each.reader.username) for each in self._access.values()}
        return "/".join(sorted({name for pair in logins for name in pair}))

    def choose(self, candidates: tuple[Node, ...]) -> Node:
        """Return the candidate to use now."""
        self._choices += 1
        return choose(self._policy, candidates, self.health.load, self._rng, self._choices)

    def may_retry(self) -> bool:
        """Take one of the retries that the cluster may still make; tell whether there was one."""
        return self._budget.take(self.clock(), self.requests)

    def retries_left(self, now: float) -> float:
        """Return the share of the retry budget that is left; any thread may ask."""
        return self._budget.left(now, self.requests)

    async def look(self, database: str, deadline: float) -> None:
        """Have the servers probed, and wait until enough is known to begin; only a first use waits."""
        self._database = self._database or database
        self._prober.start()
        self._addresses.start()
        rules, now = self.health.rules, self.clock()
        await self.health.look(max(min(deadline - now, rules.timeout), 0.001))

    async def ask(self, node: Node, deadline: float) -> Observation:
        """Return what a server says of itself now; who asks at the same time shares the answer.

        Raises:
            StatementTimeout: it did not answer in time.
            ConnectError, ConnectionLost: it cannot be asked.
        """
        try:
            async with asyncio.timeout(max(deadline - self.clock(), 0)):
                outcome = await self._prober.ask(node.name)
        except TimeoutError:
            outcome = None
        if isinstance(outcome, Observation):
            return outcome
        error = outcome or StatementTimeout("the server did not say in time how far it is")
        raise error.at(cluster=node.cluster, node=node.name)

    async def ask_all(self, deadline: float) -> None:
        """Have every server asked now; who has not answered as soon as a probe must is not waited for."""
        seconds = min(self.health.rules.timeout, deadline - self.clock())
        asked = [asyncio.ensure_future(self._prober.ask(each.node.name)) for each in self.health.servers]
        try:
            await asyncio.wait(asked, timeout=max(seconds, 0))
        finally:
            for task in asked:
                task.cancel()

    async def close(self) -> None:
        """Stop watching the servers."""
        await self._addresses.stop()
        await self._prober.stop()

    def cancel(self) -> None:
        """Stop watching the servers, without waiting for it."""
        self._addresses.cancel()
        self._prober.cancel()

    def detach(self) -> None:
        """Give up in a forked child what watches the servers, without touching it."""
        self._prober.detach()

    def pool(self, node: Node, database: str) -> Pool:
        """Return the pool for a database on a node."""
        self._database = self._database or database
        access = self._access[node.name]
        endpoint = self._endpoint(node, database, access.login(node.role))
        return self._pools.pool(endpoint, self.driver, access.limits)

    def _endpoint(self, node: Node, database: str, login: Login) -> Endpoint:
        return Endpoint(
            node,
            database,
            login,
            readonly=node.role is Role.REPLICA,
            tls=self._access[node.name].tls,
            options=self.cluster.options,
            extensions=self._extensions,
            setup=self._access[node.name].setup,
        )

    def _probed(self, name: str) -> Endpoint:
        """Return what a probe of a server connects to."""
        access = self._access[name]
        node = next(each.node for each in self.health.servers if each.node.name == name)
        return self._endpoint(node, self._database, access.monitor or access.login(node.role))

    async def link(self, database: str, timeout: float = 1.0) -> Any:
        """Return a driver's connection to the primary that belongs to no pool; the caller closes it.

        Raises what connecting raises.
        """
        node = self.health.snapshot().primary or self.cluster.primary
        endpoint = self._endpoint(node, database, self._access[node.name].login(node.role))
        return (await self.driver.connect(endpoint, timeout)).driver_connection

    async def lease_unbound(self, pool: Pool, deadline: float, connect: float) -> Lease:
        """Return a lease of a pool, whatever tenant its connection is bound to."""
        now = self.clock()
        connection = pool.take(None, now)
        if connection is None:
            connection = await pool.acquire(None, deadline, deadline - now, connect)
        return Lease(pool, connection)

    def remember_refused(self, statement: Statement) -> None:
        """Send this text to the primary from now on: a replica refused it as a write."""
        if len(self.refused) >= _REFUSED:
            del self.refused[next(iter(self.refused))]
        self.refused[statement.text] = None

    @cached_property
    def bridge(self) -> Any:
        """Return SQLAlchemy's side of this cluster; built when the ORM or Core is first used."""
        try:
            from router.pools.sqlalchemy import Bridge
        except ModuleNotFoundError as exc:
            raise MissingExtra(exc.name or "sqlalchemy", "orm") from None
        return Bridge(self.driver)


class Target:
    """Hold what is known of one (tenant, schema), computed once per configuration generation."""

    __slots__ = ("backend", "binding", "caches", "database", "holder", "limit", "placement", "pools", "scope")

    def __init__(self, placement: Placement, backend: Backend) -> None:
        self.placement = placement
        self.backend = backend
        self.database, self.binding = backend.driver.locate(placement)
        self.holder = Holder(placement.tenant)  # of a connection while one statement runs
        self.pools: dict[Node, Pool] = {}
        self.scope: Scope | None = None  # what the cache knows of it, once it was used
        settings = placement.settings
        #: whether reads may be cached that do not ask for it
        self.caches = bool(settings.cache_rules) or settings.cache_auto is not None
        self.limit = settings.acquire_timeout + settings.statement_timeout  # of a request that sets none

    def pool(self, node: Node) -> Pool:
        """Return the pool that serves this target on a node."""
        found = self.pools.get(node)
        if found is None:
            found = self.pools[node] = self.backend.pool(node, self.database)
        return found

    async def lease(self, node: Node, deadline: float, waits: Waits | None = None) -> Lease:
        """Return a lease on a node, bound to the target; ``deadline`` is on the monotonic clock."""
        pool = self.pool(node)
        connection = pool.take(self.binding, self.backend.clock(), self.holder)
        if connection is None or connection.binding != self.binding:
            connection = await self.settle(connection, pool, deadline, waits or Waits())
        return Lease(pool, connection)

    async def settle(
        self, connection: Connection | None, pool: Pool, deadline: float, waits: Waits
    ) -> Connection:
        """Return a connection bound to the target: the one taken, or one to be waited for."""
        settings, clock = self.placement.settings, self.backend.clock
        now = clock()
        asked = min(settings.acquire_timeout, deadline - now)  # for all of it, binding included
        end = now + asked
        if connection is None:
            connection = await pool.acquire(
                self.binding, end, asked, settings.connect_timeout, self.holder, waits
            )
        if connection.binding != self.binding:
            lease, began = Lease(pool, connection), clock()
            try:
                await lease.bind(self.binding, max(end - began, 0.001))
            except BaseException:
                lease.release()
                raise
            finally:
                waits.bind += clock() - began
        return connection
