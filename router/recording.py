"""What is kept of requests while somebody looks, and of rare changes at all times; all of it bounded.

Requests pass here inline: each costs three microseconds, and nothing while nobody looks. What is shown is
made of it only when a picture is asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from router.changes import LISTENED, change
from router.events import Event, RequestEvent, RequestFailed, RequestStarted
from router.picture import ChangeRow
from router.windows import Window

E = TypeVar("E", bound=Event)

_RECENT = 50  # requests that are shown
_FAILED = 30
_CHANGES = 50
_RUNNING = 10_000  # requests that are followed at the same time
_WINDOW = 1.0  # seconds
_WINDOWS = 60


class Subscription(Protocol):
    """Describe what ends a listener's subscription."""

    def cancel(self) -> None:
        """Call the listener no more."""
        ...


class Source(Protocol):
    """Describe where events come from; ``router.dispatcher.Dispatcher`` is one."""

    def subscribe(
        self, event_type: type[E], listener: Callable[[E], object], /, *, quiet: bool = False
    ) -> Subscription:
        """Call ``listener`` with every event of the type; ``quiet``: no events come of it."""
        ...


class Running(NamedTuple):
    """Hold a request that has begun, and the moment on the monotonic clock."""

    event: RequestStarted
    began: float


class Recorded(NamedTuple):
    """Hold what was recorded until a moment; it changes no more."""

    seconds: float  # for which requests were recorded
    running: tuple[tuple[asyncio.Task[Any] | None, Running], ...]  # the longest first
    recent: tuple[RequestEvent, ...]  # the oldest first, as all below
    failed: tuple[RequestFailed, ...]
    changes: tuple[ChangeRow, ...]
    windows: tuple[Window, ...]


class Recorder:
    """Record what the events of ``source`` tell; requests only between :meth:`start` and :meth:`stop`."""

    def __init__(self, source: Source, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._source, self._clock, self._wall = source, clock, wall
        self.recent: deque[RequestEvent] = deque(maxlen=_RECENT)
        self.failed: deque[RequestFailed] = deque(maxlen=_FAILED)
        self.changes: deque[ChangeRow] = deque(maxlen=_CHANGES)
        self.since: float | None = None  # when requests began to be recorded, on the monotonic clock
        self._running: dict[asyncio.Task[Any] | None, Running] = {}
        self._windows: deque[Window] = deque(maxlen=_WINDOWS)
        self._window = Window(0.0, 0.0)
        self._always = [source.subscribe(each, self._on_change) for each in LISTENED]
        self._always.append(source.subscribe(RequestFailed, self._on_failure))
        self._while_watched: list[Subscription] = []

    def start(self) -> None:
        """Record requests from now on."""
        if self.since is None:
            self._while_watched = [
                self._source.subscribe(RequestStarted, self._on_started, quiet=True),
                self._source.subscribe(RequestEvent, self._on_request, quiet=True),
            ]
            self.since = self._clock()  # not before: a router that is closed refuses to be listened to
            self._window = Window(self.since, self._wall())

    def stop(self) -> None:
        """Record requests no more, and forget those there are: they would look like what happens now."""
        for each in self._while_watched:
            each.cancel()
        self._while_watched = []
        self.since = None
        self.recent.clear()
        self._running.clear()
        self._windows.clear()

    def close(self) -> None:
        """Listen to nothing any more."""
        self.stop()
        for each in self._always:
            each.cancel()

    # --- listeners ---------------------------------------------------------------------------------------

    def _on_started(self, event: RequestStarted) -> None:
        if len(self._running) < _RUNNING:
            self._running[asyncio.current_task()] = Running(event, self._clock())

    def _on_request(self, event: RequestEvent) -> None:
        if self._running:
            self._running.pop(asyncio.current_task(), None)
        self.recent.append(event)
        self._window.count(event)

    def _on_failure(self, event: RequestFailed) -> None:
        self.failed.append(event)

    def _on_change(self, event: Event) -> None:
        new = change(event)
        last = self.changes[-1] if self.changes else None
        if last is not None and (last.kind, last.where, last.text) == (new.kind, new.where, new.text):
            self.changes[-1] = ChangeRow(new.at, new.kind, new.level, new.where, new.text, last.count + 1)
        else:
            self.changes.append(new)

    # --- looking -----------------------------------------------------------------------------------------

    def recorded(self) -> Recorded:
        """Return all that there is."""
        now = self._clock()
        self._turn(now)
        return Recorded(
            0.0 if self.since is None else now - self.since,
            self._still_running(),
            tuple(self.recent),
            tuple(self.failed),
            tuple(self.changes),
            tuple(self._windows),
        )

    def _still_running(self) -> tuple[tuple[asyncio.Task[Any] | None, Running], ...]:
        for task in [task for task in self._running if task is not None and task.done()]:
            del self._running[task]  # a stream that nobody read to its end
        return tuple(sorted(self._running.items(), key=lambda each: each[1].began))

    def _turn(self, now: float) -> None:
        """Begin another window when this one is long enough."""
        if self.since is not None and now - self._window.began >= _WINDOW:
            self._window.length = now - self._window.began
            self._windows.append(self._window)
            self._window = Window(now, self._wall())
