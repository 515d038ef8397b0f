"""The commands of the cache: how it fares in running processes, and letting go of what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from router.cache.reach import Reach
from router.cache.status import summed
from router.cache.tally import Tally
from router.cache.worth import main_reason
from router.cli.cacheviews import show_flushed, show_memory, show_reach, show_tenants
from router.cli.guard import Code, guarded
from router.cli.kept import stand_ins
from router.cli.options import AsJson, ConfigPath, lines
from router.cli.scraping import Process, ask, flaw
from router.cli.screen import console, say, write_json
from router.config import Config, load
from router.drivers.registry import engines
from router.errors import UsageError
from router.router import Router

cache = typer.Typer(
    name="cache",
    help="See how the cache fares, and let go of what it holds.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds that each server has to answer.")]


# --- stats -----------------------------------------------------------------------------------------------


@cache.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router cache stats",
        "  $ router cache stats --metrics http://app-1:9090/metrics --metrics http://app-2:9090/metrics",
        "  $ router cache stats --metrics http://app-1:9090/metrics --json | jq .tenants.acme.ratio",
        "Each process has a memory of its own. Its router.metrics say how it fares: serve them over HTTP, as "
        "for Prometheus, and name the addresses here.",
    )
)
@guarded
def stats(
    ctx: typer.Context,
    config: ConfigPath = Path("config"),
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="The metrics of a running process. May be repeated.", show_default=False
        ),
    ] = None,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> Code:
    """Show hit ratios by tenant, and whether the shared tier answers; exit 1 if something does not."""
    urls = metrics or []
    for url in urls:
        if (why := flaw(url)) is not None:
            raise typer.BadParameter(f"a URL given to --metrics {why}")
    loaded = load(config, known_engines=engines())

    async def look() -> tuple[Reach, list[Process]]:
        async with Router.open(loaded.unaudited(), secrets=stand_ins(loaded)) as opened:
            with console(stderr=True).status("asking servers and processes"):
                return await asyncio.gather(
                    opened.cache.reach(timeout=timeout), asyncio.to_thread(ask, urls, timeout)
                )

    reach, processes = asyncio.run(look())
    tenants = summed((name, tally) for each in processes for name, tally in each.tenants.items())
    failed = [each for each in processes if each.error is not None]
    ok = not failed and not reach.deaf and (reach.tier is None or reach.seconds is not None)
    if as_json:
        write_json(_stats(loaded, reach, processes, tenants, ok=ok))
    else:
        screen = console()
        show_memory(screen, loaded.cache, processes)
        show_reach(screen, reach)
        show_tenants(screen, tenants, asked=bool(urls))
    for each in failed:
        say(f"{each.url}: {each.error}", "red")
    return Code.OK if ok else Code.NO


def _stats(
    config: Config, reach: Reach, processes: Sequence[Process], tenants: dict[str, Tally], *, ok: bool
) -> dict[str, Any]:
    return {
        "ok": ok,
        "memory": {
            "size": config.cache.size,
            "entries": config.cache.entries,
            "largest": config.cache.largest,
        },
        **asdict(reach),
        "processes": [
            {"url": each.url, "error": each.error, **{name: each.totals.get(name) for name in _TOTALS}}
            for each in processes
        ],
        "tenants": {name: _fared(tally) for name, tally in _busiest(tenants)},
    }


_TOTALS = ("entries", "bytes", "evictions_total", "flushes_total")


def _busiest(tenants: dict[str, Tally]) -> list[tuple[str, Tally]]:
    return sorted(tenants.items(), key=lambda each: -each[1].lookups)


def _fared(tally: Tally) -> dict[str, Any]:
    return {
        "lookups": tally.lookups,
        "ratio": tally.ratio,
        **tally.results(),
        "reason": main_reason(tally),
        "saved_seconds": tally.saved,
    }


# --- flush -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flushed:
    """Say who has been told to let go of what."""

    what: str
    memories: tuple[str, ...]  # clusters whose processes were told
    untold: tuple[str, ...]  # clusters whose processes cannot be told, for there is no broadcast
    deaf: tuple[str, ...]  # clusters whose broadcast has no connection
    tier: str | None
    told: bool  # whether all of it has gone out


@cache.command(
    epilog=lines(
        "[bold]Examples[/bold]",
        "  $ router cache flush --tenant acme --table plans --table features",
        "  $ router cache flush --tenant acme --schema analytics",
        "  $ router cache flush",
        "Nothing is lost by it but time: what is let go of is read from the database again.",
    )
)
@guarded
def flush(
    ctx: typer.Context,
    config: ConfigPath = Path("config"),
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", "-t", help="The tenant's id; all if left out.", show_default=False),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema", "-s", help="Where the tables are; the main one if left out.", show_default=False
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A table that was written, as in SQL; all if left out. May be repeated.",
            show_default=False,
        ),
    ] = None,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> Code:
    """Let all processes let go of answers, after a write that no router has seen; exit 1 if some may not."""
    if tenant is None and (schema is not None or table):
        raise typer.BadParameter("--schema and --table are a tenant's. Give --tenant as well")
    found = asyncio.run(_flush(load(config, known_engines=engines()), tenant, schema, table, timeout))
    done = found.told and not found.deaf
    if as_json:
        write_json({"ok": done, **asdict(found)})
    else:
        show_flushed(console(), asdict(found), done=done)
    if found.untold:
        names = ", ".join(found.untold)
        say(
            f"processes keep in memory what they have of {names} until it is too old: none is told, since "
            "cache.broadcast does not reach them",
            "yellow",
        )
    return Code.OK if done else Code.NO


async def _flush(
    config: Config, tenant: str | None, schema: str | None, tables: list[str] | None, timeout: float
) -> Flushed:
    async with Router.open(config.unaudited(), secrets=stand_ins(config)) as opened:
        handle, own = opened.cache, None
        with console(stderr=True).status("connecting"):
            if tenant is not None:
                own = await opened.find(tenant)
                opened.session(tenant, schema)  # refuses one that does not exist
                if tables:
                    await handle.ask(tenant, schema, timeout=timeout)
            reach = await handle.reach(timeout=timeout)
        clusters = tuple(config.clusters) if own is None else (own.cluster,)
        silent = tuple(each for each in clusters if reach.broadcasts[each] in ("none", "alone"))
        if silent == clusters and reach.tier is None:
            raise UsageError(
                "no process can be told: cache.broadcast is none or alone, and there is no cache.remote. "
                "Restart the processes, or wait until what they hold is too old"
            )
        if tenant is None:
            handle.flush()
        else:
            handle.invalidate(tenant, schema, tables=tables)
        told = await handle.told(timeout=timeout)
    return Flushed(
        _what(tenant, schema, tables),
        tuple(each for each in clusters if each not in silent),
        silent,
        tuple(each for each in reach.deaf if each in clusters),
        reach.tier,
        told,
    )


def _what(tenant: str | None, schema: str | None, tables: Sequence[str] | None) -> str:
    if tenant is None:
        return "everything"
    place = tenant if schema is None else f"{tenant}/{schema}"
    return f"{', '.join(tables or ('all',))} of {place}"
