"""How long a secret is used, when it is read anew, and what happens while it cannot be read."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import Secret, SecretReference
from router.config.references import Stored
from router.credentials import Credentials, Passwords
from router.drivers.connecting import connect
from router.drivers.driver import Endpoint, Login
from router.errors import AuthenticationFailed, SecretUnavailable
from router.stores import rotation
from router.stores.keeper import Condition, Failure, Good, Keeper
from router.stores.rotation import Held, Turn
from router.stores.store import Answer, Unanswered
from tests.doubles import ScriptedDriver, Server
from tests.servers.passwords import CANARY
from tests.test_pool import NODE, Clock

WANTED = Stored("vault", "secret/data/app", "password")
SOURCE = "${vault:secret/data/app}"


# --- the rules -------------------------------------------------------------------------------------------


def test_a_secret_is_used_until_it_is_due() -> None:
    """For refresh, and no longer than two thirds of the lease; the lease itself ends it at nine tenths."""
    plain = rotation.read(Answer(), 100.0, 300.0, 0.0)
    leased = rotation.read(Answer(lease=90.0), 100.0, 300.0, 0.0)
    assert (plain.due_at, plain.end_at) == (400.0, math.inf)
    assert (leased.due_at, leased.end_at) == pytest.approx((160.0, 181.0))
    for held, turns in (
        (plain, {100: Turn.USE, 399: Turn.USE, 400: Turn.LOOK, 9999: Turn.LOOK}),
        (leased, {159: Turn.USE, 161: Turn.LOOK, 180: Turn.LOOK, 181: Turn.ASK}),
        (Held(), {0: Turn.ASK}),
    ):
        assert {now: rotation.turn(held, now) for now in turns} == turns


def test_a_secret_that_cannot_be_read_is_asked_for_less_often() -> None:
    """Ten seconds apart while the last good one serves, one while there is none."""
    kept = rotation.failed(rotation.read(Answer(), 0.0, 10.0, 0.0), 20.0, "sealed")
    none = rotation.failed(Held(), 20.0, "sealed")
    assert [rotation.turn(kept, now) for now in (20.0, 29.9, 30.0)] == [Turn.USE, Turn.USE, Turn.LOOK]
    assert [rotation.turn(none, now) for now in (20.0, 20.9, 21.0)] == [Turn.REFUSE, Turn.REFUSE, Turn.ASK]
    assert kept.answer is not None and kept.why == "sealed"


@given(st.floats(0.001, 1e6), st.none() | st.floats(0.001, 1e6), st.floats(0, 1))
def test_what_is_due_can_still_be_used(refresh: float, lease: float | None, jitter: float) -> None:
    """There is always time between the first question for a new one and the end of the old."""
    held = rotation.read(Answer(lease=lease), 0.0, refresh, jitter)
    assert 0 < held.due_at < held.end_at
    assert held.due_at <= refresh and held.usable(held.due_at)


def test_processes_do_not_ask_at_the_same_moment() -> None:
    """The time between two questions varies by a tenth."""
    dues = sorted(rotation.read(Answer(), 0.0, 100.0, random.Random(n).random()).due_at for n in range(50))
    assert 90 <= dues[0] < 92 and 98 < dues[-1] <= 100
    assert max(two - one for one, two in pairwise(dues)) < 2


# --- the keeper ------------------------------------------------------------------------------------------


class Shelf:
    """A store that gives what a test puts there."""

    def __init__(self) -> None:
        self.given: Answer | Unanswered = Answer({"password": Secret(f"{CANARY}-1")})
        self.asked = 0
        self.prepared = 0
        self.gate: asyncio.Event | None = None

    async def prepare(self, timeout: float) -> Unanswered | None:
        """Be called once, and by one at a time."""
        self.prepared += 1
        await asyncio.sleep(0.01)
        return None if self.prepared == 1 else Unanswered("prepared twice")

    async def read(self, path: str, timeout: float) -> Answer | Unanswered:
        self.asked += 1
        given = self.given
        if self.gate is not None:
            await self.gate.wait()
        return given

    def put(self, number: int, lease: float | None = None) -> None:
        self.given = Answer({"password": Secret(f"{CANARY}-{number}")}, lease=lease)

    def close(self) -> None:
        """Hold nothing."""


class Bench:
    """A keeper with everything around it in reach."""

    def __init__(self, refresh: float = 60.0, timeout: float = 5.0) -> None:
        self.clock, self.shelf = Clock(), Shelf()
        self.failures: list[Failure] = []
        self.keeper = Keeper(
            {"vault": self.shelf},
            refresh,
            timeout,
            clock=self.clock,
            rng=random.Random(1),
            failed=self.failures.append,
        )
        self.keeper.expect([(WANTED, "app")])

    async def got(self, ask: Callable[[tuple[Stored, ...]], Awaitable[Any]] | None = None) -> str:
        """Return the password, or why there is none."""
        found = await (ask or self.keeper.get)((WANTED,))
        return found.values[WANTED].reveal() if isinstance(found, Good) else str(found.why)

    @property
    def condition(self) -> Condition:
        (found,) = self.keeper.conditions()
        return found


async def test_who_asks_at_the_same_time_shares_the_question() -> None:
    """64 connects need one answer; later ones none, until it is due."""
    bench = Bench()
    assert set(await asyncio.gather(*(bench.got() for _ in range(64)))) == {f"{CANARY}-1"}
    bench.shelf.put(2)
    assert (await bench.got(), bench.shelf.asked) == (f"{CANARY}-1", 1)
    bench.clock.now += 61
    assert set(await asyncio.gather(*(bench.got() for _ in range(64)))) == {f"{CANARY}-2"}
    assert bench.shelf.asked == 2


async def test_a_store_is_prepared_once_for_all_its_secrets() -> None:
    """Two that are needed at the same time wait for the same client."""
    bench = Bench()
    other = Stored("vault", "secret/data/other", "password")
    found = await asyncio.gather(*(bench.keeper.get((each,)) for each in (WANTED, other, other)))
    assert all(isinstance(each, Good) for each in found)
    assert (bench.shelf.asked, bench.shelf.prepared) == (2, 1)


async def test_nobody_waits_long_for_news_of_what_is_good_enough() -> None:
    """A store that hangs costs a connect a quarter of a second at most; its answer serves the next."""
    bench = Bench()
    await bench.got()
    bench.clock.now += 61
    bench.shelf.put(2)
    bench.shelf.gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await bench.got() == f"{CANARY}-1"
    assert 0.2 < loop.time() - began < 2.0
    bench.shelf.gate.set()
    await asyncio.sleep(0)
    assert (await bench.got(), bench.shelf.asked) == (f"{CANARY}-2", 2)


async def test_the_last_good_one_is_kept_and_its_age_grows() -> None:
    """Failures are told with why; a field that is missing is one; a good answer ends them."""
    bench = Bench()
    assert bench.condition == (SOURCE, None, False)
    await bench.got()
    for answer, why in (
        (Unanswered("sealed"), "sealed"),
        (Answer({"pasword": Secret("x")}), "it has no 'password'"),
    ):
        bench.shelf.given = answer
        bench.clock.now += 61
        assert await bench.got() == f"{CANARY}-1"
        assert bench.failures.pop() == ("app", SOURCE, why, True)
    assert bench.condition == (SOURCE, 122.0, True)
    bench.shelf.put(3)
    bench.clock.now += 61
    assert await bench.got() == f"{CANARY}-3"
    assert bench.condition == (SOURCE, 0.0, False) and not bench.failures


async def test_what_is_expected_may_change() -> None:
    """A reload may name another field, wrongly too, and then none; who has a good one is not disturbed."""
    bench = Bench()
    await bench.got()
    misspelt = Stored("vault", "secret/data/app", "pasword")
    bench.keeper.expect([(WANTED, "app"), (misspelt, "other")])
    found = await bench.keeper.get((misspelt,))
    assert isinstance(found, Unanswered) and found.why == "it has no 'pasword'"
    assert [failure.user for failure in bench.failures] == ["app", "other"]
    assert (await bench.got(), bench.condition.failing) == (f"{CANARY}-1", True)
    bench.keeper.expect([(WANTED, "app")])
    bench.clock.now += 61
    bench.shelf.put(2)
    assert (await bench.got(), bench.condition.failing) == (f"{CANARY}-2", False)
    bench.keeper.expect([])
    assert not list(bench.keeper.conditions())
    assert await bench.got() == f"{CANARY}-2"  # a session that is open may still connect


async def test_a_field_that_somebody_adds_is_found_at_once() -> None:
    """What is held does not have it; the store may by now."""
    bench = Bench()
    await bench.got()
    user = Stored("vault", "secret/data/app", "username")
    bench.shelf.given = Answer({"password": Secret("2"), "username": Secret("app")})
    found = await bench.keeper.get((user, WANTED))
    assert isinstance(found, Good) and [each.reveal() for each in found.values.values()] == ["app", "2"]


async def test_a_lease_that_has_ended_is_not_used() -> None:
    """Without an answer there is none then, and the reason is given at once for a second."""
    bench = Bench()
    bench.shelf.put(1, lease=30.0)
    await bench.got()
    bench.shelf.given = Unanswered("sealed")
    bench.clock.now += 28
    assert [await bench.got() for _ in range(5)] == ["sealed"] * 5
    assert bench.shelf.asked == 2
    assert bench.failures == [("app", SOURCE, "sealed", False)]


async def test_a_store_has_only_so_much_time() -> None:
    """Whatever it does, the question ends."""
    bench = Bench(timeout=0.02)
    bench.shelf.gate = asyncio.Event()
    assert await bench.got() == "no answer within 0.02 s"


async def test_renewing_asks_a_question_of_its_own() -> None:
    """An answer that was under way may be what the server has just refused."""
    bench = Bench()
    await bench.got()
    bench.clock.now += 61
    bench.shelf.gate = asyncio.Event()
    early = asyncio.create_task(bench.got())
    await asyncio.sleep(0.01)
    bench.shelf.put(2)
    renewals = [asyncio.create_task(bench.got(bench.keeper.renew)) for _ in range(10)]
    await asyncio.sleep(0)
    bench.shelf.gate.set()
    assert await early == f"{CANARY}-1"
    assert {await each for each in renewals} == {f"{CANARY}-2"}
    assert bench.shelf.asked == 3


async def test_closing_gives_up_on_what_is_being_asked() -> None:
    """No question outlives the router."""
    bench = Bench()
    bench.shelf.gate = asyncio.Event()
    task = asyncio.create_task(bench.got())
    await asyncio.sleep(0)
    await bench.keeper.close()
    await asyncio.wait((task,), timeout=1)
    assert task.done()


# --- connecting ------------------------------------------------------------------------------------------


class Guarded(ScriptedDriver):
    """A server that takes one password."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.right = f"{CANARY}-1"
        self.tried: list[str] = []

    async def connect(self, endpoint: Endpoint, timeout: float) -> Any:
        self.tried.append(await endpoint.login.password())
        if self.tried[-1] != self.right:
            raise AuthenticationFailed("the password is wrong", code="28P01")
        return await super().connect(endpoint, timeout)


