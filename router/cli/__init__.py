"""The ``router`` command: check a configuration, explain a route, ask the nodes, see a demonstration."""

from __future__ import annotations

import sys

from router.errors import MissingExtra

_NEEDED = frozenset({"typer", "rich"})


def main() -> None:
    """Run the command with the arguments of the process and exit with its code, see ``router --help``."""
    try:
        from router.cli.app import app
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in _NEEDED:
            raise
        sys.stderr.write(f"{MissingExtra(package, 'cli')}\n")
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that is not UTF-8 shows a question mark; it must not stop the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="router")
