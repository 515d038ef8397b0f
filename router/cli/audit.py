"""The commands of the audit: whether its records are whole, where they end, and what they say."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from router.audit.chain import Head, Seal, read
from router.audit.findings import Finding
from router.audit.journal import last_head
from router.audit.lanes import lanes, segments
from router.audit.outbox import count, ddl, everything
from router.audit.verify import Report, lane_lines, verify_folder
from router.audit.verify_rows import Rows, Stored
from router.cli.auditviews import show_records, show_report
from router.cli.guard import Code, guarded
from router.cli.kept import stand_ins
from router.cli.options import AsJson, ConfigPath, lines
from router.cli.screen import console, write_json
from router.config import OutboxConfig, SecretReference, load
from router.config.problems import Flaw
from router.consistency import Consistency
from router.drivers.registry import driver_for, engines
from router.errors import UsageError
from router.router import Router

audit = typer.Typer(
    name="audit",
    help="Verify the record of writes, and look into it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Folder = Annotated[
    Path | None,
    typer.Option("--folder", "-f", help="The journal; the configured one if left out.", show_default=False),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="REFERENCE",
        help="Where the key is: env:NAME or file:PATH; the configured one if left out.",
        show_default=False,
    ),
]


def folder_of(config: Path, folder: Path | None) -> Path:
    """Return the journal's folder: the one that was given, else the configured one."""
    if folder is None:
        loaded = load(config, known_engines=engines())
        trail = loaded.observability.audit.trail
        if trail is None:
            raise UsageError("observability.audit.trail is not set: there is no journal. Name a --folder")
        folder = loaded.source / trail.folder
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder. Name the one that holds lane-0")
    return folder


def seal_of(config: Path, key: str | None, *, configured: bool) -> Seal:
    """Return what records are sealed with: by the key that was given, else by the configured one."""
    reference: SecretReference | None = None
    if key is not None:
        reference = _reference(key)
    elif configured:
        reference = load(config, known_engines=engines()).observability.audit.key
    return Seal(None if reference is None else reference.resolve().reveal().encode())


def _reference(key: str) -> SecretReference:
    if not key.startswith(("env:", "file:")):
        # not repeated: it may be the key itself, which others would see in the list of processes
        raise typer.BadParameter("--key takes where the key is, not the key: env:NAME or file:PATH")
    try:
        return SecretReference.parse(f"${{{key}}}")
    except Flaw as flaw:
        raise typer.BadParameter(f"--key {flaw.fact}. {flaw.remedy}") from None


# --- verify ----------------------------------------------------------------------------------------------


@audit.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router audit verify",
        '  $ router audit verify --folder /backup/audit --key env:AUDIT_KEY --head "$(cat last-head)"',
        "  $ router audit verify --tenant acme --schema analytics",
        "  $ router audit verify --json | jq '.findings[0]'",
        "Records show what was changed, put in, moved or taken out, but not that the last chain was cut off: "
        "keep its head elsewhere (router audit head) and give it here.",
    )
)
@guarded
def verify(
    ctx: typer.Context,
    config: ConfigPath = Path("config"),
    folder: Folder = None,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", "-t", help="Verify this tenant's table instead.", show_default=False),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option("--schema", "-s", help="The table in this logical schema.", show_default=False),
    ] = None,
    key: Key = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HEAD", help="A record that must be there. May be repeated.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> Code:
    """Verify that every record is what it was and where it was, and that none is missing; exit 1 if not."""
    heads = _heads(head or [])
    if tenant is not None and folder is not None:
        raise typer.BadParameter("--tenant says which table, --folder which journal. Give one of them")
    if tenant is None and schema is not None:
        raise typer.BadParameter("--schema is a tenant's. Give --tenant as well")
    seal = seal_of(config, key, configured=folder is None)
    if tenant is not None:
        report = asyncio.run(_verify_table(config, tenant, schema, seal, heads, quiet=as_json))
    else:
        path = folder_of(config, folder)
        size = sum(file.stat().st_size for lane in lanes(path) for _, file in segments(lane))
        with progress(size, DownloadColumn(), quiet=as_json) as step:
            report = verify_folder(path, seal, heads, step=step)
    if as_json:
        write_json(_told(report))
    else:
        show_report(console(), report)
    return Code.OK if report.ok else Code.NO


def _heads(given: list[str]) -> list[Head]:
    try:
        return [Head.parsed(each) for each in given]
    except ValueError:
        raise typer.BadParameter("--head takes what router audit head prints: chain:number:hash") from None


