"""Who to connect as, with the password of now, and how that is shown: with every password masked."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from router import events
from router.config import LoginConfig, Secret, SecretReference
from router.config.references import NONE, Stored
from router.drivers.driver import Account, Credential
from router.errors import ConfigurationError, SecretUnavailable
from router.stores.keeper import Good, Keeper
from router.stores.store import Unanswered

_LOOKED = 30.0  # seconds for which a look at a secret counts, while the server refuses it
_KEY = os.urandom(32)  # so that what is kept of a password is of no use in another process

# Both take too much rather than too little: an unencoded '@' in a password must not end the mask.
_USERINFO = re.compile(r"(://[^:/?#@\s]*):\S*@")
_QUERY = re.compile(r"([?&;][a-z0-9_.-]*(?:pass|secret|token)[a-z0-9_.-]*)=[^&;#\s]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Hold a user name and where its password comes from; ``None`` where the server asks for none.

    The name is a reference too where a store gives both together.
    """

    username: str | SecretReference
    password: SecretReference | None = None

    @classmethod
    def of(cls, login: LoginConfig) -> Credentials:
        """Return the credentials that a configured login names."""
        return cls(login.username, login.password)

    @property
    def stored(self) -> tuple[Stored, ...]:
        """Return what has to be had from stores."""
        references = (each for each in (self.username, self.password) if isinstance(each, SecretReference))
        return tuple(part for reference in references for part in reference.stored)

    def resolve(self, given: Mapping[Stored, Secret] = NONE) -> tuple[str, Secret | None]:
        """Return the user name and the password as they are now, with what stores have ``given``.

        Raises :class:`router.errors.ConfigurationError` if a variable or file is not there any more.
        """
        user = self.username
        name = user if isinstance(user, str) else user.resolve(given).reveal()
        return name, None if self.password is None else self.password.resolve(given)

    def masked_dsn(self, engine: str, host: str, port: int, database: str) -> str:
        """Return the connection as a URL for people, such as ``postgresql://app:***@db-1:5432/app``."""
        user = quote(str(self.username), safe="") + (":***" if self.password is not None else "")
        if host.startswith("/"):
            return f"{engine}://{user}@/{database}?host={host}"
        address = f"[{host}]" if ":" in host else host
        return f"{engine}://{user}@{address}:{port}/{database}"


class Passwords:
    """Give the accounts of logins, which tell when a password is another than before, or cannot be had.

    ``wall`` is the wall clock in seconds. What is kept here of a password is a keyed digest.
    """

    def __init__(
        self, emit: Callable[[events.Event], None], wall: Callable[[], float], keeper: Keeper
    ) -> None:
        self._emit = emit
        self._wall = wall
        self._keeper = keeper
        self._digests: dict[Credentials, bytes] = {}

    def account(self, credentials: Credentials) -> Account:
        """Return what gives the user and password of a login at each connect."""
        return _Account(credentials, self._keeper, self)

    def expect(self, logins: Iterable[LoginConfig]) -> None:
        """Expect these logins to connect from now on, and forget the secrets of others."""
        known = dict.fromkeys(Credentials.of(login) for login in logins)
        self._keeper.expect((part, str(each.username)) for each in known for part in each.stored)
        self._digests = {each: digest for each, digest in self._digests.items() if each in known}

    def told(self, credentials: Credentials, error: ConfigurationError) -> None:
        """Tell that a variable or file is not there any more."""
        why = "; ".join(each.message for each in error.problems)
        self._emit(events.SecretFailed(self._wall(), *_shown(credentials), why, kept=False))

    def seen(self, credentials: Credentials, found: Credential) -> None:
        """Tell of what was found, if it is another than before."""
        text = f"{found.username}\0{found.password.reveal()}"
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), key=_KEY).digest()
        if self._digests.setdefault(credentials, digest) != digest:
            self._digests[credentials] = digest
            self._emit(events.SecretChanged(self._wall(), *_shown(credentials)))


class _Account(Account):
    """Put a user and a password together: what stands there, and what stores give."""

    def __init__(self, credentials: Credentials, keeper: Keeper, passwords: Passwords) -> None:
        self._credentials = credentials
        self._keeper = keeper
        self._passwords = passwords
        sources: dict[str, tuple[Stored, ...]] = {}
        for part in credentials.stored:
            sources[part.source] = (*sources.get(part.source, ()), part)
        self._secrets = tuple(sources.values())

    async def fetch(self) -> Credential:
        return await self._found(self._keeper.get)

    async def look(self) -> Credential:
        return await self._found(partial(self._keeper.get, oldest=_LOOKED))

    async def renew(self, refused: Credential) -> Credential | None:
        try:
            found = await self.fetch()  # another may have asked meanwhile
            if _same(found, refused) and self._secrets:
                found = await self._found(self._keeper.renew)
        except (ConfigurationError, SecretUnavailable):
            return None  # what is to be told is that the login was refused
        return None if _same(found, refused) else found

    async def _found(self, ask: Callable[[tuple[Stored, ...]], Awaitable[Good | Unanswered]]) -> Credential:
        until = math.inf
        given: dict[Stored, Secret] = {}
        for parts in self._secrets:
            got = await ask(parts)
            if isinstance(got, Unanswered):
                raise SecretUnavailable(f"{parts[0].source} cannot be had: {got.why}")
            given |= got.values
            until = min(until, got.until)
        found = self._resolved(given, until)
        self._passwords.seen(self._credentials, found)
        return found

    def _resolved(self, given: Mapping[Stored, Secret], until: float) -> Credential:
        try:
            username, password = self._credentials.resolve(given)
        except ConfigurationError as error:
            self._passwords.told(self._credentials, error)
            raise
        return Credential(username, Secret("") if password is None else password, until)


def _same(one: Credential, other: Credential) -> bool:
    return (one.username, one.password) == (other.username, other.password)


def _shown(credentials: Credentials) -> tuple[str, str]:
    return str(credentials.username), str(credentials.password)


def mask_url(text: str) -> str:
    """Return ``text`` with the password of each URL in it masked, in the user part and in the query."""
    return _QUERY.sub(r"\1=***", _USERINFO.sub(r"\1:***@", text))
