"""Run a whole transaction again after a failure that has undone all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from router import retries
from router.backend import Target
from router.errors import CommitOutcomeUnknown, RouterError
from router.execution import Executor
from router.retries import Verdict

T = TypeVar("T")


async def whole(
    executor: Executor, target: Target, once: Callable[[], Awaitable[T]], timeout: float | None
) -> T:
    """Return what ``once`` returns, which runs a transaction; call it again where that is safe and worth it.

    Never after an unknown outcome. ``timeout`` bounds all of it, by default as one request.
    """
    settings = target.placement.settings
    started = executor.clock()
    target.admit(started)
    deadline = started + (timeout or settings.acquire_timeout + settings.statement_timeout)

    async def again(verdict: Verdict) -> T:
        return await once()

    def judge(error: RouterError) -> Verdict:
        sent = isinstance(error, CommitOutcomeUnknown)
        return Verdict.AGAIN if retries.judge_transaction(error, commit_sent=sent) else Verdict.RAISE

    first: RouterError
    try:
        return await once()
    except RouterError as error:
        first = error
    return await retries.repeat(
        again,
        first,
        policy=retries.Policy(settings.retry_attempts, settings.retry_min_wait, settings.retry_max_wait),
        judge=judge,
        sleep=asyncio.sleep,
        clock=executor.clock,
        rng=executor.rng,
        started=started,
        budget=target.backend.may_retry,
        deadline=deadline,
        before=lambda retry: executor.teller.unit_retry(target, retry),
        denied=lambda error: executor.teller.denied(target, error),
    )