async def _verify_table(
    config: Path, tenant: str, schema: str | None, seal: Seal, heads: list[Head], *, quiet: bool
) -> Report:
    """Read a tenant's table on the primary, with a cursor, and verify its rows."""
    loaded = load(config, known_engines=engines())
    outbox = loaded.observability.audit.outbox
    if outbox is None:
        raise UsageError("observability.audit.outbox is not set: there is no table")
    report = Report()
    rows = Rows(seal, report, heads)
    async with Router.open(loaded.unaudited(), secrets=stand_ins(loaded)) as opened:
        session = opened.session(tenant, schema, consistency=Consistency.STRONG)
        async with session.transaction(readonly=True, isolation="repeatable read") as tx:
            total = await tx.fetch_value(count(outbox.table))
            with progress(int(total), MofNCompleteColumn(), quiet=quiet) as step:
                async for row in tx.stream(everything(outbox.table)):
                    rows.take(Stored(*row))
                    step(1)
    rows.end()
    return report


@contextmanager
def progress(size: int, column: ProgressColumn, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while something is read; yield what hears how much."""
    screen = console(stderr=True)
    bar = Progress(
        TextColumn("verifying"),
        BarColumn(),
        column,
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=quiet or not screen.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=size)
        yield lambda more: bar.advance(task, more)


def _told(report: Report) -> dict[str, Any]:
    def told(finding: Finding) -> dict[str, Any]:
        return {**finding._asdict(), "remedy": finding.remedy}

    return {
        **asdict(report),
        "ok": report.ok,
        "heads": list(map(str, report.heads)),
        "findings": list(map(told, report.findings)),
        "notes": [each._asdict() for each in report.notes],
    }


# --- schema ----------------------------------------------------------------------------------------------


@audit.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router audit schema --engine postgresql | psql app",
        "  $ router audit schema",
        "Create it in every schema or database that a tenant has before the outbox is turned on.",
    )
)
@guarded
def schema(
    ctx: typer.Context,
    config: ConfigPath = Path("config"),
    engine: Annotated[
        str | None,
        typer.Option(help="Only for this engine; those of all clusters if left out.", show_default=False),
    ] = None,
) -> Code:
    """Print the DDL of the table that observability.audit.outbox writes to."""
    loaded = load(config, known_engines=engines())
    outbox = loaded.observability.audit.outbox or OutboxConfig()
    wanted = [engine] if engine is not None else [each.engine for each in loaded.clusters.values()]
    for name in wanted:
        if name not in engines():
            raise typer.BadParameter(
                f"there is no engine {name!r}. Choose one of {', '.join(sorted(engines()))}"
            )
    found = {ddl(outbox.table, driver_for(name).dialect): None for name in wanted}
    typer.echo("\n".join(found), nl=False)
    return Code.OK


# --- head ------------------------------------------------------------------------------------------------


@audit.command(
    epilog=lines(
        "[bold]Example[/bold]",
        "  $ router audit head > /elsewhere/last-head",
        "  $ router audit verify $(sed 's/^/--head /' /elsewhere/last-head)",
    )
)
@guarded
def head(
    ctx: typer.Context, config: ConfigPath = Path("config"), folder: Folder = None, as_json: AsJson = False
) -> Code:
    """Print the last record of each lane, to be kept where nobody who can change the journal can write."""
    found = [str(last) for lane in lanes(folder_of(config, folder)) if (last := last_head(lane)) is not None]
    if as_json:
        write_json({"heads": found})
    else:
        for each in found:
            typer.echo(each)
    return Code.OK


# --- show ------------------------------------------------------------------------------------------------


@audit.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router audit show --tenant acme --last 50",
        "  $ router audit show --actor alice --json | jq -r .text",
        "Nothing is verified here.",
    )
)
@guarded
def show(
    ctx: typer.Context,
    config: ConfigPath = Path("config"),
    folder: Folder = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", help="Only this tenant's.", show_default=False)
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this actor did.", show_default=False)] = None,
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many, the newest.")] = 20,
    as_json: AsJson = False,
) -> Code:
    """Show the last writes of a journal, oldest first."""
    found: deque[dict[str, Any]] = deque(maxlen=last)
    for facts in _writes(folder_of(config, folder)):
        if tenant in (None, facts.get("tenant")) and actor in (None, facts.get("actor")):
            found.append(facts)
    ordered = sorted(found, key=lambda facts: float(facts.get("at", 0)))
    if as_json:
        for facts in ordered:
            write_json(facts, indent=None)
    else:
        show_records(console(), ordered)
    return Code.OK


def _writes(folder: Path) -> Iterator[dict[str, Any]]:
    for lane in lanes(folder):
        for _, line in lane_lines(lane):
            record = read(line[:-1])
            if record is not None and record.facts.get("type") == "write":
                yield record.facts
