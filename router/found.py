"""What a router remembers of tenants that it had to ask for: those that are there, and those that are not."""

from __future__ import annotations

from collections.abc import Callable

from router.config import TenantConfig
from router.errors import ConfigurationError, TenantNotAsked
from router.identifiers import InvalidName, check_tenant_id
from router.problem import Problem

_MISSING = 10_000  # answers that there is no such tenant


class Found:
    """Remember a bounded number of tenants; past that the one found first leaves."""

    def __init__(self, most: int, negative: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._negative = negative
        self._clock = clock
        self._tenants: dict[str, TenantConfig] = {}  # in the order in which they were found
        self._missing: dict[str, tuple[float, tuple[Problem, ...]]] = {}  # until when, and what was wrong

    def __len__(self) -> int:
        return len(self._tenants)

    def __contains__(self, tenant: object) -> bool:
        return tenant in self._tenants

    def get(self, tenant: str) -> TenantConfig | None:
        """Return a tenant that is remembered."""
        return self._tenants.get(tenant)

    def tenants(self) -> tuple[str, ...]:
        """Return the ids of those that are remembered."""
        return tuple(self._tenants)

    def known(self) -> tuple[TenantConfig, ...]:
        """Return those that are remembered."""
        return tuple(self._tenants.values())

    def of(self, tenant: object) -> TenantConfig | None:
        """Return a tenant, ``None`` if there is none.

        Raises:
            TenantNotAsked: nothing is known of it.
            ConfigurationError: what it was found to be is refused.
        """
        try:
            found = self._tenants.get(check_tenant_id(tenant))  # type: ignore[arg-type]  # it looks at the type
        except InvalidName:
            return None
        if found is not None:
            return found
        until, problems = self._missing.get(str(tenant), (0.0, ()))
        if until <= self._clock():
            raise TenantNotAsked(
                "the tenant is not in memory and must be asked for first. Enter the session with "
                "'async with', or await router.find(tenant)"
            ).at(tenant=str(tenant))
        if problems:
            raise ConfigurationError(problems).at(tenant=str(tenant))
        return None

    def keep(self, tenant: TenantConfig) -> TenantConfig | None:
        """Remember a tenant; return the one that had to leave for it."""
        name = tenant.tenant
        self._missing.pop(name, None)
        self._tenants[name] = tenant
        return self._tenants.pop(next(iter(self._tenants))) if len(self._tenants) > self._most else None

    def miss(self, tenant: str, problems: tuple[Problem, ...] = ()) -> TenantConfig | None:
        """Remember for a while that there is none, or what is wrong with it; return what was known."""
        if len(self._missing) >= _MISSING:
            del self._missing[next(iter(self._missing))]
        self._missing[tenant] = self._clock() + self._negative, problems
        return self._tenants.pop(tenant, None)

    def forget(self, tenant: str) -> None:
        """Remember a tenant no longer; it is asked for when it is needed."""
        self._tenants.pop(tenant, None)

    def doubt(self, tenant: str | None) -> None:
        """Believe no longer that there is no such tenant; ``None`` for all."""
        if tenant is None:
            self._missing.clear()
        else:
            self._missing.pop(tenant, None)


class NobodyElse(Found):
    """Remember nobody: all tenants that there are have files or follow a pattern."""

    def __init__(self) -> None:
        super().__init__(0, 0.0, float)

    def of(self, tenant: object) -> TenantConfig | None:
        """Return ``None``."""
        return None
