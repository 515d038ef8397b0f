"""What the commands of the cache show to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from router.cache.advice import ADVICE
from router.cache.reach import Reach
from router.cache.tally import Tally
from router.cache.worth import main_reason
from router.cli.scraping import Process
from router.cli.screen import printable, table
from router.cli.views import counted
from router.config import CacheConfig
from router.metrics import OTHER

_GOOD, _POOR = 0.7, 0.3  # hit ratios; below the poor one a running router says so by itself
_MIB = 1024 * 1024


def show_memory(screen: Console, config: CacheConfig, processes: Sequence[Process]) -> None:
    """Print what each process may hold, and what those that were asked do hold."""
    if not config.size:
        screen.print("the cache is off: cache.size is 0B", style="yellow")
        return
    bound = f"{config.size / _MIB:g} MiB and {config.entries:,} answers in each process"
    screen.print(Text.assemble(("memory     ", "dim"), f"at most {bound}"))
    for each in processes:
        if each.error is None:
            totals = each.totals
            text = f"{counted(totals.get('entries', 0), 'answer')}, {totals.get('bytes', 0) / _MIB:.1f} MiB, "
            text += counted(totals.get("evictions_total", 0), "eviction")
            text += f", flushed {counted(totals.get('flushes_total', 0), 'time')}"
            screen.print(Text.assemble(("           ", "dim"), (printable(each.url), "bold"), f": {text}"))


def show_reach(screen: Console, reach: Reach) -> None:
    """Print how processes hear of each other's writes, and whether the shared tier answers."""
    for cluster, kind in reach.broadcasts.items():
        state = Text("not reachable", "bold red") if cluster in reach.deaf else Text(_MEANING[kind])
        screen.print(Text.assemble(("broadcast  ", "dim"), f"{cluster}: ", (kind, "bold"), ", ", state))
    if reach.tier is None:
        return
    answer = (
        Text("does not answer", "bold red")
        if reach.seconds is None
        else Text(f"answers in {reach.seconds * 1e3:.1f} ms", "green")
    )
    screen.print(Text.assemble(("tier       ", "dim"), printable(reach.tier), ", ", answer))


_MEANING = {
    "none": "processes do not hear of each other's writes",
    "alone": "this is said to be the only process that writes",
    "redis": "processes hear of each other's writes",
    "postgresql": "processes hear of each other's writes",
}


def show_tenants(screen: Console, tenants: Mapping[str, Tally], *, asked: bool) -> None:
    """Print one row for each tenant, that with most look-ups first."""
    if not asked:
        screen.print()
        screen.print(
            "Each process has a memory of its own. For hits and misses name the metrics of running ones: "
            "--metrics http://HOST:PORT/metrics",
            style="italic",
            soft_wrap=True,
        )
        return
    columns = (
        "tenant",
        "look-ups",
        "ratio",
        "hits",
        "joined",
        "remote",
        "misses",
        "bypassed",
        "saved",
        "mostly",
    )
    shown = table(screen, *columns)
    for column in shown.columns[1:9]:
        column.justify = "right"
    for name, tally in sorted(tenants.items(), key=lambda each: -each[1].lookups):
        results = tally.results()
        why = main_reason(tally)
        shown.add_row(
            Text("(others)" if name == OTHER else name, "bold"),
            f"{tally.lookups:,}",
            _ratio(tally.ratio),
            *(f"{results[each]:,}" for each in ("hit", "joined", "remote", "miss", "bypass")),
            f"{tally.saved:,.1f} s" if tally.saved >= 1 else f"{tally.saved:.3f} s",
            Text.assemble(
                (why or "", "bold"), f"  {ADVICE[why].fact}" if why in ADVICE else "", overflow="fold"
            ),
        )
    screen.print()
    screen.print(shown)
    screen.print(counted(len(tenants), "tenant"), style="dim")


def _ratio(ratio: float | None) -> Text:
    if ratio is None:
        return Text("")
    style = "green" if ratio >= _GOOD else "yellow" if ratio >= _POOR else "bold red"
    return Text(f"{ratio:.0%}", style)


def show_flushed(screen: Console, found: Mapping[str, Any], *, done: bool) -> None:
    """Print what was let go of, and who was told."""
    places = [f"the processes of {', '.join(found['memories'])}"] if found["memories"] else []
    if found["tier"] is not None:
        places.append(f"the tier at {printable(found['tier'])}")
    told = " and ".join(places)
    if done:
        screen.print(Text(f"{printable(found['what'])}: {told} were told", "green"), soft_wrap=True)
        return
    deaf = f"; no connection for {', '.join(found['deaf'])}" if found["deaf"] else ""
    screen.print(
        Text(f"{printable(found['what'])}: {told} were not all told in time{deaf}", "bold red"),
        soft_wrap=True,
    )
