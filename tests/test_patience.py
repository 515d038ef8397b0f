"""Rules of router.pools.patience: a cancellation waits for the answer, and costs the answer nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from router.pools.patience import Patience

LONG = 30.0
NAME: ContextVar[str] = ContextVar("NAME", default="")

Step = Callable[[asyncio.Task[Any], asyncio.Future[str]], object]


async def _outcome(
    work: Callable[[asyncio.Future[str]], Awaitable[Any]],
    *steps: Step,
    seconds: float = LONG,
    at_once: bool = False,
) -> tuple[Any, asyncio.CancelledError | None]:
    """Return the outcome of ``work``, awaited with patience in a task, after ``steps`` of a turn each."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def patient() -> tuple[Any, asyncio.CancelledError | None]:
        async def wrapped() -> Any:
            return await work(answer)

        return await Patience(wrapped(), seconds, lambda: at_once)

    task = asyncio.create_task(patient())
    await asyncio.sleep(0)
    for step in steps:
        step(task, answer)
        await asyncio.sleep(0)
    return await task


async def _simply(answer: asyncio.Future[str]) -> str:
    return await answer


def _give(task: asyncio.Task[Any], answer: asyncio.Future[str]) -> None:
    answer.set_result("done")


def _cancel(task: asyncio.Task[Any], answer: asyncio.Future[str]) -> None:
    task.cancel("first")


def _cancel_again(task: asyncio.Task[Any], answer: asyncio.Future[str]) -> None:
    task.cancel("second")


def _both(task: asyncio.Task[Any], answer: asyncio.Future[str]) -> None:
    answer.set_result("done")
    task.cancel("first")


def _both_in_the_other_order(task: asyncio.Task[Any], answer: asyncio.Future[str]) -> None:
    task.cancel("first")
    answer.set_result("done")


def _cancel_twice(task: asyncio.Task[Any], answer: asyncio.Future[str]) -> None:
    task.cancel("first")
    task.cancel("second")


async def test_an_answer_takes_no_turn_of_the_loop_more() -> None:
    """The task wakes up in the turn in which it would without patience."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    turns: list[str] = []

    async def plain() -> None:
        await answer
        turns.append("plain")

    async def patient() -> None:
        await Patience(_simply(answer), LONG, lambda: False)
        turns.append("patient")

    async with asyncio.TaskGroup() as group:
        group.create_task(patient())
        group.create_task(plain())
        await asyncio.sleep(0)
        answer.set_result("done")
    assert turns == ["patient", "plain"]


@pytest.mark.parametrize(
    "steps",
    [
        (_cancel, _give),
        (_cancel, _cancel_again, _give),
        (_cancel_twice, _give),
        (_both,),
        (_both_in_the_other_order,),
        (_give, _cancel),
    ],
    ids=["before", "again", "twice", "with the answer", "just before the answer", "after"],
)
async def test_a_cancellation_waits_for_the_answer(steps: tuple[Step, ...]) -> None:
    """The coroutine never hears of it; the first one is handed on."""
    value, cancelled = await _outcome(_simply, *steps)
    assert value == "done"
    if steps == (_give, _cancel):
        assert cancelled is None, "the task had ended"
    else:
        assert cancelled is not None and cancelled.args == ("first",)


async def test_without_a_cancellation_there_is_none() -> None:
    assert await _outcome(_simply, _give) == ("done", None)


async def test_an_error_comes_as_it_is() -> None:
    def fail(task: asyncio.Task[Any], answer: asyncio.Future[str]) -> None:
        answer.set_exception(ValueError("no"))

    with pytest.raises(ValueError, match="no"):
        await _outcome(_simply, fail)
    with pytest.raises(ValueError, match="no"):
        await _outcome(_simply, _cancel, fail)


async def test_patience_has_an_end() -> None:
    """After its seconds the coroutine is cancelled, and who cancelled first is told."""
    with pytest.raises(asyncio.CancelledError) as caught:
        await _outcome(_simply, _cancel, seconds=0.01)
    assert caught.value.args == ("first",)


async def test_a_cancellation_of_our_own_is_not_held_back() -> None:
    with pytest.raises(asyncio.CancelledError):
        await _outcome(_simply, _cancel, at_once=True)


async def test_a_future_that_somebody_else_cancels() -> None:
    """It is the coroutine's matter, and no cancellation of the task."""

    async def careful(answer: asyncio.Future[str]) -> str:
        try:
            return await answer
        except asyncio.CancelledError:
            return "given up"

    def drop(task: asyncio.Task[Any], answer: asyncio.Future[str]) -> None:
        answer.cancel()

    assert await _outcome(careful, drop) == ("given up", None)


async def test_several_waits_and_bare_turns() -> None:
    """Each wait is patient, and a cancellation at a bare turn of the loop as well."""

    async def long(answer: asyncio.Future[str]) -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        first = await answer
        await asyncio.sleep(0)
        return first

    value, cancelled = await _outcome(long, _cancel, _cancel_again, _give)
    assert value == "done" and cancelled is not None and cancelled.args == ("first",)


async def test_the_task_keeps_its_context() -> None:
    """What the coroutine sets is seen by the task afterwards, as with a plain await."""

    async def patient() -> str:
        async def sets() -> None:
            NAME.set("before")
            await asyncio.sleep(0.001)
            assert NAME.get() == "before"
            NAME.set("after")

        await Patience(sets(), LONG, lambda: False)
        return NAME.get()

    task = asyncio.create_task(patient())
    assert await task == "after"
    assert NAME.get() == ""
