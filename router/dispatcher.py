"""The one place that events are emitted to: listeners subscribe by type and can never harm the emitter."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from router.errors import RouterClosed, UsageError
from router.events import Event

E = TypeVar("E", bound=Event)

MUTE_AFTER = 10
"""Failures in a row after which a listener is not called any more."""

CANCEL_GRACE = 1.0
"""Seconds that an async listener gets to end after its cancellation; then it is left behind."""

_BATCH = 32  # events that an async listener gets in a row before other tasks have their turn

_log = logging.getLogger("router.dispatcher")


class ListenerStats(NamedTuple):
    """Count what became of one listener's events.

    ``dropped`` were refused by a full queue or had no event loop to run on; ``queued`` wait for an async
    listener; a ``muted`` listener failed ten times in a row and is not called any more.
    """

    name: str
    delivered: int
    failed: int
    dropped: int
    queued: int
    muted: bool


class _Inline:
    """Call a sync listener where the event is emitted."""

    __slots__ = (
        "active",
        "call",
        "delivered",
        "dropped",
        "event_type",
        "failed",
        "failures",
        "muted",
        "name",
        "on_mute",
    )

    def __init__(
        self, event_type: type[Event], call: Callable[[Any], object], on_mute: Callable[[], None]
    ) -> None:
        self.event_type = event_type
        self.call = call
        self.name = _name(call)
        self.on_mute = on_mute
        self.active = True
        self.muted = False
        self.delivered = self.failed = self.dropped = 0
        self.failures = 0  # in a row

    @property
    def queued(self) -> int:
        return 0

    def deliver(self, event: Event) -> None:
        if not self.active:
            return  # cancelled by a listener before it in the same emit
        try:
            self.call(event)
        except (Exception, asyncio.CancelledError) as error:
            # A sync call cannot be cancelled from outside: a CancelledError is the listener's own, and would
            # look like the cancellation of the request if it passed.
            self.count_failure(error)
        else:
            self.delivered += 1
            self.failures = 0

    def count_failure(self, error: BaseException) -> None:
        self.failed += 1
        self.failures += 1
        with contextlib.suppress(Exception):  # a broken log handler must not fail the emitter either
            if self.failed == 1:
                _log.error("listener %s failed; further failures are counted only", self.name, exc_info=error)
            if self.failures == MUTE_AFTER:
                _log.error("listener %s is muted after %d failures in a row", self.name, MUTE_AFTER)
        if self.failures >= MUTE_AFTER:
            self.muted = True
            self.stop()
            self.on_mute()

    def stop(self) -> None:
        self.active = False


class _Queued(_Inline):
    """Hand events to an async listener: a bounded queue, drained in order by one task."""

    __slots__ = ("capacity", "closing", "loop", "queue", "tasks", "wake")

    def __init__(
        self,
        event_type: type[Event],
        call: Callable[[Any], object],
        on_mute: Callable[[], None],
        capacity: int,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        super().__init__(event_type, call, on_mute)
        self.capacity = capacity
        self.tasks = tasks
        self.queue: deque[Event] = deque()
        self.wake = asyncio.Event()
        self.closing = False
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def queued(self) -> int:
        return len(self.queue)

    def deliver(self, event: Event) -> None:
        if not self.active:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.dropped += 1
            return
        if self.loop is None:
            self._start(loop)
        if loop is not self.loop or len(self.queue) >= self.capacity:
            self.dropped += 1
            return
        self.queue.append(event)
        self.wake.set()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # An empty context: the task outlives the request that happens to come first and must not keep its
        # context variables (request, user, trace) alive or visible to the listener.
        task = loop.create_task(self._drain(), name=f"listener {self.name}", context=Context())
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.active = False
        self._drop_queue()

    def _drop_queue(self) -> None:
        self.dropped += len(self.queue)
        self.queue.clear()

    async def _drain(self) -> None:
        done = 0
        while True:
            while self.queue:
                await self._hand_over(self.queue.popleft())
                done += 1
                if done % _BATCH == 0:
                    await asyncio.sleep(0)  # a listener that never waits would hold the loop for a full queue
            if self.closing:
                return
            self.wake.clear()
            await self.wake.wait()

    async def _hand_over(self, event: Event) -> None:
        try:
            await cast("Awaitable[object]", self.call(event))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self.count_failure(error)  # the listener's own, such as a future of its that was cancelled
        except Exception as error:
            self.count_failure(error)
        else:
            self.delivered += 1
            self.failures = 0

    def finish(self) -> None:
        """Let the task end when the queue is empty."""
        self.closing = True
        self.wake.set()

    def stop(self) -> None:
        self.active = False
        self._drop_queue()
        self.finish()


class Subscription:
    """Stand for one listener's subscription; ``cancel`` ends it."""

    __slots__ = ("_cancel",)

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        """Call the listener no more, not even with queued events; a second cancel does nothing."""
        self._cancel()


