"""Change the folder of tenants: one file at a time, whole or not at all, and by nobody else meanwhile."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from router.errors import ConfigurationError, Problem, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PATIENCE = 30.0  # seconds that somebody else may hold the folder
_PAUSE = 0.05


@contextmanager
def held(folder: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Keep others who ask for the same from changing a folder of tenants.

    Each of two changes may be right and both together wrong, such as two tenants in the same place.
    Raises UsageError if it is not free within ``patience`` seconds, or cannot be had.
    """
    if not folder.parent.is_dir():
        raise ConfigurationError(
            [
                Problem(
                    str(folder.parent), 0, 0, "this is not a folder", "Name the folder that holds router.yaml"
                )
            ]
        )
    try:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _refused(folder, error) from None
    try:
        _lock(descriptor, folder, time.monotonic() + patience)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def _lock(descriptor: int, folder: Path, end: float) -> None:
    while fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise UsageError(f"{folder} is being changed by another process. Try again later") from None
        time.sleep(_PAUSE)


class Draft:
    """Hold a text on the disk beside the file that it becomes; nobody reads it before."""

    def __init__(self, file: Path, text: str, *, new: bool) -> None:
        """Write the draft of ``file``, which must not be there if ``new``, and else must be.

        Raises UsageError if it cannot be written; nothing is left then.
        """
        self.file, self._new = file, new
        # a name that begins with a dot is no tenant's, so neither a load nor a watcher takes it for one
        self._draft = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.draft")
        try:
            self._write(text)
        except OSError as error:
            self.discard()
            raise _refused(file, error) from None

    def _write(self, text: str) -> None:
        with open(self._draft, "x", encoding="utf-8", newline="\n") as written:
            if not self._new:
                os.chmod(self._draft, self.file.stat().st_mode & 0o7777)
            written.write(text)
            written.flush()
            os.fsync(written.fileno())

    def take_effect(self) -> None:
        """Make the draft the file, in one step; raises UsageError if that cannot be done."""
        try:
            if self._new:
                _link(self._draft, self.file)
            else:
                os.replace(self._draft, self.file)
            _sync(self.file.parent)
        except FileExistsError:
            raise UsageError(f"{self.file} is there already; somebody else has made it meanwhile") from None
        except OSError as error:
            raise _refused(self.file, error) from None

    def discard(self) -> None:
        """Remove the draft, if it is still one."""
        with suppress(OSError):
            self._draft.unlink(missing_ok=True)


def _link(draft: Path, file: Path) -> None:
    """Give the draft its name, unless that is taken: a rename would replace what is there."""
    try:
        os.link(draft, file)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a file system without hard links
        if file.exists():
            raise FileExistsError from None
        os.replace(draft, file)
    else:
        draft.unlink()


def take_away(file: Path) -> None:
    """Remove a tenant's file; raises UsageError if that cannot be done."""
    try:
        file.unlink()
        _sync(file.parent)
    except OSError as error:
        raise _refused(file, error) from None


def _sync(folder: Path) -> None:
    """Have the names in a folder outlast a crash of the machine."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refused(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path} cannot be written: {error.strerror}. Make it writable for this user, or change it where it "
        "comes from, such as a Kubernetes ConfigMap"
    )