def endpoint(bench: Bench, told: list[Any]) -> Endpoint:
    """Return what connects with the secret of a bench."""
    passwords = Passwords(told.append, lambda: 0.0, bench.keeper)
    account = passwords.account(Credentials("app", SecretReference((WANTED,))))

    async def password() -> str:
        return (await account.fetch()).password.reveal()

    return Endpoint(NODE, "app", Login("app", password, account), readonly=False)


async def test_a_refused_login_is_tried_once_more_with_another_password(server: Server) -> None:
    """Only if the store has another; the refusal of that one goes to the caller."""
    bench, driver = Bench(), Guarded(server)
    told: list[Any] = []
    where = endpoint(bench, told)
    (await connect(driver, where, 5.0, bench.clock)).terminate()
    bench.shelf.put(2)
    driver.right = f"{CANARY}-2"
    (await connect(driver, where, 5.0, bench.clock)).terminate()
    assert driver.tried == [f"{CANARY}-{n}" for n in (1, 1, 2)] and bench.shelf.asked == 2
    driver.right, driver.tried = "none of them", []
    with pytest.raises(AuthenticationFailed):
        await connect(driver, where, 5.0, bench.clock)
    assert driver.tried == [f"{CANARY}-2"] and bench.shelf.asked == 3
    bench.shelf.put(3)
    with pytest.raises(AuthenticationFailed):
        await connect(driver, where, 5.0, bench.clock)
    assert driver.tried == [f"{CANARY}-{n}" for n in (2, 2, 3)] and bench.shelf.asked == 4
    assert [type(event).__name__ for event in told] == ["SecretChanged"] * 2


