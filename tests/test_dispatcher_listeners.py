"""What a subscription may ask for: a name, a queue and what it drops, when to mute, how long a call takes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from router.dispatcher import MUTE_AFTER, Dispatcher
from router.errors import UsageError
from router.events import Event, RetryScheduled
from router.listeners import ListenerStats


def event(number: int = 0) -> RetryScheduled:
    return RetryScheduled(float(number), "acme", "f", None, "Deadlock", None, 1, 0.0)


def only(dispatcher: Dispatcher) -> ListenerStats:
    (stats,) = dispatcher.stats()
    return stats


async def turn(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# --- options ---------------------------------------------------------------------------------------------


def test_a_name_is_what_the_counts_and_the_log_show(caplog: pytest.LogCaptureFixture) -> None:
    """Two listeners of the same code can be told apart."""
    dispatcher = Dispatcher()

    def fail(e: Event) -> None:
        raise ValueError

    for name in ("audit", "billing"):
        assert dispatcher.subscribe(Event, fail, name=name).name == name
    dispatcher.emit(event())
    assert [stats.name for stats in dispatcher.stats()] == ["audit", "billing"]
    assert [record.args and record.args[0] for record in caplog.records] == ["audit", "billing"]
    assert (
        repr(dispatcher.subscriptions) == "(<Subscription audit to Event>, <Subscription billing to Event>)"
    )


def test_subscriptions_can_be_looked_at_and_cancelled() -> None:
    """Who switches listeners off needs no reference from where they were switched on."""
    dispatcher, heard = Dispatcher(), []
    dispatcher.subscribe(Event, heard.append, name="one")
    dispatcher.subscribe(RetryScheduled, heard.append, name="two", first=True)
    assert [(each.name, each.event_type) for each in dispatcher.subscriptions] == [
        ("two", RetryScheduled),
        ("one", Event),
    ]
    for each in dispatcher.subscriptions:
        each.cancel()
    dispatcher.emit(event())
    assert heard == [] and dispatcher.subscriptions == ()


@pytest.mark.parametrize(
    "given",
    [
        {"name": " "},
        {"capacity": 0},
        {"drop": "all"},
        {"mute_after": 0},
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
    ],
)
def test_options_that_make_no_sense_are_misuse(given: dict[str, Any]) -> None:
    """At once, and not when the first event comes."""
    with pytest.raises(UsageError):
        Dispatcher().subscribe(Event, print, **given)


async def test_a_sync_listener_may_be_queued() -> None:
    """Then the emitter does not wait for it, and a failure is counted as for any other."""
    dispatcher, heard = Dispatcher(), []

    def slow(e: Event) -> None:
        heard.append(e.at)
        if e.at == 1:
            raise ValueError

    dispatcher.subscribe(Event, slow, queued=True)
    for n in range(3):
        dispatcher.emit(event(n))
    assert heard == [] and only(dispatcher).queued == 3
    await dispatcher.aclose()
    assert heard == [0.0, 1.0, 2.0]
    assert only(dispatcher)[1:] == (2, 1, 0, 0, False)


async def test_a_queued_listener_that_computes_leaves_time_to_others() -> None:
    """After a millisecond other tasks have their turn, though the queue is full."""
    dispatcher, turns, seen = Dispatcher(), 0, []

    def busy(e: Event) -> None:
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass
        seen.append(turns)

    dispatcher.subscribe(Event, busy, queued=True)
    for n in range(20):
        dispatcher.emit(event(n))
    while len(seen) < 20:
        turns += 1
        await asyncio.sleep(0)
    assert len(set(seen)) == 20, "each event takes longer than the time for all that are handed over at once"
    await dispatcher.aclose()


async def test_each_queue_has_a_bound_of_its_own() -> None:
    """A subscription says how much may wait for it, and what goes when there is no room."""
    dispatcher, gate = Dispatcher(), asyncio.Event()
    heard: dict[str, list[float]] = {"newest": [], "oldest": []}

    def hanging(into: list[float]) -> Any:
        async def listener(e: Event) -> None:
            into.append(e.at)
            await gate.wait()

        return listener

    dispatcher.subscribe(Event, hanging(heard["newest"]), capacity=2)
    dispatcher.subscribe(Event, hanging(heard["oldest"]), capacity=3, drop="oldest")
    dispatcher.emit(event(0))
    await turn()
    for n in range(1, 10):
        dispatcher.emit(event(n))
    assert [(stats.dropped, stats.queued) for stats in dispatcher.stats()] == [(7, 2), (6, 3)]
    gate.set()
    await dispatcher.aclose()
    assert heard == {"newest": [0.0, 1.0, 2.0], "oldest": [0.0, 7.0, 8.0, 9.0]}


async def test_when_a_listener_is_muted_is_its_own_affair(caplog: pytest.LogCaptureFixture) -> None:
    """After so many failures as it says, or never; the others go on."""
    dispatcher = Dispatcher()

    async def fail(e: Event) -> None:
        raise ValueError

    for number in (3, MUTE_AFTER, None):
        dispatcher.subscribe(Event, fail, mute_after=number)
    for n in range(25):
        dispatcher.emit(event(n))
    await turn()
    assert [(stats.failed, stats.muted) for stats in dispatcher.stats()] == [
        (3, True),
        (MUTE_AFTER, True),
        (25, False),
    ]
    assert sum("is muted" in record.message for record in caplog.records) == 2
    await dispatcher.aclose()


# --- deliveries that take too long -----------------------------------------------------------------------


async def test_a_hanging_delivery_is_cancelled_and_the_next_one_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a failure like any other, and the events behind it are late and not lost."""
    dispatcher, heard, cancelled = Dispatcher(), [], []

    async def hangs_once(e: Event) -> None:
        if e.at == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(e.at)
                raise
        heard.append(e.at)

    dispatcher.subscribe(Event, hangs_once, timeout=0.02)
    for n in range(4):
        dispatcher.emit(event(n))
    await until(lambda: not only(dispatcher).queued)
    await turn()
    assert (heard, cancelled) == ([0.0, 2.0, 3.0], [1.0])
    assert only(dispatcher)[1:] == (3, 1, 0, 0, False)
    assert "took longer than 0.02 s" in caplog.text
    await dispatcher.aclose()


