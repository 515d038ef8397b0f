"""The wall: after how long a MySQL or MariaDB server ends a statement by itself, if we no longer can."""

from __future__ import annotations

from typing import NamedTuple

import aiomysql


class Wall(NamedTuple):
    """Hold how this server ends statements by itself: MariaDB any of them, MySQL those that only read."""

    variable: str
    limit: float  # in the variable's unit

    @classmethod
    def of(cls, raw: aiomysql.Connection, seconds: float | None) -> Wall | None:
        """Return the wall, ``None`` for none; whoever sets it in an ``init_command`` knows better."""
        if seconds is None:
            return None
        mariadb = "mariadb" in raw.server_version.lower()
        wall = cls("max_statement_time", seconds) if mariadb else cls("max_execution_time", seconds * 1000)
        return None if wall.variable in (raw.init_command or "").lower() else wall

    @property
    def name(self) -> str:
        """Return how a statement reads the variable."""
        return f"@@SESSION.{self.variable}"

    def at(self, limit: float) -> str:
        """Return the assignment of a limit; 0 is none."""
        return f"{self.variable} = {limit:.{3 if self.variable == 'max_statement_time' else 0}f}"
