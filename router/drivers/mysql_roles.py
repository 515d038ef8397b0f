"""The role that a MySQL or MariaDB session has taken for a tenant.

MariaDB's COM_RESET_CONNECTION leaves the role as it is, and its SET ROLE knows no DEFAULT, so what a session
had before is asked once and set again.
"""

from __future__ import annotations

from typing import Any

from pymysql import err

from router.errors import PermissionDenied, RouterError
from router.identifiers import quote

_NOT_GRANTED = frozenset({1959, 3530})  # MariaDB's, also for a role that does not exist; MySQL's


class Roles:
    """Take a tenant's role in one session, and give it back."""

    __slots__ = ("_home", "taken")

    def __init__(self) -> None:
        self._home = ""  # what SET ROLE is followed by to be as in the beginning; "" if nobody asked
        self.taken: str | None = None

    async def take(self, raw: Any, role: str | None, mariadb: bool) -> None:
        """Take a role; with ``None`` have that of the login again."""
        if role is None:
            await raw.query(f"SET ROLE {self._home}")
            self.taken = None
            return
        if not self._home:
            await raw.query("SELECT CURRENT_ROLE()")
            found = raw._result.rows[0][0]  # MySQL writes a list, quoted, or NONE
            self._home = "NONE" if found is None else quote(found, "`") if mariadb else str(found)
        failure: RouterError
        try:
            await raw.query(f"SET ROLE {quote(role, '`')}")
            self.taken = role
            return
        except err.MySQLError as exc:
            if exc.args[0] not in _NOT_GRANTED:
                raise
            failure = PermissionDenied(
                f"there is no role {role!r} that the user may take. Create it and grant it to the user",
                code=str(exc.args[0]),
                cause=exc,
            )
        raise failure
