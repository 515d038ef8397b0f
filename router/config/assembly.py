"""Put a configuration together from router.yaml's data and each tenant's, telling every mistake."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from router.config import clusters, places
from router.config.models import ClusterConfig, RouterFile, Section, SettingsConfig, TenantFile
from router.config.problems import Found, Loc, Report, dig
from router.config.references import expand
from router.config.values import NO_SCHEMAS, Config, Settings, TenantConfig, settle
from router.errors import Problem
from router.identifiers import shown

_SETTINGS = frozenset(SettingsConfig.model_fields)
_SALVAGES = 3  # a value taken out can make another one wrong, but not for ever

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
        if isinstance(data, Mapping):
            self._cluster_names = _names(data.get("clusters"))
            self._tier_names = _names(data.get("tiers", {}))
            for name, section in _mapping(data.get("clusters")).items():
                whole, cluster = self._salvaged(ClusterConfig, section)
                if cluster is not None:
                    self._cluster(name, cluster, report, whole)
            for name, section in _mapping(data.get("tiers")).items():
                _, tier = self._salvaged(SettingsConfig, section)
                if tier is not None:
                    self._tiers[name] = tier
        if self._file is not None:
            self._check_waits(report)

    def _cluster(self, name: str, cluster: ClusterConfig, report: Report, whole: bool) -> None:
        flaws = list(clusters.check(cluster, self.folder, self._known_engines))
        if not whole:  # what seems to be missing may be what was told to be wrong
            flaws = [found for found in flaws if not found.absence]
        for found in flaws:
            report.add(found._replace(loc=("clusters", name, *found.loc)))
        if flaws or not whole:
            return
        for found in clusters.remarks(cluster):
            self.warnings.append(report.problem(found._replace(loc=("clusters", name, *found.loc))))
        self._clusters[name] = clusters.complete(cluster, self.folder)

    def _check_waits(self, report: Report) -> None:
        assert self._file is not None  # noqa: S101 - asked by the caller; for the type checker
        if _wrong_waits(settle((self._file.defaults,))):
            report.add(_WAITS._replace(loc=("defaults", "retries")))
        for name, tier in self._file.tiers.items():
            if _wrong_waits(settle((self._file.defaults, tier))):
                report.add(_WAITS._replace(loc=("tiers", name, "retries")))

    def tenant(self, data: Any, expected: str, report: Report) -> None:
        """Take the data of one tenant, whose id must be ``expected``."""
        data = self._expanded(data, report)
        before = len(report.problems)
        tenant = self._validated(TenantFile, data, report)
        self._check_names(_mapping(data), expected, report)
        if tenant is None:
            return
        cluster = self._clusters.get(tenant.cluster)
        if cluster is not None:
            self._check_place(tenant, cluster, report)
        settings = self._settings(tenant)
        if _wrong_waits(settings) and not _SETTINGS.isdisjoint(tenant.model_fields_set):
            report.add(_WAITS._replace(loc=("retries",)))
        if cluster is not None and len(report.problems) == before:
            self._tenants[tenant.tenant] = self._kept(tenant, cluster, settings)

    def _check_names(self, data: Mapping[str, Any], expected: str, report: Report) -> None:
        """Check the names in a tenant's file, whatever else is wrong with it."""
        name, cluster, tier = data.get("tenant"), data.get("cluster"), data.get("tier")
        if isinstance(name, str) and name != expected:
            remedy = f"Rename the file to {shown(name)}.yaml, or write tenant: {shown(expected)}"
            report.add(Found(("tenant",), f"is {shown(name)}, but the name is {shown(expected)}", remedy))
        if isinstance(cluster, str) and self._cluster_names is not None and cluster not in self._cluster_names:
            report.add(_unknown("cluster", cluster, self._cluster_names))
        if isinstance(tier, str) and self._tier_names is not None and tier not in self._tier_names:
            report.add(_unknown("tier", tier, self._tier_names))

    def _check_place(self, tenant: TenantFile, cluster: ClusterConfig, report: Report) -> None:
        flaws = list(places.check(tenant, cluster))
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
        defaults = self._file.defaults if self._file else SettingsConfig()
        tier = self._tiers.get(tenant.tier or "", SettingsConfig())
        settings = settle((defaults, tier, tenant))
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
        )

    def _expanded(self, data: Any, report: Report) -> Any:
        found: list[Found] = []
        data = expand(data, self.folder, _kept, found)
        for each in found:
            report.add(each)
        return data

    def _validated(self, model: type[Model], data: Any, report: Report) -> Model | None:
        try:
            return model.model_validate(data, context=self.folder)
        except ValidationError as error:
            for found in dig(error, model):
                report.add(found)
        return None

    def _salvaged(self, model: type[Model], data: Any) -> tuple[bool, Model | None]:
        """Return what can be read of a section, and whether that is all of it.

        The mistakes in it have been told; without the values that are wrong, the rest can be checked further.
        """
        for attempt in range(_SALVAGES):
            try:
                return not attempt, model.model_validate(data, context=self.folder)
            except ValidationError as error:
                data = without(data, [found.loc for found in dig(error, model)])
        return False, None


def without(data: Any, wrong: Sequence[Loc]) -> Any:
    """Return ``data`` without the values at the places ``wrong``; the data itself is not changed."""
    here = {loc[0] for loc in wrong if len(loc) == 1}

    def kept(part: str | int, value: Any) -> Any:
        return without(value, [loc[1:] for loc in wrong if len(loc) > 1 and loc[0] == part])

    if isinstance(data, Mapping):
        return {key: kept(key, value) for key, value in data.items() if key not in here}
    if isinstance(data, list):
        return [kept(index, value) for index, value in enumerate(data) if index not in here]
    return data


def _kept(loc: Loc) -> bool:
    """Say whether the text at ``loc`` is expanded later: at connect time, or after the URL is taken apart."""
    return loc[-1] in ("password", "url") and "options" not in loc


_WAITS = Found((), "has a min_wait above its max_wait", "Lower min_wait or raise max_wait")


def _wrong_waits(settings: Settings) -> bool:
    return settings.retry_min_wait > settings.retry_max_wait


def _mapping(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {}


def _names(data: Any) -> frozenset[str] | None:
    return frozenset(data) if isinstance(data, Mapping) else None


def _unknown(what: str, name: str, known: frozenset[str]) -> Found:
    listed = ", ".join(sorted(known)[:20]) or "none"
    return Found((what,), f"{shown(name)} is not in router.yaml", f"Known are: {listed}")
