"""Where tenants are looked up that have no file of their own: what a source is, and the plainest one."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol, runtime_checkable

Data = Mapping[str, Any]
"""What is known of a tenant: the keys of a tenant's YAML file; ``tenant`` itself may be left out."""

Lookup = Callable[[str], "Data | Awaitable[Data | None] | None"]
"""Returns a tenant's data by its id, ``None`` if there is no such tenant; sync or async."""


@runtime_checkable
class Source(Protocol):
    """Know tenants. What goes wrong is raised: it is never "no such tenant"."""

    async def find(self, tenant: str) -> Data | None:
        """Return what is known of a tenant, ``None`` if there is none."""

    def changes(self) -> AsyncGenerator[str | None, None]:
        """Yield the id of each tenant that has changed, ``None`` where any may have.

        If it raises it is called again soon, and begins with what changed meanwhile. If it ends, changes are
        found only when tenants are asked for again.
        """


class CallableSource:
    """Ask a function of the application; a sync one must not wait for anything."""

    def __init__(self, function: Lookup) -> None:
        self._function = function

    async def find(self, tenant: str) -> Data | None:
        """Return what the function returns."""
        found = self._function(tenant)
        return await found if inspect.isawaitable(found) else found

    async def changes(self) -> AsyncGenerator[str | None, None]:
        """Yield nothing: a function cannot say that its answer would be another."""
        for never in tuple[str, ...]():
            yield never