async def test_a_look_is_newer_than_what_connects_use(server: Server) -> None:
    """While logins are blocked the store is asked every half minute whether there is another password."""
    bench = Bench(refresh=300.0)
    account = endpoint(bench, []).login.account
    assert account is not None
    for seconds, asked in ((0, 1), (29, 1), (2, 2), (10, 2)):
        bench.clock.now += seconds
        await account.look()
        assert (await account.fetch()).password.reveal() == f"{CANARY}-1"
        assert bench.shelf.asked == asked


async def test_a_refusal_is_told_where_the_store_cannot_be_asked(server: Server) -> None:
    """The server's answer says more than that there is nothing newer."""
    bench, driver = Bench(), Guarded(server)
    where = endpoint(bench, [])
    (await connect(driver, where, 5.0, bench.clock)).terminate()
    driver.right = "changed"
    bench.shelf.given = Unanswered("sealed")
    with pytest.raises(AuthenticationFailed):
        await connect(driver, where, 5.0, bench.clock)
    assert driver.tried == [f"{CANARY}-1"] * 2


async def test_without_a_secret_the_server_is_not_asked(server: Server) -> None:
    """SecretUnavailable names the secret and says why."""
    bench, driver = Bench(), Guarded(server)
    bench.shelf.given = Unanswered("sealed")
    with pytest.raises(SecretUnavailable, match=r"\$\{vault:secret/data/app\} cannot be had: sealed"):
        await connect(driver, endpoint(bench, []), 5.0, bench.clock)
    assert not driver.tried


async def test_a_connection_expires_with_its_lease(server: Server) -> None:
    """It is closed before the server forgets its user."""
    bench, driver = Bench(), Guarded(server)
    bench.shelf.put(1, lease=100.0)
    connection = await connect(driver, endpoint(bench, []), 5.0, bench.clock)
    assert connection.expires_at == pytest.approx(bench.clock.now + 90.0)
    connection.terminate()
