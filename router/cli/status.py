"""``router status``: what running processes say of their nodes, connections and tenants, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from router.cli.asking import VARIABLE, Answer, Urls, pictures, roots, token
from router.cli.guard import Code, guarded
from router.cli.merging import together
from router.cli.options import AsJson, lines
from router.cli.screen import console, say, write_json
from router.cli.statusviews import show_status


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=lines(
            "[bold]Examples[/bold]",
            "  $ router status http://app-1:9090 http://app-2:9090",
            "  $ router status http://app-1:9090 --json | jq '.together.budgets'",
            "Of each node it shows how many connections there are, of how many there may be: what each "
            "process may open, times the number of processes. What several processes say is added up; of "
            "what is bad the worst is shown.",
            f"The token of observability.console is taken from the environment, {VARIABLE}, or asked for. "
            "`router top` shows the same and more, live.",
            "[bold]Exit codes[/bold]",
            "  [bold]0[/bold] all processes answered and all nodes are usable, [bold]1[/bold] one did not or "
            "is not, [bold]2[/bold] wrong usage",
        )
    )(status)


@guarded
def status(
    ctx: typer.Context,
    urls: Urls,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that each process has to answer.")] = 3.0,
    as_json: AsJson = False,
) -> Code:
    """Show nodes, the budget of their connections, and who waits for one, in running processes."""
    asked, secret = roots(urls), token()
    with console(stderr=True).status("asking the processes"):
        answers = pictures(asked, secret, timeout)
    given = [each.data for each in answers if each.error is None]
    whole = together(given)
    ok = len(given) == len(answers) and all(each["usable"] for each in whole["nodes"])
    if as_json:
        processes = [_process(each) for each in answers]
        write_json({"ok": ok, "processes": processes, "together": {name: whole[name] for name in _SHOWN}})
    else:
        show_status(console(), answers, whole)
    _complain(answers)
    return Code.OK if ok else Code.NO


_SHOWN = ("nodes", "budgets", "queues", "cache", "listeners", "troubles")
_OF_EACH = ("pid", "version", "up", "tenants", "generation", "refused", "budgets")


def _process(answer: Answer) -> dict[str, object]:
    picture = answer.data or {}
    return {"url": answer.url, "error": answer.error, **{name: picture.get(name) for name in _OF_EACH}}


def _complain(answers: Sequence[Answer]) -> None:
    for each in answers:
        if each.error is not None:
            say(f"{each.url}: {each.error}", "red")
