"""What is measured, kept and shown: the sections under ``observability`` in router.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from router.config.fields import (
    Duration,
    LogicalName,
    Natural,
    PositiveDuration,
    RisingDurations,
    Size,
    TenantId,
    Text,
)
from router.config.references import SecretReference
from router.config.section import Section

Fsync = Literal["each", "interval", "off"]
WhenFull = Literal["refuse", "continue"]


class ConsoleConfig(Section):
    """Say whether the web app shows the console, and who may see it."""

    enabled: bool = False
    """Whether there is a page at /console."""
    token: SecretReference | None = None
    """What the console and /status ask for; 16 characters or more, best as ${env:NAME} or ${file:PATH}."""


class MetricsConfig(Section):
    """Bound the series of the metrics, and say how processes that share a port show theirs together."""

    tenants: Annotated[Natural, Field(ge=0, le=10_000)] = 200
    """How many tenants have series of their own: those that ask most; all others are counted as _other."""
    always: Annotated[tuple[TenantId, ...], Field(strict=False)] = ()
    """Tenants that have series of their own however little they ask."""
    buckets: RisingDurations = ()
    """Upper bounds of the histograms; fourteen from 0.5ms to 10s if left out."""
    workers: Text | None = None
    """Folder where the worker processes of a server leave their counts; relative to the configuration's."""


class ExplainConfig(Section):
    """Say how often the server is asked for the plan of a statement that costs much."""

    every: PositiveDuration = Field(default="1m", validate_default=True)
    """Between two questions; there are no others."""
    timeout: PositiveDuration = Field(default="2s", validate_default=True)
    """How long one may take, waiting for a connection included."""
    again: PositiveDuration = Field(default="1h", validate_default=True)
    """After this time the plan of the same statement may be asked for again."""


class SlowConfig(Section):
    """Bound the table of statements, and say whether their plans are asked for."""

    digests: Annotated[Natural, Field(ge=1, le=100_000)] = 500
    """How many statements each process keeps: those that cost most time."""
    explain: ExplainConfig | None = None
    """Whether replicas are asked for the plans of those that cost most; no if left out."""


class TrailConfig(Section):
    """Say where the journal of writes is kept, and how safely."""

    folder: Text
    """Folder of the journal, on a local disk; relative to the configuration folder."""
    fsync: Fsync = "interval"
    """When the disk is waited for: each, before a write is answered; interval, now and then; off, never."""
    interval: PositiveDuration = Field(default="1s", validate_default=True)
    """With fsync interval: how much may be lost when the machine loses its power."""
    wait: PositiveDuration = Field(default="5s", validate_default=True)
    """How long a write waits for its record to be in the journal."""
    when_full: WhenFull = "refuse"
    """When the journal cannot be written: refuse writes, or continue without records and count them."""
    segment: Annotated[Size, Field(ge=4096)] = Field(default="16MiB", validate_default=True)
    """A file of the journal that is larger is followed by another."""
    keep: Duration = Field(default="7d", validate_default=True)
    """How long a file is kept after all of it was delivered; what nobody takes is kept for ever."""


class OutboxConfig(Section):
    """Name the table that takes a row for each write, in the write's own transaction."""

    table: LogicalName = "router_audit"
    """The table, in each tenant's schema or database; router audit schema shows how to create it."""


class AuditConfig(Section):
    """Say how writes are recorded: in a journal, in a table beside what they write, or both."""

    key: SecretReference | None = None
    """Records are signed with it; 16 characters or more, best as ${env:NAME} or ${file:PATH}."""
    trail: TrailConfig | None = None
    """A journal on this machine, from which a listener gets every record."""
    outbox: OutboxConfig | None = None
    """A row in the database, written or undone together with the write."""
    longest: Annotated[Size, Field(ge=64)] = Field(default="4KiB", validate_default=True)
    """A statement's text is cut to this in its record."""


class ObservabilityConfig(Section):
    """Say what is measured, kept and shown."""

    metrics: MetricsConfig = MetricsConfig()
    """How many series the metrics have."""
    slow: SlowConfig = SlowConfig()
    """Which statements cost most."""
    console: ConsoleConfig = ConsoleConfig()
    """The page for people, and the token that it asks for."""
    audit: AuditConfig = AuditConfig()
    """Who wrote what, when and where."""
