"""Look tenants up in a folder of files that are read when they are asked for, not when the router is opened.

For so many tenants that to load all of them would take too long: the file system is the index.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

from router.config import Document, read
from router.errors import ConfigurationError
from router.sources import Data

_MOST = 100_000  # files that are looked at for changes
_Stamp = tuple[int, int, int] | None  # None: there is no such file


class _Looked(NamedTuple):
    document: Document | None
    stamp: _Stamp


class FolderSource:
    """Read ``<tenant>.yaml``; a changed file is noticed by its time and size."""

    def __init__(self, folder: Path, poll: float, rng: random.Random) -> None:
        self._folder = folder
        self._poll = poll
        self._rng = rng
        self._stamps: dict[str, _Stamp] = {}  # of files that were asked for, the oldest question first

    async def find(self, tenant: str) -> Data | None:
        """Return what the tenant's file says.

        Raises:
            ConfigurationError: it is no YAML.
            OSError: it cannot be looked at.
        """
        looked = await asyncio.to_thread(self._look, tenant)
        self._stamps.pop(tenant, None)
        if len(self._stamps) >= _MOST:
            del self._stamps[next(iter(self._stamps))]
        self._stamps[tenant] = looked.stamp
        document = looked.document
        if document is None:
            return None
        if document.problems:
            raise ConfigurationError(sorted(document.problems)).at(tenant=tenant)
        data: Data = document.data
        return data

    def _look(self, tenant: str) -> _Looked:
        path = str(self._folder / f"{tenant}.yaml")  # the id was checked: it has no slash and no dot
        stamp = _stamp(path)  # before the text: a change while it is read shows as a change afterwards
        return _Looked(None if stamp is None else read(path, path), stamp)

    async def changes(self) -> AsyncGenerator[str | None, None]:
        """Yield whose files have changed of those that were asked for, every now and then."""
        while True:
            await asyncio.sleep(self._poll * self._rng.uniform(0.8, 1.2))
            for tenant in await asyncio.to_thread(self._changed, dict(self._stamps)):
                yield tenant

    def _changed(self, before: dict[str, _Stamp]) -> list[str]:
        paths = ((tenant, str(self._folder / f"{tenant}.yaml"), stamp) for tenant, stamp in before.items())
        return [tenant for tenant, path, stamp in paths if _stamp(path) != stamp]


def _stamp(path: str) -> _Stamp:
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
