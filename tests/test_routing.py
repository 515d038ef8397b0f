"""Routing decisions as truth tables: a replica only for proven or declared reads, and always a reason."""

from __future__ import annotations

import itertools

import pytest

from router.consistency import Bounded, Consistency
from router.frontier import Frontier
from router.reasons import Reason
from router.routing import Intent, Route, Snapshot, decide, decide_transaction, to_primary
from router.topology import Node, Role

PRIMARY = Node("p", "main", Role.PRIMARY, "db-1", 5432)
REPLICAS = tuple(Node(f"r{i}", "main", Role.REPLICA, "db-2", 5432) for i in range(2))
WITH = Snapshot(PRIMARY, REPLICAS)
WROTE = Frontier()
WROTE.note_write(1.0)
WITHOUT = Snapshot(PRIMARY, ())
AUTO, READONLY, TO_PRIMARY = Intent.AUTO, Intent.READONLY, Intent.PRIMARY
EVENTUAL, SESSION, STRONG = Consistency.EVENTUAL, Consistency.SESSION, Consistency.STRONG
LEVELS = (EVENTUAL, Bounded(seconds=1.0), SESSION, STRONG)

NOT_READS = (
    Reason.WRITE,
    Reason.DDL,
    Reason.LOCKING,
    Reason.WRITING_CTE,
    Reason.SELECT_INTO,
    Reason.VOLATILE_FUNCTION,
    Reason.UNKNOWN_FUNCTION,
    Reason.SESSION_STATE,
    Reason.TRANSACTION_CONTROL,
    Reason.MULTIPLE_STATEMENTS,
    Reason.NOT_A_QUERY,
    Reason.UNPARSED,
    Reason.RAW,
)

# verdict, intent, consistency, wrote -> reason with replicas (those to a replica are marked)
READ_TABLE = [
    (Reason.READ, AUTO, EVENTUAL, False, Reason.READ, Role.REPLICA),
    (Reason.READ, AUTO, EVENTUAL, True, Reason.READ, Role.REPLICA),
    (Reason.READ, AUTO, SESSION, False, Reason.READ, Role.REPLICA),
    (Reason.READ, AUTO, SESSION, True, Reason.OWN_WRITE, Role.PRIMARY),
    (Reason.READ, AUTO, STRONG, False, Reason.STRONG, Role.PRIMARY),
    (Reason.READ, AUTO, STRONG, True, Reason.STRONG, Role.PRIMARY),
    (Reason.READ, READONLY, SESSION, False, Reason.READ, Role.REPLICA),
    (Reason.READ, READONLY, SESSION, True, Reason.OWN_WRITE, Role.PRIMARY),
    (Reason.READ, TO_PRIMARY, EVENTUAL, False, Reason.DECLARED_PRIMARY, Role.PRIMARY),
    (Reason.UNKNOWN_FUNCTION, READONLY, EVENTUAL, True, Reason.DECLARED_READ, Role.REPLICA),
    (Reason.UNKNOWN_FUNCTION, READONLY, SESSION, False, Reason.DECLARED_READ, Role.REPLICA),
    (Reason.UNKNOWN_FUNCTION, READONLY, SESSION, True, Reason.OWN_WRITE, Role.PRIMARY),
    (Reason.UNKNOWN_FUNCTION, READONLY, STRONG, False, Reason.STRONG, Role.PRIMARY),
    (Reason.WRITE, TO_PRIMARY, SESSION, False, Reason.DECLARED_PRIMARY, Role.PRIMARY),
]


@pytest.mark.parametrize(("verdict", "intent", "consistency", "wrote", "reason", "role"), READ_TABLE)
def test_what_may_be_read_from_a_replica(
    verdict: Reason, intent: Intent, consistency: Consistency, wrote: bool, reason: Reason, role: Role
) -> None:
    """The caller's word, the consistency level and own writes decide in this order."""
    route = decide(verdict, WITH, intent=intent, consistency=consistency, seen=WROTE if wrote else None)
    assert (route.reason, route.role) == (reason, role)
    assert route.candidates == (REPLICAS if role is Role.REPLICA else (PRIMARY,))


