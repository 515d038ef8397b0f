"""The commands: read arguments, call the library, show the result. No decision is made here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import router
from router import onboarding
from router.cli import slow, status, top
from router.cli.audit import audit
from router.cli.caches import cache
from router.cli.guard import Code, guarded
from router.cli.kept import read_all, show_readings, stand_ins
from router.cli.options import AsJson, ConfigPath, lines
from router.cli.screen import console, printable, write_json
from router.cli.serving import serve_demo
from router.cli.tenants import tenants
from router.cli.views import (
    counted,
    show_explanation,
    show_pings,
    show_problems,
    show_row_findings,
    show_standings,
)
from router.config import Config, json_schema, load
from router.consistency import Consistency
from router.drivers.registry import engines
from router.errors import ConfigurationError, Problem
from router.router import Router
from router.row_security import RowFinding
from router.status import Explanation, Ping


class Part(StrEnum):
    """Name a file that has a JSON Schema."""

    ROUTER = "router"
    TENANT = "tenant"


_SCHEMAS = {Part.ROUTER: "router.yaml", Part.TENANT: "tenant"}  # keys of json_schema()


_EXIT_CODES = lines(
    "[bold]Exit codes[/bold]",
    "  [bold]0[/bold]   done",
    "  [bold]1[/bold]   the answer is no: a mistake was found, a node did not answer, the demo failed",
    "  [bold]2[/bold]   wrong usage: also an unknown tenant or schema, SQL that cannot be read, a "
    "configuration that is refused where a command needs it",
    "  [bold]70[/bold]  an error of the program itself; run `router --debug ...` for the traceback",
    "  [bold]130[/bold] interrupted",
)

app = typer.Typer(
    name="router",
    help="Route (tenant, schema, statement) to the right database connection.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # its tracebacks show local variables
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(tenants)
app.add_typer(cache)
slow.register(app)
top.register(app)
status.register(app)
app.add_typer(audit)


def looking_at(path: Path) -> Config:
    """Return the configuration in a folder for a command that only looks: no journal is begun."""
    return load(path, known_engines=engines()).unaudited()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tenant-router {router.__version__}")
        raise typer.Exit


@app.callback()
def start(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of internal errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Route (tenant, schema, statement) to the right database connection."""
    ctx.obj = debug


# --- check -----------------------------------------------------------------------------------------------


@app.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router check config",
        "  config/router.yaml:7:13 clusters.main.engine is 'postgres'. Choose one of mariadb, ...",
        "  $ router check config --rows --shared public.countries",
        "  main/app public.orders has no row security. ALTER TABLE ... ENABLE ROW LEVEL SECURITY, ...",
        "  $ router check config --secrets",
    )
)
@guarded
def check(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="The folder that holds router.yaml.")] = Path("config"),
    rows: Annotated[
        bool,
        typer.Option("--rows", help="Also ask the databases of tenants by row where row security fails."),
    ] = False,
    shared: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCHEMA.TABLE", help="All tenants may see it; may be repeated.", show_default=False
        ),
    ] = None,
    secrets: Annotated[
        bool,
        typer.Option("--secrets", help="Ask Vault and AWS for every password once; none is shown."),
    ] = False,
    as_json: AsJson = False,
) -> Code:
    """Check a configuration folder and list every mistake as file:line:column, with its remedy."""
    if shared and not rows:
        raise typer.BadParameter("--shared is for --rows. Give both, or none")
    config: Config | None = None
    problems: tuple[Problem, ...] = ()
    found: tuple[RowFinding, ...] | None = None
    try:
        config = load(path, known_engines=engines())
    except ConfigurationError as error:
        problems = error.problems
    if rows and config is not None:
        found = asyncio.run(_rows(path, config.unaudited(), shared or ()))
    warnings = config.warnings if config is not None else ()
    readings = asyncio.run(read_all(config)) if secrets and config is not None else []
    good = not found and all(each.ok is not False for each in readings)
    if as_json:
        write_json(
            {
                "ok": config is not None and good,
                "problems": [problem._asdict() for problem in problems],
                "warnings": [warning._asdict() for warning in warnings],
                "clusters": None if config is None else len(config.clusters),
                "tenants": None if config is None else len(config.tenants),
                **({} if found is None else {"rows": [asdict(each) for each in found]}),
                **({"secrets": [asdict(each) for each in readings]} if secrets else {}),
            }
        )
    else:
        _show_check(path, config, problems)
        if readings:
            show_readings(console(), readings)
        if found is not None:
            show_row_findings(console(), found)
    return Code.OK if config is not None and good else Code.NO


async def _rows(path: Path, config: Config, shared: Sequence[str]) -> tuple[RowFinding, ...]:
    with console(stderr=True).status("asking the databases of tenants by row"):
        tenants = (await onboarding.every(path)).tenants  # also those that a table has
        async with Router.open(config) as opened:
            return await opened.check_rows(shared, tenants)


def _show_check(path: Path, config: Config | None, problems: tuple[Problem, ...]) -> None:
    screen = console()
    if config is None:
        show_problems(screen, problems, "red")
        files = len({problem.file for problem in problems})
        screen.print()
        screen.print(
            f"{counted(len(problems), 'mistake')} in {counted(files, 'file')}",
            style="bold red",
            soft_wrap=True,
        )
        return
    if config.warnings:
        show_problems(screen, config.warnings, "yellow")
        screen.print(f"\n{counted(len(config.warnings), 'warning')}", style="yellow")
    clusters, tenants = counted(len(config.clusters), "cluster"), counted(len(config.tenants), "tenant")
    screen.print(f"{path}: ok, {clusters}, {tenants}", style="green", soft_wrap=True)


