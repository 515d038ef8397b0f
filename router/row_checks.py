"""Look at every database with tenants by row for tables that are not theirs alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from router.backend import Backend
from router.config import ClusterConfig, Config, TenantConfig
from router.row_security import RowFinding, Where, facts, findings
from router.rows import Row

_LIMIT = 30.0  # seconds for each database


async def check_rows(
    backends: Mapping[str, Backend], config: Config, tenants: Iterable[TenantConfig], shared: frozenset[str]
) -> tuple[RowFinding, ...]:
    """Return what is found in the databases of tenants; ``shared`` are tables that all of them may see.

    Raises what connecting raises.
    """
    found: list[RowFinding] = []
    for (cluster, database), served in _databases(tenants).items():
        backend = backends[cluster]
        where = _where(config.clusters[cluster], served, shared)
        found += [RowFinding(cluster, database, *each) for each in await _look(backend, database, where)]
    return tuple(found)


def _databases(tenants: Iterable[TenantConfig]) -> Mapping[tuple[str, str], Sequence[TenantConfig]]:
    found: dict[tuple[str, str], list[TenantConfig]] = defaultdict(list)
    for tenant in tenants:
        if tenant.row is not None:
            found[tenant.cluster, tenant.database or ""].append(tenant)
    return found


def _where(cluster: ClusterConfig, tenants: Iterable[TenantConfig], shared: frozenset[str]) -> Where:
    schemas, users, path = set(cluster.extensions), set[str](), False
    for tenant in tenants:
        path = path or tenant.schema is None
        schemas |= {name for name in (tenant.schema, tenant.role, *tenant.schemas.values()) if name}
        users |= {tenant.role} if tenant.role else set()
    return Where(frozenset(schemas), path, frozenset(users | _logins(cluster)), cluster.row_setting, shared)


def _logins(cluster: ClusterConfig) -> set[str]:
    """Return the users of requests, as far as the configuration itself names them."""
    logins = [cluster.login(node, writer=writer) for node in cluster.nodes for writer in (True, False)]
    return {each.username for each in logins if each is not None and isinstance(each.username, str)}


async def _look(backend: Backend, database: str, where: Where) -> list[tuple[str, str, str]]:
    await backend.look(database, backend.clock() + _LIMIT)
    node = backend.health.snapshot().primary or backend.cluster.primary
    end = backend.clock() + _LIMIT
    lease = await backend.lease_unbound(backend.pool(node, database), end, _LIMIT)
    try:

        async def ask(sql: str, args: tuple[object, ...]) -> Sequence[Row]:
            rows: list[Row] = await lease.run("fetch_all", sql, args, None, limit=end - backend.clock())
            return rows

        return list(findings(await facts(ask, where), where))
    finally:
        lease.release()
