"""Health: who takes writes and who may be read, from answers to probes and from what requests meet."""

import asyncio
import math
import random
from typing import Any

import pytest

from router import errors, events
from router.health import Health
from router.positions import Lsn, MariadbGtid, MysqlGtids
from router.servers import Rules
from router.standing import Limits, Observation, Out
from router.topology import Cluster, Node, Role
from tests.test_breaker import Middle
from tests.test_pool import Clock

PRIMARY = Node("primary", "main", Role.PRIMARY, "db", 1)
R1, R2 = (Node(name, "main", Role.REPLICA, "db", 2) for name in ("r1", "r2"))
UNREACHABLE = errors.ConnectError("refused")


class Told:
    """Remember what the health asked for and told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.poked: list[str] = []
        self.moved: list[Node] = []
        self.silent: list[Node] = []

    def of(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def health(clock: Clock, told: Told) -> Health:
    """Watch a cluster whose servers have answered once, as configured."""
    made = Health(
        Cluster("main", "postgresql", PRIMARY, (R1, R2)),
        clock,
        rules=Rules(Limits(10.0, 1000)),
        probed=True,
        rng=Middle(),
        emit=told.events.append,
    )
    made.poke = told.poked.append
    made.moved = told.moved.append
    made.silent = told.silent.append
    primary(made, clock, 1000)
    for name in ("r1", "r2"):
        replica(made, clock, name, 1000)
    told.poked.clear()
    told.events.clear()
    return made


@pytest.fixture
def unprobed(clock: Clock) -> Health:
    return Health(Cluster("main", "sqlite", PRIMARY, (R1, R2)), clock, rng=Middle())


def primary(health: Health, clock: Clock, position: int, name: str = "primary", timeline: int = 1) -> None:
    seen = Observation(clock.now, True, Lsn(position), timeline, "cluster", reign=str(timeline))
    health.observed(name, seen)


def replica(
    health: Health, clock: Clock, name: str, position: int, identity: str = "cluster", timeline: int = 1
) -> None:
    seen = Observation(clock.now, False, Lsn(position), None, identity, follows=frozenset({str(timeline)}))
    health.observed(name, seen)


def names(health: Health) -> tuple[str | None, tuple[str, ...]]:
    found = health.snapshot()
    return found.primary and found.primary.name, tuple(node.name for node in found.replicas)


# --- replicas --------------------------------------------------------------------------------------------


def test_a_replica_that_cannot_be_reached_is_out_at_once(health: Health, clock: Clock, told: Told) -> None:
    """A request's failure counts before any probe; a good probe after the ban brings it back (breaker)."""
    health.failed(R1, UNREACHABLE)
    assert names(health) == ("primary", ("r2",))
    assert told.poked == ["r1"]
    replica(health, clock, "r1", 1000)
    assert names(health) == ("primary", ("r2",))
    clock.now += 1.1
    replica(health, clock, "r1", 1000)
    assert names(health) == ("primary", ("r1", "r2"))
    assert [(e.node.name, e.usable, e.reason) for e in told.of(events.ReplicaChanged)] == [
        ("r1", False, "unreachable"),
        ("r1", True, ""),
    ]


async def test_a_replica_of_unknown_lag_is_asked_again_before_the_first_request(
    clock: Clock, told: Told
) -> None:
    """MariaDB counts no bytes: who lacks a little in the first answer would be out until the next probe."""
    health = Health(Cluster("main", "mariadb", PRIMARY, (R1,)), clock, probed=True, rng=Middle())
    looking = asyncio.ensure_future(health.look(1.0))
    await asyncio.sleep(0)

    def answer(name: str, writable: bool, number: int) -> None:
        health.observed(name, Observation(clock.now, writable, MariadbGtid({0: number})))

    answer("primary", True, 7)
    answer("r1", False, 6)
    assert (health.known, health.interval) == (False, health.rules.quick)
    clock.now += 0.05
    answer("r1", False, 7)
    assert health.known
    assert names(health) == ("primary", ("r1",))
    assert health.interval > health.rules.quick
    await looking


