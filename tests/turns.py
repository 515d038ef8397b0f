"""Tests that measure time run alone: beside another test they would measure how busy the machine is.

``make test`` runs the files of tests in several processes. A test marked ``timed`` waits until those of the
other processes have ended, and no other begins until it has ended.
"""

import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.sharing_out import is_timed


class Turns:
    """Let many ordinary tests run beside each other in several processes, or one that is timed."""

    def __init__(self, folder: Path, name: str) -> None:
        # flock(2): the kernel lets go of the locks of a process that dies
        self._paths = [folder / f"{name}.{kind}" for kind in ("gate", "room")]
        self._gate, self._room = (path.open("w") for path in self._paths)

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn; who wants to be alone keeps the gate shut, or others would always be there."""
        with _locked(self._gate, fcntl.LOCK_EX):
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Remove the files; another process keeps those that it has open."""
        for file, path in zip((self._gate, self._room), self._paths, strict=True):
            file.close()
            with suppress(FileNotFoundError):
                path.unlink()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Run a test in its turn."""
        with self.turn(alone=is_timed(item)):
            return (yield)


@contextmanager
def _locked(file: IO[str], how: int) -> Iterator[None]:
    fcntl.flock(file, how)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def take(config: pytest.Config) -> None:
    """Take turns with the other processes of this run, if there are any."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        name = f"router-tests-{os.environ['PYTEST_XDIST_TESTRUNUID']}"
        turns = Turns(Path(tempfile.gettempdir()), name)
        config.pluginmanager.register(turns, "turns")
        config.add_cleanup(turns.close)
