"""Take a socket away from a transport whose event loop does not run, without the loop noticing."""

from __future__ import annotations

from typing import Any


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
