"""The dispatcher: order, bounds, and listeners that misbehave without anybody noticing but the counters."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import time

import pytest

from router.dispatcher import MUTE_AFTER, Dispatcher
from router.errors import RouterClosed, UsageError
from router.events import Event, RequestStarted, RetryScheduled, SlowRequest
from router.listeners import ListenerStats
from tests.lateness import taking


def event(number: int = 0) -> RetryScheduled:
    return RetryScheduled(float(number), "acme", "f", None, "Deadlock", None, 1, 0.0)


def only(dispatcher: Dispatcher) -> ListenerStats:
    (stats,) = dispatcher.stats()
    return stats


async def turn(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def fail(event: Event) -> None:
    raise ValueError("listener broke")


# --- who hears what --------------------------------------------------------------------------------------


def test_listeners_hear_their_type_and_its_subclasses_in_order() -> None:
    """A base class gets all, another class nothing; the first to subscribe is called first."""
    dispatcher, heard = Dispatcher(), []
    dispatcher.subscribe(Event, lambda e: heard.append(("base", e.at)))
    dispatcher.subscribe(SlowRequest, lambda e: heard.append(("other", e.at)))
    dispatcher.subscribe(RetryScheduled, lambda e: heard.append(("own", e.at)))
    dispatcher.emit(event(1))
    assert heard == [("base", 1.0), ("own", 1.0)]


def test_wants_follows_subscriptions() -> None:
    """wants says whether an event has a listener now, base classes included."""
    dispatcher = Dispatcher()
    assert not dispatcher.wants(RetryScheduled)
    first = dispatcher.subscribe(Event, lambda e: None)
    second = dispatcher.subscribe(RetryScheduled, lambda e: None)
    assert dispatcher.wants(RetryScheduled)
    assert dispatcher.wants(SlowRequest)
    first.cancel()
    assert dispatcher.wants(RetryScheduled)
    assert not dispatcher.wants(SlowRequest)
    second.cancel()
    assert not dispatcher.wants(RetryScheduled)


def test_a_listener_that_wants_nothing_hears_what_others_want() -> None:
    """With wants=False no event is built for it alone, and requests are not announced for it."""
    dispatcher, heard = Dispatcher(), []
    dispatcher.subscribe(Event, heard.append, wants=False)
    assert not dispatcher.wants(RetryScheduled)
    assert not dispatcher.announces
    dispatcher.subscribe(RequestStarted, lambda e: None)
    assert dispatcher.announces
    assert dispatcher.wants(RequestStarted)
    assert not dispatcher.wants(RetryScheduled)
    dispatcher.emit(event())
    assert len(heard) == 1


def test_cancel_is_idempotent_and_removes_only_its_own() -> None:
    """The same listener subscribed twice is two subscriptions."""
    dispatcher, heard = Dispatcher(), []
    first = dispatcher.subscribe(Event, heard.append)
    dispatcher.subscribe(Event, heard.append)
    first.cancel()
    first.cancel()
    dispatcher.emit(event())
    assert len(heard) == 1


@pytest.mark.parametrize("wrong", [int, "RetryScheduled", None, event()])
def test_only_event_types_can_be_subscribed_to(wrong: object) -> None:
    """Another event type is misuse."""
    with pytest.raises(UsageError, match="event type"):
        Dispatcher().subscribe(wrong, print)  # type: ignore[arg-type, type-var]


def test_a_listener_must_be_callable() -> None:
    """Anything else is misuse, and the error shows its class only."""
    with pytest.raises(UsageError, match="not a str"):
        Dispatcher().subscribe(Event, "canary")  # type: ignore[arg-type]


def test_the_clock_is_the_emitters() -> None:
    """Emitters stamp events with the injected clock, by default the wall clock."""
    assert Dispatcher(clock=lambda: 5.0).clock() == 5.0
    assert Dispatcher().clock() == pytest.approx(time.time(), abs=5)


# --- sync listeners that misbehave -----------------------------------------------------------------------


def test_a_failing_listener_fails_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """The emitter and other listeners go on; the failure is counted, and logged once."""
    dispatcher, heard = Dispatcher(), []
    dispatcher.subscribe(Event, fail)
    dispatcher.subscribe(Event, heard.append)
    for n in range(3):
        dispatcher.emit(event(n))
    assert len(heard) == 3
    assert dispatcher.stats()[0][1:4] == (0, 3, 0)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "test_dispatcher.fail" in caplog.text


def test_ten_failures_in_a_row_mute(caplog: pytest.LogCaptureFixture) -> None:
    """After that the listener is not called, costs nothing, and one more line says so."""
    dispatcher = Dispatcher()
    dispatcher.subscribe(Event, fail)
    for n in range(3 * MUTE_AFTER):
        dispatcher.emit(event(n))
    stats = only(dispatcher)
    assert (stats.failed, stats.muted) == (MUTE_AFTER, True)
    assert not dispatcher.wants(RetryScheduled)
    assert ["muted" in record.message for record in caplog.records] == [False, True]


def test_a_success_starts_the_count_again() -> None:
    """Only failures in a row mute."""
    dispatcher = Dispatcher()

    def sometimes(e: Event) -> None:
        if e.at % MUTE_AFTER:
            raise ValueError

    dispatcher.subscribe(Event, sometimes)
    for n in range(100):
        dispatcher.emit(event(n))
    assert only(dispatcher) == (only(dispatcher).name, 10, 90, 0, 0, False)


def test_a_cancelled_error_of_a_listener_does_not_cancel_the_emitter() -> None:
    """A sync listener that lets a CancelledError out is a failing listener."""
    dispatcher = Dispatcher()

    def cancelled(e: Event) -> None:
        raise asyncio.CancelledError

    dispatcher.subscribe(Event, cancelled)
    dispatcher.emit(event())
    assert only(dispatcher).failed == 1


def test_a_broken_log_handler_does_not_fail_the_emitter() -> None:
    """Not even telling of a failure can fail the emitter."""
    logger, filtered = logging.getLogger("router.dispatcher"), []

    def broken(record: logging.LogRecord) -> bool:
        filtered.append(record)
        raise OSError("no log")

    dispatcher = Dispatcher()
    dispatcher.subscribe(Event, fail)
    logger.addFilter(broken)
    try:
        dispatcher.emit(event())
    finally:
        logger.removeFilter(broken)
    assert filtered
    assert only(dispatcher).failed == 1


def test_a_listener_may_unsubscribe_itself_and_others_while_called() -> None:
    """The others of the same emit are called; one cancelled before its turn is not."""
    dispatcher, heard = Dispatcher(), []

    def once(e: Event) -> None:
        heard.append("once")
        mine.cancel()
        victim.cancel()

    mine = dispatcher.subscribe(Event, once)
    victim = dispatcher.subscribe(Event, lambda e: heard.append("victim"))
    dispatcher.subscribe(Event, lambda e: heard.append("after"))
    dispatcher.emit(event())
    dispatcher.emit(event())
    assert heard == ["once", "after", "after"]


def test_a_listener_may_subscribe_another_while_called() -> None:
    """The new one hears the next event, not the present one."""
    dispatcher, heard = Dispatcher(), []

    def grow(e: Event) -> None:
        if not heard:
            dispatcher.subscribe(Event, lambda e: heard.append(("new", e.at)))
        heard.append(("old", e.at))

    dispatcher.subscribe(Event, grow)
    dispatcher.emit(event(1))
    dispatcher.emit(event(2))
    assert heard == [("old", 1.0), ("old", 2.0), ("new", 2.0)]


def test_a_listener_may_emit() -> None:
    """An emit inside an emit is delivered at once, to all but the listener that it comes of."""
    dispatcher, heard = Dispatcher(), []

    def echo(e: Event) -> None:
        heard.append(("echo", e.at))
        dispatcher.emit(event(int(e.at) + 1))

    dispatcher.subscribe(Event, echo)
    dispatcher.subscribe(Event, lambda e: heard.append(("other", e.at)))
    dispatcher.emit(event(1))
    assert heard == [("echo", 1.0), ("other", 2.0), ("other", 1.0)]


def test_listeners_that_feed_each_other_come_to_an_end() -> None:
    """No listener hears what comes of its own doing, however many others that went through."""
    dispatcher, heard = Dispatcher(), []
    for name in ("one", "two", "three"):

        def feed(e: Event, name: str = name) -> None:
            heard.append(name)
            dispatcher.emit(event())

        dispatcher.subscribe(Event, feed)
    dispatcher.emit(event())
    assert sorted(set(heard)) == ["one", "three", "two"]
    assert len(heard) == 15  # each order in which they may come one after the other
    assert [stats.failed for stats in dispatcher.stats()] == [0, 0, 0]


# --- async listeners -------------------------------------------------------------------------------------


async def test_async_listeners_hear_in_order_without_the_emitter_waiting() -> None:
    """emit only queues; one task hands the events over in order."""
    dispatcher, heard = Dispatcher(), []

    async def listener(e: Event) -> None:
        await asyncio.sleep(0.001 if e.at == 0 else 0)
        heard.append(e.at)

    dispatcher.subscribe(Event, listener)
    for n in range(50):
        dispatcher.emit(event(n))
    assert heard == []
    assert only(dispatcher).queued == 50
    await dispatcher.aclose()
    assert heard == [float(n) for n in range(50)]
    assert only(dispatcher)[1:] == (50, 0, 0, 0, False)


class Callable:
    def __init__(self) -> None:
        self.heard: list[float] = []

    async def __call__(self, e: Event) -> None:
        self.heard.append(e.at)

    async def method(self, first: object, e: Event) -> None:
        self.heard.append(e.at)


async def test_every_kind_of_async_callable_is_awaited() -> None:
    """Objects with an async __call__, async methods and partials of them are async listeners."""
    dispatcher, it = Dispatcher(), Callable()
    dispatcher.subscribe(Event, it)
    dispatcher.subscribe(Event, functools.partial(it.method, "x"))
    dispatcher.subscribe(Event, functools.partial(it))
    dispatcher.emit(event(7))
    await dispatcher.aclose()
    assert it.heard == [7.0] * 3


async def test_a_full_queue_drops_the_newest_and_counts() -> None:
    """A hanging listener holds one event and a full queue, never more, and nobody waits for it."""
    dispatcher, gate, heard = Dispatcher(capacity=3), asyncio.Event(), []

    async def hanging(e: Event) -> None:
        heard.append(e.at)
        await gate.wait()

    dispatcher.subscribe(Event, hanging)
    dispatcher.emit(event(0))
    await turn()
    for n in range(1, 10):
        dispatcher.emit(event(n))
    assert only(dispatcher)[1:] == (0, 0, 6, 3, False)
    gate.set()
    await dispatcher.aclose()
    assert heard == [0.0, 1.0, 2.0, 3.0]


async def test_a_failing_async_listener_is_counted_and_muted(caplog: pytest.LogCaptureFixture) -> None:
    """As for a sync one; what is queued when it is muted counts as dropped."""
    dispatcher = Dispatcher()

    async def failing(e: Event) -> None:
        fail(e)

    dispatcher.subscribe(Event, failing)
    for n in range(30):
        dispatcher.emit(event(n))
    await turn()
    assert only(dispatcher)[1:] == (0, MUTE_AFTER, 30 - MUTE_AFTER, 0, True)
    assert not dispatcher.wants(RetryScheduled)
    assert len(caplog.records) == 2
    await dispatcher.aclose()


async def test_a_cancelled_future_in_a_listener_does_not_end_its_task() -> None:
    """A CancelledError of the listener's own making is a failure; the next event is delivered."""
    dispatcher, heard = Dispatcher(), []

    async def listener(e: Event) -> None:
        if e.at == 0:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        heard.append(e.at)

    dispatcher.subscribe(Event, listener)
    dispatcher.emit(event(0))
    dispatcher.emit(event(1))
    await dispatcher.aclose()
    assert heard == [1.0]
    assert only(dispatcher)[1:] == (1, 1, 0, 0, False)


