"""A server for the application, on the event loop that the router is on."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import uvicorn

from router.errors import UsageError
from router.router import Router
from router.web.application import app

_GRACE: Final = 2  # seconds that answers under way have at the end


@dataclass(frozen=True, slots=True)
class Served:
    """Say where the application is served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Return the address of the application, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class _Server(uvicorn.Server):
    """Serve, and leave the signals to the program that this runs in."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve(
    router: Router, host: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[Served]:
    """Serve ``router`` over HTTP while the block runs; port 0 takes a free one.

    ``options`` are those of :func:`router.web.app`. It speaks plain HTTP: beyond this machine let a
    proxy with TLS stand before it. Raises UsageError if it cannot listen there.
    """
    served = app(router, **options)
    listening = _listen(host, port)
    server = _Server(
        uvicorn.Config(
            served,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )
    loop = asyncio.get_running_loop()
    task = loop.create_task(server.serve([listening]), name="router web server")
    up = loop.create_task(server.up.wait())
    try:
        await asyncio.wait((task, up), return_when=asyncio.FIRST_COMPLETED)
        yield Served(host, listening.getsockname()[1])
    finally:
        up.cancel()
        served.close()
        server.should_exit = True
        await asyncio.wait((task,))
        listening.close()
    task.result()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET
    try:
        if ipaddress.ip_address(host).version == 6:
            family = socket.AF_INET6
    except ValueError:
        pass  # a name, which is looked up
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as exc:
        made.close()
        raise UsageError(
            f"cannot listen at {host}:{port}: {exc}. Choose another port, or 0 for a free one"
        ) from None
    made.setblocking(False)
    return made


def _why(error: OSError | OverflowError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
