"""What a pool says that another has replaced since a reload; nobody but the router hears it."""

from __future__ import annotations

from router.errors import ConnectError


class PoolRetired(ConnectError):
    """Refuse a connection of a pool that another has replaced: that one is to be asked."""

    def __init__(self) -> None:
        super().__init__("the server is connected to otherwise since a reload. Ask again")
