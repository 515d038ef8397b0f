"""The listeners of a dispatcher: called where the event happens, or handed it from a bounded queue.

Whatever a listener does, the emitter notices nothing: failures are counted, a full queue drops, a delivery
that hangs is cancelled, and who fails again and again is not called any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, cast

from router.errors import UsageError
from router.events import Event
from router.logs import log_of, of

_BATCH, _SLICE = 32, 0.001  # events, and seconds, that a queued listener gets before other tasks have a turn

_log = log_of("dispatcher")


class ListenerStats(NamedTuple):
    """Count what became of one listener's events.

    ``dropped`` were pushed out by a full queue or had no event loop to run on; ``queued`` wait for a queued
    listener; a ``muted`` listener failed too often in a row, or was cancelled, and is not called any more.
    """

    name: str
    delivered: int
    failed: int
    dropped: int
    queued: int
    muted: bool


@dataclass(frozen=True, slots=True)
class Options:
    """Say how a listener is called; all but ``name``, ``mute_after`` and ``wants`` are for queued ones."""

    name: str
    capacity: int  # events that may wait
    drop: Literal["newest", "oldest"]  # which event goes when the queue is full
    mute_after: int | None  # failures in a row; None: never
    timeout: float  # seconds of one delivery; infinite for no limit
    wants: bool = True  # events that are built only for who listens

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise UsageError("a listener's name must not be empty")
        if self.capacity < 1:
            raise UsageError(f"a listener's queue must have room for 1 event at least, not {self.capacity}")
        if self.drop not in ("newest", "oldest"):
            raise UsageError(f"drop= is 'newest' or 'oldest', not {self.drop!r}")
        if self.mute_after is not None and self.mute_after < 1:
            raise UsageError(f"mute_after= is a number from 1, or None for never, not {self.mute_after}")
        if not self.timeout > 0:
            raise UsageError(f"timeout= is a number of seconds above 0, not {self.timeout}")


class Inline:
    """Call a sync listener where the event is emitted."""

    __slots__ = (
        "active",
        "alone",
        "call",
        "delivered",
        "dropped",
        "event_type",
        "failed",
        "failures",
        "muted",
        "on_mute",
        "options",
    )

    def __init__(
        self,
        event_type: type[Event],
        call: Callable[[Any], object],
        options: Options,
        on_mute: Callable[[], None],
    ) -> None:
        self.event_type = event_type
        self.call = call
        self.options = options
        self.on_mute = on_mute
        self.active = True
        self.muted = False
        self.delivered = self.failed = self.dropped = 0
        self.failures = 0  # in a row
        self.alone: Inside = (self,)

    @property
    def queued(self) -> int:
        """Return how many events wait."""
        return 0

    def deliver(self, event: Event, within: Inside) -> None:
        """Hand over an event that was emitted ``within`` what these listeners do; never raise."""
        token = inside.set((*within, self) if within else self.alone)
        try:
            self.take(event, within)
        finally:
            inside.reset(token)

    def take(self, event: Event, within: Inside) -> None:
        """Call the listener, and count what becomes of it."""
        if not self.active:
            return  # cancelled by a listener before it in the same emit
        try:
            self.call(event)
        except (Exception, asyncio.CancelledError) as error:
            # A sync call cannot be cancelled from outside: a CancelledError is the listener's own, and would
            # look like the cancellation of the request if it passed.
            self.count_failure(error, event)
        else:
            self.delivered += 1
            self.failures = 0

    def count_failure(self, error: BaseException, event: Event) -> None:
        """Count a failure to take an event; log the first one, and the one that mutes."""
        self.failed += 1
        self.failures += 1
        name, most = self.options.name, self.options.mute_after
        with contextlib.suppress(Exception):  # a broken log handler must not fail the emitter either
            said = of(event.context, listener=name)
            if self.failed == 1:
                text = "listener %s failed; further failures are counted only"
                _log.error(text, name, exc_info=error, extra=said)
            if self.failures == most:
                _log.error("listener %s is muted after %d failures in a row", name, most, extra=said)
        if most is not None and self.failures >= most:
            self.mute()

    def mute(self) -> None:
        """Call the listener no more."""
        self.muted = True
        self.stop()
        self.on_mute()

    def stop(self) -> None:
        """Deliver nothing any more."""
        self.active = False

    def stats(self) -> ListenerStats:
        """Return the counts of this moment."""
        return ListenerStats(
            self.options.name, self.delivered, self.failed, self.dropped, self.queued, self.muted
        )


class Quiet(Inline):
    """Call a sync listener of which no events come: it need not be kept from hearing them.

    To change a context variable costs more than to call a small listener.
    """

    __slots__ = ()
    deliver = Inline.take


Inside = tuple[Inline, ...]

inside: ContextVar[Inside] = ContextVar("router.inside", default=())
"""The listeners that are being called here: what is emitted meanwhile they do not hear.

