"""Let go of files that were delivered and are old enough; the chain says so first: else they are missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from router.audit.chain import read
from router.audit.lanes import segments


class Retired(NamedTuple):
    """Hold files that may go, and the record that must be in the journal before."""

    files: tuple[Path, ...]
    record: dict[str, Any]


def retirable(lane: Path, delivered: int, oldest: float) -> Retired | None:
    """Return the first files of a lane, of those below number ``delivered``, that end before ``oldest``."""
    files: list[Path] = []
    for number, path in segments(lane):
        if number >= delivered or path.stat().st_mtime > oldest:
            break
        files.append(path)
    for path in reversed(files):
        records = [each for each in map(read, path.read_bytes().split(b"\n")) if each is not None]
        if records:
            return Retired(
                tuple(files), {"type": "retired", "file": path.name, "upto": list(records[-1].head)}
            )
    return None


def delete(retired: Retired) -> None:
    """Delete the files, the oldest first."""
    for path in retired.files:
        path.unlink(missing_ok=True)
