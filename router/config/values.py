"""What a checked configuration is: the values that the running router keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from router.config.catalog import CatalogConfig
from router.config.models import (
    AutoCacheConfig,
    CacheConfig,
    CacheRuleConfig,
    ClusterConfig,
    LoginConfig,
    SettingsConfig,
    SlowRuleConfig,
    TokensConfig,
)
from router.config.observability import AuditConfig, ObservabilityConfig
from router.config.references import SecretReference, Stored
from router.config.stores import SecretsConfig
from router.consistency import Bounded, Consistency, Otherwise
from router.errors import Problem

if TYPE_CHECKING:
    from router.config.admission import Admission

NO_SCHEMAS: Mapping[str, str] = MappingProxyType({})  # shared: most tenants have none
_BOUNDED = Bounded(seconds=5.0)  # if set nowhere


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Say how long reads are cached that touch these tables only, or have one of these fingerprints."""

    tables: frozenset[str]
    fingerprints: frozenset[str]
    ttl: float


@dataclass(frozen=True, slots=True)
class AutoCache:
    """Say how long a read is cached that was made ``reads`` times in ``window`` seconds."""

    ttl: float
    reads: int
    window: float


@dataclass(frozen=True, slots=True)
class SlowRule:
    """Say how long requests may take whose statement names one of these tables, or has a fingerprint."""

    tables: frozenset[str]
    fingerprints: frozenset[str]
    threshold: float


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """Hold what one tenant may take on a node; ``None`` where nothing is set. ``rate`` is by the second."""

    connections: int | None = None
    waiting: int | None = None
    weight: float = 1.0
    rate: float | None = None
    burst: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold the settings in force for a tenant; times in seconds. Equal ones are one object in a Config."""

    consistency: Consistency = Consistency.SESSION
    acquire_timeout: float = 5.0
    connect_timeout: float = 5.0
    statement_timeout: float = 30.0
    slow_query: float = 0.5
    slow_rules: tuple[SlowRule, ...] = ()
    retry_attempts: int = 3
    retry_min_wait: float = 0.02
    retry_max_wait: float = 1.0
    bounded: Bounded = _BOUNDED
    wait: float = 0.05
    otherwise: Otherwise = Otherwise.PRIMARY
    cache_rules: tuple[CacheRule, ...] = ()
    cache_auto: AutoCache | None = None
    cache_dependencies: tuple[tuple[str, tuple[str, ...]], ...] = ()
    limits: TenantLimits = TenantLimits()
    audit: bool = True  # where it is configured how
    slow_least: float = field(init=False)  # no request that takes less is slow, whatever its statement

    def __post_init__(self) -> None:
        least = min((self.slow_query, *(rule.threshold for rule in self.slow_rules)))
        object.__setattr__(self, "slow_least", least)

    def slow_after(self, fingerprint: str, tables: Collection[str]) -> float:
        """Return how long a request with such a statement may take before it counts as slow."""
        for rule in self.slow_rules:
            if fingerprint in rule.fingerprints or not rule.tables.isdisjoint(tables):
                return rule.threshold
        return self.slow_query


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """Describe one tenant, checked; slotted, since there may be 100,000 of them.

    ``isolation`` is ``database``, ``schema`` or ``row``. ``schemas`` maps names that the application uses to
    physical ones. ``schema`` is ``None`` with isolation by database; ``database`` is ``None`` only on MySQL
    with isolation by schema, where a schema is a database. ``row`` is the setting that row security policies
    look at, and its value.
    """

    tenant: str
    cluster: str
    isolation: str
    database: str | None
    schema: str | None
    schemas: Mapping[str, str]
    tier: str | None
    settings: Settings
    role: str | None = None
    row: tuple[str, str] | None = None
    suspended: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Config:
    """Hold a whole checked configuration: what :func:`router.config.load` and ``parse`` return.

    ``source`` is the folder that relative paths are in; ``warnings`` are remarks that refuse nothing.
    """

    clusters: Mapping[str, ClusterConfig]
    tenants: Mapping[str, TenantConfig]
    admission: Admission  # by which further tenants are taken in
    defaults: SettingsConfig = field(default_factory=SettingsConfig)
    tiers: Mapping[str, SettingsConfig] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    source: Path = Path()
    version: int = 1
    tokens: TokensConfig | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)
    secrets: SecretsConfig = field(default_factory=SecretsConfig)
    observability: ObservabilityConfig = field(default_factory=ObservabilityConfig)
    catalog: CatalogConfig = field(default_factory=CatalogConfig)

    @property
    def logins(self) -> tuple[LoginConfig, ...]:
        """Return who the router connects as, on all clusters."""
        return tuple(login for cluster in self.clusters.values() for login in cluster.logins)

    @property
    def stored(self) -> tuple[Stored, ...]:
        """Return what logins need of stores, each once."""
        found = [
            part
            for login in self.logins
            for each in (login.username, login.password)
            if isinstance(each, SecretReference)
            for part in each.stored
        ]
        return tuple(dict.fromkeys(found))

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that it depends on beside its folder's: certificates, and lists of tenants."""
        found = (each for cluster in self.clusters.values() for each in cluster.tls.files)
        return tuple(dict.fromkeys((*found, *(each.file for each in self.admission.patterns if each.file))))

    def unaudited(self) -> Config:
        """Return the same without a record of writes: for who only looks, and must not begin a journal."""
        observability = self.observability.model_copy(update={"audit": AuditConfig()})
        return replace(self, observability=observability)

    def __repr__(self) -> str:
        return f"<Config {self.source}: {len(self.clusters)} clusters, {len(self.tenants)} tenants>"


