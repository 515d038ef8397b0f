"""The journal of one process: files that are only ever added to. Called in one thread, where it may block."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from router.audit.chain import Chain, Head, Seal, read
from router.audit.lanes import Lane, segment, segments, sync_folder


class Journal:
    """Add records to the files of a lane, and begin another file when one is large.

    ``wall`` is the wall clock. Raises OSError from every method that writes; what was not written whole is
    taken back, so the same records may be added again.
    """

    def __init__(
        self, lane: Lane, seal: Seal, *, largest: int, synced: bool, wall: Callable[[], float]
    ) -> None:
        self.lane = lane
        self._largest = largest
        self._synced = synced  # a file is on the disk before the next begins
        self._wall = wall
        self._chain = Chain(seal, secrets.token_hex(8))
        self._file = -1
        self._size = 0
        self._torn = ""  # name of a file that ends with half a line, which could not be taken back
        self.dirty = False
        numbers = segments(lane.path)
        self.number = numbers[-1][0] if numbers else 0  # of the file that is written

    def open(self, origin: Mapping[str, Any]) -> None:
        """Begin a file, and a chain that names the end of the one before."""
        anchor = last_head(self.lane.path)
        self._next()
        self.add(
            [
                {
                    "at": round(self._wall(), 6),
                    "type": "opened",
                    "anchor": None if anchor is None else list(anchor),
                    "seal": self._chain.seal.name,
                    **origin,
                }
            ]
        )

    @property
    def head(self) -> Head:
        """Return the last record."""
        return self._chain.head

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records; all are accepted by the system when it returns, or none."""
        if self._size >= self._largest:
            self._next()
        before, torn = replace(self._chain), self._torn
        if torn:
            records = [{"at": round(self._wall(), 6), "type": "torn", "file": torn}, *records]
        lines = b"".join([self._chain.line(each) + b"\n" for each in records])
        try:
            self._write(lines)
        except BaseException:
            self._chain = before
            raise
        self._torn = ""

    def _write(self, lines: bytes) -> None:
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except BaseException:
            # half a line must not stay: what follows would be unreadable
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                self._size = self._largest  # not in this file any more
                self._torn = segment(self.lane.path, self.number).name
            raise
        self._size += len(lines)
        self.dirty = True

    def sync(self) -> None:
        """Wait until the disk has all that was added."""
        if self.dirty:
            getattr(os, "fdatasync", os.fsync)(self._file)
            self.dirty = False

    def _next(self) -> None:
        """Begin the next file."""
        if self._synced and self._file >= 0:
            self.sync()
        path = segment(self.lane.path, self.number + 1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fresh = os.open(path, flags, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size, self.number = fresh, 0, self.number + 1
        if self._synced:
            sync_folder(self.lane.path)

    def close(self, lost: int = 0) -> None:
        """Say in the chain that it ends in order, and what it lacks; let go of the lane."""
        try:
            if self._file >= 0:
                with suppress(OSError):
                    self.add([{"at": round(self._wall(), 6), "type": "closed", "lost": lost}])
                    if self._synced:
                        self.sync()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of file and lane without a word, as after a fork."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.lane.release()


def last_head(lane: Path) -> Head | None:
    """Return the last whole record of a lane's files."""
    for _, path in reversed(segments(lane)):
        for line in reversed(path.read_bytes().split(b"\n")[:-1]):
            record = read(line)
            if record is not None:
                return record.head
    return None
