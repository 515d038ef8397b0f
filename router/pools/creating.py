"""Make new connections for a pool: dated, numbered, told, and no more often than the server bears."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable

from router.drivers.driver import Connection, Endpoint
from router.errors import RouterClosed, RouterError
from router.pools.opening import Opener
from router.pools.reaper import Reaper
from router.pools.refusals import Refusals
from router.pools.telling import PoolTeller

_KEY = os.urandom(32)  # so that what is kept of a password is of no use in another process


class Creator:
    """Make the connections of one pool; ``lifetime`` in seconds is how long each may be used."""

    def __init__(
        self,
        endpoint: Endpoint,
        opener: Opener,
        lifetime: float,
        *,
        reaper: Reaper,
        teller: PoolTeller,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._endpoint = endpoint
        self._opener = opener
        self._lifetime = lifetime
        self._reaper = reaper
        self._teller = teller
        self._clock = clock
        self._rng = rng
        self._made = 0
        self.refusals = Refusals(clock, rng)
        self._refused_password = b""
        self._looking = False

    async def make(self, timeout: float) -> Connection | RouterError:
        """Return a connection, or the error; ``timeout`` is in seconds."""
        started = self._clock()
        made = await self._opener.open(timeout)
        now = self._clock()
        if isinstance(made, RouterClosed):
            return made
        if isinstance(made, RouterError):
            self._teller.failed(now - started, made)
            self.refusals.refused(made)
            self.look_at_password()
            return made
        self.refusals.forget()
        self._made += 1
        made.id = self._made
        made.node = self._endpoint.node
        made.opened_at = made.used_at = made.lent_at = now
        # jittered, or all connections of a burst would expire at the same moment
        life = min(self._lifetime, made.expires_at - now)
        made.expires_at = now + life * (1 - self._rng.uniform(0, 0.1))
        self._teller.opened(now - started)
        return made

    def look_at_password(self) -> None:
        """Where logins are blocked, see in the background whether the password is another one by now."""
        if self.refusals.blocked and not self._looking:
            self._looking = True
            self._reaper.submit(self._compare, self._looked)
        elif not self.refusals.blocked:
            self._refused_password = b""

    async def _compare(self) -> None:
        try:
            digest = await _digest(self._endpoint)
        except Exception:  # it cannot be read now: nothing is known of it
            return
        finally:
            self._looked()
        if not self._refused_password:
            self._refused_password = digest
        elif digest != self._refused_password:
            self._refused_password = b""
            self.refusals.forget()

    def _looked(self) -> None:
        self._looking = False


async def _digest(endpoint: Endpoint) -> bytes:
    login = endpoint.login
    if login.account is None:
        text = await login.password()
    else:
        seen = await login.account.look()
        text = f"{seen.username}\0{seen.password.reveal()}"
    return hashlib.blake2b(text.encode(errors="surrogatepass"), key=_KEY).digest()
