"""Open a connection in a task of its own, so that neither a frozen server nor a secret reaches the caller.

While a driver connects, its frames hold the password. Those frames stay in the task: whoever runs out of time
or is cancelled meanwhile gets a traceback that ends here, and gets it at once, whatever the driver is doing.
"""

from __future__ import annotations

import asyncio

from router.drivers.connecting import connect
from router.drivers.driver import Connection, Driver, Endpoint
from router.errors import ConnectError, ConnectionLost, RouterError, Sent, StatementTimeout
from router.pools.reaper import Reaper


class Opener:
    """Open the connections of one endpoint."""

    def __init__(self, endpoint: Endpoint, driver: Driver, reaper: Reaper) -> None:
        self._endpoint = endpoint
        self._driver = driver
        self._reaper = reaper
        self._under_way: dict[asyncio.Task[Connection], RouterError | None] = {}  # and why it was given up

    async def open(self, timeout: float) -> Connection | RouterError:
        """Return a connection, or the error; ``timeout`` is in seconds."""
        task = asyncio.get_running_loop().create_task(connect(self._driver, self._endpoint, timeout))
        self._under_way[task] = None
        try:
            await asyncio.wait((task,), timeout=timeout)
        except BaseException:
            self._abandon(task)
            raise
        finally:
            why = self._under_way.pop(task)
        if why is not None:
            self._abandon(task)
            return why
        if not task.done():
            self._abandon(task)
            return self._error(_silent(timeout))
        if task.cancelled():
            return self._error(ConnectError("the attempt was given up"))
        exc = task.exception()
        if exc is None:
            return task.result()
        if not isinstance(exc, Exception):
            raise exc.with_traceback(None)
        return self._error(_as_connect_error(self._driver.translate(exc), timeout))

    def cancel(self, why: RouterError) -> None:
        """Give up on all that is under way; who waits for it is told ``why``."""
        for task in self._under_way:
            self._under_way[task] = why
            task.cancel()

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


def _as_connect_error(error: RouterError, timeout: float) -> RouterError:
    if isinstance(error, StatementTimeout):
        return _silent(timeout, error.cause)
    if isinstance(error, ConnectionLost):
        return ConnectError(error.message, code=error.code, cause=error.cause)
    return error


def _silent(timeout: float, cause: BaseException | None = None) -> ConnectError:
    # to a hundredth: what is left of 0.1 s a moment later is called 0.1 s, as the caller did
    return ConnectError(f"no answer within {round(timeout, 2) or timeout:.3g} s", cause=cause)


def _bury(task: asyncio.Task[Connection]) -> None:
    """Close what came too late; asking for the exception keeps asyncio from logging it."""
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()
