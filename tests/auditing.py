"""Journals and configurations as tests of the audit need them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from router import Config, parse
from router.audit.chain import Record, Seal, read
from router.audit.journal import Journal
from router.audit.lanes import lanes, segments, take
from router.audit.verify import Report, verify_folder

KEY = "a-key-of-the-tests-only"
SEAL = Seal(KEY.encode())


def config(folder: Path, *, tenants: Sequence[str] = ("acme",), **audit: Any) -> Config:
    """Return a configuration of SQLite tenants whose writes are recorded as ``audit`` says."""
    return parse(
        {
            "version": 1,
            "clusters": {"main": {"engine": "sqlite", "primary": {"path": str(folder / "data")}}},
            "observability": {"audit": {"key": KEY, **audit}},
            "tenants": {
                name: {"cluster": "main", "isolation": "database", "database": name} for name in tenants
            },
        }
    )


def trail(folder: Path, **more: Any) -> dict[str, Any]:
    """Return the section of a journal in ``folder``."""
    return {"folder": str(folder / "journal"), **more}


def lines(folder: Path) -> list[bytes]:
    """Return all lines of a journal's lanes."""
    return [
        line
        for lane in lanes(folder)
        for _, path in segments(lane)
        for line in path.read_bytes().splitlines(keepends=True)
    ]


def records(folder: Path) -> list[Record]:
    """Return all whole records of a journal."""
    return [record for line in lines(folder) if (record := read(line[:-1])) is not None]


def writes(folder: Path) -> list[dict[str, Any]]:
    """Return what a journal says of writes."""
    return [each.facts for each in records(folder) if each.facts["type"] == "write"]


def written(
    folder: Path,
    counts: Sequence[int] = (5, 5),
    *,
    largest: int = 1 << 20,
    seal: Seal = SEAL,
    wall: Callable[[], float] = lambda: 1.0,
    closed: bool = True,
) -> None:
    """Write a chain of so many records for each count, one after the other in the same lane."""
    for count in counts:
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(take(folder), seal, largest=largest, synced=False, wall=wall)
        journal.open({"host": "h", "pid": 1})
        for number in range(count):
            journal.add([{"type": "write", "at": 1.0, "number": number, "text": "update plans"}])
        journal.close() if closed else journal.abandon()


def verified(folder: Path, seal: Seal = SEAL, heads: Sequence[Any] = ()) -> Report:
    """Verify a journal."""
    return verify_folder(folder, seal, heads)
