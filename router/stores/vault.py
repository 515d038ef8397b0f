"""Vault or OpenBao as a store of secrets, through hvac: KV of both versions, and credentials on lease."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from router.config.files import read_text
from router.config.problems import Flaw
from router.config.secret import Secret
from router.config.stores import VaultConfig
from router.stores.asking import Threads
from router.stores.store import Answer, Unanswered

_MAX_TOKEN = 1 << 16
_RENEWED = 2 / 3  # of the life of a token, after which the router logs in again
_DENIED = Unanswered("permission denied (403): the token is not valid, or its policies do not allow it")
_SAID = {
    "Forbidden": _DENIED,
    "InvalidPath": Unanswered("nothing is there (404)"),
    "RateLimitExceeded": Unanswered("it asks to be asked less often (429)"),
    "VaultDown": Unanswered("it is sealed or not ready (503)"),
    "Unauthorized": Unanswered("it does not know the token (401)"),
    "SSLError": Unanswered("its certificate is not trusted. Give the authority as secrets.vault.ca"),
    "ConnectTimeout": Unanswered("it does not answer in time"),
    "ReadTimeout": Unanswered("it does not answer in time"),
    "ConnectionError": Unanswered("it cannot be reached"),
}


class Vault:
    """Read from one server; a token that the router logged in for is kept until it grows old."""

    def __init__(
        self, config: VaultConfig, folder: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._folder = folder
        self._clock = clock
        self._threads = Threads()
        self._lock = threading.Lock()  # of threads that need a token: one logs in
        self._token: Secret | None = None
        self._token_due = math.inf

    async def prepare(self, timeout: float) -> Unanswered | None:
        """Bring in hvac, in a thread: it takes longer than most answers."""
        return await self._threads.ask("hvac", _bring)

    async def read(self, path: str, timeout: float) -> Answer | Unanswered:
        """Return what is kept under ``path``, as ``vault read`` takes it."""
        return await self._threads.ask(path, partial(self._read, path, timeout))

    def close(self) -> None:
        """Forget the token."""
        self._token = None

    # --- in a thread -------------------------------------------------------------------------------------

    def _read(self, path: str, timeout: float) -> Answer | Unanswered:
        token = self._valid_token(timeout)
        got = token if isinstance(token, Unanswered) else self._send("GET", path, timeout, token)
        if got is _DENIED and self._config.auth != "token":
            if self._token is token:  # and no newer one, of another thread
                self._token = None
            token = self._valid_token(timeout)
            got = token if isinstance(token, Unanswered) else self._send("GET", path, timeout, token)
        return got if isinstance(got, Unanswered) else _answer(got)

    def _valid_token(self, timeout: float) -> Secret | Unanswered:
        if self._config.auth == "token":
            return self._given_token()
        if not self._lock.acquire(timeout=timeout):
            return Unanswered("logging in takes too long")
        try:
            token = self._token if self._clock() < self._token_due else None
            return token or self._log_in(timeout)
        finally:
            self._lock.release()

    def _given_token(self) -> Secret | Unanswered:
        reference = self._config.token
        if reference is None:
            text = os.environ.get("VAULT_TOKEN")
            return Secret(text) if text else Unanswered("VAULT_TOKEN is not set any more")
        flaw = reference.flaw()
        return reference.resolve() if flaw is None else Unanswered(f"its token {flaw.fact}")

    def _log_in(self, timeout: float) -> Secret | Unanswered:
        asked = self._clock()
        proof = self._proof()
        if isinstance(proof, Unanswered):
            return proof
        path = f"auth/{self._config.mount or self._config.auth}/login"
        got = self._send("POST", path, timeout, None, proof)
        if isinstance(got, Unanswered):
            return Unanswered(f"the login by {self._config.auth} failed: {got.why}")
        auth = got.get("auth")
        if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
            return Unanswered(f"the login by {self._config.auth} gave no token")
        seconds = auth.get("lease_duration") or math.inf  # 0: it does not expire
        self._token, self._token_due = Secret(auth["client_token"]), asked + seconds * _RENEWED
        return self._token

    def _proof(self) -> dict[str, Secret] | Unanswered:
        """Return what proves who the router is."""
        config = self._config
        if config.auth == "kubernetes":
            try:
                token = read_text(str(self._folder / config.service_token), _MAX_TOKEN).strip()
            except Flaw as error:
                return Unanswered(f"the service account's token {error.fact}")
            return {"role": Secret(config.role or ""), "jwt": Secret(token)}
        reference = config.secret_id
        flaw = None if reference is None else reference.flaw()
        if reference is None or flaw is not None:
            return Unanswered(f"its secret_id {flaw.fact if flaw is not None else 'is missing'}")
        return {"role_id": Secret(config.role_id or ""), "secret_id": reference.resolve()}

    def _send(
        self,
        method: str,
        path: str,
        timeout: float,
        token: Secret | None,
        body: dict[str, Secret] | None = None,
    ) -> dict[str, Any] | Unanswered:
        """Return the answer to one request; its exceptions go no further, for they hold what was sent."""
        import hvac

        config = self._config
        address = config.address or os.environ.get("VAULT_ADDR")
        if not address:  # hvac would try this machine
            return Unanswered("it has no address. Write secrets.vault.address, and start the process anew")
        client = hvac.Client(
            url=address,
            token="" if token is None else token.reveal(),  # not None, or hvac looks for one in the home
            namespace=config.namespace or os.environ.get("VAULT_NAMESPACE"),
            verify=None if config.ca is None else str(self._folder / config.ca),
            timeout=timeout,
            allow_redirects=False,  # the token would go along, to wherever it is
        )
        given = {} if body is None else {"json": {name: value.reveal() for name, value in body.items()}}
        with closing(client.adapter):
            try:
                got = client.adapter.request(method, f"/v1/{path}", **given)
            except Exception as exc:
                return _said(exc)
        if isinstance(got, dict):
            return got
        return Unanswered(f"it answers with HTTP {got.status_code}, which is no secret")


def _bring() -> None:
    import hvac  # noqa: F401 - for the threads that ask


def _said(exc: Exception) -> Unanswered:
    for kind in type(exc).__mro__:
        if kind.__name__ in _SAID:
            return _SAID[kind.__name__]
    return Unanswered(f"the request failed ({type(exc).__name__})")


def _answer(got: dict[str, Any]) -> Answer | Unanswered:
    data = got.get("data")
    if not isinstance(data, dict):
        return Unanswered("there is no data in its answer")
    inner = data.get("data")
    if isinstance(inner, dict) and isinstance(data.get("metadata"), dict):  # KV version 2
        data = inner
    lease = got.get("lease_duration") if got.get("lease_id") else None  # KV version 1 has a time, no lease
    fields = {
        str(name): Secret(str(value))
        for name, value in data.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }
    return Answer(fields, lease=lease or None)