@pytest.mark.parametrize("verdict", NOT_READS)
def test_doubt_goes_to_the_primary_and_keeps_its_reason(verdict: Reason) -> None:
    """Whatever is not proven a read goes to the primary, in every combination, and says why."""
    for snapshot, consistency, seen in itertools.product((WITH, WITHOUT), LEVELS, (None, WROTE)):
        route = decide(verdict, snapshot, consistency=consistency, seen=seen)
        assert route == Route((PRIMARY,), Role.PRIMARY, verdict)


def test_every_reason_of_a_statement_is_in_the_table() -> None:
    """A new reason to refuse a replica must be added above, so that it is tested."""
    about_requests = {
        Reason.READ,
        Reason.DECLARED_READ,
        Reason.READ_TRANSACTION,
        Reason.DECLARED_PRIMARY,
        Reason.STRONG,
        Reason.CACHED,
        Reason.CAUGHT_UP,
        Reason.CHECKED,
        Reason.WAITED,
        Reason.OWN_WRITE,
        Reason.SEEN_ON_PRIMARY,
        Reason.READ_AHEAD,
        Reason.TOKEN_AHEAD,
        Reason.TOKEN_IGNORED,
        Reason.OLD_REIGN,
        Reason.WAIT_TIMED_OUT,
        Reason.TOO_STALE,
        Reason.TRANSACTION,
        Reason.NO_REPLICA,
        Reason.REPLICA_FAILED,
        Reason.LATE_REPLICA,
        Reason.REPLICAS_LATE,
        Reason.REFUSED_BY_REPLICA,
    }
    assert set(Reason) == about_requests | set(NOT_READS)


def test_every_route_agrees_with_itself() -> None:
    """In all combinations there is a candidate, of the role named, and a replica only by proof or word."""
    everything = itertools.product(Reason, (WITH, WITHOUT), Intent, LEVELS, (None, WROTE))
    for verdict, snapshot, intent, consistency, seen in everything:
        route = decide(verdict, snapshot, intent=intent, consistency=consistency, seen=seen)
        assert route.candidates
        assert {node.role for node in route.candidates} == {route.role}
        if route.role is Role.REPLICA:
            assert verdict is Reason.READ or intent is READONLY
            assert consistency is not STRONG
            assert not (seen and consistency is SESSION)


def test_without_replicas_reads_go_to_the_primary() -> None:
    """No usable replica is a reason of its own; a stronger reason comes first."""
    assert decide(Reason.READ, WITHOUT) == to_primary(WITHOUT, Reason.NO_REPLICA)
    assert decide(Reason.READ, WITHOUT, consistency=STRONG).reason is Reason.STRONG
    assert decide(Reason.READ, WITHOUT, seen=WROTE).reason is Reason.NO_REPLICA, "whatever it has seen"


@pytest.mark.parametrize(
    ("snapshot", "readonly", "consistency", "wrote", "reason"),
    [
        (WITH, False, EVENTUAL, False, Reason.TRANSACTION),
        (WITHOUT, False, SESSION, True, Reason.TRANSACTION),
        (WITH, True, SESSION, False, Reason.READ_TRANSACTION),
        (WITH, True, EVENTUAL, True, Reason.READ_TRANSACTION),
        (WITH, True, SESSION, True, Reason.OWN_WRITE),
        (WITH, True, STRONG, False, Reason.STRONG),
        (WITHOUT, True, SESSION, False, Reason.NO_REPLICA),
    ],
)
def test_transactions(
    snapshot: Snapshot, readonly: bool, consistency: Consistency, wrote: bool, reason: Reason
) -> None:
    """A transaction goes to the primary unless it is declared read-only and a replica would do for a read."""
    seen = WROTE if wrote else None
    route = decide_transaction(snapshot, readonly=readonly, consistency=consistency, seen=seen)
    assert route.reason is reason
    assert route.role is (Role.REPLICA if reason is Reason.READ_TRANSACTION else Role.PRIMARY)
