"""What differs between two configurations, by name. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from router.config.observability import ObservabilityConfig
from router.config.values import Config
from router.pacing import paced


@dataclass(frozen=True, slots=True)
class Names:
    """Name what is there now and was not, what is there no more, and what is another one."""

    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        return f"{len(self.added)} added, {len(self.removed)} removed, {len(self.changed)} changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """Hold all that differs; ``restart`` names sections that a running router cannot take over."""

    tenants: Names = Names()
    clusters: Names = Names()
    tokens: bool = False
    further: bool = False  # whether tenants without a file may be others
    restart: tuple[str, ...] = ()

    def also(self, clusters: Collection[str]) -> Difference:
        """Return the same with these clusters among those that have changed."""
        changed = self.clusters.changed.union(clusters) - self.clusters.removed
        return replace(self, clusters=replace(self.clusters, changed=changed))

    def __bool__(self) -> bool:
        return bool(self.tenants or self.clusters or self.tokens or self.further)


def difference(old: Config, new: Config) -> Difference:
    """Return what differs in ``new``."""
    return Difference(
        _names(old.tenants, new.tenants),
        _names(old.clusters, new.clusters),
        old.tokens != new.tokens,
        _rules(old) != _rules(new),
        tuple(_restart(old, new)),
    )


def in_force(old: Config, new: Config) -> Config:
    """Return what a running router makes of ``new``: sections that need a restart stay as they are."""
    return replace(
        new, cache=old.cache, catalog=old.catalog, secrets=old.secrets, observability=old.observability
    )


def _rules(config: Config) -> tuple[object, ...]:
    """Return what tenants without a file are made of, beside their own data."""
    return config.admission.patterns, config.defaults, config.tiers


def _names(old: Mapping[str, Any], new: Mapping[str, Any]) -> Names:
    changed = frozenset(
        name
        for name, value in paced(new.items())
        if name in old and value is not old[name] and value != old[name]
    )
    return Names(frozenset(new.keys() - old.keys()), frozenset(old.keys() - new.keys()), changed)


def _restart(old: Config, new: Config) -> list[str]:
    found = [each for each in ("cache", "catalog", "secrets") if getattr(old, each) != getattr(new, each)]
    return found + [
        f"observability.{part}"
        for part in ObservabilityConfig.model_fields
        if getattr(old.observability, part) != getattr(new.observability, part)
    ]
