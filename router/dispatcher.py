"""The one place that events are emitted to: listeners subscribe by type and can never harm the emitter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

from router.afterwards import Afterwards
from router.context import current
from router.errors import RouterClosed, UsageError
from router.events import Event, RequestStarted, WriteCommitted
from router.listeners import Inline, ListenerStats, Options, Queued, Quiet, inside, is_async, name_of

E = TypeVar("E", bound=Event)

MUTE_AFTER = 10
"""Failures in a row after which a listener is not called any more."""

TIMEOUT = 30.0
"""Seconds that an async listener may take for one event; then it is cancelled, and has failed."""

CANCEL_GRACE = 1.0
"""Seconds that an async listener gets to end after its cancellation; then it is left behind."""


class Subscription:
    """Stand for one listener's subscription; ``cancel`` ends it."""

    __slots__ = ("_cancel", "event_type", "name")

    def __init__(self, name: str, event_type: type[Event], cancel: Callable[[], None]) -> None:
        self.name = name
        self.event_type = event_type
        self._cancel = cancel

    def __repr__(self) -> str:
        return f"<Subscription {self.name} to {self.event_type.__name__}>"

    def cancel(self) -> None:
        """Call the listener no more, not even with queued events; a second cancel does nothing."""
        self._cancel()


class Dispatcher:
    """Hand every emitted event to the listeners of its type.

    ``clock`` is the wall clock that emitters stamp events with, in seconds since the epoch; ``capacity`` is
    how many events may wait for each queued listener that does not say. All methods belong to the event
    loop's thread.
    """

    def __init__(self, clock: Callable[[], float] = time.time, capacity: int = 10_000) -> None:
        self.clock = clock
        self._capacity = capacity
        self._closed = False
        # Both are replaced, never changed while an emit may iterate: listeners can subscribe and cancel
        # from inside an emit. Routes are filled per concrete event type as it first appears.
        self._listeners: tuple[Inline, ...] = ()
        self._routes: dict[type[Event], tuple[Inline, ...]] = {}
        self._wanted: dict[type[Event], bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.afterwards = Afterwards(self._tasks)
        # Read by each request, for which calling wants() would cost as much again.
        self.announces = False  # whether anybody wants to hear of a request before it runs
        self.confirms = False  # whether anybody wants to hear of a write that is committed

    def subscribe(
        self,
        event_type: type[E],
        listener: Callable[[E], object],
        *,
        first: bool = False,
        wants: bool = True,
        quiet: bool = False,
        name: str | None = None,
        queued: bool = False,
        capacity: int | None = None,
        drop: Literal["newest", "oldest"] = "newest",
        mute_after: int | None = MUTE_AFTER,
        timeout: float = TIMEOUT,
    ) -> Subscription:
        """Call ``listener`` with every event of ``event_type`` or a subclass of it.

        A sync listener is called inline and must be quick, unless it is ``queued``. An async one (a
        coroutine function, or an object whose ``__call__`` is one) always is: it gets the events in order
        from a queue of ``capacity``, which drops its newest or oldest event when it is full. It fails if it
        takes longer than ``timeout`` seconds for one event. After ``mute_after`` failures in a row a listener
        is not called any more; ``None`` is never. ``name`` is for the counts and the log, by default that of
        the code. ``first`` goes before all who listen already: for who completes the event's context, as
        tracing does; with ``wants=False`` no event is built for this listener alone. What a listener does
        itself, and what comes of tasks that it starts, it does not hear of; a sync one that is ``quiet``
        promises that nothing does, which makes each call cheaper.

        Raises UsageError for anything else, RouterClosed after close.
        """
        if self._closed:
            raise RouterClosed("the dispatcher is closed. Subscribe before the router is closed")
        if not (isinstance(event_type, type) and issubclass(event_type, Event)):
            raise UsageError("subscribe() takes a subclass of router.events.Event as event type")
        if not callable(listener):
            raise UsageError(f"subscribe() takes a callable as listener, not a {type(listener).__qualname__}")
        options = Options(
            name_of(listener) if name is None else name,
            self._capacity if capacity is None else capacity,
            drop,
            mute_after,
            timeout,
            wants,
        )
        entry: Inline
        if queued or is_async(listener):
            entry = Queued(event_type, listener, options, self._reroute, self._tasks)
        else:
            entry = (Quiet if quiet else Inline)(event_type, listener, options, self._reroute)
        self._listeners = (entry, *self._listeners) if first else (*self._listeners, entry)
        self._reroute()
        return self._subscription(entry)

    def _subscription(self, entry: Inline) -> Subscription:
        return Subscription(entry.options.name, entry.event_type, partial(self._remove, entry))

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Return all present subscriptions, the router's own included, in the order of their calls."""
        return tuple(map(self._subscription, self._listeners))

    def _remove(self, entry: Inline) -> None:
        entry.stop()
        self._listeners = tuple(other for other in self._listeners if other is not entry)
        self._reroute()

    def _reroute(self) -> None:
        self._routes, self._wanted = {}, {}
        self.announces = self.wants(RequestStarted)
        self.confirms = self.wants(WriteCommitted)

    def _route(self, event_type: type[Event]) -> tuple[Inline, ...]:
        listeners = () if self._closed else self._listeners
        found = tuple(
            entry for entry in listeners if entry.active and issubclass(event_type, entry.event_type)
        )
        self._routes[event_type] = found
        return found

    def wants(self, event_type: type[Event]) -> bool:
        """Tell whether anybody listens to events of exactly this class, so that it need not be built."""
        wanted = self._wanted.get(event_type)
        if wanted is None:
            wanted = any(entry.options.wants for entry in self._route(event_type))
            self._wanted[event_type] = wanted
        return wanted

    def emit(self, event: Event) -> None:
        """Hand the event to its listeners; never raises, waits or blocks."""
        event_type = event.__class__
        if event.context is None:
            event.context = current()
        listeners = self._routes.get(event_type)
        if listeners is None:
            listeners = self._route(event_type)
        within = inside.get()
        if within:
            listeners = tuple(listener for listener in listeners if listener not in within)
        for listener in listeners:
            listener.deliver(event, within)

    def stats(self) -> tuple[ListenerStats, ...]:
        """Return the counts of every present listener, in order; last those of what commits have called."""
        after = self.afterwards.stats()
        found = tuple(entry.stats() for entry in self._listeners)
        return found if after is None else (*found, after)

    async def aclose(self, timeout: float = 5.0) -> None:
        """Let queued listeners finish their queues for ``timeout`` seconds, then cancel them.

        Later events are ignored; a second close does nothing. A listener that resists its cancellation for
        one more second is left behind.
        """
        if self._closed:
            return
        self._closed = True
        self._reroute()
        self.afterwards.closed = True
        for entry in self._listeners:
            if isinstance(entry, Queued):
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
