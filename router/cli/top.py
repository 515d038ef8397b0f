"""``router top``: running processes, live in the terminal."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.live import Live

from router.cli.asking import VARIABLE, Answer, Urls, pictures, roots, token
from router.cli.guard import Code, guarded
from router.cli.keyboard import Keyboard, keyboard
from router.cli.options import AsJson, lines
from router.cli.screen import console, say, write_json
from router.cli.topviews import SORTS, Seen, screenful

_TICK = 0.1  # seconds between two looks at whether the processes have answered
_WATCHED = 1.0  # seconds for which a process must have counted before its rates mean something


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=lines(
            "[bold]Examples[/bold]",
            "  $ router top http://app-1:9090",
            "  $ router top http://app-1:9090 http://app-2:9090 --every 5",
            "  $ router top http://app-1:9090 | less",
            "  $ router top http://app-1:9090 --json | jq '.processes[0].picture.nodes'",
            "[bold]Keys[/bold]",
            "  [bold]s[/bold] sort statements by something else, [bold]p[/bold] pause, [bold]q[/bold] quit",
            "Where a process serves router.web it tells this to who knows the token of "
            f"observability.console, which is taken from the environment variable {VARIABLE}, or asked for. "
            "What several processes say is added up. Without a terminal one snapshot is printed.",
            "[bold]Exit codes[/bold]",
            "  [bold]0[/bold] all processes answered last, [bold]1[/bold] one did not, [bold]2[/bold] wrong "
            "usage",
        )
    )(top)


@guarded
def top(
    ctx: typer.Context,
    urls: Urls,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that each process has to answer.")] = 3.0,
    as_json: AsJson = False,
) -> Code:
    """Show nodes, pools, tenants, statements and changes of running processes, live."""
    seen = [Seen(root) for root in roots(urls)]
    secret = token()
    if as_json or not console().is_terminal:
        return _once(seen, secret, timeout, as_json=as_json)
    with _ended_by_signals(), keyboard() as keys, ThreadPoolExecutor(1) as asking:
        _Screen(seen, secret, every, timeout).run(keys, asking)
    return _code(seen)


def _code(seen: Iterable[Seen]) -> Code:
    return Code.NO if any(each.error is not None for each in seen) else Code.OK


def _once(seen: Sequence[Seen], secret: str, timeout: float, *, as_json: bool) -> Code:
    """Print one snapshot; processes begin to count requests when they are asked."""
    note(seen, _ask(seen, secret, timeout), time.time())
    if any(each.picture is not None and each.picture["watched"] < _WATCHED for each in seen):
        time.sleep(_WATCHED)
        note(seen, _ask(seen, secret, timeout), time.time())
    if as_json:
        processes = [{"url": each.url, "error": each.error, "picture": each.picture} for each in seen]
        write_json({"ok": _code(seen) is Code.OK, "processes": processes})
    else:
        screen = console()
        screen.print(screenful(screen, seen, time.time()))
    for each in seen:
        if each.error is not None:
            say(f"{each.url}: {each.error}", "red")
    return _code(seen)


def _ask(seen: Iterable[Seen], secret: str, timeout: float) -> list[Answer]:
    return pictures([each.url for each in seen], secret, timeout)


def note(seen: Iterable[Seen], answers: Iterable[Answer], now: float) -> None:
    """Take note of what the processes have answered; what one said last stays while it is gone."""
    for each, answer in zip(seen, answers, strict=True):
        if answer.error is not None:
            if each.error is None:
                each.since = now
            each.error, each.returned = answer.error, False
            continue
        if each.error is not None:
            each.since, each.returned = now, True
        each.picture, each.error = answer.data, None


class _Screen:
    """Show what is seen, and obey the keys."""

    def __init__(self, seen: Sequence[Seen], secret: str, every: float, timeout: float) -> None:
        self._seen, self._secret, self._every, self._timeout = seen, secret, every, timeout
        self._sort = 0
        self._paused = False
        self._next = 0.0  # monotonic

    def run(self, keys: Keyboard, asking: ThreadPoolExecutor) -> None:
        """Go on until somebody quits."""
        screen = console()
        under_way: Future[list[Answer]] | None = None
        with Live(console=screen, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            try:
                while True:
                    if under_way is None and not self._paused and time.monotonic() >= self._next:
                        self._next = time.monotonic() + self._every
                        under_way = asking.submit(_ask, self._seen, self._secret, self._timeout)
                    if under_way is not None and under_way.done():
                        note(self._seen, under_way.result(), time.time())
                        under_way = None
                    foot = self._foot() if keys.present else ""
                    live.update(
                        screenful(
                            screen,
                            self._seen,
                            time.time(),
                            sort=SORTS[self._sort],
                            foot=foot,
                            height=screen.height,
                        ),
                        refresh=True,
                    )
                    if not self._obey(keys.pressed(_TICK if under_way is not None else self._left())):
                        return
            except KeyboardInterrupt:
                return

    def _left(self) -> float:
        return 1.0 if self._paused else min(max(self._next - time.monotonic(), 0.01), 1.0)

    def _foot(self) -> str:
        paused = "  PAUSED" if self._paused else ""
        return f"s sort by {SORTS[(self._sort + 1) % len(SORTS)]}   p pause   q quit{paused}"

    def _obey(self, pressed: str) -> bool:
        """Do what the keys say; tell whether to go on."""
        for key in pressed.lower():
            if key == "q":
                return False
            if key == "s":
                self._sort = (self._sort + 1) % len(SORTS)
            elif key == "p":
                self._paused = not self._paused
        return True


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: the terminal must be put right first."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.stdout.flush()
