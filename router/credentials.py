"""Who to connect as, and how that is shown: with every password masked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from router.config import LoginConfig, Secret, SecretReference

# Both take too much rather than too little: an unencoded '@' in a password must not end the mask.
_USERINFO = re.compile(r"(://[^:/?#@\s]*):\S*@")
_QUERY = re.compile(r"([?&;][a-z0-9_.-]*(?:pass|secret|token)[a-z0-9_.-]*)=[^&;#\s]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Hold a user name and where its password comes from; ``None`` where the server asks for none."""

    username: str
    password: SecretReference | None = None

    @classmethod
    def of(cls, login: LoginConfig) -> Credentials:
        """Return the credentials that a configured login names."""
        return cls(login.username, login.password)

    def resolve(self) -> tuple[str, Secret | None]:
        """Return the user name and the password as it is now; call it for each new connection.

        Raises :class:`router.errors.ConfigurationError` if the variable or file is not there any more.
        """
        return self.username, None if self.password is None else self.password.resolve()

    def masked_dsn(self, engine: str, host: str, port: int, database: str) -> str:
        """Return the connection as a URL for people, such as ``postgresql://app:***@db-1:5432/app``."""
        user = quote(self.username, safe="") + (":***" if self.password is not None else "")
        if host.startswith("/"):
            return f"{engine}://{user}@/{database}?host={host}"
        address = f"[{host}]" if ":" in host else host
        return f"{engine}://{user}@{address}:{port}/{database}"


def mask_url(text: str) -> str:
    """Return ``text`` with the password of each URL in it masked, in the user part and in the query."""
    return _QUERY.sub(r"\1=***", _USERINFO.sub(r"\1:***@", text))
