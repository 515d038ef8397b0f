"""What connections over TCP share, whatever the engine: signs of life, and words for what broke."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress

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


def peer_of(transport: asyncio.BaseTransport | None) -> str | None:
    """Return the IP address at the other end; ``None`` on a Unix socket."""
    name = None if transport is None else transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else None


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
