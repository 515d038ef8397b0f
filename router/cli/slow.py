"""``router slow``: what the statements of running processes cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from router.cli.asking import VARIABLE, Answer, Urls, ask, roots, token
from router.cli.guard import Code, guarded
from router.cli.options import AsJson, lines
from router.cli.screen import console, say, write_json
from router.cli.slowviews import show_digest, show_digests
from router.digests import Digest, merged, parsed

_ALL = 1_000  # digests of a process: they are added up before the costliest are chosen


class Sort(StrEnum):
    """Name what statements are sorted by, the largest first."""

    TOTAL = "total"  # time of all requests
    LOAD = "load"  # how many ran at once lately
    P99 = "p99"
    MAX = "max"
    MEAN = "mean"
    WAITED = "waited"  # time until a connection was had
    COUNT = "count"
    SLOW = "slow"
    ERRORS = "errors"
    ROWS = "rows"
    LAST = "last"


_KEYS: dict[Sort, Callable[[Digest], float]] = {
    Sort.TOTAL: lambda digest: digest.total,
    Sort.LOAD: lambda digest: digest.load,
    Sort.P99: lambda digest: digest.p99,
    Sort.MAX: lambda digest: digest.maximum,
    Sort.MEAN: lambda digest: digest.mean,
    Sort.WAITED: lambda digest: digest.waited,
    Sort.COUNT: lambda digest: digest.count,
    Sort.SLOW: lambda digest: digest.slow,
    Sort.ERRORS: lambda digest: digest.errors,
    Sort.ROWS: lambda digest: digest.rows,
    Sort.LAST: lambda digest: digest.last,
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=lines(
            "[bold]Examples[/bold]",
            "  $ router slow http://app-1:9090 http://app-2:9090",
            "  $ router slow http://app-1:9090 --sort load --limit 5",
            "  $ router slow http://app-1:9090 --tenant acme",
            "  $ router slow http://app-1:9090 --fingerprint 9be1d2d1a0e0d0c4",
            "  $ router slow http://app-1:9090 --json | jq '.statements[0].text'",
            "Each process counts what each statement costs, over all its requests. Where it serves "
            "router.web it tells that to who knows the token of observability.console, which is taken from "
            f"the environment variable {VARIABLE}, or asked for. What several processes say is added up.",
            "[bold]Columns[/bold]",
            "  [bold]total[/bold] time of all requests, waits included; [bold]%[/bold] share of all time",
            "  [bold]load[/bold] how many ran at once during the last minute or two: what is busy now",
            "  [bold]wait[/bold] share of the total until a connection was had: a pool is too small",
            "  below the statement: its fingerprint, the tenants that spend most, nodes, the last trace",
            "[bold]Exit codes[/bold]",
            "  [bold]0[/bold] all processes answered, [bold]1[/bold] one did not, [bold]2[/bold] wrong usage",
        )
    )(slow)


@guarded
def slow(
    ctx: typer.Context,
    urls: Urls,
    sort: Annotated[Sort, typer.Option(help="What comes first: the largest of this.")] = Sort.TOTAL,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many statements to show.")] = 20,
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant", "-t", help="Only where this tenant is among the heaviest.", show_default=False
        ),
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="All that is known of one statement.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that each process has to answer.")] = 5.0,
    as_json: AsJson = False,
) -> Code:
    """Show what the statements of running processes cost; exit 1 if a process does not answer."""
    asked, secret = roots(urls), token()
    with console(stderr=True).status("asking the processes"):
        answers = [_read(each) for each in ask(asked, f"/slow?limit={_ALL}", secret, timeout)]
    failed = [each for each in answers if each.error is not None]
    known = merged(digest for each in answers if each.error is None for digest in each.data)
    found = [each for each in known if tenant is None or tenant in each.tenants]
    if fingerprint is not None:
        found = [each for each in found if each.fingerprint == fingerprint]
    shown = sorted(found, key=_KEYS[sort], reverse=True)[:limit]
    if as_json:
        write_json(_json(answers, shown, len(known)))
    elif fingerprint is not None:
        if shown:
            show_digest(console(), shown[0])
    elif len(failed) < len(answers):
        show_digests(console(), shown, known, processes=len(answers) - len(failed))
    for each in failed:
        say(f"{each.url}: {each.error}", "red")
    if fingerprint is not None and not shown and len(failed) < len(answers):
        say(f"no process counts a statement {fingerprint}: it costs less than those that are kept", "yellow")
        return Code.NO
    return Code.NO if failed else Code.OK


def _read(answer: Answer) -> Answer:
    """Return the answer with digests as its data."""
    if answer.error is not None:
        return answer
    try:
        return Answer(answer.url, [parsed(each) for each in answer.data["digests"]])
    except (KeyError, TypeError, ValueError):
        return Answer(answer.url, error="answers with something else; is it of another version?")


def _json(answers: Sequence[Answer], shown: Sequence[Digest], known: int) -> dict[str, Any]:
    return {
        "ok": all(each.error is None for each in answers),
        "processes": [{"url": each.url, "error": each.error} for each in answers],
        "known": known,
        "statements": [each.json() for each in shown],
    }
