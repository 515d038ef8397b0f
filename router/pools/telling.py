"""Tell what becomes of one pool's connections: as events, and what people should see as log lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from router import events
from router.drivers.driver import Endpoint
from router.errors import PoolTimeout, RouterError
from router.logs import log_of
from router.pools.holders import Holder, listed

_log = log_of("pool")


class PoolTeller:
    """Emit the events of the connections to one endpoint; ``wall`` is the wall clock in seconds."""

    def __init__(
        self, endpoint: Endpoint, driver: str, emit: Callable[[events.Event], None], wall: Callable[[], float]
    ) -> None:
        self._endpoint = endpoint
        self._driver = driver
        self._emit = emit
        self._wall = wall

    def _tell(self, kind: type[events.ConnectionEvent], duration: float, **more: Any) -> None:
        endpoint = self._endpoint
        login = endpoint.login.username
        self._emit(
            kind(self._wall(), endpoint.node, self._driver, endpoint.database, login, duration, **more)
        )

    def opened(self, seconds: float) -> None:
        """Tell that connecting succeeded after ``seconds``."""
        self._tell(events.ConnectionOpened, seconds)

    def failed(self, seconds: float, error: RouterError) -> None:
        """Tell that connecting failed after ``seconds``."""
        name = type(error).__name__
        self._tell(events.ConnectionFailed, seconds, error=name, code=error.code, message=error.message)

    def closed(self, seconds: float, reason: str) -> None:
        """Tell that a connection was closed after a life of ``seconds``."""
        self._tell(events.ConnectionClosed, seconds, reason=reason)

    def pool_opened(self) -> None:
        """Tell that the pool was made."""
        endpoint = self._endpoint
        self._emit(events.PoolOpened(self._wall(), endpoint.node, endpoint.database, endpoint.login.username))

    def pool_closed(self, leftovers: int) -> None:
        """Tell that the pool was closed, and how many connections were cut for it."""
        endpoint = self._endpoint
        login = endpoint.login.username
        self._emit(events.PoolClosed(self._wall(), endpoint.node, endpoint.database, login, leftovers))

    def refused(
        self, error: PoolTimeout, tenant: str, waited: float, in_use: int, waiting: int, limit: int
    ) -> None:
        """Tell that somebody got no connection after ``waited`` seconds."""
        endpoint = self._endpoint
        self._emit(
            events.PoolRefused(
                self._wall(),
                endpoint.node,
                endpoint.database,
                endpoint.login.username,
                tenant,
                type(error).__name__,
                waited,
                in_use,
                waiting,
                limit,
            )
        )

    def left_running(self, error: RouterError, count: int) -> None:
        """Tell of sessions that the server could not be asked to end."""
        self._emit(events.StatementsLeft(self._wall(), self._endpoint.node, count, type(error).__name__))

    def held(self, seconds: float, holder: Holder) -> None:
        """Tell that a unit of work holds a connection for longer than it should."""
        stack = holder.stack()
        self._tell(events.ConnectionHeld, seconds, tenant=holder.tenant, task=holder.task, stack=stack)
        _log.warning(
            "a connection to %s is held by %s; is it ever given back? It was asked for at %s",
            self._endpoint.node.label,
            holder.describe(seconds),
            " < ".join(stack) or "an unknown place",
            extra={"node": self._endpoint.node.label, "tenant": holder.tenant, "held_seconds": seconds},
        )

    def cut(self, held: Sequence[tuple[float, Holder]]) -> None:
        """Say who still held connections when the pool was closed."""
        label, number = self._endpoint.node.label, len(held)
        _log.warning(
            "%d connections to %s were cut while in use: %s",
            number,
            label,
            listed(held),
            extra={"node": label, "connections": number},
        )
