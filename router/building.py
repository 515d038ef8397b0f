"""Build the parts of a router from its configuration."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from router import events
from router.backend import Access, Backend
from router.balancing import Policy
from router.config import ClusterConfig, Config, LoginConfig, NodeConfig
from router.credentials import Credentials, Passwords
from router.drivers import tls
from router.drivers.driver import Login, Setup
from router.drivers.registry import driver_for
from router.errors import ConfigurationError, Problem
from router.execution import Executor
from router.health import Health
from router.holding import Patience
from router.pacing import paced
from router.pools.bounds import Limits
from router.pools.registry import Pools
from router.servers import Rules
from router.standing import Limits as Lateness
from router.stores.aws import Aws
from router.stores.calls import Calls, Function
from router.stores.keeper import Failure, Keeper
from router.stores.store import Store
from router.stores.vault import Vault
from router.topology import Cluster, Node, Role

_FILES = 100  # SQLite: files that are open at once for each node, if nothing else is configured
_QUICK = 0.1  # seconds between probes after a sign of change


@dataclass(frozen=True, slots=True)
class Clocks:
    """Hold the two clocks: only the monotonic one measures, the other dates what is told."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


def keeper(
    config: Config,
    functions: Mapping[str, Function],
    emit: Callable[[events.Event], None],
    clocks: Clocks,
    rng: random.Random,
) -> Keeper:
    """Return what keeps the secrets that stores give; nothing is asked before a connection needs it."""
    given = config.secrets

    def failed(failure: Failure) -> None:
        emit(events.SecretFailed(clocks.wall(), *failure))

    stores: dict[str, Store] = {
        "vault": Vault(given.vault, config.source, clocks.monotonic),
        "aws": Aws(given.aws),
        "call": Calls(functions),
    }
    return Keeper(stores, given.refresh, given.timeout, clock=clocks.monotonic, rng=rng, failed=failed)


def backends(
    config: Config,
    pools: Pools,
    passwords: Passwords,
    emit: Callable[[events.Event], None],
    clocks: Clocks,
    rng: random.Random,
    *,
    further: bool,
) -> dict[str, Backend]:
    """Return the backend of every cluster, by its name; ``further`` if there are tenants without a file."""
    most, single = longest(config, further=further), lonely(config, further=further)
    return {
        name: backend(
            name,
            cluster,
            config.source,
            pools,
            passwords,
            emit,
            clocks,
            rng,
            most.get(name),
            alone=name in single,
        )
        for name, cluster in config.clusters.items()
    }


def longest(config: Config, *, further: bool) -> dict[str, float]:
    """Return the most that a statement of each cluster's tenants may take, in seconds."""
    found = dict.fromkeys(config.clusters, config.admission.longest) if further else {}
    for tenant in paced(config.tenants.values()):
        limit = tenant.settings.statement_timeout
        found[tenant.cluster] = max(found.get(tenant.cluster, limit), limit)
    return found


def lonely(config: Config, *, further: bool) -> set[str]:
    """Return the clusters that serve one tenant only."""
    if further:
        return set()
    tenants = Counter(tenant.cluster for tenant in paced(config.tenants.values()))
    return {name for name, count in tenants.items() if count == 1}


def backend(
    name: str,
    config: ClusterConfig,
    folder: Path,
    pools: Pools,
    passwords: Passwords,
    emit: Callable[[events.Event], None],
    clocks: Clocks,
    rng: random.Random,
    longest: float | None = None,
    *,
    alone: bool = False,
) -> Backend:
    """Return the backend of one cluster; ``longest`` is the most that a statement of its tenants may take.

    ``alone`` says that it serves one tenant only.
    """
    described, driver = cluster(name, config), driver_for(config.engine)
    configured = [config.primary, *(config.replicas or (config.primary,) * config.readers)]
    setup = _setup(config, longest)
    access = {
        node.name: _access(config, configured[index], folder, setup, passwords)
        for index, node in enumerate(described.nodes)
    }
    health = Health(
        described,
        clocks.monotonic,
        rules=_rules(config),
        probed=driver.probes,
        rng=rng,
        wall=clocks.wall,
        emit=emit,
    )
    return Backend(
        described,
        driver,
        access,
        pools,
        health,
        policy=Policy(config.balancing),
        patience=Patience(config.failover.hold, config.failover.waiting),
        extensions=config.extensions,
        alone=alone,
        clock=clocks.monotonic,
        rng=rng,
    )


