"""Everything that serves one cluster: its driver, pools, statements, health; and the targets in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from router.addresses import Addresses
from router.balancing import Policy, choose
from router.budget import RetryBudget
from router.cache.scope import Scope
from router.drivers.connecting import connect
from router.drivers.driver import Connection, Driver, Endpoint, Login, Setup
from router.errors import MissingExtra, ServerRemoved, StatementTimeout, TenantBusy
from router.health import Health
from router.holding import Holding, Patience
from router.pools.bounds import Limits
from router.pools.fairness import Flow
from router.pools.holders import Holder
from router.pools.lease import Lease
from router.pools.lending import Lending
from router.pools.pool import Pool
from router.pools.registry import Pools
from router.pools.retired import PoolRetired
from router.probing import Prober
from router.rates import Rate
from router.refusing import Refusals
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
        alone: bool = False,
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
        self.alone = alone  # whether the cluster serves one tenant only
        self._rng = rng
        self._choices = 0
        self.refusals = Refusals(pooled=self.pooled)
        self._database = cluster.database  # one that probes may connect to
        self._prober = Prober(health, driver, self._probed, pools.reaper, clock)
        self._addresses = Addresses(health, pools.relocate, rng)
        # drivers' connections that belong to no pool, each with its server's name
        self._links: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._turn = 0  # how often servers are connected to otherwise since
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

    def takes(self, other: Backend) -> bool:
        """Tell whether :meth:`renew` can make this one like another; else that one has to take its place."""
        return self.cluster.engine == other.cluster.engine and self.health.keeps(other.cluster)

    def renew(self, other: Backend, anew: Collection[str]) -> frozenset[Node]:
        """Be as another one is that nobody uses yet, and keep what is known of the servers.

        Servers named ``anew`` are connected to otherwise from now on: who waits there for a connection gets
        one of the new kind. Returns the nodes that are none any more: who uses them may go on.
        """
        gone = self.health.renew(other.cluster, other.health.rules)
        self.cluster, self.pooled = other.cluster, other.pooled
        self.refusals = other.refusals
        self.holding.patience = other.holding.patience
        self._access, self._policy, self._extensions = other._access, other._policy, other._extensions
        self._database = other.cluster.database or self._database
        nodes = {
            node for each in self.health.servers if each.node.name in anew for node in each.roles.values()
        }
        for node in nodes:
            limits = self._access[node.name].limits
            self._pools.admission(node, limits).limits = limits
        self._pools.part(nodes, PoolRetired)
        self._prober.renew(anew)
        self._leave_links(anew)
        if self._prober.running:
            self._addresses.start()
        return gone

    @property
    def nodes(self) -> frozenset[Node]:
        """Return all nodes that there are now, in each of their roles."""
        return frozenset(node for server in self.health.servers for node in server.roles.values())

    def pool(self, node: Node, database: str) -> Pool:
        """Return the pool for a database on a node.

        Raises ServerRemoved for one that is not configured any more, and that has no such pool.
        """
        self._database = self._database or database
        access = self._access.get(node.name)
        if access is None:
            raise ServerRemoved(f"{node.label} was taken out of the configuration. Ask again")
        endpoint = self._endpoint(node, database, access.login(node.role))
        return self._pools.pool(endpoint, self.driver, access.limits)

    def flow(self, node: Node, placement: Placement) -> Flow:
        """Return what counts a tenant's connections on a node."""
        admission = self._pools.admission(node, self._access[node.name].limits)
        return admission.flow(placement.tenant, placement.settings.limits, alone=self.alone)

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

        It ends once a reload has the servers connected to otherwise. Raises what connecting raises.
        """
        while True:
            turn = self._turn
            node = self.health.snapshot().primary or self.cluster.primary
            endpoint = self._endpoint(node, database, self._access[node.name].login(node.role))
            link = (await connect(self.driver, endpoint, timeout)).driver_connection
            if turn == self._turn:
                self._links[link] = node.name
                return link
            link.terminate()

    def _leave_links(self, anew: Collection[str]) -> None:
        """End what is connected to servers beside the pools: who uses it connects anew, as after any loss."""
        self._turn += bool(anew)
        for link, name in tuple(self._links.items()):
            if name in anew:
                link.terminate()

    async def lease_unbound(self, pool: Pool, deadline: float, connect: float) -> Lease:
        """Return a lease of a pool, whatever tenant its connection is bound to."""
        while True:
            now = self.clock()
            connection = pool.take(None, now)
            try:
                connection = connection or await pool.acquire(None, deadline, deadline - now, connect)
            except PoolRetired:
                pool = self.pool(pool.endpoint.node, pool.endpoint.database)
            else:
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

    __slots__ = (
        "__weakref__",
        "backend",
        "binding",
        "caches",
        "database",
        "limit",
        "placement",
        "pools",
        "rate",
        "refusal",
        "schema",
        "scope",
    )

    def __init__(self, placement: Placement, backend: Backend, rate: Rate | None = None) -> None:
        self.placement = placement
        self.backend = backend
        self.database, self.binding = backend.driver.locate(placement)
        #: where names without a schema lead to, if that is bound
        self.schema = None if self.binding is None else self.binding.schema
        self.refusal = backend.refusals.of(self.binding)
        #: by node, with who holds a connection of it while one statement runs
        self.pools: dict[Node, tuple[Pool, Holder]] = {}
        self.rate = rate  # of the tenant's requests; None for no bound
        self.scope: Scope | None = None  # what the cache knows of it, once it was used
        settings = placement.settings
        #: whether reads may be cached that do not ask for it
        self.caches = bool(settings.cache_rules) or settings.cache_auto is not None
        self.limit = settings.acquire_timeout + settings.statement_timeout  # of a request that sets none

    def pool(self, node: Node) -> tuple[Pool, Holder]:
        """Return the pool that serves this target on a node, and who holds a connection for one statement."""
        found = self.pools.get(node)
        if found is None:
            pool = self.backend.pool(node, self.database)
            flow = self.backend.flow(node, self.placement)
            found = self.pools[node] = pool, Holder(self.placement.tenant, flow=flow)
            pool.lessees.add(self)
        return found

    def forget(self, pool: Lending) -> None:
        """Forget a pool that is no more; the next request makes another."""
        self.pools = {node: each for node, each in self.pools.items() if each[0] is not pool}

    def admit(self, now: float) -> None:
        """Count a request that is about to go to the database; raises TenantBusy if there are too many."""
        if self.rate is not None and (seconds := self.rate.take(now)):
            error = TenantBusy(
                f"more than {self.rate.rate:g} requests a second. Send fewer, or raise limits.rate. "
                "Other tenants are served meanwhile"
            )
            error.retry_after = seconds
            raise error.at(tenant=self.placement.tenant, cluster=self.placement.cluster.name)

    async def lease(self, node: Node, deadline: float, waits: Waits | None = None) -> Lease:
        """Return a lease on a node, bound to the target; ``deadline`` is on the monotonic clock."""
        pool, holder = self.pool(node)
        connection = pool.take(self.binding, self.backend.clock(), holder)
        if connection is None or connection.binding != self.binding:
            pool, connection = await self.settle(connection, pool, holder, deadline, waits or Waits())
        return Lease(pool, connection)

    async def settle(
        self,
        connection: Connection | None,
        pool: Pool,
        holder: Holder,
        deadline: float,
        waits: Waits,
        *,
        along: bool = False,
    ) -> tuple[Pool, Connection]:
        """Return a connection bound to the target, and its pool: the one taken, or one to be waited for.

        With ``along`` it may be one that binds itself along with the next statement.
        """
        settings, clock = self.placement.settings, self.backend.clock
        now = clock()
        asked = min(settings.acquire_timeout, deadline - now)  # for all of it, binding included
        end = now + asked
        while connection is None:
            try:
                connection = await pool.acquire(
                    self.binding, end, asked, settings.connect_timeout, holder, waits
                )
            except PoolRetired:  # its place in the queue is lost, its time goes on
                self.forget(pool)
                pool, holder = self.pool(pool.endpoint.node)
        if connection.binding != self.binding and not (
            along and connection.bind_along(pool.endpoint, self.binding)
        ):
            lease, began = Lease(pool, connection), clock()
            try:
                await lease.bind(self.binding, max(end - began, 0.001))
            except BaseException:
                lease.release()
                raise
            finally:
                took = clock() - began
                waits.bind += took
            connection.spare(took)
        return pool, connection
