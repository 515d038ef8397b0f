"""One question for all who ask at the same time: shared, but never older than the call."""

import asyncio
import gc
from itertools import count

import pytest

from router.sharing import Shared


class Question:
    """Answer with the number of the question; as many as are let through."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
def question() -> Question:
    return Question()


async def turns(number: int = 5) -> None:
    """Let everybody else run."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_who_asks_at_the_same_time_shares_the_answer(question: Question) -> None:
    """One question, however many wait for it."""
    shared = Shared(question)
    waiting = [asyncio.create_task(shared.answer()) for _ in range(50)]
    await turns()
    question.gate.set()
    assert await asyncio.gather(*waiting) == [1] * 50


async def test_who_comes_later_does_not_get_an_older_answer(question: Question) -> None:
    """The one under way may have been answered before what the caller wants to know of."""
    shared = Shared(question)
    first = asyncio.create_task(shared.answer())
    await turns()
    assert question.asked == 1
    later = [asyncio.create_task(shared.answer()) for _ in range(3)]
    await turns()
    assert question.asked == 1  # one question at a time
    question.gate.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2, 2, 2]


async def test_one_who_leaves_takes_the_answer_from_nobody(question: Question) -> None:
    """Cancelled is only his own waiting; even if all leave, the next question is asked afresh."""
    shared = Shared(question)
    waiting = [asyncio.create_task(shared.answer()) for _ in range(3)]
    await turns()
    waiting[0].cancel()
    await turns()
    question.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [1, 1]
    alone = asyncio.create_task(shared.answer())
    alone.cancel()
    await turns()
    assert await shared.answer() >= 2


async def test_a_question_that_fails_fails_for_who_shares_it_only(question: Question) -> None:
    """The next one is asked, and answered."""
    shared = Shared(question)
    question.error = OSError("gone")
    waiting = [asyncio.create_task(shared.answer()) for _ in range(3)]
    await turns()
    question.gate.set()
    for each in waiting:
        with pytest.raises(OSError, match="gone"):
            await each
    question.error = None
    assert await shared.answer() == 2


async def test_a_failure_that_nobody_waits_for_is_no_noise(question: Question) -> None:
    """All have left before it failed: the event loop is told nothing of it."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    shared = Shared(question)
    question.error = OSError("gone")
    waiting = asyncio.create_task(shared.answer())
    await turns()
    waiting.cancel()
    await turns()
    question.gate.set()
    await turns(10)
    del shared, waiting
    gc.collect()
    assert told == []


async def test_questions_do_not_overlap() -> None:
    """Whatever the order of those who come and go."""
    running, most, numbers = 0, 0, count(1)

    async def ask() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return next(numbers)

    shared = Shared(ask)

    async def come(number: int) -> int:
        await asyncio.sleep(number % 7 / 1000)
        return await shared.answer()

    answers = await asyncio.gather(*(come(number) for number in range(60)))
    assert most == 1
    assert len(set(answers)) <= 20