async def test_a_listener_that_never_waits_does_not_hold_the_loop() -> None:
    """A long queue is drained in portions, so that requests have their turn in between."""
    dispatcher, others, seen = Dispatcher(), 0, []

    async def busy(e: Event) -> None:
        seen.append(others)

    dispatcher.subscribe(Event, busy)
    for n in range(500):
        dispatcher.emit(event(n))
    while len(seen) < 500:
        others += 1
        await asyncio.sleep(0)
    assert seen[-1] > 10


async def test_a_listener_task_keeps_no_context_of_the_first_request() -> None:
    """Context variables of whoever emits first are not visible to the listener."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    dispatcher, seen = Dispatcher(), []

    async def listener(e: Event) -> None:
        seen.append(variable.get())

    dispatcher.subscribe(Event, listener)
    variable.set("request of acme")
    dispatcher.emit(event())
    await dispatcher.aclose()
    assert seen == ["none"]


def test_without_a_loop_events_of_async_listeners_are_dropped() -> None:
    """emit outside a loop does not raise; the drop is counted."""
    dispatcher = Dispatcher()
    dispatcher.subscribe(Event, Callable())
    dispatcher.emit(event())
    assert only(dispatcher).dropped == 1


async def test_cancelling_a_subscription_drops_what_is_queued() -> None:
    """After cancel the listener is not called; a call in progress ends undisturbed."""
    dispatcher, gate, heard = Dispatcher(), asyncio.Event(), []

    async def listener(e: Event) -> None:
        await gate.wait()
        heard.append(e.at)

    subscription = dispatcher.subscribe(Event, listener)
    for n in range(3):
        dispatcher.emit(event(n))
    await turn()
    subscription.cancel()
    gate.set()
    await turn()
    assert heard == [0.0]
    assert dispatcher.stats() == ()
    await dispatcher.aclose()


# --- closing ---------------------------------------------------------------------------------------------


@pytest.mark.timed
async def test_close_cancels_what_does_not_end_in_time() -> None:
    """Close is bounded by its timeout; what was not delivered counts as dropped."""
    dispatcher, cancelled = Dispatcher(), []

    async def hanging(e: Event) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(e.at)
            raise

    dispatcher.subscribe(Event, hanging)
    for n in range(4):
        dispatcher.emit(event(n))
    async with taking(0.5):
        await dispatcher.aclose(timeout=0.05)
    assert cancelled == [0.0]
    assert only(dispatcher)[1:] == (0, 0, 3, 0, False)


@pytest.mark.timed
async def test_close_is_bounded_also_for_a_listener_that_resists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that swallows its cancellation is left behind after a grace."""
    monkeypatch.setattr("router.dispatcher.CANCEL_GRACE", 0.05)
    dispatcher, gate = Dispatcher(), asyncio.Event()

    async def stubborn(e: Event) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    dispatcher.subscribe(Event, stubborn)
    dispatcher.emit(event())
    async with taking(0.5):
        await dispatcher.aclose(timeout=0.05)
    gate.set()
    await turn()


