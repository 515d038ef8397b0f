"""The process itself: what it is, by which configuration it works, how late its event loop is."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from router.events import ConfigurationLoaded, ConfigurationRefused
from router.metrics.families import Family, Numbers

_EVERY = 1.0  # seconds between two looks at the event loop
_WATCHED = 60.0  # seconds after a scrape


class LoopWatch:
    """Measure how late the event loop calls what is due, for a minute after each time that it is asked to."""

    def __init__(self) -> None:
        self.lag: float | None = None  # seconds, at the last look
        self._until = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def go_on(self) -> None:
        """Look every second for the next minute; on the loop that is to be watched."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + _WATCHED
        if self._handle is None:
            self._look_at(loop, loop.time())

    def _look_at(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._handle = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.lag = max(now - due, 0.0)
        self._handle = None
        if now < self._until:
            self._look_at(loop, now + _EVERY)

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Process:
    """Hold what is known of this process."""

    def __init__(self) -> None:
        self.loop = LoopWatch()
        self.scrape = 0.0  # seconds of the last rendering
        self._loaded: ConfigurationLoaded | None = None
        self._refused = False  # the latest one
        self._loads = {"loaded": 0, "refused": 0}
        self._labels = _version(), platform.python_version()

    def on_loaded(self, event: ConfigurationLoaded) -> None:
        """Take note of the configuration in force."""
        self._loaded, self._refused = event, False
        self._loads["loaded"] += 1

    def on_refused(self, event: ConfigurationRefused) -> None:
        """Take note of a configuration that has mistakes."""
        self._refused = True
        self._loads["refused"] += 1

    def families(self, prefix: str) -> Iterator[Family]:
        """Yield the gauges of the process."""
        loaded = self._loaded
        generation, at = (None, None) if loaded is None else (loaded.generation, loaded.at)
        success = None if loaded is None else float(not self._refused)
        found = (
            ("configuration_generation", "Which configuration is in force, from 1", generation),
            ("configuration_last_load_success", "Whether the latest one could be loaded", success),
            ("configuration_loaded_timestamp_seconds", "When it was loaded", at),
            ("scrape_duration_seconds", "Time of the last rendering of metrics", self.scrape),
            ("workers", "Processes whose metrics these are", 1.0),
            ("loop_lag_seconds", "How late the event loop was at the last look", self.loop.lag),
        )
        for name, text, value in found:
            rows = [] if value is None else [((), float(value))]
            yield Numbers(f"{prefix}{name}", text, "gauge", (), rows)
        results = [((result,), float(count)) for result, count in self._loads.items()]
        text = "Configurations that were read, by what became of them"
        yield Numbers(f"{prefix}configuration_loads", text, "counter", ("result",), results)
        text = "What runs; always 1"
        yield Numbers(f"{prefix}build_info", text, "gauge", ("version", "python"), [(self._labels, 1.0)])


@cache
def _version() -> str:
    try:
        return version("tenant-router")
    except PackageNotFoundError:
        return "unknown"
