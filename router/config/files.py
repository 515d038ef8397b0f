"""Read a file of bounded size, and never hang on one that is not a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from router.config.problems import Flaw


def read_text(path: str | Path, limit: int) -> str:
    """Return the text of the regular UTF-8 file at ``path``; raise :class:`Flaw` if it is not one.

    More than ``limit`` bytes are refused. A leading byte order mark, which some editors write, is dropped.
    """
    try:
        content = _read(path, limit)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Flaw(f"cannot be read: {reason}", "Check that the file exists and its permissions") from None
    except ValueError:  # NUL in the path
        raise Flaw("is not a possible path", "Write the path without control characters") from None
    if content is None:
        raise Flaw("is not a regular file", "Put a plain file there")
    if len(content) > limit:
        raise Flaw(f"is larger than {limit} bytes", "Make it smaller or split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = error.start
    del content
    raise Flaw(f"is not UTF-8 (byte {place})", "Save it as UTF-8")


def _read(path: str | Path, limit: int) -> bytes | None:
    # O_NONBLOCK: opening a named pipe would otherwise wait for a writer that may never come.
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    descriptor = os.open(path, flags)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None
        content = os.read(descriptor, limit + 1)
        while content and len(content) <= limit and (more := os.read(descriptor, limit + 1 - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def stamp_of(path: str) -> tuple[int, int]:
    """Return a number that is another one once a file was changed, and when it was, in nanoseconds."""
    state = os.stat(path)
    changed = max(state.st_mtime_ns, state.st_ctime_ns)
    return hash((state.st_dev, state.st_ino, state.st_size, changed)), changed


def readable_by_all(path: str | Path) -> bool:
    """Say whether every user of the machine may read the file at ``path``."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False