async def test_close_is_idempotent_and_final() -> None:
    """After it events are ignored in silence and nobody can subscribe."""
    dispatcher, heard = Dispatcher(), []
    dispatcher.subscribe(Event, heard.append)
    await dispatcher.aclose()
    await dispatcher.aclose()
    dispatcher.emit(event())
    assert heard == []
    assert not dispatcher.wants(RetryScheduled)
    with pytest.raises(RouterClosed):
        dispatcher.subscribe(Event, heard.append)


async def test_a_cancelled_close_takes_its_listeners_along() -> None:
    """Cancelling close cancels the listeners' tasks and propagates."""
    dispatcher = Dispatcher()

    async def hanging(e: Event) -> None:
        await asyncio.sleep(60)

    dispatcher.subscribe(Event, hanging)
    dispatcher.emit(event())
    closing = asyncio.ensure_future(dispatcher.aclose())
    await turn()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await turn()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("listener")] == []


async def test_a_listener_may_close_the_dispatcher() -> None:
    """Close from inside an async listener does not wait for itself."""
    dispatcher, closed = Dispatcher(), asyncio.Event()

    async def closing(e: Event) -> None:
        await dispatcher.aclose()
        closed.set()

    dispatcher.subscribe(Event, closing)
    dispatcher.emit(event())
    await asyncio.wait_for(closed.wait(), 1.0)


def test_stats_name_code_and_never_values() -> None:
    """A listener is named by its code: the repr of an object or partial may hold secrets."""

    class Holder:
        secret = "canary"

        def __repr__(self) -> str:
            return self.secret

        def __call__(self, e: Event, *more: object) -> None: ...

    dispatcher = Dispatcher()
    dispatcher.subscribe(Event, Holder())
    dispatcher.subscribe(Event, functools.partial(Holder(), more="canary"))
    dispatcher.subscribe(Event, fail)
    names = [stats.name for stats in dispatcher.stats()]
    assert names[0] == names[1]
    assert names[0].endswith("Holder")
    assert names[2].endswith("test_dispatcher.fail")
    assert "canary" not in str(dispatcher.stats())