async def test_a_replica_that_stands_still_delays_the_first_request_by_little(clock: Clock) -> None:
    """It may be late for good: after two quick probes the others serve."""
    health = Health(Cluster("main", "mariadb", PRIMARY, (R1,)), clock, probed=True, rng=Middle())
    looking = asyncio.ensure_future(health.look(1.0))
    await asyncio.sleep(0)
    health.observed("primary", Observation(clock.now, True, MariadbGtid({0: 7})))
    for _ in range(3):
        assert not health.known
        health.observed("r1", Observation(clock.now, False, MariadbGtid({0: 6})))
        clock.now += 0.1
    health.observed("r1", Observation(clock.now, False, MariadbGtid({0: 6})))
    assert health.known
    assert names(health) == ("primary", ())
    await looking


def test_a_replica_that_was_slow_once_is_not_slow_for_ever(health: Health, clock: Clock) -> None:
    """Who is not chosen gets no new figure from requests; probes take its latency back to what it is."""
    health.succeeded(R1, 2.0)
    for _ in range(30):
        clock.now += 2
        seen = Observation(clock.now, False, Lsn(1000), None, "cluster", follows=frozenset("1"), took=0.001)
        health.observed("r1", seen)
    assert health.load[R1].latency < 0.01


def test_one_lost_connection_asks_and_does_not_judge(health: Health, told: Told) -> None:
    """Somebody may have ended a session; three in ten seconds are the server's."""
    for expected in ((R1, R2), (R1, R2), (R2,)):
        health.failed(R1, errors.ConnectionLost("x"))
        assert health.snapshot().replicas == expected
    assert told.poked == ["r1"] * 3


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidStatement("x"),
        errors.PoolTimeout("x"),
        errors.SerializationFailure("x"),
        errors.AuthenticationFailed("x"),
        errors.DatabaseNotFound("x"),
        errors.TooManyConnections("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_says_nothing_about_the_node_leaves_it_in(
    health: Health, told: Told, error: errors.RouterError
) -> None:
    """A bad statement, a conflict, one tenant's missing database, a full server: no replica leaves for it."""
    health.failed(R1, error)
    assert health.snapshot().replicas == (R1, R2)
    assert told.poked == []


def test_a_replica_that_does_not_answer_in_time_is_out(health: Health, told: Told) -> None:
    """After one probe nobody new is sent there; after two, who waits for it is cut loose (fault case 23)."""
    health.missed("r1", None)
    assert names(health) == ("primary", ("r2",))
    assert told.silent == []
    health.missed("r1", None)
    assert told.silent == [R1]
    health.missed("r1", None)
    assert told.silent == [R1]


def test_a_late_replica_leaves_within_one_probe(health: Health, clock: Clock) -> None:
    """And comes back when it has made up for it (fault case 11)."""
    for _ in range(7):
        clock.now += 2
        primary(health, clock, int(clock.now) * 100_000)
        replica(health, clock, "r2", int(clock.now) * 100_000)
    replica(health, clock, "r1", 1000)
    assert names(health) == ("primary", ("r2",))
    status = {server.node.name: server for server in health.servers}
    assert status["r1"].standing.out is Out.LATE
    assert health.snapshot().late == (R1,)
    replica(health, clock, "r1", int(clock.now) * 100_000)
    assert names(health) == ("primary", ("r1", "r2"))


def test_an_answer_is_believed_for_some_probes_only(health: Health, clock: Clock) -> None:
    """A replica that nobody could ask for long counts as late: its lag is not known (fault case 12)."""
    clock.now += 7.5
    primary(health, clock, 1000)
    replica(health, clock, "r2", 1000)
    assert names(health) == ("primary", ("r2",))
    assert health.why_not(health.servers[1]) == Out.UNKNOWN


def test_a_server_of_another_cluster_is_not_read(health: Health, clock: Clock) -> None:
    """A wrong address in the configuration must not show another customer's rows."""
    replica(health, clock, "r1", 1000, identity="another")
    assert names(health) == ("primary", ("r2",))
    assert health.why_not(health.servers[1]) == Out.STRANGER


def test_when_all_are_out_the_first_that_answers_comes_back(health: Health, clock: Clock) -> None:
    """A ban is not sat out when nobody else is left (fault case 19)."""
    for node in (PRIMARY, R1, R2):
        health.failed(node, UNREACHABLE)
    assert names(health) == (None, ())
    replica(health, clock, "r2", 1000)
    assert names(health) == (None, ("r2",))


# --- the primary -----------------------------------------------------------------------------------------


def test_the_primary_is_awaited_not_banned(health: Health, clock: Clock, told: Told) -> None:
    """While it cannot be reached there is none; the first good probe brings it back, without a ban."""
    health.failed(PRIMARY, UNREACHABLE)
    assert names(health) == (None, ("r1", "r2"))
    assert "refused" in health.snapshot().problem
    primary(health, clock, 1000)
    assert names(health) == ("primary", ("r1", "r2"))
    assert [event.node for event in told.of(events.PrimaryChanged)] == [None, PRIMARY]


