"""Watch the configuration folder, and reload it once it is whole again.

Files are written one after the other, editors and tools leave half of one for a moment, Kubernetes swaps a
symbolic link. So nothing is read before all is quiet, and a folder with mistakes gets some time to mend. What
counts is the folder itself, looked at now and then: events only tell sooner, where there are any.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from router.config.loader import Loader
from router.errors import ConfigurationError
from router.logs import log_of
from router.pacing import politely

_log = log_of("watch")
_SHARE = 50  # of the time that a look takes, which is a second for 100,000 tenants, at least until the next


@dataclass(frozen=True, slots=True)
class Watch:
    """Say how a folder is watched; times are in seconds."""

    debounce: float = 0.5  # that nothing must have changed before it is read
    patience: float = 5.0  # that a folder with mistakes is given to become whole, before it is refused
    poll: float = 10.0  # between two looks at the folder where no event tells of a change


class Watcher:
    """Follow one folder; ``reload`` is told to take it over, ``refuse`` that it stays wrong."""

    def __init__(
        self,
        loader: Loader,
        times: Watch,
        reload: Callable[[], Awaitable[object]],
        refuse: Callable[[ConfigurationError], None],
    ) -> None:
        self._loader = loader
        self._times = times
        self._reload = reload
        self._refuse = refuse
        self._refused: int | None = None  # the fingerprint of what was refused last
        self._took = 0.0  # seconds of the last look

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                if await self._is_known():
                    await self._change()
                if not await self._is_known():
                    await self._follow()
            except Exception as error:  # none may end the watching
                _log.error("the configuration could not be followed: %s", type(error).__name__)
                await asyncio.sleep(self._times.poll)

    async def _follow(self) -> None:
        """Reload when all is quiet, again while there are mistakes; in the end tell that they stay."""
        loop = asyncio.get_running_loop()
        end, wrong, error = loop.time() + self._times.patience, None, None
        while True:
            found = await self._quiet(end)
            if found != wrong:
                try:
                    await self._reload()
                except ConfigurationError as refused:
                    wrong, error = found, refused
                else:
                    self._refused = None
                    return
            if error is not None and loop.time() >= end:
                self._refused = wrong
                self._refuse(error)
                return

    async def _quiet(self, end: float) -> int:
        """Return the fingerprint of the folder once it has not changed for a while, or when time is up."""
        loop, found = asyncio.get_running_loop(), await self._look()
        while True:
            before = found
            await asyncio.sleep(self._times.debounce)
            found = await self._look()
            if found == before or loop.time() >= end:
                return found

    async def _is_known(self) -> bool:
        return await self._look() in (self._loader.loaded, self._refused)

    async def _look(self) -> int:
        return await asyncio.to_thread(self._fingerprint)

    def _fingerprint(self) -> int:
        with politely():
            began = time.thread_time()
            found = self._loader.fingerprint()
            self._took = time.thread_time() - began
            return found

    async def _change(self) -> None:
        """Return when something may have changed, or when it is time to look by oneself."""
        seconds = max(self._times.poll, _SHARE * self._took)
        try:
            from watchfiles import awatch
        except ImportError:  # the extra `watch` is not installed
            await asyncio.sleep(seconds)
            return
        paths = _folders(self._loader.path)
        if not paths:
            await asyncio.sleep(min(seconds, 1.0))
            return
        events = awatch(
            *paths,
            watch_filter=_matters,
            debounce=50,
            rust_timeout=int(seconds * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        async with aclosing(events):
            # folders are watched anew each time, for others may be behind their names by now; what changed
            # before that is found by a look once the watching has begun, in the task's first step
            event = asyncio.ensure_future(anext(events))
            try:
                await asyncio.sleep(0)
                if await self._is_known():
                    await event
            finally:
                event.cancel()
                await asyncio.gather(event, return_exceptions=True)


def _folders(folder: str) -> list[str]:
    """Return the folders to watch: not those that lie deeper, where databases may be."""
    return [each for each in (folder, os.path.join(folder, "tenants")) if os.path.isdir(each)]


def _matters(change: Any, path: str) -> bool:
    """Tell whether an event is about what a configuration is made of; ``..data`` is Kubernetes' link."""
    name = os.path.basename(path)
    return name in ("..data", "tenants") or (name.endswith(".yaml") and not name.startswith("."))
