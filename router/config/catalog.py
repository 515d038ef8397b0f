"""Where tenants come from beside their files: the sections ``patterns`` and ``catalog`` of router.yaml."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from router.config.fields import (
    Isolation,
    LogicalName,
    Natural,
    PhysicalName,
    PositiveDuration,
    TenantId,
    Text,
)
from router.config.problems import Flaw
from router.config.section import Section

MARK = "{tenant}"
"""What a template holds in the place of the tenant's id."""


def _template(value: object) -> object:
    if isinstance(value, str) and re.search("[{}]", value.replace(MARK, "", 1)):
        raise Flaw(f"has other braces than those of one {MARK}", f"Write names with one {MARK} in them")
    return value


def _expression(value: object) -> object:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error:
            raise Flaw("is no regular expression", "Write it as for Python's re.fullmatch") from None
    return value


Template = Annotated[
    str, BeforeValidator(_template), WithJsonSchema({"type": "string", "minLength": 1}), Field(max_length=63)
]
Expression = Annotated[str, Field(min_length=1, max_length=1000), BeforeValidator(_expression)]


class PatternConfig(Section):
    """Describe tenants that follow a rule; ``{tenant}`` in a name stands for the tenant's id."""

    match: Expression | None = None
    """Which ids: a regular expression for all of the id."""
    tenants: Annotated[tuple[TenantId, ...], Field(strict=False)] | None = None
    """Or these ids."""
    file: Text | None = None
    """Or those in this file, one on each line; relative to the configuration folder."""
    cluster: LogicalName
    """As in a tenant's file."""
    isolation: Isolation
    """As in a tenant's file."""
    database: Template | None = None
    """With {tenant} in it, unless the tenants share it."""
    schema_: Template | None = Field(default=None, alias="schema")
    """With {tenant} in it, unless the tenants share it."""
    key: Template | None = None
    """With isolation: row, the value that its rows have; the tenant's id if left out."""
    role: Template | None = None
    """The database's role that its statements run as; {tenant} may be in it."""
    schemas: dict[LogicalName, Template] = Field(default={})
    """Further schemas by the name the application uses."""
    tier: LogicalName | None = None
    """One of the tiers in router.yaml."""


class TableConfig(Section):
    """Name a table that holds tenants, one in each row."""

    cluster: LogicalName
    """One of the clusters: its primary is asked, by the login for writes."""
    database: PhysicalName
    """The database that the table is in."""
    schema_: PhysicalName | None = Field(default=None, alias="schema")
    """PostgreSQL only: the schema that it is in; found by the user's own search path if left out."""
    name: PhysicalName = "router_tenants"
    """The table."""
    poll: PositiveDuration | None = None
    """How often it is asked what has changed; 5s if left out, with notify 1m."""
    notify: bool = False
    """PostgreSQL only: whether changes are heard at once, by LISTEN on one more connection."""


class CatalogConfig(Section):
    """Say where tenants are looked up that have no file and fit no pattern, and what of them is kept."""

    table: TableConfig | None = None
    """A table of them."""
    folder: Text | None = None
    """Or a folder of files like those in tenants, each read when it is asked for; relative to this one."""
    cache: Annotated[Natural, Field(ge=1, le=1_000_000)] = 10_000
    """How many found tenants are kept in memory; past that the one found first leaves."""
    negative: Annotated[PositiveDuration, Field(ge=0.1)] = Field(default="5s", validate_default=True)
    """For how long it is believed that there is no such tenant."""
    refresh: PositiveDuration = Field(default="5m", validate_default=True)
    """After this time a tenant that is kept is asked for again, beside all requests."""
    timeout: PositiveDuration = Field(default="5s", validate_default=True)
    """How long an answer may take."""

    @property
    def asks(self) -> bool:
        """Say whether there is somebody to ask."""
        return self.table is not None or self.folder is not None