def test_one_missed_probe_is_not_the_end_of_a_primary(health: Health) -> None:
    """It may be busy; the second one in a row counts."""
    health.missed("primary", None)
    assert names(health)[0] == "primary"
    health.missed("primary", None)
    assert names(health)[0] is None


def test_a_promotion_is_followed(health: Health, clock: Clock, told: Told) -> None:
    """The promoted replica is another node of the same server, and what was open to the old roles goes."""
    health.failed(PRIMARY, UNREACHABLE)
    primary(health, clock, 2000, "r1", timeline=2)
    found = health.snapshot()
    assert found.primary is not None and found.primary is not R1
    assert (found.primary.name, found.primary.role, found.primary.label) == ("r1", Role.PRIMARY, "main/r1")
    assert told.moved == [PRIMARY, R1]
    assert told.silent == [PRIMARY]
    assert health.load[found.primary] is health.load[R1]


def test_the_old_primary_returns_as_what_it_is(health: Health, clock: Clock) -> None:
    """Out while it still takes writes on its old timeline; a replica once it follows (fault case 9)."""
    health.failed(PRIMARY, UNREACHABLE)
    primary(health, clock, 2000, "r1", timeline=2)
    clock.now += 2
    primary(health, clock, 1500, "primary", timeline=1)
    replica(health, clock, "r2", 2000, timeline=2)
    assert names(health) == ("r1", ("r2",))
    assert health.why_not(health.servers[0]) == Out.OBSOLETE
    primary(health, clock, 2000, "r1", timeline=2)
    replica(health, clock, "primary", 2000, timeline=2)
    assert names(health) == ("r1", ("primary", "r2"))


def _gtid(clock: Clock, writable: bool, number: int, writer: str, name: str = "") -> Observation:
    """Return what a MariaDB server says that has the number, which ``writer`` wrote."""
    reign = name if writable else None
    return Observation(
        clock.now, writable, MariadbGtid({0: number}), reign=reign, follows=frozenset({writer})
    )


def _there_and_back(clock: Clock, lost: errors.RouterError = UNREACHABLE) -> Health:
    """Watch a cluster of which r1 is promoted; no probe sees that the first one ever steps down."""
    health = Health(Cluster("main", "mysql", PRIMARY, (R1,)), clock, probed=True, rng=Middle())
    health.observed("primary", _gtid(clock, True, 100, "1", "1"))
    health.observed("r1", _gtid(clock, False, 100, "1"))
    clock.now += 1
    health.failed(PRIMARY, lost)
    health.observed("r1", _gtid(clock, True, 120, "2", "2"))
    assert names(health)[0] == "r1"
    clock.now += 1
    health.observed("primary", _gtid(clock, True, 150, "1", "1"))
    return health


def test_who_is_replaced_leads_again_once_the_last_primary_follows_it(clock: Clock) -> None:
    """A switch there and back between two probes looks like a primary that has never stepped down.

    What the last primary was given by it since is the proof; a number that it had before is none.
    """
    health = _there_and_back(clock)
    assert names(health)[0] == "r1", "who was replaced and takes writes ever since is not believed"
    for number, writer in ((100, "1"), (120, "2"), (120, "1"), (130, "3")):
        health.observed("r1", _gtid(clock, False, number, writer))
        assert names(health)[0] is None
    health.observed("r1", _gtid(clock, False, 150, "1"))
    assert names(health)[0] == "primary"


def test_who_has_refused_a_write_has_stepped_down(clock: Clock) -> None:
    """If it takes writes after that it was promoted again, whether or not a probe came in between."""
    health = _there_and_back(clock, errors.ReadOnlyViolation("read only"))
    health.observed("r1", _gtid(clock, False, 120, "2"))
    assert names(health)[0] == "primary"


def test_who_is_replaced_does_not_lead_again_because_the_last_primary_is_gone(clock: Clock) -> None:
    """It may have stayed alone with old clients all the while."""
    health = _there_and_back(clock)
    health.failed(R1, UNREACHABLE)
    for _ in range(5):
        clock.now += 1
        health.missed("r1", UNREACHABLE)
        health.observed("primary", _gtid(clock, True, 200, "1", "1"))
        assert names(health)[0] != "primary"


