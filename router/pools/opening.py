"""Open a connection in a task of its own, so that neither a frozen server nor a secret reaches the caller.

While a driver connects, its frames hold the password. Those frames stay in the task: whoever runs out of time
or is cancelled meanwhile gets a traceback that ends here, and gets it at once, whatever the driver is doing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable

from router.drivers.driver import Connection, Driver, Endpoint
from router.errors import ConnectError, ConnectionLost, RouterClosed, RouterError, Sent, StatementTimeout
from router.pools.reaper import Reaper
from router.pools.refusals import Refusals
from router.pools.telling import PoolTeller

_KEY = os.urandom(32)  # so that what is kept of a password is of no use in another process


class Opener:
    """Open the connections of one endpoint; ``lifetime`` in seconds is how long each may be used."""

    def __init__(
        self,
        endpoint: Endpoint,
        driver: Driver,
        lifetime: float,
        *,
        reaper: Reaper,
        teller: PoolTeller,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._endpoint = endpoint
        self._driver = driver
        self._lifetime = lifetime
        self._reaper = reaper
        self._teller = teller
        self._clock = clock
        self._rng = rng
        self._opened = 0
        self._under_way: set[asyncio.Task[Connection]] = set()
        self.refusals = Refusals(clock, rng)
        self._refused_password = b""
        self._looking = False

    async def open(self, timeout: float) -> Connection | RouterError:
        """Return a connection, or the error; ``timeout`` is in seconds."""
        started = self._clock()
        opened = await self._try(timeout)
        now = self._clock()
        if isinstance(opened, RouterClosed):
            return opened
        if isinstance(opened, RouterError):
            self._teller.failed(now - started, opened)
            self.refusals.refused(opened)
            self.look_at_password()
            return opened
        self.refusals.forget()
        self._opened += 1
        opened.id = self._opened
        opened.opened_at = opened.used_at = opened.lent_at = now
        # jittered, or all connections of a burst would expire at the same moment
        opened.expires_at = now + self._lifetime * (1 - self._rng.uniform(0, 0.1))
        self._teller.opened(now - started)
        return opened

    async def _try(self, timeout: float) -> Connection | RouterError:
        task = asyncio.get_running_loop().create_task(self._driver.connect(self._endpoint, timeout))
        self._under_way.add(task)
        try:
            await asyncio.wait((task,), timeout=timeout)
        except BaseException:
            self._abandon(task)
            raise
        finally:
            self._under_way.discard(task)
        if not task.done():
            self._abandon(task)
            return self._error(ConnectError(f"no answer within {timeout:.3g} s"))
        if task.cancelled():
            return RouterClosed(f"the pool of {self._endpoint.node.label} was closed. Open a new router")
        exc = task.exception()
        if exc is None:
            return task.result()
        if not isinstance(exc, Exception):
            raise exc.with_traceback(None)
        return self._error(_as_connect_error(self._driver.translate(exc), timeout))

    def cancel(self) -> None:
        """Give up on all that is under way; who waits for it is told that the pool is closed."""
        for task in self._under_way:
            task.cancel()

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

    def _abandon(self, task: asyncio.Task[Connection]) -> None:
        task.cancel()
        task.add_done_callback(_bury)
        self._reaper.adopt(task)

    def _error(self, error: RouterError) -> RouterError:
        """Say of an error that it happened while connecting, so that nothing was sent."""
        node = self._endpoint.node
        user = f" as {self._endpoint.login.username}" if self._endpoint.login.username else ""
        error.sent = Sent.NO
        error.message = f"cannot connect to {node.label} at {node.address}{user}: {error.message}"
        error.args = (error.message,)
        # an error that the driver raised itself comes with the driver's frames
        error.__cause__ = error.__context__ = error.__traceback__ = None
        return error.at(cluster=node.cluster, node=node.name)


async def _digest(endpoint: Endpoint) -> bytes:
    return hashlib.blake2b((await endpoint.login.password()).encode(), key=_KEY).digest()


def _as_connect_error(error: RouterError, timeout: float) -> RouterError:
    if isinstance(error, StatementTimeout):
        return ConnectError(f"no answer within {timeout:.3g} s", cause=error.cause)
    if isinstance(error, ConnectionLost):
        return ConnectError(error.message, code=error.code, cause=error.cause)
    return error


def _bury(task: asyncio.Task[Connection]) -> None:
    """Close what came too late; asking for the exception keeps asyncio from logging it."""
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()
