"""What a store of tenants is, for who takes them in and lets them go: a folder of files, or a table."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from router.config import Config, TenantConfig
from router.errors import UnknownTenant
from router.identifiers import shown


@dataclass(frozen=True, slots=True)
class Candidate:
    """Hold a tenant as it would be, the configuration with it, and where and how that would be written."""

    tenant: TenantConfig
    config: Config
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Hold a tenant as it is kept: where, and what is said there."""

    tenant: TenantConfig
    config: Config
    where: str
    data: Mapping[str, Any]


class Draft(Protocol):
    """Be a tenant that is about to be known."""

    async def take_effect(self) -> None:
        """Make it known, in one step; raises UsageError if another one of this name was quicker."""

    async def discard(self) -> None:
        """Let it go, unless it took effect."""


class Store(Protocol):
    """Keep tenants; what changes them raises UsageError where that cannot be done."""

    def hold(self) -> AbstractAsyncContextManager[None]:
        """Keep others from changing tenants meanwhile, as far as two changes can be at odds."""

    async def rehearse(self, name: str, content: Mapping[str, Any]) -> Candidate:
        """Return a tenant as it would be.

        Raises ConfigurationError if it would be refused, UsageError if there is one of this name.
        """

    async def draft(self, candidate: Candidate) -> Draft:
        """Prepare to make a tenant known, so that little can go wrong any more."""

    async def find(self, name: str) -> Kept:
        """Return a tenant; raises UnknownTenant."""

    async def mark(self, name: str, *, suspended: bool) -> bool:
        """Suspend a tenant or resume it; return whether that is new. Raises UnknownTenant."""

    async def remove(self, name: str) -> str:
        """Forget a tenant and return where it was. Raises UnknownTenant."""


def unknown(name: str, where: str) -> UnknownTenant:
    """Return the error of who names a tenant that is not there."""
    return UnknownTenant(f"there is no tenant {shown(name)} in {where}. `router tenants list` shows all")
