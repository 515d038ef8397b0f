"""The retry budget: in an outage the router adds little to the load, whatever its retries would like."""

import asyncio
import math
import random

import pytest

from router import Router, errors
from router.budget import RetryBudget
from router.errors import ConnectionLost
from router.events import RetryDenied, RetryScheduled
from router.transaction import Transaction
from tests.doubles import Fault, Server, opened
from tests.engines import Recorder

FLOOR = 100  # ten a second, for the ten seconds that are kept


def taken(budget: RetryBudget, now: float, requests: int) -> int:
    """Return how many retries there are at one moment."""
    count = 0
    while count < 1_000_000 and budget.take(now, requests):
        count += 1
    return count


def test_a_quiet_application_may_retry() -> None:
    """Without any traffic there are ten retries a second, kept for at most ten seconds."""
    budget = RetryBudget(50.0)
    assert taken(budget, 50.0, 0) == FLOOR
    assert taken(budget, 50.0, 0) == 0
    assert taken(budget, 51.0, 0) == 10
    assert taken(budget, 51.05, 0) == 0
    assert taken(budget, 1_000.0, 0) == FLOOR


def test_requests_earn_a_fifth_of_a_retry_each() -> None:
    """20 % of the requests may be retried on top of the floor (fault case 33)."""
    budget = RetryBudget(0.0)
    assert taken(budget, 1.0, 1_000) == FLOOR + 200
    assert taken(budget, 2.0, 2_000) == 10 + 200


def test_what_is_left_is_told_without_taking_it() -> None:
    """From all that a quiet cluster has, or more, down to nothing; asking changes nothing."""
    budget = RetryBudget(0.0)
    assert budget.left(0.0, 0) == 1.0
    assert budget.left(1.0, 1_000_000) == 1.0
    assert taken(budget, 0.0, 0) == FLOOR
    assert [budget.left(at, 0) for at in (0.0, 5.0, 0.0, 20.0)] == [0.0, 0.5, 0.0, 1.0]
    assert taken(budget, 1.0, 0) == 10


def test_what_was_earned_long_ago_is_gone() -> None:
    """Only the requests of the last ten seconds count: a busy morning does not pay for an outage at noon."""
    budget = RetryBudget(0.0)
    assert taken(budget, 3_600.0, 360_000) == FLOOR + 200  # 100 a second: a thousand in the window
    budget = RetryBudget(0.0)
    assert budget.take(1.0, 1_000)
    assert taken(budget, 12.0, 1_000) == FLOOR


def test_over_any_traffic_the_share_holds() -> None:
    """However requests and retries come, retries stay under a fifth of the requests and ten a second."""
    rng = random.Random(4)
    budget, now, requests, retries = RetryBudget(0.0), 0.0, 0, 0
    for _ in range(5_000):
        now += rng.choice((0.0, 0.001, 0.1, 30.0))
        requests += rng.choice((0, 1, 50))
        for _ in range(rng.choice((0, 1, 60))):
            retries += budget.take(now, requests)
        assert retries <= 0.2 * requests + 10 * now + FLOOR


def test_a_clock_that_stands_or_steps_back_gives_nothing() -> None:
    """Time that does not pass earns nothing, and never takes away."""
    budget = RetryBudget(100.0)
    assert taken(budget, 100.0, 0) == FLOOR
    assert taken(budget, 90.0, 0) == 0
    assert taken(budget, 100.0, 0) == 0


# --- in the router ---------------------------------------------------------------------------------------


VERBS = ("fetch_all", "execute", "begin")


@pytest.fixture
def broken(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Let every statement at every node break its connection."""

    def take(verb: str, node: str) -> Fault | None:
        error = ConnectionResetError("gone")
        return Fault(verb, error, None, after=False, breaks=True, wait=None) if verb in VERBS else None

    monkeypatch.setattr(server, "_take", take)
    return server


def sent(server: Server) -> int:
    """Return how many statements have reached the double."""
    return sum(each.calls.count(verb) for each in server.connections for verb in VERBS)


async def storm(router: Router, requests: int) -> None:
    """Make that many reads, 20 at a time, each of which fails."""

    async def some(count: int) -> None:
        for _ in range(count):
            with pytest.raises(errors.RouterError):
                await router.fetch_all("SELECT 1", tenant="acme")

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(some(requests // 20))


async def test_an_outage_is_not_made_worse(broken: Server) -> None:
    """Every node failing, 1,000 requests: statements sent stay under 1.2 times that, and the floor.

    (fault case 33)
    """
    loop = asyncio.get_running_loop()
    async with opened(defaults={"retries": {"attempts": 5, "min_wait": "0ms", "max_wait": "1ms"}}) as router:
        heard = Recorder(router)
        started = loop.time()
        await storm(router, 1_000)
        floor = FLOOR + 10 * (loop.time() - started)
        assert 1_000 + FLOOR < sent(broken) <= 1_200 + floor
        denied = heard.of(RetryDenied)
        assert {event.cluster for event in denied} == {"main"}
        assert len(denied) > 500
        assert 'router_retries_denied_total{cluster="main"}' in router.metrics.render().decode()


def spend(router: Router) -> None:
    """Use the budget up, and let no time pass for it: a slow machine earns retries between two lines."""
    backend = router.session("acme")._target.backend
    backend._budget._now = math.inf
    while backend.may_retry():
        pass


@pytest.mark.usefixtures("broken")
async def test_the_error_says_that_it_was_not_tried_again() -> None:
    """When the budget is empty the failure itself comes out, with a note for whoever reads the log."""
    async with opened() as router:
        spend(router)
        heard = Recorder(router)
        with pytest.raises(ConnectionLost, match="not tried again, to spare the cluster") as caught:
            await router.fetch_all("SELECT 1", tenant="acme")
        assert caught.value.attempts == ()
        assert heard.last.attempts == 1
        assert (heard.of(RetryScheduled), len(heard.of(RetryDenied))) == ([], 1)


async def test_transactions_draw_from_the_same_budget(server: Server) -> None:
    """The begin of a transaction, and a whole one in session.run, are not tried again either."""
    async with opened() as router:
        spend(router)
        runs = 0

        async def work(tx: Transaction) -> None:
            nonlocal runs
            runs += 1

        heard = Recorder(router)
        server.fail("begin", ConnectionResetError("gone"), breaks=True)
        with pytest.raises(ConnectionLost, match="to spare the cluster"):
            async with router.session("acme").transaction():
                pass
        server.fail("commit", errors.Deadlock("x"))
        with pytest.raises(errors.Deadlock, match="to spare the cluster"):
            await router.session("acme").run(work)
        assert runs == 1
        assert len(heard.of(RetryDenied)) == 2


async def test_one_cluster_down_spends_nothing_of_a_healthy_one(server: Server) -> None:
    """A request that succeeds costs no budget, so a later failure is tried again."""
    async with opened() as router:
        for _ in range(200):
            await router.fetch_all("SELECT 1", tenant="acme")
        server.fail("fetch_all", ConnectionResetError("gone"), breaks=True)
        await router.fetch_all("SELECT 1", tenant="acme")