class Dispatcher:
    """Hand every emitted event to the listeners of its type.

    ``clock`` is the wall clock that emitters stamp events with, in seconds since the epoch; ``capacity`` is
    how many events may wait for each async listener. All methods belong to the event loop's thread.
    """

    def __init__(self, clock: Callable[[], float] = time.time, capacity: int = 10_000) -> None:
        self.clock = clock
        self._capacity = capacity
        self._closed = False
        # Both are replaced, never changed while an emit may iterate: listeners can subscribe and cancel
        # from inside an emit. Routes are filled per concrete event type as it first appears.
        self._listeners: tuple[_Inline, ...] = ()
        self._routes: dict[type[Event], tuple[_Inline, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def subscribe(self, event_type: type[E], listener: Callable[[E], object]) -> Subscription:
        """Call ``listener`` with every event of ``event_type`` or a subclass of it.

        A sync listener is called inline and must be quick. An async one (a coroutine function, or an object
        whose ``__call__`` is one) gets the events in order from a bounded queue. Raises UsageError for
        anything else, RouterClosed after close.
        """
        if self._closed:
            raise RouterClosed("the dispatcher is closed. Subscribe before the router is closed")
        if not (isinstance(event_type, type) and issubclass(event_type, Event)):
            raise UsageError("subscribe() takes a subclass of router.events.Event as event type")
        if not callable(listener):
            raise UsageError(f"subscribe() takes a callable as listener, not a {type(listener).__qualname__}")
        entry: _Inline
        if _is_async(listener):
            entry = _Queued(event_type, listener, self._reroute, self._capacity, self._tasks)
        else:
            entry = _Inline(event_type, listener, self._reroute)
        self._listeners = (*self._listeners, entry)
        self._reroute()
        return Subscription(partial(self._remove, entry))

    def _remove(self, entry: _Inline) -> None:
        entry.stop()
        self._listeners = tuple(other for other in self._listeners if other is not entry)
        self._reroute()

    def _reroute(self) -> None:
        self._routes = {}

    def _route(self, event_type: type[Event]) -> tuple[_Inline, ...]:
        listeners = () if self._closed else self._listeners
        found = tuple(
            entry for entry in listeners if entry.active and issubclass(event_type, entry.event_type)
        )
        self._routes[event_type] = found
        return found

    def wants(self, event_type: type[Event]) -> bool:
        """Tell whether anybody listens to events of exactly this class, so that it need not be built."""
        listeners = self._routes.get(event_type)
        return bool(self._route(event_type) if listeners is None else listeners)

    def emit(self, event: Event) -> None:
        """Hand the event to its listeners; never raises, waits or blocks."""
        event_type = event.__class__
        listeners = self._routes.get(event_type)
        if listeners is None:
            listeners = self._route(event_type)
        for listener in listeners:
            listener.deliver(event)

    def stats(self) -> tuple[ListenerStats, ...]:
        """Return the counts of every present listener, in order of subscription."""
        return tuple(
            ListenerStats(entry.name, entry.delivered, entry.failed, entry.dropped, entry.queued, entry.muted)
            for entry in self._listeners
        )

    async def aclose(self, timeout: float = 5.0) -> None:
        """Let async listeners finish their queues for ``timeout`` seconds, then cancel them.

        Later events are ignored; a second close does nothing. A listener that resists its cancellation for
        one more second is left behind.
        """
        if self._closed:
            return
        self._closed = True
        self._reroute()
        for entry in self._listeners:
            if isinstance(entry, _Queued):
                entry.finish()
        tasks = self._tasks - {asyncio.current_task()}  # a listener may be the one that closes
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=timeout)
        finally:
            late = [task for task in tasks if not task.done()]
            for task in late:
                task.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_GRACE)


def _is_async(listener: Callable[..., object]) -> bool:
    while isinstance(listener, partial):
        listener = listener.func
    return inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(type(listener).__call__)


def _name(listener: Callable[..., object]) -> str:
    """Name a listener by its code, never by its repr, which may show what it holds."""
    while isinstance(listener, partial):
        listener = listener.func
    named = listener if hasattr(listener, "__qualname__") else type(listener)
    return f"{named.__module__}.{named.__qualname__}"