def _rules(config: ClusterConfig) -> Rules:
    checks = config.checks
    return Rules(
        Lateness(config.lag.max_time, config.lag.max_bytes),
        checks.interval,
        checks.timeout,
        quick=min(_QUICK, checks.interval),
        follow=config.failover.follow,
    )


def cluster(name: str, config: ClusterConfig) -> Cluster:
    """Return the cluster that a section describes.

    SQLite has no servers: its readers are named like replicas, on the primary's folder.
    """
    if config.engine == "sqlite":
        replicas = tuple(
            _node(name, config.primary, Role.REPLICA, f"reader-{number}")
            for number in range(1, config.readers + 1)
        )
    else:
        replicas = tuple(_node(name, each, Role.REPLICA) for each in config.replicas)
    return Cluster(
        name,
        config.engine,
        _node(name, config.primary, Role.PRIMARY),
        replicas,
        database=config.database or "",
        # a reader over the write-ahead log sees every commit that ended before its statement began
        replicas_current=config.engine == "sqlite",
        options={**config.options, "server_settings": config.server_settings}
        if config.server_settings
        else config.options,
    )


def _node(cluster_name: str, config: NodeConfig, role: Role, name: str | None = None) -> Node:
    return Node(
        name or config.name or role.value,
        cluster_name,
        role,
        config.host or "",
        config.port or 0,
        config.path or "",
        config.weight,
        config.zone,
    )


def _setup(config: ClusterConfig, longest: float | None) -> Setup:
    # Later than any client's deadline, so that it ends only what the client could not cancel.
    wall = None if longest is None else longest + max(1.0, longest / 10)
    return Setup(wall, config.resolve_commits, config.pooler is not None)


def _access(
    config: ClusterConfig,
    node_config: NodeConfig,
    folder: Path,
    setup: Setup,
    passwords: Passwords,
) -> Access:
    monitor = config.credentials.monitor if config.credentials is not None else None
    context = _tls(config, node_config, folder)
    return Access(
        login(config.login(node_config, writer=True), passwords),
        login(config.login(node_config, writer=False), passwords),
        None if monitor is None else login(monitor, passwords),
        context,
        _limits(config),
        setup,
    )


def _tls(config: ClusterConfig, node_config: NodeConfig, folder: Path) -> Any:
    try:
        return tls.context(
            config.tls_mode(node_config),
            ca=_file(folder, config.tls.ca),
            certificate=_file(folder, config.tls.certificate),
            key=_file(folder, config.tls.key),
        )
    except OSError as error:  # as of OpenSSL, which shows nothing of what it has read
        fact = f"cannot be used: {error.strerror or type(error).__name__}"
        remedy = "Put a certificate there, and the key that belongs to it"
        raise ConfigurationError([Problem(", ".join(config.tls.files), 0, 0, fact, remedy)]) from None


def _limits(config: ClusterConfig) -> Limits:
    given, sqlite = config.connections, config.engine == "sqlite"
    # a file has one writer, and a reader of its own for each of the nodes that stand for replicas
    most = _FILES if sqlite and "max" not in given.model_fields_set else given.max
    return Limits(
        given.min,
        most,
        given.idle,
        given.lifetime,
        given.waiting,
        given.leak_after,
        1 if sqlite else inf,
    )


def _file(folder: Path, name: str | None) -> str | None:
    return None if name is None else str(folder / name)


def login(config: LoginConfig | None, passwords: Passwords) -> Login:
    """Return a login whose password is read anew, or asked for, at each connect."""
    if config is None:
        return Login("", _nothing)
    account = passwords.account(Credentials.of(config))

    async def password() -> str:
        return (await account.fetch()).password.reveal()

    return Login(str(config.username), password, account)


async def _nothing() -> str:
    return ""


def control(config: Config, cluster_name: str) -> str:
    """Return the database of the table of tenants, if it is on this cluster."""
    table = config.catalog.table
    return table.database if table is not None and table.cluster == cluster_name else ""


def any_database(config: Config, cluster_name: str, executor: Executor) -> str:
    """Return a database that a ping of the cluster may connect to."""
    database = config.clusters[cluster_name].database
    for tenant in config.tenants.values():
        if tenant.cluster == cluster_name:
            return executor.target(tenant.tenant, None).database
    return database or control(config, cluster_name)
