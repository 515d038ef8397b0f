"""Who to connect as, with the password of now, and how that is shown: with every password masked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from router import events
from router.config import LoginConfig, Secret, SecretReference
from router.errors import ConfigurationError

_KEY = os.urandom(32)  # so that what is kept of a password is of no use in another process

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


class Passwords:
    """Read passwords anew for each connect; tell when one is another than before, or cannot be had.

    ``wall`` is the wall clock in seconds. What is kept of a password is a keyed digest.
    """

    def __init__(self, emit: Callable[[events.Event], None], wall: Callable[[], float]) -> None:
        self._emit = emit
        self._wall = wall
        self._digests: dict[Credentials, bytes] = {}

    def read(self, credentials: Credentials) -> str:
        """Return the password as it is now, "" where there is none.

        Raises :class:`router.errors.ConfigurationError` if the variable or file is not there any more.
        """
        try:
            secret = credentials.resolve()[1]
        except ConfigurationError as error:
            told = "; ".join(each.message for each in error.problems)
            self._emit(events.SecretFailed(self._wall(), *_shown(credentials), told))
            raise
        if secret is None:
            return ""
        digest = hashlib.blake2b(secret.reveal().encode(errors="surrogatepass"), key=_KEY).digest()
        if self._digests.setdefault(credentials, digest) != digest:
            self._digests[credentials] = digest
            self._emit(events.SecretChanged(self._wall(), *_shown(credentials)))
        return secret.reveal()


def _shown(credentials: Credentials) -> tuple[str, str]:
    return credentials.username, str(credentials.password)


def mask_url(text: str) -> str:
    """Return ``text`` with the password of each URL in it masked, in the user part and in the query."""
    return _QUERY.sub(r"\1=***", _USERINFO.sub(r"\1:***@", text))
