"""Health: a replica that cannot be reached is left out for a while, and only for reasons that are its own."""

import pytest

from router import errors
from router.health import Health
from router.topology import Cluster, Node, Role
from tests.test_pool import Clock

PRIMARY = Node("primary", "main", Role.PRIMARY, "db", 1)
R1, R2 = (Node(name, "main", Role.REPLICA, "db", 2) for name in ("r1", "r2"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(Cluster("main", "postgresql", PRIMARY, (R1, R2)), clock)


@pytest.mark.parametrize("error", [errors.ConnectError("x"), errors.ConnectionLost("x")], ids=repr)
def test_a_replica_that_cannot_be_reached_is_left_out(
    health: Health, clock: Clock, error: errors.RouterError
) -> None:
    """It comes back by itself after five seconds, in its configured place."""
    health.failed(R1, error)
    assert health.snapshot().replicas == (R2,)
    assert health.out() == ("r1",)
    clock.now += 4.9
    assert health.snapshot().replicas == (R2,)
    clock.now += 0.2
    assert health.snapshot().replicas == (R1, R2)
    assert health.out() == ()


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidStatement("x"),
        errors.StatementTimeout("x"),
        errors.PoolTimeout("x"),
        errors.SerializationFailure("x"),
        errors.AuthenticationFailed("x"),
        errors.DatabaseNotFound("x"),
        errors.ReadOnlyViolation("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_says_nothing_about_the_node_leaves_it_in(health: Health, error: errors.RouterError) -> None:
    """A bad statement, one tenant's missing database or a full pool takes no replica from the others."""
    health.failed(R1, error)
    assert health.snapshot().replicas == (R1, R2)


def test_the_primary_is_never_left_out(health: Health) -> None:
    """There is no other one to go to."""
    health.failed(PRIMARY, errors.ConnectError("x"))
    assert health.snapshot().primary is PRIMARY
    assert health.out() == ()


def test_a_snapshot_is_replaced_and_counted(health: Health, clock: Clock) -> None:
    """Who holds a snapshot keeps what it saw; each change has a generation of its own."""
    before = health.snapshot()
    health.failed(R1, errors.ConnectionLost("x"))
    after = health.snapshot()
    assert (before.replicas, before.generation) == ((R1, R2), 0)
    assert (after.replicas, after.generation) == ((R2,), 1)
    clock.now += 6
    assert health.snapshot().generation == 2


def test_all_replicas_may_be_out(health: Health) -> None:
    """Then there is none, and routing says so."""
    for node in (R1, R2):
        health.failed(node, errors.ConnectError("x"))
    assert health.snapshot().replicas == ()


def test_the_latency_is_a_mean_that_forgets(health: Health) -> None:
    """The first answer counts whole, later ones one fifth each."""
    health.succeeded(R1, 0.1)
    assert health.load[R1].latency == pytest.approx(0.1)
    health.succeeded(R1, 0.2)
    assert health.load[R1].latency == pytest.approx(0.12)