async def test_a_listener_that_always_hangs_is_muted() -> None:
    """As one that always raises."""
    dispatcher = Dispatcher()

    async def hanging(e: Event) -> None:
        await asyncio.Event().wait()

    dispatcher.subscribe(Event, hanging, timeout=0.005, mute_after=3)
    for n in range(10):
        dispatcher.emit(event(n))
    await until(lambda: only(dispatcher).muted)
    assert only(dispatcher)[1:] == (0, 3, 7, 0, True)
    await dispatcher.aclose()


async def test_a_listener_that_keeps_its_cancellation_to_itself_has_failed_too() -> None:
    """What it returns, or raises, after its time is up is no delivery; the task goes on."""
    dispatcher, heard = Dispatcher(), []

    async def stubborn(e: Event) -> None:
        try:
            if e.at < 2:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if e.at == 0:
                raise ValueError from None
            return
        heard.append(e.at)

    dispatcher.subscribe(Event, stubborn, timeout=0.01)
    for n in range(3):
        dispatcher.emit(event(n))
    await until(lambda: heard)
    assert only(dispatcher)[1:] == (1, 2, 0, 0, False)
    await dispatcher.aclose()


async def test_time_between_deliveries_is_nobodys_fault() -> None:
    """Only a delivery is timed: a listener that is idle is left alone."""
    dispatcher, heard = Dispatcher(), []

    async def quick(e: Event) -> None:
        await asyncio.sleep(0)
        heard.append(e.at)

    dispatcher.subscribe(Event, quick, timeout=0.01)
    for n in range(3):
        dispatcher.emit(event(n))
        await asyncio.sleep(0.025)
    assert heard == [0.0, 1.0, 2.0]
    assert only(dispatcher)[1:] == (3, 0, 0, 0, False)
    await dispatcher.aclose()


