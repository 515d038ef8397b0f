"""Keys that are read as they are pressed, where there is a terminal that can; elsewhere there are none."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]


class Keyboard:
    """Wait for keys; without a terminal only for time to pass."""

    def __init__(self, number: int | None) -> None:
        self._number = number

    @property
    def present(self) -> bool:
        """Tell whether there are keys at all."""
        return self._number is not None

    def pressed(self, seconds: float) -> str:
        """Return the keys pressed within ``seconds``, as soon as there are any."""
        if self._number is None:
            time.sleep(seconds)
            return ""
        if not select.select([self._number], [], [], seconds)[0]:
            return ""
        found = os.read(self._number, 64)
        if not found:  # the terminal has gone
            raise KeyboardInterrupt
        return found.decode(errors="replace")


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Give the keyboard; the terminal is as it was afterwards."""
    if termios is None or not sys.stdin.isatty():
        yield Keyboard(None)
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield Keyboard(number)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
