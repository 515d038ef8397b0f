"""Put a configuration together from router.yaml's data and each tenant's, telling every mistake."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from router.config import audits, caches, clusters, consoles, keys, stores, tables
from router.config.admission import WAITS, Admission, unknown, wrong_waits
from router.config.catalog import CatalogConfig, PatternConfig
from router.config.models import (
    CacheConfig,
    ClusterConfig,
    RouterFile,
    SettingsConfig,
    TokensConfig,
)
from router.config.observability import ObservabilityConfig
from router.config.patterns import Pattern, pattern_of
from router.config.problems import Found, Loc, Report, dig
from router.config.references import expand
from router.config.salvage import Salvaged, salvage
from router.config.section import Section
from router.config.stores import SecretsConfig
from router.config.values import Config, TenantConfig, settle
from router.errors import Problem
from router.pacing import paced

_PLACING = ("engine", "pooler", "database", "row_setting")  # of a cluster: what its tenants depend on

Model = TypeVar("Model", bound=Section)


class Assembly:
    """Hold the state of one load. First :meth:`router`, then :meth:`tenant` for each, then :meth:`config`."""

    def __init__(
        self, folder: Path, known_engines: frozenset[str], functions: Collection[str] | None = None
    ) -> None:
        self.folder = folder
        self.warnings: list[Problem] = []
        self._known_engines = known_engines
        self._functions = functions
        self._stored: list[stores.Used] = []
        self._file: RouterFile | None = None
        self._clusters: dict[str, ClusterConfig] = {}
        self._defaults = SettingsConfig()
        self._tiers: dict[str, SettingsConfig] = {}
        self._tenants: dict[str, TenantConfig] = {}
        self._admission = Admission(folder)  # that knows of nothing, if router.yaml cannot be read

    def router(self, data: Any, report: Report) -> None:
        """Take the data of router.yaml."""
        data = self._expanded(data, report)
        self._file = self._validated(RouterFile, data, report)
        data = _mapping(data)
        for name, section in _mapping(data.get("clusters")).items():
            self._cluster(name, salvage(ClusterConfig, section, self.folder), report)
        self._defaults = self._salvaged_settings(data.get("defaults", {}))
        for name, section in _mapping(data.get("tiers")).items():
            self._tiers[name] = self._salvaged_settings(section)
        self._check_waits(report)
        self._check_stores(data.get("secrets"), report)
        self._check_keys(data.get("tokens"), report)
        self._check_cache(data.get("cache"), report)
        self._check_observability(data.get("observability"), report)
        self._admission = Admission(
            self.folder,
            self._clusters,
            _names(data.get("clusters")),
            self._tiers,
            _names(data.get("tiers", {})),
            self._defaults,
            self._tenants,
        )
        self._admission.patterns = tuple(self._patterns(data.get("patterns"), report))
        self._check_table(data.get("catalog"), _names(data.get("clusters")), report)

    def _cluster(self, name: str, salvaged: Salvaged[ClusterConfig], report: Report) -> None:
        cluster = salvaged.section
        if cluster is None:
            return
        self._stored += [(("clusters", name, *loc), part) for loc, part in clusters.stored(cluster)]
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
        if wrong_waits(settle((self._defaults,))):
            report.add(WAITS._replace(loc=("defaults", "retries")))
        for name, tier in self._tiers.items():
            if "retries" in tier.model_fields_set and wrong_waits(settle((self._defaults, tier))):
                report.add(WAITS._replace(loc=("tiers", name, "retries")))

    def _check_stores(self, data: Any, report: Report) -> None:
        salvaged = salvage(SecretsConfig, {} if data is None else data, self.folder)
        if salvaged.section is None:
            return
        found = stores.check(salvaged.section, self._stored, self.folder, self._functions)
        for each in salvaged.tellable(found):
            report.add(each)
        for each in stores.remarks(salvaged.section, self._stored):
            self.warnings.append(report.problem(each))

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

    def _patterns(self, data: Any, report: Report) -> Iterator[Pattern]:
        """Yield the patterns that can be read; what else is wrong with one was told with the whole."""
        for index, section in enumerate(data if isinstance(data, list) else ()):
            salvaged = salvage(PatternConfig, section, self.folder)
            if salvaged.section is None:
                continue
            told: list[Found] = []
            pattern = pattern_of(index, salvaged.section, self.folder, told)
            if pattern is not None and not told and not salvaged.removed:
                told += self._admission.flaws(pattern)
            for found in salvaged.tellable(told):
                report.add(found._replace(loc=("patterns", index, *found.loc)))
            if pattern is not None:
                yield pattern

    def _check_table(self, data: Any, known: frozenset[str] | None, report: Report) -> None:
        catalog = None if data is None else salvage(CatalogConfig, data, self.folder).section
        for found in () if catalog is None else tables.flaws(catalog, self.folder):
            report.add(found._replace(loc=("catalog", *found.loc)))
        if catalog is None or catalog.table is None:
            return
        table = catalog.table
        if known is not None and table.cluster not in known:
            report.add(unknown("cluster", table.cluster, known, "catalog", "table"))
        for found in tables.check(table, self._clusters):
            report.add(found._replace(loc=("catalog", "table", *found.loc)))

    def tenant(self, data: Any, expected: str, report: Report) -> None:
        """Take the data of one tenant, whose id must be ``expected``."""
        found = self._admission.admit(self._expanded(data, report), expected, report)
        if found is not None:
            self._tenants[found.tenant] = found

    def unaffected(self, before: Config) -> dict[str, TenantConfig]:
        """Return the tenants of an earlier load that mean the same if their files have not changed."""
        if self._file is None or self._file.defaults != before.defaults:
            return {}
        clusters = {
            name
            for name, cluster in self._clusters.items()
            if (other := before.clusters.get(name)) is not None
            and all(getattr(cluster, each) == getattr(other, each) for each in _PLACING)
        }
        tiers = {None, *(name for name, tier in self._tiers.items() if before.tiers.get(name) == tier)}
        found = {
            name: tenant
            for name, tenant in paced(before.tenants.items())
            if tenant.cluster in clusters and tenant.tier in tiers
        }
        self._admission.share({id(each.settings): each.settings for each in paced(found.values())}.values())
        return found

    def keep(self, tenant: TenantConfig) -> bool:
        """Take a tenant as it was before; tell whether nobody else has its place by now."""
        if not self._admission.keep(tenant):
            return False
        self._tenants[tenant.tenant] = tenant
        return True

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
            secrets=self._file.secrets,
            observability=self._file.observability,
            catalog=self._file.catalog,
            admission=self._admission,
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
        stores.TOKEN,
        stores.SECRET_ID,
    )


def _mapping(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {}


def _names(data: Any) -> frozenset[str] | None:
    return frozenset(filter(_is_text, data)) if isinstance(data, Mapping) else None


def _is_text(key: object) -> bool:
    return isinstance(key, str)
