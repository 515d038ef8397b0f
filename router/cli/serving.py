"""Serve the demonstration until somebody stops it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.table import Table
from rich.text import Text

from router.cli.screen import console, say, write_json
from router.errors import RouterError
from router.router import Router


async def serve_demo(port: int, *, as_json: bool) -> None:
    """Serve the demonstration's tenants with live traffic until SIGINT or SIGTERM; say where.

    SIGHUP reloads the configuration.
    """
    from router import traffic  # needs the extra `web`, which no other command does

    stopped = _stopped()
    async with traffic.served(port) as shown:
        paths = {name: f"{shown.served.url}{path}" for name, path in _PATHS.items()}
        lines = {**paths, "token": shown.token, "config": str(shown.config)}
        with _reloading(shown.router):
            if as_json:
                write_json(lines, indent=None)
            else:
                _show(lines)
            await stopped.wait()


_PATHS = {
    "console": "/console",
    "status": "/status",
    "metrics": "/metrics",
    "ready": "/health/ready",
}


def _stopped() -> asyncio.Event:
    """Return what is set when this process is told to stop."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows; there Ctrl-C raises KeyboardInterrupt
            loop.add_signal_handler(number, stopped.set)
    return stopped


@contextmanager
def _reloading(router: Router) -> Iterator[None]:
    """Reload the configuration in the block whenever this process gets SIGHUP; say what came of it."""
    tasks: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        try:
            done = await router.reload()
        except RouterError as error:
            say(str(error), "red")
        else:
            say(f"configuration {done.generation}: tenants {done.tenants}; clusters {done.clusters}")

    def begin() -> None:
        task = asyncio.get_running_loop().create_task(reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if not hasattr(signal, "SIGHUP"):  # on Windows
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, begin)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        for task in tasks:
            task.cancel()


def _show(lines: dict[str, str]) -> None:
    screen = console()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in lines.items():
        grid.add_row(name, Text(value, "bold" if name in ("console", "token") else ""))
    screen.print(grid)
    screen.print("\nThree tenants on SQLite with live traffic. Ctrl-C stops it.", style="italic")
