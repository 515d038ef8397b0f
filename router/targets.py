"""The table of resolved targets: what (tenant, schema) leads to, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from weakref import WeakValueDictionary

from router.backend import Backend, Target
from router.cache.cache import Cache
from router.cache.marks import Place
from router.cache.scope import Scope
from router.config import TenantConfig
from router.errors import CatalogError
from router.rates import Rate
from router.relating import scope_of
from router.tenants import Catalog, Placement

_MOST = 20_000  # (tenant, schema) pairs kept resolved; past that the oldest is resolved anew


class Targets:
    """Resolve (tenant, schema) by the catalog, and keep what was found."""

    def __init__(
        self,
        catalog: Catalog,
        backends: Mapping[str, Backend],
        cache: Cache,
        clock: Callable[[], float],
        refused: Callable[[CatalogError], None],
    ) -> None:
        self.catalog = catalog
        self._backends = backends
        self._cache = cache
        self._clock = clock
        self._refused = refused  # is told of what is not served
        self._rates: WeakValueDictionary[str, Rate] = WeakValueDictionary()  # of tenants that have one
        self._found: dict[tuple[str, str | None], Target] = {}
        #: no longer resolved so, but somebody's session still goes there
        self._left: WeakValueDictionary[tuple[str, str | None], Target] = WeakValueDictionary()

    def of(self, tenant: str, schema: str | None) -> Target:
        """Return the target of (tenant, schema); raises what the catalog's lookup does."""
        try:
            found = self._found.get((tenant, schema))
        except TypeError:  # not hashable, such as a list out of a JSON body; the catalog refuses it
            found = None
        if found is None:
            try:
                placement = self.catalog.lookup(tenant, schema)
            except CatalogError as error:
                self._refused(error)
                raise
            if len(self._found) >= _MOST:
                self._leave(next(iter(self._found)))
            found = Target(placement, self._backends[placement.cluster.name], self._rate(placement))
            self._found[tenant, schema] = found
        return found

    def renew(
        self,
        catalog: Catalog,
        tenants: Mapping[str, Collection[str]],
        clusters: Collection[str],
        *,
        further: bool,
    ) -> None:
        """Go by another catalog; forget what was found of tenants, and of all that are on these clusters.

        ``tenants`` has the schemas that each had. With ``further`` also of all that have no file. Who holds a
        target goes on with it.
        """
        self.catalog = catalog
        if clusters or further or len(tenants) > len(self._found):
            for key, target in list(self._found.items()):
                name, cluster = key[0], target.placement.cluster.name
                if name in tenants or cluster in clusters or (further and not catalog.listed(name)):
                    self._leave(key)
            return
        for tenant, schemas in tenants.items():
            for schema in (None, *schemas):
                self._leave((tenant, schema))

    def drop(self, tenant: TenantConfig) -> None:
        """Forget what was resolved of a tenant; who has a session goes on with it."""
        for schema in (None, *tenant.schemas):
            self._leave((tenant.tenant, schema))

    def _leave(self, key: tuple[str, str | None]) -> None:
        target = self._found.pop(key, None)
        if target is not None:
            self._left[key] = target

    def last(self, tenant: str, schema: str | None) -> Target | None:
        """Return the target of (tenant, schema) as it is, or was for those who still have a session."""
        return self._found.get((tenant, schema)) or self._left.get((tenant, schema))

    def _rate(self, placement: Placement) -> Rate | None:
        """Return what counts a tenant's requests, which its schemas share; ``None`` for no bound."""
        limits = placement.settings.limits
        if limits.rate is None:
            return None
        rate = self._rates.get(placement.tenant)
        if rate is None or (rate.rate, rate.given) != (limits.rate, limits.burst):
            rate = self._rates[placement.tenant] = Rate(limits.rate, limits.burst, self._clock())
        return rate

    def scope(self, target: Target) -> Scope:
        """Return what the cache knows of a target."""
        if target.scope is not None:
            return target.scope
        # by what the target is from: the tenant may be another by now, or be gone, while sessions go on
        homes = {_place(target, each) for each in target.placement.everywhere()}
        return scope_of(target, self._cache, homes)


def _place(target: Target, placement: Placement) -> Place:
    database, binding = target.backend.driver.locate(placement)
    return Place(placement.cluster.name, database, None if binding is None else binding.schema)
