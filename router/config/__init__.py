"""The configuration: read strictly, checked as a whole, frozen, and never shown with a secret."""

from router.config.admission import Admission
from router.config.catalog import CatalogConfig, PatternConfig, TableConfig
from router.config.clusters import KNOWN_ENGINES
from router.config.loader import load, parse
from router.config.models import (
    AutoCacheConfig,
    CacheConfig,
    CacheRuleConfig,
    CachingConfig,
    ClusterConfig,
    ConnectionsConfig,
    CredentialsConfig,
    FreshnessConfig,
    LoginConfig,
    NodeConfig,
    RemoteCacheConfig,
    RetriesConfig,
    SettingsConfig,
    SlowRuleConfig,
    TimeoutsConfig,
    TlsConfig,
    TokensConfig,
)
from router.config.observability import (
    AuditConfig,
    ExplainConfig,
    MetricsConfig,
    ObservabilityConfig,
    OutboxConfig,
    SlowConfig,
    TrailConfig,
)
from router.config.reader import Document, read
from router.config.references import SecretReference
from router.config.schema import json_schema
from router.config.secret import Secret
from router.config.units import parse_duration, parse_size
from router.config.values import Config, Settings, TenantConfig, TenantLimits

__all__ = [
    # load
    "load",
    "parse",
    "json_schema",
    "read",
    "Document",
    "KNOWN_ENGINES",
    # what is loaded
    "Config",
    "TenantConfig",
    "Settings",
    "Admission",
    "TenantLimits",
    # sections as written
    "ClusterConfig",
    "NodeConfig",
    "CredentialsConfig",
    "LoginConfig",
    "TlsConfig",
    "ConnectionsConfig",
    "SettingsConfig",
    "TimeoutsConfig",
    "RetriesConfig",
    "FreshnessConfig",
    "PatternConfig",
    "CatalogConfig",
    "TableConfig",
    "TokensConfig",
    "CacheConfig",
    "RemoteCacheConfig",
    "CachingConfig",
    "CacheRuleConfig",
    "AutoCacheConfig",
    "SlowRuleConfig",
    "ObservabilityConfig",
    "SlowConfig",
    "MetricsConfig",
    "ExplainConfig",
    "AuditConfig",
    "TrailConfig",
    "OutboxConfig",
    # values
    "Secret",
    "SecretReference",
    "parse_duration",
    "parse_size",
]
