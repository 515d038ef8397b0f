"""The table of resolved targets: what (tenant, schema) leads to, worked out once."""

from __future__ import annotations

from collections.abc import Mapping

from router.backend import Backend, Target
from router.cache.cache import Cache
from router.cache.scope import Scope
from router.relating import scope_of
from router.tenants import Catalog

_MOST = 100_000  # (tenant, schema) pairs kept resolved; past that the oldest is resolved anew


class Targets:
    """Resolve (tenant, schema) by the catalog, and keep what was found."""

    def __init__(self, catalog: Catalog, backends: Mapping[str, Backend], cache: Cache) -> None:
        self._catalog = catalog
        self._backends = backends
        self._cache = cache
        self._found: dict[tuple[str, str | None], Target] = {}

    def of(self, tenant: str, schema: str | None) -> Target:
        """Return the target of (tenant, schema); raises UnknownTenant or UnknownSchema."""
        try:
            found = self._found.get((tenant, schema))
        except TypeError:  # not hashable, such as a list out of a JSON body; the catalog refuses it
            found = None
        if found is None:
            placement = self._catalog.lookup(tenant, schema)
            if len(self._found) >= _MOST:
                del self._found[next(iter(self._found))]
            found = Target(placement, self._backends[placement.cluster.name])
            self._found[tenant, schema] = found
        return found

    def scope(self, target: Target) -> Scope:
        """Return what the cache knows of a target."""
        if target.scope is not None:
            return target.scope
        tenant = target.placement.tenant
        schemas = (None, *self._catalog.schemas(tenant))
        return scope_of(target, self._cache, [self.of(tenant, each) for each in schemas])
