"""The commands of tenants: see them, take them in, suspend them, let them go."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from router import onboarding
from router.cli.guard import Code, guarded
from router.cli.options import AsJson, ConfigPath, lines
from router.cli.screen import console, say, write_json
from router.cli.tenantviews import facts, show_added, show_plan, show_removed, show_tenant, show_tenants
from router.config import LoginConfig, Secret, SecretReference
from router.config.fields import Isolation
from router.errors import UsageError
from router.provisioning import Provision

PASSWORD = "ROUTER_ADMIN_PASSWORD"  # noqa: S105  # the name of a variable
_ROWS = 100  # of a table, unless more are asked for

tenants = typer.Typer(
    name="tenants",
    help="See tenants, take them in, suspend them, and let them go.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Id = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]


def _text(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


# --- list ------------------------------------------------------------------------------------------------


@tenants.command(
    "list",
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router tenants list --suspended",
        "  $ router tenants list --cluster main --tier enterprise",
        "  $ router tenants list --json | jq -r '.tenants[] | select(.role == null) | .tenant'",
        f"A table ends after {_ROWS} rows unless --limit says otherwise; JSON has all.",
    ),
)
@guarded
def list_(
    ctx: typer.Context,
    config: ConfigPath = Path("config"),
    cluster: Annotated[str | None, _text("Only those of this cluster.")] = None,
    tier: Annotated[str | None, _text("Only those of this tier.")] = None,
    suspended: Annotated[
        bool | None, typer.Option("--suspended/--active", help="Only those.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="How many; 0 for all.", show_default=False)] = None,
    as_json: AsJson = False,
) -> Code:
    """List the tenants of a configuration, by their ids."""
    with console(stderr=True).status("reading all tenants"):
        listing = asyncio.run(onboarding.every(config))
    loaded = listing.config
    for what, name, known in (("cluster", cluster, loaded.clusters), ("tier", tier, loaded.tiers)):
        if name is not None and name not in known:
            raise UsageError(f"there is no {what} {name!r}. Known are: {', '.join(known) or 'none'}")
    found = [
        each
        for each in listing.tenants
        if cluster in (None, each.cluster)
        and tier in (None, each.tier)
        and suspended in (None, each.suspended)
    ]
    rows = found[: (None if as_json else _ROWS) if limit is None else limit or None]
    if as_json:
        write_json({"total": len(found), "tenants": [facts(each) for each in rows]})
    else:
        show_tenants(console(), rows, loaded, total=len(found))
    for error in listing.refused:
        say(str(error), "red")
    return Code.NO if listing.refused else Code.OK


# --- show ------------------------------------------------------------------------------------------------


@tenants.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router tenants show acme",
        "  $ router tenants show acme --json | jq '.settings[] | select(.from == \"tenant\")'",
    )
)
@guarded
def show(
    ctx: typer.Context, tenant: Id, config: ConfigPath = Path("config"), as_json: AsJson = False
) -> Code:
    """Show what is in force for a tenant: where it is, its limits, and where each setting comes from."""
    found = asyncio.run(onboarding.show(config, tenant))
    if as_json:
        settings = [{"name": each.name, "value": each.value, "from": each.where} for each in found.settings]
        write_json({**facts(found.tenant), "where": found.where, "settings": settings})
    else:
        show_tenant(console(), found)
    return Code.OK


# --- add -------------------------------------------------------------------------------------------------


@tenants.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router tenants add acme --cluster main --isolation schema",
        "  $ router tenants add acme --cluster main --isolation schema --provision --dry-run",
        "  $ ROUTER_ADMIN_PASSWORD=$(cat admin-password) router tenants add globex --cluster main "
        "--isolation database --provision --admin-user admin",
        "It writes tenants/TENANT.yaml, or a row where router.yaml names a table of tenants; whole or not at "
        "all, and only if the router would accept it. A schema or database that is not named is called like "
        "the tenant. With --provision the place is made first; what is there already is kept, so that the "
        "same command can be run again after an error.",
        "The user that the application connects as may seldom make databases, and need not: name one that "
        f"may by --admin-user. Its password is taken from the environment, {PASSWORD} unless "
        "--admin-password-env says otherwise, or asked for.",
    )
)
@guarded
def add(
    ctx: typer.Context,
    tenant: Id,
    cluster: Annotated[str, typer.Option(help="One of the clusters in router.yaml.")],
    isolation: Annotated[Isolation, typer.Option(help="What it has of its own; with row nothing but rows.")],
    config: ConfigPath = Path("config"),
    database: Annotated[str | None, _text("Its database; called like the tenant if left out.")] = None,
    schema: Annotated[str | None, _text("Its schema; called like the tenant if left out.")] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SCHEMA",
            help="A further schema by the name that the application uses. May be repeated.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[str | None, _text("With isolation row: the value that its rows have.")] = None,
    role: Annotated[str | None, _text("The database's role that its statements run as.")] = None,
    tier: Annotated[str | None, _text("One of the tiers in router.yaml.")] = None,
    provision: Annotated[bool, typer.Option("--provision", help="Make its place on the server.")] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="With --provision: tables that are there already are its own.")
    ] = False,
    admin_user: Annotated[str | None, _text("Make the place as this user of the database.")] = None,
    admin_password_env: Annotated[
        str, typer.Option(metavar="NAME", help="The variable that holds that user's password.")
    ] = PASSWORD,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the file and the statements; do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> Code:
    """Take a tenant in: write its file and, if wanted, make its schema, database or file."""
    if not provision and (adopt or admin_user is not None):
        raise typer.BadParameter("--adopt and --admin-user are for --provision. Give it as well")
    given = {
        "tenant": tenant,
        "cluster": cluster,
        "isolation": isolation,
        "database": database,
        "schema": schema,
        "schemas": dict(map(_named, also or ())) or None,
        "key": key,
        "role": role,
        "tier": tier,
    }
    content = {name: value for name, value in given.items() if value is not None}
    if dry_run:
        plan = asyncio.run(onboarding.plan(config, content))
        if as_json:
            made = [asdict(each) for each in plan.steps] if provision else []
            write_json({"where": plan.where, "text": plan.text, "steps": made})
        else:
            show_plan(console(), plan, provision=provision)
        return Code.OK
    how = Provision(_admin(admin_user, admin_password_env), adopt) if provision else None
    with console(stderr=True).status("taking the tenant in"):
        added = asyncio.run(onboarding.add(config, content, provision=how))
    if as_json:
        done = [{**asdict(each.step), "before": each.before} for each in added.done]
        write_json({**facts(added.tenant), "where": added.where, "done": done})
    else:
        show_added(console(), added)
    return Code.OK


def _named(text: str) -> tuple[str, str]:
    name, equals, schema = text.partition("=")
    if not equals:
        raise typer.BadParameter("--also needs a name and a schema. Write --also analytics=acme_analytics")
    return name, schema


def _admin(user: str | None, variable: str) -> LoginConfig | None:
    """Return who makes the place, with a password of the environment or of whoever sits at the terminal."""
    if user is None:
        return None
    password = os.environ.get(variable, "")
    if not password and sys.stdin.isatty():
        password = getpass(f"password of {user}: ")
    if not password:
        raise UsageError(
            f"the password of {user} is not known. Set {variable}, best from a file: "
            f"{variable}=$(cat admin-password) router tenants add ..."
        )
    return LoginConfig(username=user, password=SecretReference.parse(Secret(password)))


# --- suspend, resume, remove -----------------------------------------------------------------------------

_FOLLOW = "Processes that watch the folder or the table follow; others when they are restarted."


@tenants.command(
    epilog=lines(
        "[bold]Example[/bold]",
        "  $ router tenants suspend acme",
        "One line of its file is changed, or its row. Its requests are refused with TenantSuspended; what "
        f"runs is finished. {_FOLLOW}",
    )
)
@guarded
def suspend(
    ctx: typer.Context, tenant: Id, config: ConfigPath = Path("config"), as_json: AsJson = False
) -> Code:
    """Have a tenant's requests refused, until it is resumed."""
    changed = asyncio.run(onboarding.suspend(config, tenant))
    return _told(tenant, "suspended", changed=changed, as_json=as_json)


