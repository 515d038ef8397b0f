"""The configuration as it is written: one model for each section. The JSON Schema is made from these.

Longer than other modules: what is written in one file is described in one.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field

from router.config.catalog import CatalogConfig, PatternConfig
from router.config.fields import (
    Duration,
    ExtensionSchema,
    Fingerprint,
    Host,
    Isolation,
    Key,
    LogicalName,
    LoginName,
    Natural,
    PhysicalName,
    Port,
    PositiveDuration,
    Scalar,
    Setting,
    SettingName,
    Size,
    TenantId,
    Text,
    Weight,
)
from router.config.observability import ObservabilityConfig
from router.config.references import SecretReference
from router.config.section import Section
from router.config.stores import SecretsConfig
from router.config.urls import ServerUrl
from router.consistency import Consistency, Otherwise

TlsMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
Pooler = Literal["pgbouncer-transaction"]
Broadcast = Literal["none", "alone", "redis", "postgresql"]
Balancing = Literal["weighted_random", "round_robin", "least_in_flight", "power_of_two"]


class LoginConfig(Section):
    """Name a database user and where its password comes from."""

    username: LoginName
    """Name of the database user; where a store gives it with the password, ${vault:PATH#username}."""
    password: SecretReference | None = None
    """Best as ${env:NAME}, ${file:PATH}, ${vault:PATH#FIELD}, ${aws:NAME} or ${call:NAME}."""


class CredentialsConfig(Section):
    """Name the users that the router connects as."""

    writer: LoginConfig
    """Used on the primary."""
    reader: LoginConfig | None = None
    """Used on the replicas; the writer if left out."""
    monitor: LoginConfig | None = None
    """Used to ask servers for their role and position; whoever serves the node's requests if left out."""


class TlsConfig(Section):
    """Say how connections are encrypted, in PostgreSQL's terms."""

    mode: TlsMode | None = None
    """verify-full if left out, but disable on a Unix socket or a loopback address."""
    ca: Text | None = None
    """File of the authorities to trust; the system's if left out. Relative to the configuration folder."""
    certificate: Text | None = None
    """File of the client's certificate."""
    key: Text | None = None
    """File of the client's private key."""

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that are named."""
        return tuple(filter(None, (self.ca, self.certificate, self.key)))


class ConnectionsConfig(Section):
    """Bound the connections to each node, over all its databases and users."""

    min: Annotated[Natural, Field(ge=0, le=10_000)] = 0
    """Kept open."""
    max: Annotated[Natural, Field(ge=1, le=10_000)] = 10
    """Never exceeded by one process; the router's probes come on top, one connection for each node."""
    idle: PositiveDuration = Field(default="10m", validate_default=True)
    """An unused connection above min is closed after this time."""
    lifetime: PositiveDuration = Field(default="30m", validate_default=True)
    """A connection is replaced after about this time."""
    waiting: Annotated[Natural, Field(ge=0, le=100_000)] = 1000
    """How many may wait for a connection; 0 for nobody."""
    leak_after: Duration = Field(default="60s", validate_default=True)
    """A transaction or the like that holds a connection for this time is reported; 0s for never."""


class LagConfig(Section):
    """Bound how far behind the primary a replica may be and still be read."""

    max_time: PositiveDuration = Field(default="10s", validate_default=True)
    """A replica that lacks for longer what the primary had is not read."""
    max_bytes: Annotated[Size, Field(gt=0)] = Field(default="8MiB", validate_default=True)
    """PostgreSQL only: decides while the time is not known yet, as after a start."""


class ChecksConfig(Section):
    """Say how often servers are asked for their role and position."""

    interval: PositiveDuration = Field(default="2s", validate_default=True)
    """Between two probes of a server; 100ms for half a minute after any sign of change."""
    timeout: PositiveDuration = Field(default="1s", validate_default=True)
    """A server that needs longer for an answer is left out; the primary after the second time."""


class FailoverConfig(Section):
    """Say what happens while the primary is gone."""

    follow: bool = True
    """Whether writes go to a replica that somebody has promoted; else only ever to the primary above."""
    hold: Duration = Field(default="10s", validate_default=True)
    """How long a request waits for a primary, inside of its own timeout; 0s refuses it at once."""
    waiting: Annotated[Natural, Field(ge=0, le=1_000_000)] = 1_000
    """How many requests may wait so at once."""


class NodeConfig(Section):
    """Describe one server: by parts, by url, or for SQLite by path."""

    name: LogicalName | None = None
    """Shown in events and metrics; primary, replica-1, replica-2, ... if left out."""
    host: Host | None = None
    """Name, IP address, or absolute path of a Unix socket or its folder."""
    port: Port | None = None
    """The engine's usual port if left out."""
    url: ServerUrl | None = None
    """Instead of host, port, username and password: scheme://user:password@host:port/database?sslmode=mode."""
    path: Text | None = None
    """SQLite only: folder of the database files, relative to the configuration folder."""
    weight: Weight = 1.0
    """Share of reads among the replicas."""
    zone: Text | None = None
    """Where the server stands, such as an availability zone."""
    username: LoginName | None = None
    """Instead of the cluster's credentials, on this node."""
    password: SecretReference | None = None
    """Of username."""
    tls: TlsMode | None = None
    """Instead of the cluster's tls mode, on this node."""

    @property
    def local(self) -> bool:
        """Say whether the node is reached without a network: by a file, a Unix socket or loopback."""
        host = self.host or ""
        if self.path or host.startswith("/") or host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(host.partition("%")[0]).is_loopback
        except ValueError:
            return False


class ClusterConfig(Section):
    """Describe one primary and its replicas.

    As loaded, every node has its name, and its host and port or its path; ``url`` is taken apart.
    """

    engine: Text
    """postgresql, mysql, mariadb or sqlite."""
    primary: NodeConfig
    """The server that takes writes."""
    replicas: Annotated[tuple[NodeConfig, ...], Field(strict=False)] = ()
    """Servers that follow the primary and take reads."""
    readers: Annotated[Natural, Field(ge=0, le=64)] = 2
    """SQLite only: how many read-only connections serve reads beside the one writer."""
    database: PhysicalName | None = None
    """Database of tenants that are isolated by schema."""
    credentials: CredentialsConfig | None = None
    """Who to connect as."""
    tls: TlsConfig = TlsConfig()
    """How connections are encrypted."""
    connections: ConnectionsConfig = ConnectionsConfig()
    """Bounds of what is connected to each node."""
    lag: LagConfig = LagConfig()
    """How late a replica may be."""
    checks: ChecksConfig = ChecksConfig()
    """How servers are watched."""
    failover: FailoverConfig = FailoverConfig()
    """What happens while the primary is gone."""
    balancing: Balancing = "power_of_two"
    """How a read chooses among the replicas."""
    extensions: Annotated[tuple[ExtensionSchema, ...], Field(strict=False)] = ()
    """PostgreSQL only: schemas of extensions, put after the tenant's own on its search_path."""
    options: dict[str, Scalar] = Field(default={}, repr=False)
    """Passed to the driver by name."""
    server_settings: dict[str, Setting] = Field(default={}, repr=False)
    """PostgreSQL only: settings of each connection's session; they win over the router's own."""
    resolve_commits: bool = False
    """PostgreSQL only: learn each transaction's number at its begin, and ask for its outcome if need be."""
    pooler: Pooler | None = None
    """PostgreSQL only: if the nodes are PgBouncers that lend a session for one transaction."""
    row_setting: SettingName = "app.tenant"
    """PostgreSQL only: the setting that row security policies of tenants with isolation: row compare with."""

    @property
    def nodes(self) -> tuple[NodeConfig, ...]:
        """Return all nodes, the primary first."""
        return (self.primary, *self.replicas)

    @property
    def logins(self) -> tuple[LoginConfig, ...]:
        """Return every login that is configured, once each."""
        monitor = None if self.credentials is None else self.credentials.monitor
        given = [self.login(node, writer=writer) for node in self.nodes for writer in (True, False)]
        return tuple(dict.fromkeys(login for login in (*given, monitor) if login is not None))

    def tls_mode(self, node: NodeConfig) -> TlsMode:
        """Return the mode for ``node``: its own, the cluster's, or the default for where it is."""
        return node.tls or self.tls.mode or ("disable" if node.local else "verify-full")

    def login(self, node: NodeConfig, *, writer: bool) -> LoginConfig | None:
        """Return who to connect to ``node`` as; ``None`` where no login is configured (SQLite)."""
        if node.username is not None:
            return LoginConfig(username=node.username, password=node.password)
        if self.credentials is None:
            return None
        return self.credentials.writer if writer else self.credentials.reader or self.credentials.writer


class TimeoutsConfig(Section):
    """Bound how long things may take."""

    acquire: PositiveDuration | None = None
    """Waiting for a free connection; 5s if set nowhere."""
    connect: PositiveDuration | None = None
    """Opening a connection; 5s if set nowhere."""
    statement: PositiveDuration | None = None
    """One statement, each time it is sent; 30s if set nowhere."""


class RetriesConfig(Section):
    """Bound the repetition of what may safely be repeated."""

    attempts: Annotated[Natural, Field(ge=1, le=20)] | None = None
    """All tries of one request, the first included; 3 if set nowhere."""
    min_wait: Duration | None = None
    """Upper bound of the first wait, doubled for each further one; 20ms if set nowhere."""
    max_wait: Duration | None = None
    """Upper bound of any wait; 1s if set nowhere."""


class FreshnessConfig(Section):
    """Say how old what is read may be, and what happens when no replica has what a read must see."""

    max_time: PositiveDuration | None = None
    """With consistency bounded: rows may lack what is newer than this; 5s if set nowhere."""
    max_bytes: Annotated[Size, Field(gt=0)] | None = None
    """PostgreSQL only: and they may lack this much of the primary's log; no such bound if set nowhere."""
    wait: Duration | None = None
    """How long a read may wait for a replica to catch up; 50ms if set nowhere."""
    otherwise: Annotated[Otherwise, Field(strict=False)] | None = None
    """After that: primary asks the primary, error raises StaleReadError; primary if set nowhere."""


class CacheRuleConfig(Section):
    """Name reads that are cached without being asked for."""

    tables: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Reads of these tables and of no others."""
    fingerprints: Annotated[tuple[Fingerprint, ...], Field(strict=False)] = ()
    """Reads with these fingerprints, as router explain and the slow log show them."""
    ttl: PositiveDuration
    """How old a cached answer may be."""


class AutoCacheConfig(Section):
    """Say which reads are cached by themselves, because they are hot."""

    ttl: PositiveDuration
    """How old a cached answer may be."""
    reads: Annotated[Natural, Field(ge=2, le=1_000_000)] = 20
    """A read with the same parameters is hot when it was made so often"""
    window: PositiveDuration = Field(default="10s", validate_default=True)
    """in so much time."""


class CachingConfig(Section):
    """Say which reads are cached; others are if the call says so."""

    rules: Annotated[tuple[CacheRuleConfig, ...], Field(strict=False)] | None = None
    """The first one that fits a read counts."""
    auto: AutoCacheConfig | None = None
    """Whether hot reads are cached by themselves; no if left out."""
    dependencies: dict[Text, Annotated[tuple[Text, ...], Field(strict=False)]] = Field(default={})
    """A table, and the tables that its triggers change with it; [] if they change none."""


class SlowRuleConfig(Section):
    """Name statements that have a threshold of their own."""

    tables: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Statements that name one of these tables."""
    fingerprints: Annotated[tuple[Fingerprint, ...], Field(strict=False)] = ()
    """Statements with these fingerprints, as router slow and router explain show them."""
    threshold: Duration
    """A request with such a statement that takes longer is reported."""


class LimitsConfig(Section):
    """Bound what one tenant takes of what it shares with others; each process counts by itself."""

    connections: Annotated[Natural, Field(ge=1, le=10_000)] | None = None
    """Held at once on a node; if set nowhere all but a fifth, unless the tenant is alone on the cluster."""
    waiting: Annotated[Natural, Field(ge=0, le=100_000)] | None = None
    """How many of its requests may wait for a connection on a node; as the node's if set nowhere."""
    weight: Annotated[Weight, Field(gt=0)] | None = None
    """Share of a node's time while others wait as well; 1 if set nowhere."""
    rate: Annotated[float, Field(gt=0, le=1_000_000, strict=False)] | None = None
    """Requests that it may send to the databases in a second; no bound if set nowhere."""
    burst: Annotated[Natural, Field(ge=1, le=1_000_000)] | None = None
    """And so many at once after a quiet time; as many as rate allows in a second if set nowhere."""


class SettingsConfig(Section):
    """Hold what defaults, tiers and tenants may set; the tenant wins over its tier, and that over all."""

    consistency: Annotated[Consistency, Field(strict=False)] | None = None
    """eventual: any replica; bounded: a fresh one; session: one with its own writes; strong: the primary."""
    freshness: FreshnessConfig = FreshnessConfig()
    """How old what is read may be, and how long a read waits for it."""
    timeouts: TimeoutsConfig = TimeoutsConfig()
    """How long things may take."""
    slow_query: Duration | None = None
    """A request that takes longer is reported; 500ms if set nowhere."""
    slow_statements: Annotated[tuple[SlowRuleConfig, ...], Field(strict=False)] | None = None
    """Other thresholds for some statements; the first one that fits counts."""
    retries: RetriesConfig = RetriesConfig()
    """How often failed requests are tried."""
    cache: CachingConfig = CachingConfig()
    """Which reads are answered from memory."""
    limits: LimitsConfig = LimitsConfig()
    """What it may take of what it shares with others."""
    audit: bool | None = None
    """Whether writes are recorded, where observability.audit says how; yes if set nowhere."""


class TenantFile(SettingsConfig):
    """Describe one tenant: the content of tenants/<tenant>.yaml."""

    tenant: TenantId
    """The tenant's id; the file has the same name."""
    cluster: LogicalName
    """One of the clusters in router.yaml."""
    isolation: Isolation
    """database: it has one of its own; schema: a schema in a shared one; row: rows in shared tables."""
    database: PhysicalName | None = None
    """Its database; with isolation: schema or row the cluster's if left out."""
    schema_: ExtensionSchema | None = Field(default=None, alias="schema")
    """Its schema, with isolation: schema; with isolation: row the one that the shared tables are in."""
    key: Key | None = None
    """With isolation: row, the value that its rows have; the tenant's id if left out."""
    role: PhysicalName | None = None
    """The database's role that its statements run as; the login must be a member of it."""
    schemas: dict[LogicalName, PhysicalName] = Field(default={})
    """Further schemas (on MySQL and SQLite: databases) by the name the application uses."""
    tier: LogicalName | None = None
    """One of the tiers in router.yaml."""
    suspended: bool = False
    """Whether its requests are refused for now."""


class TokensConfig(Section):
    """Say how tokens are signed that carry a session's position to other requests and processes."""

    keys: Annotated[tuple[SecretReference, ...], Field(strict=False, min_length=1, max_length=8)]
    """The first signs, all verify. Each has 16 characters or more, best as ${env:NAME} or ${file:PATH}."""
    lifetime: PositiveDuration = Field(default="10m", validate_default=True)
    """An older token is not believed."""


class RemoteCacheConfig(Section):
    """Name a server that processes share cached answers through, and how values there are signed."""

    url: SecretReference
    """redis://, rediss:// or memcached://, best as ${env:NAME} or ${file:PATH}."""
    key: SecretReference
    """What is not signed with it is not believed; 16 characters or more, the same in all processes."""
    prefix: LogicalName = "router"
    """Begins the name of all that is stored there."""
    wait: PositiveDuration = Field(default="50ms", validate_default=True)
    """How long a read waits for it before it goes to the database."""


class CacheConfig(Section):
    """Bound the cache, and say how processes tell each other what was written."""

    size: Size = Field(default="64MiB", validate_default=True)
    """Memory for cached answers in each process; 0B for no cache."""
    entries: Annotated[Natural, Field(ge=1, le=100_000_000)] = 100_000
    """How many answers there may be in each process."""
    largest: Annotated[Size, Field(gt=0)] = Field(default="1MiB", validate_default=True)
    """A larger answer is not cached."""
    broadcast: Broadcast = "none"
    """How other processes hear of writes: redis, postgresql (NOTIFY), none; alone if there are no others."""
    remote: RemoteCacheConfig | None = None
    """A second tier that processes share."""


class RouterFile(Section):
    """Describe the clusters and what tenants inherit: the content of router.yaml."""

    version: Literal[1]
    """Version of this format."""
    clusters: dict[LogicalName, ClusterConfig]
    """The clusters by name."""
    defaults: SettingsConfig = SettingsConfig()
    """What every tenant inherits."""
    tiers: dict[LogicalName, SettingsConfig] = Field(default={})
    """Named sets of settings that tenants may choose."""
    patterns: Annotated[tuple[PatternConfig, ...], Field(strict=False, max_length=100)] = ()
    """Tenants that follow a rule and have no file; the first that accepts an id counts."""
    catalog: CatalogConfig = CatalogConfig()
    """Where tenants are looked up that have no file and fit no pattern."""
    tokens: TokensConfig | None = None
    """How tokens are signed; without it sessions give none."""
    secrets: SecretsConfig = SecretsConfig()
    """Where passwords are kept that are written as ${vault:...}, ${aws:...} or ${call:...}."""
    cache: CacheConfig = CacheConfig()
    """How much is kept in memory, and how processes hear of each other's writes."""
    observability: ObservabilityConfig = ObservabilityConfig()
    """What is measured, kept and shown."""
