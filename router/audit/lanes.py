"""The folder of a journal: a lane for each process that writes at the same time, and a lane's files.

A lane is held by a lock that ends with its process, however that ends. The next process goes on in the same
lane, so that its chain can name the end of the one before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from router.errors import UsageError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_LANE = re.compile(r"lane-([0-9]{1,6})")
_SEGMENT = re.compile(r"([0-9]{10})\.jsonl")
_MOST = 10_000  # lanes tried; that many processes do not write side by side


class Lane:
    """Hold one lane of a journal for this process until :meth:`release`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def release(self) -> None:
        """Let another process have the lane."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def take(folder: Path) -> Lane:
    """Return the first lane that no other process holds, a new one if need be.

    Raises OSError if the folder cannot be written, UsageError where files cannot be locked.
    """
    for number in range(_MOST):
        lane = hold(folder / f"lane-{number}", create=True)
        if lane is not None:
            return lane
    raise UsageError(f"{_MOST} processes write to {folder} already. Give them folders of their own")


def hold(path: Path, *, create: bool = False) -> Lane | None:
    """Return the lane at ``path``; ``None`` while another process holds it."""
    if fcntl is None:
        raise UsageError("a journal needs a system that locks files (fcntl). Use audit.outbox here")
    if create:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return Lane(path, lock)


def lanes(folder: Path) -> list[Path]:
    """Return the lanes of a journal in order."""
    found = [each for each in folder.iterdir() if _LANE.fullmatch(each.name)]
    return sorted(found, key=lambda each: int(each.name.partition("-")[2]))


def segments(lane: Path) -> list[tuple[int, Path]]:
    """Return the files of a lane in order, with their numbers."""
    return sorted(_numbered(lane))


def _numbered(lane: Path) -> Iterator[tuple[int, Path]]:
    for each in lane.iterdir():
        match = _SEGMENT.fullmatch(each.name)
        if match is not None:
            yield int(match[1]), each


def segment(lane: Path, number: int) -> Path:
    """Return the file of a number."""
    return lane / f"{number:010}.jsonl"


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
