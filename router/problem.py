"""One mistake in a configuration, as it is shown."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """Describe one mistake in the configuration: where it is, what it is, how to mend it."""

    file: str
    line: int  # 1-based; 0 where the file as a whole is meant
    column: int  # 1-based
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}. {self.remedy}"
