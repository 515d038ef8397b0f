"""The catalog: what (tenant, schema) resolves to. Unknown names are errors, never a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from router.config import Settings, TenantConfig
from router.errors import UnknownSchema, UnknownTenant
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


class Catalog:
    """Resolve names by look-up only: what is not listed does not exist."""

    def __init__(self, tenants: Mapping[str, TenantConfig], clusters: Mapping[str, Cluster]) -> None:
        self._tenants = tenants
        self._clusters = clusters

    def __len__(self) -> int:
        return len(self._tenants)

    def tenants(self) -> tuple[str, ...]:
        """Return the ids of all tenants."""
        return tuple(self._tenants)

    def schemas(self, tenant: str) -> tuple[str, ...]:
        """Return the logical names of a tenant's further schemas."""
        return tuple(self._tenant(tenant).schemas)

    def lookup(self, tenant: str, schema: str | None = None) -> Placement:
        """Return where a tenant's schema is.

        Raises:
            UnknownTenant: the catalog has no such tenant.
            UnknownSchema: the tenant has no such schema.
        """
        config = self._tenant(tenant)
        cluster = self._clusters[config.cluster]
        physical = config.schema
        if schema is not None:
            if not isinstance(schema, str) or schema not in config.schemas:
                raise _unknown_schema(config, schema)
            physical = config.schemas[schema]
        return Placement(tenant, schema, cluster, config.database or "", physical, config.settings)

    def _tenant(self, tenant: str) -> TenantConfig:
        found = self._tenants.get(tenant) if isinstance(tenant, str) else None
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
