"""Admit tenants, one at a time: from their files, by a pattern, or from where else they are looked up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from router.config import places
from router.config.catalog import MARK
from router.config.claims import Claims
from router.config.models import ClusterConfig, SettingsConfig, TenantFile
from router.config.patterns import Pattern
from router.config.problems import Found, Report, dig
from router.config.salvage import Salvaged, salvage
from router.config.values import NO_SCHEMAS, Settings, TenantConfig, settle
from router.errors import ConfigurationError, Problem
from router.identifiers import shown

Taker = Callable[[str, frozenset[places.Place]], str | None]

_SETTINGS = frozenset(SettingsConfig.model_fields)
_NOTHING = SettingsConfig()  # to make one takes as long as to check a tenant
_SAMPLES = ("a", "b")  # ids that two tenants of a pattern might have
_INTERNED = 10_000  # settings of which equal ones are shared

_TOO_LONG = Found(
    ("timeouts", "statement"),
    "is longer than that of any tier, which is what connections are set up for",
    "Put it into a tier, and the tenant into that tier",
)
WAITS: Final = Found((), "has a min_wait above its max_wait", "Lower min_wait or raise max_wait")


class Admission:
    """Hold what tenants are measured by: clusters, defaults, tiers, patterns, and whose place is whose.

    Names that are not known are ``None``: router.yaml could not be read, and says enough about itself.
    """

    def __init__(
        self,
        folder: Path = Path(),
        clusters: Mapping[str, ClusterConfig] = MappingProxyType({}),
        cluster_names: Collection[str] | None = None,
        tiers: Mapping[str, SettingsConfig] = MappingProxyType({}),
        tier_names: Collection[str] | None = None,
        defaults: SettingsConfig | None = None,
        explicit: Collection[str] = (),
    ) -> None:
        self.patterns: tuple[Pattern, ...] = ()
        self.claims = Claims()
        self._explicit = explicit
        self._folder = folder
        self._clusters = clusters
        self._cluster_names = cluster_names
        self._tiers = tiers
        self._tier_names = tier_names
        self._defaults = defaults or _NOTHING
        self._settled: dict[str | None, Settings] = {}  # of tenants without settings of their own, by tier
        self._interned: dict[Settings, Settings] = {}
        self._reused: Settings | None = None
        #: the most that a statement of a tenant without a file may take: servers end it soon afterwards
        self.longest = max(
            settle((self._defaults, tier)).statement_timeout for tier in (_NOTHING, *tiers.values())
        )

    # --- while running -----------------------------------------------------------------------------------

    def check(self, tenant: str, data: object, place: str) -> TenantConfig:
        """Return the tenant that ``data`` describes; ``place`` says in messages where the data are from.

        Raises ConfigurationError with every mistake.
        """
        found = self._checked(tenant, data, place)
        self._refuse_rival(found, self.claims.holder(self._places(found), tenant), place)
        return found

    def take(self, tenant: str, data: object, place: str, had: TenantConfig | None = None) -> TenantConfig:
        """Do as :meth:`check`, and keep others out of its place, instead of the one that it ``had``."""
        found = self._checked(tenant, data, place)
        before = frozenset[places.Place]() if had is None else self._places(had)
        self._refuse_rival(found, self.claims.take(tenant, self._places(found), before), place)
        return found

    def accepts(self, tenant: object) -> bool:
        """Say whether a pattern is for this id."""
        return isinstance(tenant, str) and self._pattern(tenant) is not None

    def patterned(self, tenant: str) -> TenantConfig | None:
        """Return the tenant that the first pattern makes that accepts the id; raises ConfigurationError."""
        pattern = self._pattern(tenant) if isinstance(tenant, str) else None
        return None if pattern is None else self.check(tenant, pattern.data_for(tenant), pattern.name)

    def release(self, tenant: TenantConfig) -> None:
        """Let others have the place of a tenant that was taken."""
        self.claims.release(self._places(tenant))

    def _checked(self, tenant: str, data: object, place: str) -> TenantConfig:
        problems: list[Problem] = []
        if isinstance(data, Mapping):
            data = {"tenant": tenant, **data}
        found = self._admitted(data, tenant, Report(place, {}, problems))
        del data
        if found is not None and found.settings.statement_timeout > self.longest:
            Report(place, {}, problems).add(_TOO_LONG)
        if found is None or problems:
            raise ConfigurationError(sorted(problems)).at(tenant=tenant)
        self._refuse_rival(found, self._would_be(found), place)
        return found

    def _would_be(self, tenant: TenantConfig) -> str | None:
        """Return another tenant that a pattern would put where this one is."""
        wanted = self._places(tenant)
        names = {name for place in wanted for name in place[1:] if name}
        for pattern in self.patterns:
            for other in pattern.ids_of(names):
                if other == tenant.tenant or other in self._explicit or self._pattern(other) is not pattern:
                    continue
                section = _validated(pattern.data_for(other), self._folder)
                cluster = None if section is None else self._clusters.get(section.cluster)
                if section is None or cluster is None:
                    continue
                there = _kept(section, other, cluster, self._settings(section))
                if any(places.overlap(one, two) for one in wanted for two in self._places(there)):
                    return other
        return None

    def _refuse_rival(self, tenant: TenantConfig, other: str | None, place: str) -> None:
        if other is not None:
            problems: list[Problem] = []
            Report(place, {}, problems).add(_taken(tenant, f"the tenant {shown(other)}"))
            raise ConfigurationError(problems).at(tenant=tenant.tenant)

    def _pattern(self, tenant: str) -> Pattern | None:
        return next((each for each in self.patterns if each.accepts(tenant)), None)

    def _places(self, tenant: TenantConfig) -> frozenset[places.Place]:
        return places.places_of(tenant, places.server_of(self._clusters[tenant.cluster]))

    # --- while loading -----------------------------------------------------------------------------------

    def flaws(self, pattern: Pattern) -> Iterator[Found]:
        """Yield what is wrong with a pattern, whomever it is for."""
        there: list[frozenset[places.Place]] = []
        for sample in _SAMPLES:
            problems: list[Found] = []
            section = _validated(pattern.data_for(sample), self._folder, problems.append)
            if section is not None:
                problems += self._unknown_names(section.cluster, section.tier)
            if section is not None and (cluster := self._clusters.get(section.cluster)) is not None:
                problems += places.check(section, cluster)
                there.append(self._places(_kept(section, sample, cluster, self._settings(section))))
            if problems:
                yield from problems
                return
        if len(there) == len(_SAMPLES) and any(places.overlap(a, b) for a in there[0] for b in there[1]):
            remedy = f"Put {MARK} into the name of each place: database, schema, schemas or key"
            yield Found((), "puts all its tenants into one place: each would see the others' rows", remedy)

    def admit(self, data: Any, expected: str, report: Report) -> TenantConfig | None:
        """Return the tenant that a file describes, whose id must be ``expected``, and keep its place."""
        return self._admitted(data, expected, report, self.claims.take)

    def keep(self, tenant: TenantConfig) -> bool:
        """Take in a tenant as it was found before; tell whether nobody else has its place by now."""
        if self.claims.take(tenant.tenant, self._places(tenant)) is not None:
            return False
        if tenant.settings is not self._reused:  # most share one; to hash it takes long
            self._reused = self._interned.setdefault(tenant.settings, tenant.settings)
        return True

    def share(self, known: Iterable[Settings]) -> None:
        """Let equal settings of further tenants be the objects that these are."""
        for settings in known:
            self._interned.setdefault(settings, settings)

    def _admitted(
        self, data: Any, expected: str, report: Report, take: Taker | None = None
    ) -> TenantConfig | None:
        before = len(report.problems)
        section = _validated(data, self._folder, report.add)
        self._check_names(data if isinstance(data, Mapping) else {}, expected, report)
        whole = Salvaged(section, ()) if section else salvage(TenantFile, data, self._folder)
        tenant = whole.section
        cluster = self._clusters.get(tenant.cluster) if tenant else None
        if tenant is None or cluster is None:
            return None
        settings = self._settings(tenant)
        kept = _kept(tenant, expected, cluster, settings)
        flaws = whole.tellable(places.check(tenant, cluster))
        for found in flaws:
            report.add(found)
        if take is not None and not flaws and (other := take(expected, self._places(kept))):
            before_name, _, after = report.file.rpartition(expected)
            report.add(_taken(kept, f"{before_name}{other}{after}"))
        if "retries" in tenant.model_fields_set and wrong_waits(settings):
            report.add(WAITS._replace(loc=("retries",)))
        return kept if len(report.problems) == before else None

    def _check_names(self, data: Mapping[str, Any], expected: str, report: Report) -> None:
        """Check the names in a tenant's file, whatever else is wrong with it."""
        name = data.get("tenant")
        if isinstance(name, str) and name != expected:
            remedy = f"Rename the file to {shown(name)}.yaml, or write tenant: {shown(expected)}"
            report.add(Found(("tenant",), f"is {shown(name)}, but the name is {shown(expected)}", remedy))
        for found in self._unknown_names(data.get("cluster"), data.get("tier")):
            report.add(found)

    def _unknown_names(self, cluster: object, tier: object) -> Iterator[Found]:
        for what, chosen, known in (
            ("cluster", cluster, self._cluster_names),
            ("tier", tier, self._tier_names),
        ):
            if isinstance(chosen, str) and known is not None and chosen not in known:
                yield unknown(what, chosen, known)

    def _settings(self, tenant: TenantFile) -> Settings:
        plain = _SETTINGS.isdisjoint(tenant.model_fields_set)
        if plain and (known := self._settled.get(tenant.tier)) is not None:
            return known
        tier = self._tiers.get(tenant.tier or "", _NOTHING)
        settings = settle((self._defaults, tier, tenant))
        if len(self._interned) >= _INTERNED:
            self._interned.clear()
        settings = self._interned.setdefault(settings, settings)
        if plain:
            self._settled[tenant.tier] = settings
        return settings


