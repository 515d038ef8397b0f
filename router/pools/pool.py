"""One pool as a whole: what is kept ready, what becomes of it when its server goes, how it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from router.errors import ConnectError, RouterError
from router.pools.bounds import PoolStatus
from router.pools.holders import UNBOUND, shares
from router.pools.lending import Lending
from router.statements import Dirt

_WARM = 5.0  # seconds that opening a connection may take that nobody waits for


class Pool(Lending):
    """Own the connections of one endpoint."""

    def sweep(self) -> None:
        """Close idle connections that are broken, expired, or idle for too long; open what ``min`` wants.

        Report units of work that hold a connection for too long.
        """
        now = self.clock()
        for connection in list(self._idle):
            if connection.closed:
                reason = "broken"
            elif connection.expires_at <= now:
                reason = "lifetime"
            elif self._admission.size > self.limits.min and now - connection.used_at > self.limits.idle:
                reason = "idle"
            else:
                continue
            self._idle.remove(connection)
            self._retire(connection, reason)
        if self.limits.leak_after:
            for seconds, holder in self._used.overdue(now, self.limits.leak_after):
                self.teller.held(seconds, holder)
        self._warming = True
        self._fill()

    def _fill(self) -> None:
        """Open what is missing of ``min``, a few at a time."""
        for _ in range(0 if self.closed else self.limits.min - self._admission.size):
            if not self._admission.reserve(self, UNBOUND):
                return
            self._reaper.submit(self._warm, partial(self._vacate, UNBOUND))

    async def _warm(self) -> None:
        """Open a connection to keep ready; a failure is told, and tried again at the next sweep."""
        opened = await self._open(self.clock() + _WARM, _WARM, _WARM)
        if isinstance(opened, RouterError):
            self._warming = False
            return
        UNBOUND.returned()
        self._offer(opened)
        if self._warming:
            self._fill()

    def status(self) -> PoolStatus:
        """Return the numbers of this moment."""
        endpoint = self.endpoint
        return PoolStatus(
            endpoint.node.label,
            endpoint.database,
            endpoint.login.username,
            self.size,
            len(self._idle),
            len(self._used),
            len(self.queue),
            self.limits.max,
            shares(list(self._used.values()), self.queue.holders()),
        )

    @property
    def unused(self) -> bool:
        """Tell whether there is nothing in the pool that would be missed."""
        return not (self.size or self.queue or self.refusals.pause() or self.closed)

    def retire(self) -> None:
        """Be forgotten: who asks next gets another pool."""
        for lessee in list(self.lessees):
            lessee.forget(self)
        self.lessees.clear()
        self.closed = True
        self.teller.pool_closed(0)

    def drain(self) -> None:
        """Close idle connections now and lent ones when they come back: the server has another role."""
        self._leave()
        for connection in self._used:
            connection.dirt = Dirt.DISCARD

    def abort(self) -> None:
        """Cut all connections, so that who waits for the server's answer need not: it does not answer."""
        self._leave()
        self._opener.cancel(self._left_error())
        for connection in self._used:
            connection.terminate()

    def relocate(self, addresses: frozenset[str]) -> None:
        """Let go of connections to an address that the server's name does not lead to any more."""
        for connection in [each for each in self._idle if each.peer not in (None, *addresses)]:
            self._idle.remove(connection)
            self._retire(connection, "moved")
        for connection in self._used:
            if connection.peer not in (None, *addresses):
                connection.dirt = Dirt.DISCARD

    def _leave(self) -> None:
        while self._idle:
            self._retire(self._idle.pop(), "left")
        self.queue.dismiss(self._left_error)

    def _left_error(self) -> ConnectError:
        node = self.endpoint.node
        return ConnectError(f"{node.label} does not answer, or has another role than {node.role} now").at(
            cluster=node.cluster, node=node.name
        )

    def drop_idle(self) -> None:
        """Close idle connections at once."""
        while self._idle:
            self._drop(self._idle.pop(), "closed")

    def shut(self) -> None:
        """Refuse new work; close what is idle, give up on what is being opened, and tell who waits."""
        self.closed = True
        self.queue.dismiss(self._why)
        while self._idle:
            self._retire(self._idle.pop(), "closed")
        self._opener.cancel(self._why())

    def part(self, why: Callable[[], RouterError]) -> None:
        """Refuse new work and who waits, by the error that ``why`` makes; who has a connection keeps it."""
        self._why = why
        self.shut()

    async def close(self, timeout: float) -> int:
        """Refuse new work, wait for lent connections, cut what is left; return how many were cut."""
        self.shut()
        if self.size:
            try:
                async with asyncio.timeout(timeout):
                    await self.parted()
            except TimeoutError:
                return self.cut()
            except BaseException:
                self.cut()
                raise
        return 0

    async def parted(self) -> None:
        """Return when there is no connection left; only for a pool that takes no new work."""
        self._empty = self._empty or asyncio.Event()
        if self.size:
            await self._empty.wait()

    def cut(self) -> int:
        """Close all lent connections, whatever runs on them; return how many there were."""
        left = list(self._used)
        if left:
            self.teller.cut(self._used.held(self.clock()))
        self.leftovers += len(left)
        for connection in left:
            self._used.pop(connection).flow.returned()
            self._retire(connection, "closed")  # not cut at once: the server is to end its statement too
        return len(left)

    def detach(self, gone: Callable[[], RouterError]) -> list[Any]:
        """Give up all connections without touching server or event loop; return what ``close()`` ends.

        Whoever still holds one learns why by the error that ``gone`` makes.
        """
        self.closed = True
        self.gone = gone
        left = [*self._idle, *self._used]
        self._idle.clear()
        self._used.clear()
        return [found for connection in left if (found := connection.detach()) is not None]
