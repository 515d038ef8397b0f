"""Say whether a failed attempt may be made again, and where. Pure; the caller does the waiting.

What was sent is asked before any error code: nothing sent, nothing done twice. A statement that the server
answered with an error was not applied, yet only reads and declared statements are repeated on their own;
anything else is repeated as a whole transaction, with the logic that chose its values (PostgreSQL manual,
"Serialization Failure Handling"). A write without an answer is never repeated.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from router.errors import (
    AuthenticationFailed,
    CommitOutcomeUnknown,
    ConnectError,
    ConnectionLost,
    DatabaseNotFound,
    NoPrimary,
    ReadOnlyViolation,
    RouterError,
    Sent,
    ServerError,
    StaleStatement,
    StatementCancelled,
    TransactionConflict,
)

T = TypeVar("T")


class Verdict(StrEnum):
    """Say what to do after a failed attempt."""

    RAISE = "raise"  # give the error to the caller
    AGAIN = "again"  # the same route once more
    ELSEWHERE = "elsewhere"  # another candidate, the primary last
    PRIMARY = "primary"  # to the primary, once: the statement turned out to be a write


@dataclass(frozen=True, slots=True)
class Policy:
    """Bound the attempts at one request: their number, the first included, and the waits in seconds."""

    attempts: int = 3
    min_wait: float = 0.02
    max_wait: float = 1.0


_HOPELESS = (AuthenticationFailed, DatabaseNotFound, NoPrimary)  # ConnectErrors that no attempt will cure
_TRANSIENT = (ConnectError, ConnectionLost, TransactionConflict, StatementCancelled, ServerError)


def judge(error: RouterError, *, idempotent: bool, on_replica: bool) -> Verdict:
    """Judge the failure of one statement outside a transaction.

    ``idempotent`` says that the statement is a proven read or was declared safe to repeat. What is not listed
    as curable is raised: timeouts of our own, refusals, mistakes in the statement or its use.
    """
    if isinstance(error, ReadOnlyViolation):
        # Refused, so not applied. What was the primary is none any more: the next attempt waits for the new.
        again = (idempotent or error.sent is not Sent.UNKNOWN) and role_changed(error)
        return Verdict.PRIMARY if on_replica else Verdict.AGAIN if again else Verdict.RAISE
    if isinstance(error, DatabaseNotFound) and on_replica:
        return Verdict.ELSEWHERE  # a replica may not have replayed the creation yet
    if isinstance(error, StaleStatement):
        # refused before it ran, whatever it is; or its rows could not be read
        return Verdict.AGAIN if idempotent or error.sent is not Sent.UNKNOWN else Verdict.RAISE
    curable = isinstance(error, _TRANSIENT) and not isinstance(error, _HOPELESS)
    if not curable or not (idempotent or error.sent is Sent.NO):
        return Verdict.RAISE
    if on_replica:
        return Verdict.ELSEWHERE
    return Verdict.RAISE if isinstance(error, ServerError) else Verdict.AGAIN


def judge_transaction(error: RouterError, *, commit_sent: bool) -> bool:
    """Tell whether the whole function of a failed transaction may run again.

    Without a commit sent the server has rolled back, or will when it notices that the connection is gone.
    """
    if isinstance(error, CommitOutcomeUnknown) or (commit_sent and outcome_unknown(error)):
        return False
    if isinstance(error, NoPrimary):
        return False  # which has been waited for already
    return error.retryable or (isinstance(error, ReadOnlyViolation) and role_changed(error))


def role_changed(error: ReadOnlyViolation) -> bool:
    """Tell whether a primary that refuses a write may have become a replica; a SQLite file has no role."""
    return not (error.code or "").startswith("SQLITE_")


def outcome_unknown(error: RouterError) -> bool:
    """Tell whether a commit or autocommit write that failed so may have been applied.

    A lost connection counts also if the server said goodbye: PostgreSQL ends a session that waits for
    synchronous replication with 57P01 although the commit is in place on the primary.
    """
    if isinstance(error, ConnectionLost):
        return error.sent is not Sent.NO
    return isinstance(error, CommitOutcomeUnknown) or error.sent is Sent.UNKNOWN


def delay(attempt: int, policy: Policy, rng: random.Random) -> float:
    """Return the seconds to wait after failed attempt ``attempt`` (from 1): full jitter, growing twofold."""
    ceiling = policy.min_wait * 2.0 ** min(attempt - 1, 60)  # beyond that only the float would grow
    return rng.uniform(0.0, min(policy.max_wait, ceiling))


@dataclass(frozen=True, slots=True)
class Retry:
    """Tell that ``attempt`` (from 1) failed with ``error`` and that another follows in ``delay`` seconds."""

    error: RouterError
    attempt: int
    verdict: Verdict
    delay: float


class _Loop:
    """Hold the state of one request's attempts and answer tenacity's questions from it."""

    def __init__(
        self,
        policy: Policy,
        judge: Callable[[RouterError], Verdict],
        budget: Callable[[], bool],
        deadline: float,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.policy, self.judge, self.budget = policy, judge, budget
        self.deadline, self.clock, self.rng = deadline, clock, rng
        self.verdict = Verdict.RAISE
        self.moves = 0  # attempts that were sent elsewhere
        self.refusals = 0  # by a primary that takes no writes
        self.failed: list[str] = []
        self.spent = False
        self.last: RouterError | None = None

    def wanted(self, error: BaseException) -> bool:
        if not isinstance(error, RouterError):
            return False  # cancellation and foreign exceptions pass through at once
        self.last = error
        self.verdict = self._bounded(error, self.judge(error))
        self.moves += self.verdict is Verdict.ELSEWHERE
        return self.verdict is not Verdict.RAISE

    def _bounded(self, error: RouterError, verdict: Verdict) -> Verdict:
        """Let a change of roles explain one refusal to write, not two: the second is no accident."""
        if verdict is Verdict.AGAIN and isinstance(error, ReadOnlyViolation):
            self.refusals += 1
            return verdict if self.refusals == 1 else Verdict.RAISE
        return verdict

    def wait(self, state: RetryCallState) -> float:
        fresh_node = self.verdict is Verdict.ELSEWHERE and self.moves == 1
        if fresh_node or self.verdict is Verdict.PRIMARY:
            return 0.0  # waiting spares the node that failed; this is another one
        return delay(state.attempt_number, self.policy, self.rng)

    def stop(self, state: RetryCallState) -> bool:
        late = self.clock() + state.upcoming_sleep >= self.deadline
        if late or state.attempt_number >= self.policy.attempts:
            return True
        self.spent = not self.budget()  # last: what is refused for another reason costs nothing
        return self.spent

    def note(self, error: RouterError, started: float) -> None:
        """Keep of a failed attempt what somebody on call wants to read: when, where, what."""
        place = f" on {error.node}" if error.node else ""
        code = f" ({error.code})" if error.code else ""
        self.failed.append(f"{type(error).__name__}{code}{place} after {self.clock() - started:.3f} s")


async def repeat(
    run: Callable[[Verdict], Awaitable[T]],
    first: RouterError,
    *,
    policy: Policy,
    judge: Callable[[RouterError], Verdict],
    sleep: Callable[[float], Awaitable[None]],
    clock: Callable[[], float],
    rng: random.Random,
    started: float,
    budget: Callable[[], bool],
    deadline: float = math.inf,
    before: Callable[[Retry], None] = lambda retry: None,
    denied: Callable[[RouterError], None] = lambda error: None,
) -> T:
    """Go on after a first attempt that failed with ``first``, until one succeeds or none is allowed.

    ``run`` makes an attempt and is told the verdict on the failure before it; ``judge`` is asked once per
    failure; ``before`` is told of each coming attempt before the wait. ``started`` is when the first attempt
    began and ``deadline`` when all must be over, in seconds of ``clock``: no wait begins that would end past
    it. ``budget`` takes one retry of those that the cluster may still make; if it has none, ``denied`` is
    told. Raises the last error; if there were several, all are listed in its ``attempts``.

    The first attempt is made without this loop, which costs more than a cached statement; its error is
    played to tenacity as attempt 1 so that one place decides about all. Each call builds its own retry
    object: tenacity keeps the state of a call on it, and tasks that share one take each other's turns.
    """
    loop = _Loop(policy, judge, budget, deadline, clock, rng)
    pending: list[RouterError] = [first]

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RouterError):
            before(Retry(error, state.attempt_number, loop.verdict, state.upcoming_sleep))

    async def attempt() -> T:
        if loop.last is not None and clock() >= deadline:
            raise loop.last  # the wait took longer than asked for: what failed says more than "no time left"
        try:
            if pending:
                raise pending.pop()
            return await run(loop.verdict)
        except RouterError as error:
            loop.note(error, started)
            raise

    retrying = AsyncRetrying(
        sleep=sleep,
        stop=loop.stop,
        wait=loop.wait,
        retry=retry_if_exception(loop.wanted),
        before_sleep=tell,
        reraise=True,
    )
    try:
        return await retrying(attempt)
    except RouterError as error:
        if len(loop.failed) > 1:
            error.attempts = tuple(loop.failed)
        if loop.spent:
            error.add_note("not tried again, to spare the cluster: its retries of the last 10 s are used up")
            denied(error)
        raise
