"""Serve the demonstration until somebody stops it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from rich.table import Table
from rich.text import Text

from router.cli.screen import console, write_json


async def serve_demo(port: int, *, as_json: bool) -> None:
    """Serve the demonstration's tenants with live traffic until SIGINT or SIGTERM; say where."""
    from router import traffic  # needs the extra `web`, which no other command does

    stopped = _stopped()
    async with traffic.served(port) as shown:
        paths = {name: f"{shown.served.url}{path}" for name, path in _PATHS.items()}
        if as_json:
            write_json({**paths, "token": shown.token}, indent=None)
        else:
            _show({**paths, "token": shown.token})
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


def _show(lines: dict[str, str]) -> None:
    screen = console()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in lines.items():
        grid.add_row(name, Text(value, "bold" if name in ("console", "token") else ""))
    screen.print(grid)
    screen.print("\nThree tenants on SQLite with live traffic. Ctrl-C stops it.", style="italic")