def settle(sections: Sequence[SettingsConfig]) -> Settings:
    """Return the settings in force where ``sections`` are given weakest first."""
    chosen: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    dependencies: dict[str, tuple[str, ...]] = {}
    for section in sections:
        times, retries, fresh, slow = (
            section.timeouts,
            section.retries,
            section.freshness,
            section.slow_statements,
        )
        given = {
            "consistency": section.consistency,
            "acquire_timeout": times.acquire,
            "connect_timeout": times.connect,
            "statement_timeout": times.statement,
            "slow_query": section.slow_query,
            "slow_rules": None if slow is None else tuple(map(_slow, slow)),
            "retry_attempts": retries.attempts,
            "retry_min_wait": retries.min_wait,
            "retry_max_wait": retries.max_wait,
            "seconds": fresh.max_time,
            "size": fresh.max_bytes,
            "wait": fresh.wait,
            "otherwise": fresh.otherwise,
            "cache_rules": None if section.cache.rules is None else tuple(map(_rule, section.cache.rules)),
            "cache_auto": None if section.cache.auto is None else _auto(section.cache.auto),
            "audit": section.audit,
        }
        dependencies |= section.cache.dependencies
        limits |= section.limits.model_dump(exclude_none=True)
        chosen |= {name: value for name, value in given.items() if value is not None}
    bounded = Bounded(chosen.pop("seconds", _BOUNDED.seconds), chosen.pop("size", _BOUNDED.size))
    declared = tuple(sorted(dependencies.items()))
    return Settings(
        bounded=bounded, cache_dependencies=declared, limits=TenantLimits(**limits), **chosen
    )  # as in the models


def _rule(rule: CacheRuleConfig) -> CacheRule:
    return CacheRule(frozenset(rule.tables), frozenset(rule.fingerprints), rule.ttl)


def _auto(auto: AutoCacheConfig) -> AutoCache:
    return AutoCache(auto.ttl, auto.reads, auto.window)


def _slow(rule: SlowRuleConfig) -> SlowRule:
    return SlowRule(frozenset(rule.tables), frozenset(rule.fingerprints), rule.threshold)
