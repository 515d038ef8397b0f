"""The catalog: what (tenant, schema) resolves to. Unknown names are errors, never a default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from router.config import Admission, Config, Settings, TenantConfig
from router.errors import TenantSuspended, UnknownSchema, UnknownTenant
from router.found import Found, NobodyElse
from router.topology import Cluster

_SHOWN = 64  # characters of an unknown name that an error repeats


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Hold what one (tenant, schema) resolves to."""

    tenant: str
    schema: str | None  # the logical name; None for the tenant's main schema
    cluster: Cluster
    database: str
    physical: str | None  # the schema inside the database; None where the database is the tenant's own
    settings: Settings
    role: str | None = None  # the database's, that statements run as
    row: tuple[str, str] | None = None  # the setting that row security looks at, and the tenant's value
    config: TenantConfig | None = None  # that this is from; None for what is no tenant's

    def everywhere(self) -> tuple[Placement, ...]:
        """Return all that the tenant has, as it was when this was looked up."""
        if self.config is None:
            return (self,)
        schemas = ((None, self.config.schema), *self.config.schemas.items())
        return tuple(replace(self, schema=name, physical=physical) for name, physical in schemas)


class Catalog:
    """Resolve names by look-up only: what is not listed does not exist.

    A tenant's own file comes first, then the patterns, then what was ``found`` where else tenants are kept.
    """

    def __init__(
        self,
        tenants: Mapping[str, TenantConfig],
        clusters: Mapping[str, Cluster],
        admission: Admission | None = None,
        found: Found | None = None,
    ) -> None:
        self.found = NobodyElse() if found is None else found
        self._tenants = tenants
        self._clusters = clusters
        self._admission = admission or Admission()

    def __len__(self) -> int:
        return len(self._tenants) + len(self.found)

    def __contains__(self, tenant: object) -> bool:
        return tenant in self._tenants or self._admission.accepts(tenant) or tenant in self.found

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of all tenants that are known; those of patterns are not."""
        return iter((*self._tenants, *self.found.tenants()))

    def listed(self, tenant: str) -> bool:
        """Say whether a tenant has a file of its own."""
        return tenant in self._tenants

    def renewed(self, config: Config, clusters: Mapping[str, Cluster]) -> Catalog:
        """Return the same of another configuration; what was found is remembered."""
        return Catalog(config.tenants, clusters, config.admission, self.found)

    def tenants(self) -> tuple[str, ...]:
        """Return the ids of all tenants that are known; those of patterns are not."""
        return tuple(self)

    def schemas(self, tenant: str) -> tuple[str, ...]:
        """Return the logical names of a tenant's further schemas."""
        return tuple(self.tenant(tenant).schemas)

    def lookup(self, tenant: str, schema: str | None = None) -> Placement:
        """Return where a tenant's schema is.

        Raises:
            UnknownTenant: the catalog has no such tenant.
            UnknownSchema: the tenant has no such schema.
            TenantSuspended: its requests are refused for now.
            TenantNotAsked: nothing is known of it, and it must be asked for first.
            ConfigurationError: what a pattern makes of it, or what was found, is refused.
        """
        config = self.tenant(tenant)
        if config.suspended:
            raise TenantSuspended("the tenant is suspended. Resume it, or do not ask").at(tenant=tenant)
        cluster = self._clusters[config.cluster]
        physical = config.schema
        if schema is not None:
            if not isinstance(schema, str) or schema not in config.schemas:
                raise _unknown_schema(config, schema)
            physical = config.schemas[schema]
        return Placement(
            tenant,
            schema,
            cluster,
            config.database or "",
            physical,
            config.settings,
            config.role,
            config.row,
            config,
        )

    def tenant(self, tenant: str) -> TenantConfig:
        """Return what is configured of a tenant; raises as :meth:`lookup`."""
        found = self._tenants.get(tenant) if isinstance(tenant, str) else None
        if found is None:
            found = self._admission.patterned(tenant) or self.found.of(tenant)
        if found is None:
            # no list of tenants and no near miss: the error may reach a caller who guesses names
            raise UnknownTenant(
                f"there is no tenant {_show(tenant)}. Add tenants/<id>.yaml, or correct the id"
            )
        return found


def _show(name: object) -> str:
    """Return a name from outside so that it can be printed: escaped, and cut."""
    return ascii(name)[: _SHOWN + 2]


def _unknown_schema(config: TenantConfig, schema: str) -> UnknownSchema:
    known = ", ".join(sorted(config.schemas)) or "none"
    near = get_close_matches(str(schema), list(config.schemas), n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "Add it under schemas: in the tenant's file"
    return UnknownSchema(f"the tenant has no schema {_show(schema)}; it has: {known}. {hint}").at(
        tenant=config.tenant
    )