def test_sets_of_transactions_prove_it_too(clock: Clock) -> None:
    """On MySQL all that the last primary has, more than when it led, must be there."""
    health = Health(Cluster("main", "mysql", PRIMARY, (R1,)), clock, probed=True, rng=Middle())
    a, b = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "3e11fa47-71ca-11e1-9e33-c80aa9429563"

    def says(name: str, writable: bool, text: str) -> None:
        seen = Observation(clock.now, writable, MysqlGtids.parse(text), reign=name if writable else None)
        health.observed(name, seen)

    says("primary", True, f"{a}:1-100")
    says("r1", False, f"{a}:1-100")
    clock.now += 1
    health.failed(PRIMARY, UNREACHABLE)
    says("r1", True, f"{a}:1-100,{b}:1-5")
    says("primary", True, f"{a}:1-150")  # without what r1 has written
    says("r1", False, f"{a}:1-150,{b}:1-5")
    assert names(health)[0] is None
    says("primary", True, f"{a}:1-150,{b}:1-5")
    assert names(health)[0] == "primary"


def test_a_replica_must_be_known_to_follow_the_new_primary(health: Health, clock: Clock) -> None:
    """One that stayed on the old history may show a higher number (fault case 9)."""
    health.failed(PRIMARY, UNREACHABLE)
    primary(health, clock, 2000, "r1", timeline=2)
    clock.now += 2
    primary(health, clock, 2500, "r1", timeline=2)
    replica(health, clock, "r2", 2500)
    assert names(health) == ("r1", ())
    assert health.why_not(health.servers[2]) == Out.UNPROVEN
    clock.now += 10
    primary(health, clock, 3500, "r1", timeline=2)
    replica(health, clock, "r2", 3500)
    assert names(health) == ("r1", ("r2",)), "what had stayed behind would be late by now"
    assert health.snapshot().current == -math.inf, "but no session counts on it"
    replica(health, clock, "r2", 3500, timeline=2)
    assert health.snapshot().current == clock.now


def test_two_claims_of_the_same_standing_stop_all_writes(health: Health, clock: Clock, told: Told) -> None:
    """Until one of them is gone; reads go on (fault case 9)."""
    primary(health, clock, 1000, "r1", timeline=1)
    assert names(health) == (None, ("r2",))
    assert "both take writes" in health.snapshot().problem
    assert "both take writes" in told.of(events.PrimaryChanged)[-1].problem
    replica(health, clock, "r1", 1000)
    assert names(health)[0] == "primary"


def test_a_refused_write_makes_the_primary_doubtful(health: Health, clock: Clock, told: Told) -> None:
    """It may have become a replica: nobody writes there before it was asked again (fault cases 8, 15)."""
    health.failed(PRIMARY, errors.ReadOnlyViolation("x"))
    assert names(health)[0] is None
    assert "primary" in told.poked
    primary(health, clock, 1000)
    assert names(health)[0] == "primary"


def test_a_sign_of_change_makes_probes_quick_for_a_while(health: Health, clock: Clock) -> None:
    """Every tenth of a second for half a minute, and then every two seconds again."""
    assert health.interval == 2.0
    health.failed(PRIMARY, errors.ConnectionLost("x"))
    assert health.interval == 0.1
    clock.now += 30
    assert health.interval == 2.0


def test_late_news_of_an_old_role_change_nothing(health: Health, clock: Clock) -> None:
    """A request that was on its way to the old primary says nothing about the server's new role."""
    health.failed(PRIMARY, UNREACHABLE)
    primary(health, clock, 2000, "r1", timeline=2)
    before = health.snapshot()
    health.failed(PRIMARY, UNREACHABLE)
    health.failed(R1, UNREACHABLE)
    assert health.snapshot() is before


def test_a_login_that_is_refused_to_probes_ends_nothing(health: Health, clock: Clock) -> None:
    """The server answers, if not us; what is known of it just grows old."""
    for _ in range(3):
        health.missed("primary", errors.AuthenticationFailed("x"))
        health.missed("r1", errors.TooManyConnections("x"))
    assert names(health) == ("primary", ("r1", "r2"))


# --- the beginning ---------------------------------------------------------------------------------------