@tenants.command(epilog=lines("[bold]Example[/bold]", "  $ router tenants resume acme", _FOLLOW))
@guarded
def resume(
    ctx: typer.Context, tenant: Id, config: ConfigPath = Path("config"), as_json: AsJson = False
) -> Code:
    """Have a suspended tenant served again."""
    changed = asyncio.run(onboarding.resume(config, tenant))
    return _told(tenant, "active", changed=changed, as_json=as_json)


def _told(tenant: str, state: str, *, changed: bool, as_json: bool) -> Code:
    if as_json:
        write_json({"tenant": tenant, "state": state, "changed": changed})
    else:
        before = "" if changed else " already"
        console().print(f"{tenant} is {state}{before}", style="green", soft_wrap=True)
    return Code.OK


@tenants.command(
    epilog=lines(
        "[bold]Example[/bold]",
        "  $ router tenants remove acme --yes",
        "Its file or row is removed, and nobody knows the tenant any more. What it has stored stays: what "
        "would drop it is shown, and done by nobody. To refuse its requests for a while, suspend it.",
    )
)
@guarded
def remove(
    ctx: typer.Context,
    tenant: Id,
    config: ConfigPath = Path("config"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> Code:
    """Remove a tenant from the configuration; its rows stay where they are."""
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError("to remove a tenant needs a yes, and nobody can be asked here. Give --yes")
        if not typer.confirm(f"remove tenant {tenant} from {config}?", err=True):
            say("nothing was done")
            return Code.NO
    removed = asyncio.run(onboarding.remove(config, tenant))
    if as_json:
        write_json({"tenant": tenant, "where": removed.where, "drops": removed.drops})
    else:
        show_removed(console(), removed)
    return Code.OK