def _validated(data: Any, folder: Path, tell: Callable[[Found], None] | None = None) -> TenantFile | None:
    try:
        return TenantFile.model_validate(data, context=folder)
    except ValidationError as error:
        if tell is not None:
            for found in dig(error, TenantFile):
                tell(found)
    return None


def _kept(tenant: TenantFile, name: str, cluster: ClusterConfig, settings: Settings) -> TenantConfig:
    """Return what is kept of a tenant: small, and sharing what is equal."""
    return TenantConfig(
        tenant=name,
        cluster=sys.intern(tenant.cluster),
        isolation=sys.intern(tenant.isolation),
        database=tenant.database or (None if tenant.isolation == "database" else cluster.database),
        schema=tenant.schema_,
        schemas=MappingProxyType(tenant.schemas) if tenant.schemas else NO_SCHEMAS,
        tier=sys.intern(tenant.tier) if tenant.tier else None,
        settings=settings,
        role=tenant.role,
        row=(cluster.row_setting, tenant.key or name) if tenant.isolation == "row" else None,
        suspended=tenant.suspended,
    )


def _taken(tenant: TenantConfig, other: str) -> Found:
    loc = ({"schema": "schema", "row": "key"}.get(tenant.isolation, "database"),)
    message = f"is a place that {other} has too: each tenant would see the other's rows"
    return Found(loc, message, "Give each tenant a database or schema of its own")


def wrong_waits(settings: Settings) -> bool:
    """Say whether waits between retries could not grow."""
    return settings.retry_min_wait > settings.retry_max_wait


def unknown(what: str, name: str, known: Collection[str], *way: str) -> Found:
    """Return the mistake of a name that router.yaml does not have."""
    close = get_close_matches(name, known, n=1)
    remedy = f"Did you mean {close[0]!r}? " if close else ""
    remedy += f"Known are: {', '.join(sorted(map(shown, known))[:20]) or 'none'}"
    return Found((*way, what), f"{shown(name)} is not in router.yaml", remedy)
