"""The options that commands share, and how their help is laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def lines(*each: str) -> str:
    """Return lines of help that typer shows as lines: it joins what is closer together."""
    return "\n\n".join(each)


AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout, messages to stderr.")]
ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", metavar="FOLDER", help="The folder that holds router.yaml.")
]