async def test_a_first_look_waits_for_all_that_answer_soon(clock: Clock, told: Told) -> None:
    """Nothing is known before; the first picture is no change, but who cannot be reached is told."""
    cluster = Cluster("main", "postgresql", PRIMARY, (R1, R2))
    made = Health(cluster, clock, probed=True, emit=told.events.append)
    assert not made.known
    look = asyncio.create_task(made.look(5))
    await asyncio.sleep(0)
    primary(made, clock, 1000)
    replica(made, clock, "r2", 1000)
    await asyncio.sleep(0)
    assert not look.done()
    made.missed("r1", UNREACHABLE)
    await look
    assert made.known and names(made) == ("primary", ("r2",))
    assert [(event.node.name, event.open) for event in told.of(events.BreakerChanged)] == [("r1", True)]
    assert len(told.events) == 1


async def test_a_first_look_does_not_wait_for_one_that_takes_long(clock: Clock) -> None:
    """The primary and a replica are enough to begin with, after a moment."""
    made = Health(Cluster("main", "postgresql", PRIMARY, (R1, R2)), clock, probed=True)
    look = asyncio.create_task(made.look(60))
    await asyncio.sleep(0)
    primary(made, clock, 1000)
    replica(made, clock, "r2", 1000)
    clock.now += 0.1
    await look
    assert names(made) == ("primary", ("r2",))


async def test_a_first_look_ends(clock: Clock) -> None:
    """Who has not answered by then counts as late."""
    made = Health(Cluster("main", "postgresql", PRIMARY, (R1,)), clock, probed=True)
    await made.look(0.01)
    assert made.known and names(made) == ("primary", ())


# --- engines without probes ------------------------------------------------------------------------------


def test_without_probes_a_ban_ends_by_time(unprobed: Health, clock: Clock) -> None:
    """There is nobody to ask; the next request is the probe."""
    assert unprobed.known
    unprobed.failed(R1, UNREACHABLE)
    assert names(unprobed) == ("primary", ("r2",))
    clock.now += 1.1
    assert names(unprobed) == ("primary", ("r1", "r2"))


def test_without_probes_the_primary_is_never_out(unprobed: Health) -> None:
    """There is no other one to go to."""
    unprobed.failed(PRIMARY, UNREACHABLE)
    assert unprobed.snapshot().primary is PRIMARY


# --- snapshots -------------------------------------------------------------------------------------------


def test_a_snapshot_is_replaced_and_counted(health: Health, clock: Clock) -> None:
    """Who holds one keeps what it saw; probes that find nothing new replace nothing."""
    before = health.snapshot()
    replica(health, clock, "r1", 1000)
    assert health.snapshot() is before
    health.failed(R1, UNREACHABLE)
    after = health.snapshot()
    assert (before.replicas, after.replicas) == ((R1, R2), (R2,))
    assert after.generation == before.generation + 1


def test_the_latency_is_a_mean_that_forgets(health: Health) -> None:
    """The first answer counts whole, later ones one fifth each."""
    health.succeeded(R1, 0.1)
    assert health.load[R1].latency == pytest.approx(0.1)
    health.succeeded(R1, 0.2)
    assert health.load[R1].latency == pytest.approx(0.12)


def test_any_order_of_news_leaves_a_whole_picture(clock: Clock) -> None:
    """However failures and answers come, the snapshot names each server once, and at most one primary."""
    rng = random.Random(5)
    made = Health(Cluster("main", "postgresql", PRIMARY, (R1, R2)), clock, probed=True, rng=rng)
    timeline = 1
    for _ in range(3000):
        clock.now += rng.random()
        name = rng.choice(("primary", "r1", "r2"))
        node = next(each.node for each in made.servers if each.node.name == name)
        what = rng.random()
        if what < 0.45:
            replica(made, clock, name, int(clock.now))
        elif what < 0.7:
            timeline += rng.random() < 0.3
            primary(made, clock, int(clock.now), name, rng.choice((timeline, max(timeline - 1, 1))))
        elif what < 0.8:
            made.missed(name, rng.choice((None, UNREACHABLE, errors.TooManyConnections("x"))))
        else:
            kind = rng.choice((errors.ConnectError, errors.ConnectionLost, errors.ReadOnlyViolation))
            made.failed(node, kind("x"))
        found = made.snapshot()
        listed = [each.name for each in (*((found.primary,) if found.primary else ()), *found.replicas)]
        assert len(listed) == len(set(listed))
        assert all(each.role is Role.REPLICA for each in found.replicas)
        assert found.primary is None or found.primary.role is Role.PRIMARY
        assert sum(each.node.role is Role.PRIMARY for each in made.servers) == 1
        assert found.primary is not None or found.problem
