"""What the commands of tenants show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.cli.screen import printable, table
from router.cli.views import counted
from router.config import Config, TenantConfig
from router.config.origins import Origin
from router.onboarding import Added, Plan, Removed, Shown


def facts(tenant: TenantConfig) -> dict[str, Any]:
    """Return what is told of a tenant as JSON."""
    return {
        "tenant": tenant.tenant,
        "cluster": tenant.cluster,
        "isolation": tenant.isolation,
        "database": tenant.database,
        "schema": tenant.schema,
        "schemas": dict(tenant.schemas),
        "row": tenant.row,
        "role": tenant.role,
        "tier": tenant.tier,
        "state": _state(tenant),
    }


def _state(tenant: TenantConfig) -> str:
    return "suspended" if tenant.suspended else "active"


_STATES = {"suspended": "bold yellow", "active": "green"}


def place(tenant: TenantConfig, engine: str) -> str:
    """Return where a tenant's rows are."""
    if tenant.row is not None:
        setting, value = tenant.row
        return f"rows of {tenant.database} with {setting} = {value}"
    if engine == "sqlite":
        return f"file {tenant.database}.db"
    if tenant.isolation == "database" or tenant.database is None:
        return f"database {tenant.database or tenant.schema}"
    return f"schema {tenant.schema} in {tenant.database}"


def show_tenants(screen: Console, tenants: Sequence[TenantConfig], config: Config, *, total: int) -> None:
    """Print a row for each tenant, and how many there are."""
    if tenants:
        shown = table(screen, "tenant", "cluster", "isolation", "place", "role", "tier", "")
        for each in tenants:
            shown.add_row(
                Text(each.tenant, "bold"),
                each.cluster,
                each.isolation,
                Text(place(each, config.clusters[each.cluster].engine), overflow="fold"),
                each.role or "",
                each.tier or "",
                Text(_state(each), _STATES[_state(each)]),
            )
        screen.print(shown)
    cut = f"; {len(tenants)} are shown, --limit 0 shows all" if len(tenants) < total else ""
    screen.print(Text(f"{counted(total, 'tenant')}{cut}", "dim"), soft_wrap=True)


def show_tenant(screen: Console, found: Shown) -> None:
    """Print all that is in force for a tenant."""
    tenant = found.tenant
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    schemas = ", ".join(f"{name} = {schema}" for name, schema in tenant.schemas.items())
    rows = (
        ("tenant", Text.assemble((tenant.tenant, "bold"), "  ", (_state(tenant), _STATES[_state(tenant)]))),
        ("cluster", Text(f"{tenant.cluster}  ({found.cluster.engine})")),
        ("isolation", Text(tenant.isolation)),
        ("place", Text(place(tenant, found.cluster.engine))),
        ("schemas", Text(schemas or "(none)")),
        ("role", Text(tenant.role or "(none: that of the login)")),
        ("tier", Text(tenant.tier or "(none)")),
        ("written in", Text(printable(found.where))),
    )
    for name, value in rows:
        grid.add_row(name, value)
    screen.print(grid)
    settings = table(screen, "setting", "in force", "from")
    settings.columns[1].overflow = "fold"
    for each in found.settings:
        settings.add_row(each.name, Text(_value(each)), Text(each.where or "built in", _from(each.where)))
    screen.print()
    screen.print(settings)


def _from(where: str) -> str:
    return "bold" if where.endswith("tenant") else "cyan" if where.startswith("tier") else "dim"


_TIMES = ("max_time", "wait", "acquire", "connect", "statement", "slow_query", "min_wait", "max_wait")


def _value(setting: Origin) -> str:
    """Return a setting as a person reads it; rules are counted, for they may be many."""
    value = setting.value
    if value is None or value == ():
        return "(not set)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return counted(len(value), "table" if setting.name == "cache.dependencies" else "rule")
    if setting.name == "cache.auto":
        return f"{value.ttl:g} s, after {value.reads} reads in {value.window:g} s"
    if isinstance(value, float):
        unit = " s" if setting.name.rpartition(".")[2] in _TIMES else ""
        return f"{value:g}{unit}"
    return str(value)


def show_plan(screen: Console, plan: Plan, *, provision: bool) -> None:
    """Print the file that would be written, and the statements that would be run."""
    screen.print(Text(f"# {printable(plan.where)}", "dim"), soft_wrap=True)
    screen.print(Text(printable(plan.text).rstrip()), soft_wrap=True)
    if not provision:
        return
    screen.print()
    if not plan.steps:
        screen.print(Text("-- nothing to make: it shares its tables with others", "dim"), soft_wrap=True)
    for database, steps in groupby(plan.steps, key=lambda each: each.database):
        where = f"in {database}" if database else "on the server"
        screen.print(Text(f"-- {where}", "dim"), soft_wrap=True)
        for each in steps:
            unless = "  -- if it is not there" if each.unless is not None else ""
            screen.print(Text.assemble(f"{each.sql};", (unless, "dim")), soft_wrap=True)


def show_added(screen: Console, added: Added) -> None:
    """Print what was done."""
    for each in added.done:
        if each.step.makes:
            word = ("was there  ", "yellow") if each.before else ("made  ", "green")
            screen.print(Text.assemble(word, each.step.what), soft_wrap=True)
    screen.print(
        Text.assemble(("written  ", "green"), printable(added.where)),
        soft_wrap=True,
    )


def show_removed(screen: Console, removed: Removed) -> None:
    """Print which file is gone, and what would drop the rows."""
    screen.print(Text.assemble(("removed  ", "green"), printable(removed.where)), soft_wrap=True)
    if removed.drops:
        screen.print("Its rows are still there. To drop them as well:", soft_wrap=True)
        for each in removed.drops:
            screen.print(Text(f"  {each}"), soft_wrap=True)
