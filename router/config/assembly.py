"""Put a configuration together from router.yaml's data and each tenant's, telling every mistake."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from router.config import audits, caches, clusters, consoles, keys, places
from router.config.models import (
    CacheConfig,
    ClusterConfig,
    RouterFile,
    SettingsConfig,
    TenantFile,
    TokensConfig,
)
from router.config.observability import ObservabilityConfig
from router.config.problems import Found, Loc, Report, dig
from router.config.references import expand
from router.config.salvage import Salvaged, salvage
from router.config.section import Section
from router.config.values import NO_SCHEMAS, Config, Settings, TenantConfig, settle
from router.errors import Problem
from router.identifiers import shown

_SETTINGS = frozenset(SettingsConfig.model_fields)

Model = TypeVar("Model", bound=Section)


class Assembly:
    """Hold the state of one load. First :meth:`router`, then :meth:`tenant` for each, then :meth:`config`."""

    def __init__(self, folder: Path, known_engines: frozenset[str]) -> None:
        self.folder = folder
        self.warnings: list[Problem] = []
        self._known_engines = known_engines
        self._file: RouterFile | None = None
        self._clusters: dict[str, ClusterConfig] = {}
        self._cluster_names: frozenset[str] | None = None  # None: not known, router.yaml cannot be read
        self._defaults = SettingsConfig()
        self._tiers: dict[str, SettingsConfig] = {}
        self._tier_names: frozenset[str] | None = None
        self._tenants: dict[str, TenantConfig] = {}
        self._claims = places.Claims()
        self._settled: dict[str | None, Settings] = {}  # of tenants without settings of their own, by tier
        self._interned: dict[Settings, Settings] = {}

    def router(self, data: Any, report: Report) -> None:
        """Take the data of router.yaml."""
        data = self._expanded(data, report)
        self._file = self._validated(RouterFile, data, report)
        data = _mapping(data)
        self._cluster_names = _names(data.get("clusters"))
        self._tier_names = _names(data.get("tiers", {}))
        for name, section in _mapping(data.get("clusters")).items():
            self._cluster(name, salvage(ClusterConfig, section, self.folder), report)
        self._defaults = self._salvaged_settings(data.get("defaults", {}))
        for name, section in _mapping(data.get("tiers")).items():
            self._tiers[name] = self._salvaged_settings(section)
        self._check_waits(report)
        self._check_keys(data.get("tokens"), report)
        self._check_cache(data.get("cache"), report)
        self._check_observability(data.get("observability"), report)

    def _cluster(self, name: str, salvaged: Salvaged[ClusterConfig], report: Report) -> None:
        cluster = salvaged.section
        if cluster is None:
            return
        flaws = salvaged.tellable(clusters.check(cluster, self.folder, self._known_engines))
        for found in flaws:
            report.add(found._replace(loc=("clusters", name, *found.loc)))
        if flaws or salvaged.removed:
            return
        for found in clusters.remarks(cluster):
            self.warnings.append(report.problem(found._replace(loc=("clusters", name, *found.loc))))
        self._clusters[name] = clusters.complete(cluster, self.folder)

    def _salvaged_settings(self, data: Any) -> SettingsConfig:
        return salvage(SettingsConfig, data, self.folder).section or SettingsConfig()

    def _check_waits(self, report: Report) -> None:
        if _wrong_waits(settle((self._defaults,))):
            report.add(_WAITS._replace(loc=("defaults", "retries")))
        for name, tier in self._tiers.items():
            if "retries" in tier.model_fields_set and _wrong_waits(settle((self._defaults, tier))):
                report.add(_WAITS._replace(loc=("tiers", name, "retries")))

    def _check_keys(self, data: Any, report: Report) -> None:
        tokens = None if data is None else salvage(TokensConfig, data, self.folder).section
        if tokens is None:
            return
        for found in keys.check(tokens):
            report.add(found)
        # what is written out in code was not put into a file by mistake
        for found in keys.remarks(tokens, in_file=bool(report.places)):
            self.warnings.append(report.problem(found))

    def _check_cache(self, data: Any, report: Report) -> None:
        cache = None if data is None else salvage(CacheConfig, data, self.folder).section
        if cache is None:
            return
        for found in caches.check(cache, self._clusters.values()):
            report.add(found)
        for found in caches.remarks(cache, in_file=bool(report.places)):
            self.warnings.append(report.problem(found))

    def _check_observability(self, data: Any, report: Report) -> None:
        salvaged = salvage(ObservabilityConfig, {} if data is None else data, self.folder)
        if salvaged.section is None:
            return
        console, audit, in_file = salvaged.section.console, salvaged.section.audit, bool(report.places)
        for found in salvaged.tellable((*consoles.check(console), *audits.check(audit))):
            report.add(found._replace(loc=("observability", *found.loc)))
        for found in (*consoles.remarks(console, in_file=in_file), *audits.remarks(audit, in_file=in_file)):
            self.warnings.append(report.problem(found._replace(loc=("observability", *found.loc))))

    def tenant(self, data: Any, expected: str, report: Report) -> None:
        """Take the data of one tenant, whose id must be ``expected``."""
        data = self._expanded(data, report)
        before = len(report.problems)
        tenant = self._validated(TenantFile, data, report)
        self._check_names(_mapping(data), expected, report)
        whole = Salvaged(tenant, ()) if tenant else salvage(TenantFile, data, self.folder)
        tenant = whole.section
        cluster = self._clusters.get(tenant.cluster) if tenant else None
        if tenant is None or cluster is None:
            return
        self._check_place(whole, tenant, cluster, report)
        settings = self._settings(tenant)
        if "retries" in tenant.model_fields_set and _wrong_waits(settings):
            report.add(_WAITS._replace(loc=("retries",)))
        if len(report.problems) == before:
            self._tenants[tenant.tenant] = self._kept(tenant, cluster, settings)

    def _check_names(self, data: Mapping[str, Any], expected: str, report: Report) -> None:
        """Check the names in a tenant's file, whatever else is wrong with it."""
        name, cluster, tier = data.get("tenant"), data.get("cluster"), data.get("tier")
        if isinstance(name, str) and name != expected:
            remedy = f"Rename the file to {shown(name)}.yaml, or write tenant: {shown(expected)}"
            report.add(Found(("tenant",), f"is {shown(name)}, but the name is {shown(expected)}", remedy))
        for what, chosen, known in (
            ("cluster", cluster, self._cluster_names),
            ("tier", tier, self._tier_names),
        ):
            if isinstance(chosen, str) and known is not None and chosen not in known:
                report.add(_unknown(what, chosen, known))

    def _check_place(
        self, salvaged: Salvaged[TenantFile], tenant: TenantFile, cluster: ClusterConfig, report: Report
    ) -> None:
        flaws = salvaged.tellable(places.check(tenant, cluster))
        for found in flaws:
            report.add(found)
        if not flaws and (other := self._claims.claim(report.file, tenant, cluster)):
            loc = ("schema",) if tenant.isolation == "schema" else ("database",)
            message = f"is a place that {other} has too: each tenant would see the other's rows"
            report.add(Found(loc, message, "Give each tenant a database or schema of its own"))

    def _settings(self, tenant: TenantFile) -> Settings:
        plain = _SETTINGS.isdisjoint(tenant.model_fields_set)
        if plain and (known := self._settled.get(tenant.tier)) is not None:
            return known
        tier = self._tiers.get(tenant.tier or "", SettingsConfig())
        settings = settle((self._defaults, tier, tenant))
        settings = self._interned.setdefault(settings, settings)
        if plain:
            self._settled[tenant.tier] = settings
        return settings

    def _kept(self, tenant: TenantFile, cluster: ClusterConfig, settings: Settings) -> TenantConfig:
        """Return what is kept of a tenant: small, and sharing what is equal."""
        return TenantConfig(
            tenant=tenant.tenant,
            cluster=sys.intern(tenant.cluster),
            isolation=sys.intern(tenant.isolation),
            database=tenant.database or (cluster.database if tenant.isolation == "schema" else None),
            schema=tenant.schema_,
            schemas=MappingProxyType(tenant.schemas) if tenant.schemas else NO_SCHEMAS,
            tier=sys.intern(tenant.tier) if tenant.tier else None,
            settings=settings,
        )

    def config(self) -> Config:
        """Return the configuration; only when nothing was told to be wrong."""
        assert self._file is not None  # noqa: S101 - else a problem was told
        return Config(
            clusters=MappingProxyType(self._clusters),
            tenants=MappingProxyType(self._tenants),
            defaults=self._file.defaults,
            tiers=MappingProxyType(self._file.tiers),
            warnings=tuple(self.warnings),
            source=self.folder,
            tokens=self._file.tokens,
            cache=self._file.cache,
            observability=self._file.observability,
        )

    def _expanded(self, data: Any, report: Report) -> Any:
        found: list[Found] = []
        data = expand(data, self.folder, _kept, found)
        for each in found:
            report.add(each)
        report.close_places()
        return data

    def _validated(self, model: type[Model], data: Any, report: Report) -> Model | None:
        try:
            return model.model_validate(data, context=self.folder)
        except ValidationError as error:
            for found in dig(error, model):
                report.add(found)
        return None


def _kept(loc: Loc) -> bool:
    """Say whether the text at ``loc`` is expanded later: when it is used, or after the URL is taken apart."""
    return (loc[-1] in ("password", "url") and "options" not in loc) or loc in (
        keys.LOC,
        caches.KEY,
        audits.KEY,
        consoles.TOKEN,
    )


_WAITS = Found((), "has a min_wait above its max_wait", "Lower min_wait or raise max_wait")


def _wrong_waits(settings: Settings) -> bool:
    return settings.retry_min_wait > settings.retry_max_wait


def _mapping(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {}


def _names(data: Any) -> frozenset[str] | None:
    return frozenset(filter(_is_text, data)) if isinstance(data, Mapping) else None


def _is_text(key: object) -> bool:
    return isinstance(key, str)


def _unknown(what: str, name: str, known: frozenset[str]) -> Found:
    close = get_close_matches(name, known, n=1)
    remedy = f"Did you mean {close[0]!r}? " if close else ""
    remedy += f"Known are: {', '.join(sorted(map(shown, known))[:20]) or 'none'}"
    return Found((what,), f"{shown(name)} is not in router.yaml", remedy)
