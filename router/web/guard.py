"""Who may see what is protected: who sends the token, or has a session of the console."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final

from itsdangerous import BadSignature, TimestampSigner
from starlette.requests import HTTPConnection
from starlette.responses import Response

from router.config import Secret
from router.errors import UsageError
from router.web.answers import refusal

SHORTEST: Final = 16
"""Characters of a token at least: with what is tried in vain slowed down, it cannot be guessed."""

SESSION: Final = 12 * 3600
"""Seconds until a session of the console ends."""

COOKIE: Final = "router_console"

_TRIES = 5  # wrong tokens in a row
_PAUSE = 10.0  # seconds after which one more may be tried
_CLIENTS = 1024  # whose wrong tokens are counted


class Verdict(Enum):
    """Say what became of who asked."""

    WELCOME = "welcome"
    STRANGER = "stranger"  # no token, or a session that has ended
    WRONG = "wrong"
    PAUSED = "paused"  # too many wrong ones: it was not looked at


class Guard:
    """Judge who asks; ``token`` is what they must know."""

    def __init__(self, token: Secret, clock: Callable[[], float]) -> None:
        if len(token.reveal()) < SHORTEST:
            raise UsageError(
                f"the token of the console has fewer than {SHORTEST} characters. Take a longer one"
            )
        self._digest = hashlib.sha256(token.reveal().encode(errors="surrogatepass")).digest()
        # made of the token: sessions are known to all processes that have it, and end when it is changed
        self._signer = TimestampSigner(self._digest, salt="router.console", digest_method=hashlib.sha256)
        self._attempts = Attempts(clock)

    def judge(self, connection: HTTPConnection) -> Verdict:
        """Judge by the header Authorization, else by the session's cookie."""
        given = connection.headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            return self.judge_token(connection, token.strip() if scheme.lower() == "bearer" else "")
        cookie = connection.cookies.get(COOKIE, "")
        return Verdict.WELCOME if cookie and self._signed(cookie) else Verdict.STRANGER

    def judge_token(self, connection: HTTPConnection, token: str) -> Verdict:
        """Judge by a token; while a client is paused even the right one is not looked at."""
        client = client_of(connection)
        if self._attempts.pause(client):
            return Verdict.PAUSED
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        if hmac.compare_digest(digest, self._digest):
            self._attempts.forget(client)
            return Verdict.WELCOME
        self._attempts.count(client)
        return Verdict.WRONG

    def session(self) -> str:
        """Return the cookie of a new session."""
        return self._signer.sign(secrets.token_urlsafe(9)).decode()

    def pause(self, connection: HTTPConnection) -> int:
        """Return the seconds for which a client need not try again."""
        return int(self._attempts.pause(client_of(connection))) + 1

    def refuse(self, verdict: Verdict, connection: HTTPConnection) -> Response:
        """Return the answer for who is not welcome."""
        if verdict is Verdict.PAUSED:
            error = "too many wrong tokens. Wait before you try again"
            return refusal(429, error, Retry_After=self.pause(connection))
        error = (
            "wrong token" if verdict is Verdict.WRONG else "this needs the token: Authorization: Bearer ..."
        )
        return refusal(401, error, WWW_Authenticate='Bearer realm="router"')

    def _signed(self, cookie: str) -> bool:
        try:
            self._signer.unsign(cookie, max_age=SESSION)
        except BadSignature:
            return False
        return True


class Attempts:
    """Count the wrong tokens of each client: a few at once, then one from time to time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: until when the tries of a client are used up; each wrong one moves it, the oldest is forgotten
        self._used: OrderedDict[str, float] = OrderedDict()

    def pause(self, client: str) -> float:
        """Return the seconds until the client may try again."""
        return max(0.0, self._used.get(client, 0.0) - self._clock() - (_TRIES - 1) * _PAUSE)

    def count(self, client: str) -> None:
        """Take note of a wrong token."""
        self._used[client] = max(self._used.pop(client, 0.0), self._clock()) + _PAUSE
        if len(self._used) > _CLIENTS:
            self._used.popitem(last=False)

    def forget(self, client: str) -> None:
        """Take note that the client knows the token."""
        self._used.pop(client, None)


def client_of(connection: HTTPConnection) -> str:
    """Return whom wrong tokens are counted for: an address, or the network that an IPv6 address is of."""
    host = connection.client.host if connection.client is not None else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):  # whoever has one has all of its /64
        return str(int(address) >> 64)
    return host