async def test_a_cancelled_listener_is_told_and_not_called_any_more(caplog: pytest.LogCaptureFixture) -> None:
    """Who ends a listener's task ends the listener: its queue counts as dropped, and emits go on."""
    dispatcher = Dispatcher()

    async def ends_itself(e: Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    dispatcher.subscribe(Event, ends_itself, name="tired")
    for n in range(4):
        dispatcher.emit(event(n))
    await until(lambda: only(dispatcher).muted)
    dispatcher.emit(event())
    assert only(dispatcher)[1:] == (0, 0, 3, 0, True)
    assert not dispatcher.wants(RetryScheduled)
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "listener tired was cancelled and is not called any more")
    ]
    await dispatcher.aclose()


# --- what a listener does itself -------------------------------------------------------------------------


async def test_what_a_queued_listener_emits_it_does_not_hear() -> None:
    """So that one that runs a request for each request that it hears of comes to an end."""
    dispatcher, heard, others = Dispatcher(), [], []

    async def echo(e: Event) -> None:
        heard.append(e.at)
        await asyncio.sleep(0)
        dispatcher.emit(event(int(e.at) + 10))

    dispatcher.subscribe(Event, echo)
    dispatcher.subscribe(Event, lambda e: others.append(e.at))
    for n in range(3):
        dispatcher.emit(event(n))
    await dispatcher.aclose()
    assert heard == [0.0, 1.0, 2.0]
    assert sorted(others) == [0.0, 1.0, 2.0]  # after the close nobody hears anything

    dispatcher, heard, others = Dispatcher(), [], []
    dispatcher.subscribe(Event, echo)
    dispatcher.subscribe(Event, lambda e: others.append(e.at))
    dispatcher.emit(event(1))
    await until(lambda: len(others) == 2)
    await turn()
    assert (heard, others) == ([1.0], [1.0, 11.0])
    await dispatcher.aclose()


@pytest.mark.parametrize("queued", [False, True])
async def test_tasks_that_a_listener_starts_count_as_its_own(queued: bool) -> None:
    """A sync listener cannot await a request, but it can start a task that does."""
    dispatcher, heard, tasks = Dispatcher(), [], []

    async def work() -> None:
        await asyncio.sleep(0)
        dispatcher.emit(event(99))

    def starts(e: Event) -> None:
        heard.append(e.at)
        tasks.append(asyncio.get_running_loop().create_task(work()))

    dispatcher.subscribe(Event, starts, queued=queued)
    dispatcher.emit(event(1))
    dispatcher.emit(event(2))
    await until(lambda: len(tasks) == 2 and all(task.done() for task in tasks))
    await turn()
    assert heard == [1.0, 2.0]
    await dispatcher.aclose()


async def test_queued_listeners_that_feed_each_other_come_to_an_end() -> None:
    """What one has caused is known of an event also while it waits in the other's queue."""
    dispatcher, heard = Dispatcher(), []

    def feeding(name: str) -> Any:
        async def listener(e: Event) -> None:
            heard.append(name)
            dispatcher.emit(event())

        return listener

    dispatcher.subscribe(Event, feeding("one"))
    dispatcher.subscribe(Event, feeding("two"))
    dispatcher.emit(event())
    for _ in range(20):
        await turn()
    assert sorted(heard) == ["one", "one", "two", "two"]
    await dispatcher.aclose()


def test_a_quiet_listener_has_to_keep_its_promise() -> None:
    """It hears what comes of it after all; that ends in a counted failure and not in the emitter."""
    dispatcher = Dispatcher()
    dispatcher.subscribe(Event, lambda e: dispatcher.emit(event()), quiet=True)
    dispatcher.emit(event())
    assert only(dispatcher).failed >= 1


async def test_a_queued_listener_may_subscribe_and_unsubscribe() -> None:
    """Itself and others, from inside of a delivery; the delivery in progress ends undisturbed."""
    dispatcher, heard = Dispatcher(), []

    async def late(e: Event) -> None:
        heard.append(("late", e.at))

    async def once(e: Event) -> None:
        mine.cancel()
        dispatcher.subscribe(Event, late)
        await asyncio.sleep(0)
        heard.append(("once", e.at))

    mine = dispatcher.subscribe(Event, once)
    dispatcher.emit(event(1))
    await turn()
    dispatcher.emit(event(2))
    await dispatcher.aclose()
    assert heard == [("once", 1.0), ("late", 2.0)]