# --- schema ----------------------------------------------------------------------------------------------


@app.command(
    epilog=lines(
        "[bold]Example[/bold]",
        "  $ router schema --part router > router.schema.json",
        "  and as the first line of router.yaml:",
        "  # yaml-language-server: $schema=router.schema.json",
    )
)
@guarded
def schema(
    ctx: typer.Context,
    part: Annotated[
        Part | None, typer.Option(help="The schema of one file; both, by name, if left out.")
    ] = None,
    as_json: AsJson = False,
) -> Code:
    """Print the JSON Schema of the configuration, for editors that complete and check it."""
    schemas = json_schema()
    chosen = schemas if part is None else schemas[_SCHEMAS[part]]
    screen = console()
    if as_json or not screen.is_terminal:
        write_json(chosen)
    else:
        screen.print_json(data=chosen)
    return Code.OK


# --- explain ---------------------------------------------------------------------------------------------


@app.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        '  $ router explain --tenant acme "SELECT * FROM plans"',
        '  $ router explain --tenant acme --schema analytics --json "DELETE FROM visits" | jq .role',
        '  $ router explain --tenant acme --after "$TOKEN" "SELECT * FROM plans"',
    )
)
@guarded
def explain(
    ctx: typer.Context,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="The statement, with :name parameters.")],
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="The tenant's id.")],
    schema: Annotated[
        str | None, typer.Option("--schema", "-s", help="A logical schema; the main one if left out.")
    ] = None,
    config: ConfigPath = Path("config"),
    readonly: Annotated[bool, typer.Option("--readonly", help="As if called with readonly=True.")] = False,
    primary: Annotated[bool, typer.Option("--primary", help="As if called with primary=True.")] = False,
    consistency: Annotated[
        Consistency | None, typer.Option(help="Instead of the tenant's level.", show_default=False)
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN",
            help="As if the session had this token; asks every server how far it is. May be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> Code:
    """Say where a statement would go, and why. It is not run; only with --after are servers asked."""
    if readonly and primary:
        raise typer.BadParameter("--readonly and --primary contradict each other. Give one of them")

    async def ask() -> Explanation:
        loaded = looking_at(config)
        async with Router.open(loaded, secrets=stand_ins(loaded)) as opened:
            await opened.find(tenant)
            if after:
                with console(stderr=True).status("asking every server how far it is"):
                    await opened.ready()
            return opened.explain(
                sql,
                tenant=tenant,
                schema=schema,
                readonly=readonly,
                primary=primary,
                consistency=consistency,
                after=after,
            )

    found = asyncio.run(ask())
    if as_json:
        write_json(asdict(found))
    else:
        show_explanation(console(), found)
        if after:
            show_standings(console(), found)
    return Code.OK


# --- ping ------------------------------------------------------------------------------------------------


@app.command(epilog=lines("[bold]Example[/bold]", "  $ router ping --config config && echo all nodes answer"))
@guarded
def ping(
    ctx: typer.Context,
    config: ConfigPath = Path("config"),
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that each node has to answer.")] = 5.0,
    as_json: AsJson = False,
) -> Code:
    """Connect to every node and ask it for an answer; exit 1 if one does not give it."""

    async def ask() -> tuple[Ping, ...]:
        loaded = looking_at(config)
        async with Router.open(loaded, secrets=stand_ins(loaded)) as opened:
            with console(stderr=True).status("asking every node"):
                return await opened.ping(timeout=timeout)

    pings = asyncio.run(ask())
    if as_json:
        write_json({"ok": all(each.ok for each in pings), "nodes": [asdict(each) for each in pings]})
    else:
        show_pings(console(), pings)
    return Code.OK if all(each.ok for each in pings) else Code.NO


# --- demo ------------------------------------------------------------------------------------------------


@app.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router demo",
        """  $ router demo --json | jq -r 'select(.tenant == "acme") | .node'""",
        "  $ router demo --serve",
    )
)
@guarded
def demo(
    ctx: typer.Context,
    serve: Annotated[
        bool, typer.Option("--serve", help="Go on with live traffic, and serve metrics and a console.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Of the server, on this machine only; a free one if left out."),
    ] = None,
    as_json: AsJson = False,
) -> Code:
    """Show three tenants on SQLite in a temporary folder: every request, its node, and why."""
    if serve:
        asyncio.run(serve_demo(port or 0, as_json=as_json))
        return Code.OK
    if port is not None:
        raise typer.BadParameter("--port is for --serve. Give both, or none")
    # here, since no other command needs SQLAlchemy, which takes a quarter of a second to import
    from router import demo as story
    from router.cli.stage import JsonTeller, Playbill

    screen = console()
    failed = asyncio.run(story.run(JsonTeller() if as_json else Playbill(screen)))
    if as_json:
        write_json({"demo": "ok"} if failed is None else {"demo": "failed", "step": failed}, indent=None)
    elif failed is None:
        screen.print("\ndemo: ok", style="bold green")
    else:
        screen.print(f"\ndemo: failed (step {printable(failed)})", style="bold red", soft_wrap=True)
    return Code.OK if failed is None else Code.NO
