"""Chromium of the system's packages: what drives it starts it, for nothing of it is downloaded."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.servers.binaries import find


class Chromium:
    """Say how to start the browser: without a window, without asking anybody outside, and as root too."""

    arguments = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
    )

    def __init__(self) -> None:
        """Raise ServerMissing where there is no browser."""
        self.program: Path = find("chromium") / "chromium"
        self._folder = TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)

    @property
    def data(self) -> str:
        """Return the folder for what the browser keeps."""
        return self._folder.name

    def start(self) -> None:
        """Find out that the program runs, so that a broken package is not mistaken for a broken page."""
        subprocess.run([self.program, "--version"], check=True, capture_output=True, timeout=60)
        assert os.path.isdir(self.data)

    def close(self) -> None:
        """Delete what the browser has kept."""
        self._folder.cleanup()
