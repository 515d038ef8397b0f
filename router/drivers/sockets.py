"""What connections over TCP share, whatever the engine: signs of life, a silent end, words for what broke."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Generator
from contextlib import suppress
from types import coroutine
from typing import Any, TypeVar

# A peer that vanishes without a word (its machine lost power, a firewall forgot the connection) is noticed
# after 5 + 5 * 5 = 30 s; Linux would take two hours for an idle connection and 15 minutes for one that sends.
# Idle 5 s, interval 5 s, 5 probes are pgcat's defaults (its CONFIG.md). TCP_USER_TIMEOUT is their sum, since
# on Linux it decides in place of the number of probes once it is set (tcp(7)); it holds for unsent data too.
# Other systems have some of the options only, hence the names.
_OPTIONS = {
    "TCP_KEEPIDLE": 5,  # seconds
    "TCP_KEEPINTVL": 5,  # seconds
    "TCP_KEEPCNT": 5,
    "TCP_USER_TIMEOUT": 30_000,  # milliseconds
}
_CORK: int | None = getattr(socket, "TCP_CORK", None)  # Linux
Answer = TypeVar("Answer")
NO_TLS = "the server does not offer TLS, which tls.mode asks for"


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Let the kernel find out that the peer has vanished; does nothing on a Unix socket."""
    link = transport.get_extra_info("socket")
    if link is None or link.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # closed already: the first statement finds out
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS.items():
            option = getattr(socket, name, None)
            if option is not None:
                link.setsockopt(socket.IPPROTO_TCP, option, value)


def corkable(transport: asyncio.BaseTransport) -> Any:
    """Return the socket of a transport if it can hold back what is written for a moment, else ``None``."""
    link = transport.get_extra_info("socket")
    able = link is not None and _CORK is not None and link.family in (socket.AF_INET, socket.AF_INET6)
    return link if able else None


@coroutine
def together(transport: Any, link: Any, data: bytes, then: Awaitable[Answer]) -> Generator[Any, Any, Answer]:
    """Write ``data``, and run ``then``, which writes at once: the server is sent one packet if it can be.

    Each packet wakes the server's process up; on a busy machine that costs as much as a small statement.
    """
    steps: Any = then.__await__()
    try:
        awaited = _corked(transport, link, data, steps)
        while True:  # as "yield from" of what has begun
            try:
                given = yield awaited
            except BaseException as exc:
                awaited = steps.throw(exc)
            else:
                awaited = steps.send(given)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def _corked(transport: Any, link: Any, data: bytes, steps: Any) -> Any:
    """Write data and take the first step, which writes; return what it awaits."""
    if link is None:
        transport.write(data)
        return steps.send(None)
    link.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
    try:
        transport.write(data)
        return steps.send(None)
    finally:
        link.setsockopt(socket.IPPROTO_TCP, _CORK, 0)


def peer_of(transport: asyncio.BaseTransport | None) -> str | None:
    """Return the IP address at the other end; ``None`` on a Unix socket."""
    name = None if transport is None else transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else None


def detached(transport: Any) -> Any:
    """Return the socket of one of asyncio's transports, TLS or not; ``None`` for another loop's.

    The transport counts as closed from then on. To close the socket afterwards ends this process's end only:
    nothing is written and nothing is unregistered, which in a forked child would happen to the parent.
    """
    while transport is not None:
        inner = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
        if inner is None:
            break
        transport._closed = True  # of the outer one, whose finalizer would complain
        transport = inner
    socket = getattr(transport, "_sock", None)
    if socket is not None:
        transport._sock = None
        transport._closing, transport._conn_lost = True, 1  # what is written goes nowhere
    return socket


def words(exc: BaseException) -> str:
    """Say what broke; the texts of the system and of OpenSSL that are passed on hold no secret."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        reason = exc.verify_message.rstrip(".")
        return f"its certificate is refused: {reason}. Renew it, or correct tls.ca or the node's host"
    if isinstance(exc, ssl.SSLError):
        return f"the TLS handshake failed: {exc.reason or type(exc).__name__}"
    if isinstance(exc, socket.gaierror):
        return f"its host name cannot be resolved: {exc.strerror}"
    return f"the connection broke: {type(exc).__name__}"