It follows the tasks that a listener starts, so that one that runs a request for each request it hears of
comes to an end.
"""


class _Echo(NamedTuple):
    """An event that came of what listeners have done."""

    event: Event
    within: Inside


class Queued(Inline):
    """Hand events to a listener from a bounded queue, in order, one at a time, by a task of its own."""

    __slots__ = ("awaits", "began", "closing", "late", "loop", "queue", "task", "tasks", "timer", "wake")

    def __init__(
        self,
        event_type: type[Event],
        call: Callable[[Any], object],
        options: Options,
        on_mute: Callable[[], None],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        super().__init__(event_type, call, options, on_mute)
        self.awaits = is_async(call)
        self.tasks = tasks
        self.queue: deque[Event | _Echo] = deque()
        self.wake = asyncio.Event()
        self.closing = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.began: float | None = None  # of the delivery that is waited for
        self.late = False  # the task was cancelled because a delivery took too long
        self.timer: asyncio.TimerHandle | None = None

    @property
    def queued(self) -> int:
        """Return how many events wait."""
        return len(self.queue)

    def deliver(self, event: Event, within: Inside) -> None:
        """Queue an event; where there is no room, drop one and count it."""
        if not self.active:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.dropped += 1
            return
        if self.loop is None:
            self._start(loop)
        if loop is not self.loop:
            self.dropped += 1
            return
        if len(self.queue) >= self.options.capacity:
            self.dropped += 1
            if self.options.drop == "newest":
                return
            self.queue.popleft()
        self.queue.append(_Echo(event, within) if within else event)
        self.wake.set()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # An empty context: the task outlives the request that happens to come first and must not keep its
        # context variables (request, user, trace) alive or visible to the listener.
        name = f"listener {self.options.name}"
        self.task = loop.create_task(self._drain(loop), name=name, context=Context())
        self.tasks.add(self.task)
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self.timer is not None:
            self.timer.cancel()
        self._drop_queue()
        if not self.closing:  # by somebody who cancels all tasks there are, or by the listener itself
            with contextlib.suppress(Exception):
                name = self.options.name
                text = "listener %s was cancelled and is not called any more"
                _log.warning(text, name, extra={"listener": name})
            self.mute()
        self.active = False

    def _drop_queue(self) -> None:
        self.dropped += len(self.queue)
        self.queue.clear()

    async def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        inside.set(self.alone)
        done, since = 0, loop.time()
        while True:
            while self.queue:
                await self._hand_over(self.queue.popleft(), loop)
                done += 1
                if done % _BATCH == 0 or loop.time() - since > _SLICE:
                    await asyncio.sleep(0)  # a listener that never waits would hold the loop for all of them
                    since = loop.time()
            if self.closing:
                return
            self.wake.clear()
            await self.wake.wait()
            since = loop.time()

    async def _hand_over(self, item: Event | _Echo, loop: asyncio.AbstractEventLoop) -> None:
        if isinstance(item, Event):
            await self._call(item, loop)
            return
        token = inside.set((*item.within, self))
        try:
            await self._call(item.event, loop)
        finally:
            inside.reset(token)

    async def _call(self, event: Event, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if self.awaits:
                self._watch(loop)
                await cast("Awaitable[object]", self.call(event))
            else:
                self.call(event)
        except asyncio.CancelledError as error:
            late = self._was_late()
            if self._ending():
                raise
            # else the listener's own, such as a future of its that was cancelled
            self.count_failure(self._timeout() if late else error, event)
        except Exception as error:
            self._was_late()
            self.count_failure(error, event)
        else:
            if self._was_late():  # it has kept its cancellation to itself
                self.count_failure(self._timeout(), event)
            else:
                self.delivered += 1
                self.failures = 0
        finally:
            self.began = None
        if self._ending():
            raise asyncio.CancelledError

    def _ending(self) -> bool:
        """Tell whether somebody has cancelled the task."""
        return self.task is not None and self.task.cancelling() > 0

    def _was_late(self) -> bool:
        """Tell whether the delivery took too long, and take its cancellation back."""
        late, self.late = self.late, False
        if late and self.task is not None:
            self.task.uncancel()
        return late

    def _timeout(self) -> TimeoutError:
        return TimeoutError(f"a delivery took longer than {self.options.timeout:g} s")

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have somebody look when the delivery that begins now has taken too long.

        One timer looks at many deliveries: a timeout around each would cost more than the listener.
        """
        self.began = loop.time()
        if self.timer is None and self.options.timeout != float("inf"):
            self.timer = loop.call_later(self.options.timeout, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self.timer = None
        if self.began is None or self.task is None:
            return
        left = self.began + self.options.timeout - loop.time()
        if left <= 0:  # it waits within the listener: only there it is cancelled
            self.late = True
            self.task.cancel()
            left = self.options.timeout
        self.timer = loop.call_later(left, self._look, loop)

    def finish(self) -> None:
        """Let the task end when the queue is empty."""
        self.closing = True
        self.wake.set()

    def stop(self) -> None:
        """Deliver nothing any more; a call in progress goes on."""
        self.active = False
        self._drop_queue()
        self.finish()


def is_async(listener: Callable[..., object]) -> bool:
    """Tell whether a listener is a coroutine function, or an object whose ``__call__`` is one."""
    while isinstance(listener, partial):
        listener = listener.func
    return inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(type(listener).__call__)


def name_of(listener: Callable[..., object]) -> str:
    """Name a listener by its code, never by its repr, which may show what it holds."""
    while isinstance(listener, partial):
        listener = listener.func
    named = listener if hasattr(listener, "__qualname__") else type(listener)
    return f"{named.__module__}.{named.__qualname__}"
