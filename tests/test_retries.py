"""Retries: what may be repeated, as tables; and the loop that repeats it within its deadline."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable

import pytest

from router import errors
from router.errors import RouterError, Sent
from router.retries import Policy, Retry, Verdict, delay, judge, judge_transaction, outcome_unknown, repeat

RAISE, AGAIN, ELSEWHERE, PRIMARY = Verdict.RAISE, Verdict.AGAIN, Verdict.ELSEWHERE, Verdict.PRIMARY


def make(kind: type[RouterError], sent: Sent | None = None) -> RouterError:
    return kind("boom", sent=sent)


# Columns: read on a replica, read (or declared statement) on the primary, other write on the primary.
ANSWERED = [
    (errors.SerializationFailure, ELSEWHERE, AGAIN, RAISE),  # on a standby: a recovery conflict
    (errors.Deadlock, ELSEWHERE, AGAIN, RAISE),
    (errors.LockTimeout, ELSEWHERE, AGAIN, RAISE),
    (errors.StatementCancelled, ELSEWHERE, AGAIN, RAISE),
    (errors.ServerError, ELSEWHERE, RAISE, RAISE),
    (errors.StaleStatement, AGAIN, AGAIN, AGAIN),
    (errors.ReadOnlyViolation, PRIMARY, AGAIN, AGAIN),  # on the primary: the roles are changing
    (errors.TransactionLost, RAISE, RAISE, RAISE),  # of a transaction, never of one statement
    (errors.UniqueViolation, RAISE, RAISE, RAISE),
    (errors.ForeignKeyViolation, RAISE, RAISE, RAISE),
    (errors.NotNullViolation, RAISE, RAISE, RAISE),
    (errors.CheckViolation, RAISE, RAISE, RAISE),
    (errors.DataError, RAISE, RAISE, RAISE),
    (errors.InvalidStatement, RAISE, RAISE, RAISE),
    (errors.PermissionDenied, RAISE, RAISE, RAISE),
    (errors.TransactionAborted, RAISE, RAISE, RAISE),
    (errors.DatabaseError, RAISE, RAISE, RAISE),
]
UNKNOWN = [
    (errors.ConnectionLost, ELSEWHERE, AGAIN, RAISE),
    (errors.StatementTimeout, RAISE, RAISE, RAISE),  # our own deadline
    (errors.StaleStatement, AGAIN, AGAIN, RAISE),  # found while its rows were read: it has run
    (errors.CommitOutcomeUnknown, RAISE, RAISE, RAISE),
]
NOT_SENT = [
    (errors.ConnectError, ELSEWHERE, AGAIN, AGAIN),
    (errors.TooManyConnections, ELSEWHERE, AGAIN, AGAIN),
    (errors.SecretUnavailable, ELSEWHERE, AGAIN, AGAIN),
    (errors.ConnectionLost, ELSEWHERE, AGAIN, AGAIN),
    (errors.SerializationFailure, ELSEWHERE, AGAIN, AGAIN),
    (errors.LockTimeout, ELSEWHERE, AGAIN, AGAIN),  # BEGIN IMMEDIATE on a busy SQLite file
    (errors.AuthenticationFailed, RAISE, RAISE, RAISE),
    (errors.DatabaseNotFound, ELSEWHERE, RAISE, RAISE),  # a replica may not have replayed its creation
    (errors.PoolTimeout, RAISE, RAISE, RAISE),
    (errors.UsageError, RAISE, RAISE, RAISE),
    (errors.ParameterError, RAISE, RAISE, RAISE),
    (errors.RouterClosed, RAISE, RAISE, RAISE),
    (errors.UnknownTenant, RAISE, RAISE, RAISE),
    (errors.NoRow, RAISE, RAISE, RAISE),
    (errors.RouterError, RAISE, RAISE, RAISE),
]
TABLE = [
    *((kind, Sent.ANSWERED, *verdicts) for kind, *verdicts in ANSWERED),
    *((kind, Sent.UNKNOWN, *verdicts) for kind, *verdicts in UNKNOWN),
    *((kind, Sent.NO, *verdicts) for kind, *verdicts in NOT_SENT),
    (errors.ConnectionLost, Sent.ANSWERED, ELSEWHERE, AGAIN, RAISE),  # the server said goodbye first
]


@pytest.mark.parametrize(("kind", "sent", "replica_read", "primary_read", "write"), TABLE)
def test_verdict_of_a_single_statement(
    kind: type[RouterError], sent: Sent, replica_read: Verdict, primary_read: Verdict, write: Verdict
) -> None:
    """What was sent is asked first, then the class of the error; only safe repetitions are allowed."""
    error = make(kind, sent)
    assert judge(error, idempotent=True, on_replica=True) is replica_read
    assert judge(error, idempotent=True, on_replica=False) is primary_read
    assert judge(error, idempotent=False, on_replica=False) is write


def leaves(kind: type[RouterError]) -> list[type[RouterError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]


@pytest.mark.parametrize("kind", sorted(set(leaves(errors.DatabaseError)), key=lambda kind: kind.__name__))
def test_an_undeclared_write_is_never_run_twice(kind: type[RouterError]) -> None:
    """After a write was sent, only errors from before its execution allow another attempt."""
    for sent in (Sent.UNKNOWN, Sent.ANSWERED):
        verdict = judge(make(kind, sent), idempotent=False, on_replica=False)
        refused_before = kind in (errors.StaleStatement, errors.ReadOnlyViolation) and sent is Sent.ANSWERED
        assert verdict is (AGAIN if refused_before else RAISE)


@pytest.mark.parametrize(
    ("kind", "sent", "before_commit", "at_commit"),
    [
        (errors.SerializationFailure, Sent.ANSWERED, True, True),
        (errors.Deadlock, Sent.ANSWERED, True, True),
        (errors.LockTimeout, Sent.ANSWERED, True, True),
        (errors.StaleStatement, Sent.ANSWERED, True, True),
        (errors.StatementCancelled, Sent.ANSWERED, True, True),
        (errors.ConnectError, Sent.NO, True, True),
        (errors.ConnectionLost, Sent.NO, True, True),
        (errors.ConnectionLost, Sent.UNKNOWN, True, False),
        (errors.ConnectionLost, Sent.ANSWERED, True, False),
        (errors.SerializationFailure, Sent.UNKNOWN, True, False),  # 40003 and kin
        (errors.CommitOutcomeUnknown, Sent.UNKNOWN, False, False),
        (errors.StatementTimeout, Sent.UNKNOWN, False, False),
        (errors.PoolTimeout, Sent.NO, False, False),
        (errors.AuthenticationFailed, Sent.NO, False, False),
        (errors.UniqueViolation, Sent.ANSWERED, False, False),
        (errors.TransactionAborted, Sent.ANSWERED, False, False),
        (errors.ReadOnlyViolation, Sent.ANSWERED, True, True),
        (errors.TransactionLost, Sent.ANSWERED, True, True),
        (errors.ServerError, Sent.ANSWERED, False, False),
    ],
)
def test_whole_transactions_repeat_unless_the_commit_may_have_happened(
    kind: type[RouterError], sent: Sent, before_commit: bool, at_commit: bool
) -> None:
    """An open transaction is rolled back with its connection; a commit without an answer is not repeated."""
    error = make(kind, sent)
    assert judge_transaction(error, commit_sent=False) is before_commit
    assert judge_transaction(error, commit_sent=True) is at_commit


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (make(errors.ConnectionLost), True),
        (make(errors.ConnectionLost, Sent.ANSWERED), True),
        (make(errors.ConnectionLost, Sent.NO), False),
        (make(errors.CommitOutcomeUnknown), True),
        (make(errors.StatementTimeout), True),
        (make(errors.StatementTimeout, Sent.ANSWERED), False),
        (make(errors.ConnectError), False),
        (make(errors.Deadlock), False),
    ],
)
def test_outcome_is_unknown_without_an_answer(error: RouterError, unknown: bool) -> None:
    """No answer, or a goodbye in its place, leaves the outcome of a write open."""
    assert outcome_unknown(error) is unknown


def test_delays_are_full_jitter_under_a_growing_ceiling() -> None:
    """Waits spread evenly from 0 to the ceiling, which doubles up to max_wait."""
    policy, rng = Policy(min_wait=0.02, max_wait=1.0), random.Random(5)
    for attempt, ceiling in [(1, 0.02), (2, 0.04), (6, 0.64), (7, 1.0), (5_000, 1.0)]:
        drawn = [delay(attempt, policy, rng) for _ in range(2_000)]
        assert 0.0 <= min(drawn) < 0.02 * ceiling
        assert 0.98 * ceiling < max(drawn) <= ceiling
        assert sum(drawn) / len(drawn) == pytest.approx(ceiling / 2, rel=0.05)


# --- the loop --------------------------------------------------------------------------------------------


class Bench:
    """Run the loop on a clock that only sleeping and attempts move."""

    def __init__(self, verdict: Verdict = AGAIN, *, attempts: int = 3, deadline: float = math.inf) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.told: list[Retry] = []
        self.given: list[Verdict] = []
        self.judged = 0
        self.verdict = verdict
        self.left = 10_000  # retries that the budget still has
        self.denied: list[RouterError] = []
        self.policy = Policy(attempts=attempts, min_wait=0.5, max_wait=8.0)
        self.deadline = deadline

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def judge(self, error: RouterError) -> Verdict:
        self.judged += 1
        return self.verdict

    async def run(self, *outcomes: object, takes: float = 0.0) -> object:
        rest = iter(outcomes[1:])

        async def attempt(verdict: Verdict) -> object:
            self.given.append(verdict)
            self.now += takes
            outcome = next(rest)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        first = outcomes[0]
        assert isinstance(first, RouterError)
        return await repeat(
            attempt,
            first,
            policy=self.policy,
            judge=self.judge,
            sleep=self.sleep,
            clock=lambda: self.now,
            rng=random.Random(2),
            started=100.0,
            budget=self.take,
            deadline=self.deadline,
            before=self.told.append,
            denied=self.denied.append,
        )

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def boom(number: int = 0, node: str = "r1") -> RouterError:
    return errors.ConnectError(f"boom {number}").at(node=node)


async def test_a_second_attempt_may_succeed() -> None:
    """The value of the first attempt that works is returned, and each coming attempt was told."""
    bench, error = Bench(), boom()
    assert await bench.run(error, "value") == "value"
    assert bench.given == [AGAIN]
    assert bench.told == [Retry(error, 1, AGAIN, bench.slept[0])]


async def test_attempts_count_the_first_one() -> None:
    """Three attempts are the failed first and two more; the last error comes out with all of them listed."""
    bench = Bench(attempts=3)
    last = boom(3, node="p")
    with pytest.raises(errors.ConnectError) as caught:
        await bench.run(boom(1, "r1"), boom(2, "r2"), last, "never")
    assert caught.value is last
    first, second, third = caught.value.attempts
    assert first == "ConnectError on r1 after 0.000 s"
    assert second.startswith("ConnectError on r2 after 0.")
    assert third.startswith("ConnectError on p after ")
    assert "(3 attempts: ConnectError on r1 after 0.000 s; " in str(caught.value)
    assert [retry.attempt for retry in bench.told] == [1, 2]
    assert len(bench.slept) == 2
    assert bench.judged == 3


async def test_one_attempt_means_no_retry() -> None:
    """attempts=1 gives the first error back at once."""
    bench, error = Bench(attempts=1), boom()
    with pytest.raises(errors.ConnectError) as caught:
        await bench.run(error, "never")
    assert caught.value is error
    assert caught.value.attempts == ()
    assert not bench.given


async def test_raise_ends_the_loop() -> None:
    """A verdict of RAISE is final, on the first failure as on a later one."""
    bench, error = Bench(RAISE), boom()
    with pytest.raises(errors.ConnectError):
        await bench.run(error, "never")
    assert (bench.given, bench.slept, bench.told) == ([], [], [])


async def test_the_first_move_to_another_node_does_not_wait() -> None:
    """Waiting spares a node; the first other node and the primary need none, the second other does."""
    bench = Bench(ELSEWHERE)
    await bench.run(boom(1), boom(2), "value")
    assert bench.slept[0] == 0.0
    assert bench.slept[1] > 0.0
    bench = Bench(PRIMARY)
    await bench.run(boom(), "value")
    assert bench.slept == [0.0]
    bench = Bench(AGAIN)
    await bench.run(boom(), "value")
    assert bench.slept[0] > 0.0


async def test_a_second_refusal_to_write_is_final() -> None:
    """Roles that are changing explain one refusal by a primary, and the wait before the one further try."""
    refusals = [errors.ReadOnlyViolation(f"no {number}", code="25006").at(node="p") for number in range(3)]
    bench = Bench(attempts=10)
    assert await bench.run(refusals[0], "value") == "value"
    assert bench.slept[0] > 0.0
    bench = Bench(attempts=10)
    with pytest.raises(errors.ReadOnlyViolation) as caught:
        await bench.run(*refusals, "never")
    assert caught.value is refusals[1]


async def test_an_empty_budget_ends_it() -> None:
    """No further attempt without budget; what is not wanted, or comes too late, takes none."""
    bench, error = Bench(), boom()
    bench.left = 1
    with pytest.raises(errors.ConnectError, match="not tried again, to spare the cluster") as caught:
        await bench.run(error, boom(2), "never")
    assert (len(bench.given), bench.denied) == (1, [caught.value])
    for bench in (Bench(RAISE), Bench(attempts=1), Bench(deadline=100.0)):
        bench.left = 0
        with pytest.raises(errors.ConnectError) as caught:
            await bench.run(boom(), "never")
        assert (bench.left, bench.denied) == (0, [])
        assert "spare" not in str(caught.value)


def test_what_a_second_run_cannot_cure_is_not_retryable() -> None:
    """Who held a transaction open for too long would do it again; a SQLite file has no roles."""
    slow = make(errors.ConnectionLost)
    slow.retryable = False  # 25P03, 25P04
    assert not judge_transaction(slow, commit_sent=False)
    file = errors.ReadOnlyViolation("boom", code="SQLITE_READONLY")
    assert not judge_transaction(file, commit_sent=False)
    assert judge(file, idempotent=True, on_replica=False) is RAISE
    assert judge(file, idempotent=True, on_replica=True) is PRIMARY


@pytest.mark.parametrize("left", [0.0, 0.3, 2.0, 10.0])
async def test_no_wait_ends_past_the_deadline(left: float) -> None:
    """However many attempts are allowed, none begins after the deadline."""
    bench = Bench(attempts=1000, deadline=100.0 + left)
    with pytest.raises(errors.ConnectError):
        await bench.run(*(boom(n) for n in range(1001)), takes=0.01)
    assert bench.now <= bench.deadline + 0.01, "at most the last attempt itself ends after it"
    assert (len(bench.given) > 1) is (left >= 2.0)


@pytest.mark.parametrize("foreign", [asyncio.CancelledError(), ValueError("x"), KeyboardInterrupt()])
async def test_foreign_exceptions_pass_at_once(foreign: BaseException) -> None:
    """Cancellation and errors that are not ours are neither judged nor repeated."""
    bench = Bench(attempts=10)
    caught: BaseException | None = None
    try:
        await bench.run(boom(), foreign, "never")
    except BaseException as error:
        caught = error
    assert caught is foreign
    assert bench.judged == 1
    assert len(bench.given) == 1


async def test_cancelling_while_waiting_ends_it() -> None:
    """A task cancelled in its wait makes no further attempt."""
    made = 0

    async def attempt(verdict: Verdict) -> None:
        nonlocal made
        made += 1

    task = asyncio.ensure_future(
        repeat(
            attempt,
            boom(),
            policy=Policy(min_wait=50.0, max_wait=100.0),
            judge=lambda error: AGAIN,
            sleep=asyncio.sleep,
            clock=asyncio.get_running_loop().time,
            rng=random.Random(1),
            started=asyncio.get_running_loop().time(),
            budget=lambda: True,
        )
    )
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made == 0


async def test_concurrent_calls_do_not_disturb_each_other() -> None:
    """Twenty interleaved calls each count their own attempts, waits and failures."""

    async def one(number: int) -> tuple[int, int]:
        bench = Bench(attempts=20)
        failures = [boom(n) for n in range(1 + number % 7)]
        assert await bench.run(*failures, number) == number
        return len(failures), len(bench.slept)

    outcomes = await asyncio.gather(*(one(number) for number in range(20)))
    assert all(failures == waits for failures, waits in outcomes)
    assert len({failures for failures, _ in outcomes}) == 7


async def test_a_tenth_call_is_as_fresh_as_the_first() -> None:
    """Nothing of a call is kept for the next: each has its full number of attempts."""
    run: Callable[[Bench], Awaitable[object]] = lambda bench: bench.run(boom(), boom(), "value")  # noqa: E731
    assert [await run(Bench()) for _ in range(10)] == ["value"] * 10


async def test_a_wait_that_takes_too_long_ends_in_the_error_before_it() -> None:
    """A sleep may end past the deadline: then what failed is raised, and not that the time is up."""
    now = 0.0
    first = errors.ConnectError("refused")

    async def oversleep(seconds: float) -> None:
        nonlocal now
        now += 10.0

    async def run(verdict: Verdict) -> None:
        raise AssertionError("no attempt begins after the deadline")

    with pytest.raises(errors.ConnectError) as caught:
        await repeat(
            run,
            first,
            policy=Policy(5, 0.1, 0.1),
            judge=lambda error: AGAIN,
            sleep=oversleep,
            clock=lambda: now,
            rng=random.Random(1),
            deadline=5.0,
            started=0.0,
            budget=lambda: True,
        )
    assert caught.value is first
