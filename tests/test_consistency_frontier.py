"""What a session has seen: nothing that it takes note of lets its reads fall behind that again."""

import math

from hypothesis import given
from hypothesis import strategies as st

from router.frontier import Frontier
from router.positions import Lsn
from router.reasons import Reason
from router.tokens import Point
from router.topology import Node, Role

NODES = tuple(Node(f"r{number}", "main", Role.REPLICA) for number in range(3))
R1, R2, R3 = NODES
POINT = Point("main", "id", "1", Lsn(7))


def seen(*, wrote: float | None = None, read: tuple[Node, float] | None = None) -> Frontier:
    """Return what a session has seen that has done this."""
    made = Frontier()
    if wrote is not None:
        made.note_write(wrote)
    if read is not None:
        made.move(read[0])
        made.note_replica(*read, read[1], -math.inf)
    return made


def test_who_has_seen_nothing_needs_nothing() -> None:
    """A new session may read anywhere, and no failover can have cost it anything."""
    fresh = Frontier()
    assert {fresh.required(node) for node in NODES} == {-math.inf}
    assert fresh.restarted() == -math.inf
    assert fresh.since == math.inf
    assert not fresh.wrote


def test_own_writes_are_required_everywhere() -> None:
    """Whichever replica it is, also the one that the session reads from."""
    session = seen(wrote=5.0, read=(R1, 4.0))
    assert [session.required(node) for node in NODES] == [5.0] * 3
    assert session.wrote and session.cause is Reason.OWN_WRITE


def test_what_was_read_on_a_replica_is_required_of_the_others_only() -> None:
    """It has itself what it has shown; unless it has restarted meanwhile."""
    session = seen(read=(R1, 4.0))
    assert session.required(R1) == -math.inf
    assert session.required(R2) == session.required(R3) == 4.0
    assert session.restarted() == 4.0


def test_a_read_on_the_primary_counts_as_a_write_does() -> None:
    """It saw what the replicas may not have yet; the older moment of a late answer changes nothing."""
    session = seen(wrote=3.0)
    session.note_primary(4.0)
    assert (session.moment, session.cause, session.wrote_at) == (4.0, Reason.SEEN_ON_PRIMARY, 3.0)
    session.note_primary(3.5)
    assert session.moment == 4.0


def test_a_move_takes_what_was_read_along() -> None:
    """From then on it is required of every replica, the former one included."""
    session = seen(read=(R1, 4.0))
    session.move(R2)
    assert (session.moment, session.cause) == (4.0, Reason.READ_AHEAD)
    assert session.required(R2) == session.required(R1) == 4.0
    session.note_replica(R2, 6.0, 6.0, -math.inf)
    assert (session.required(R2), session.required(R1)) == (4.0, 6.0)


def test_of_two_reads_that_went_different_ways_none_is_forgotten() -> None:
    """An answer of a replica that the session has left meanwhile is required of the present one."""
    session = seen(read=(R1, 4.0))
    session.move(R2)
    session.note_replica(R1, 5.0, 5.0, -math.inf)
    assert session.required(R2) == 5.0


def test_a_session_follows_another_with_all_that_it_has_seen() -> None:
    """Its writes, what it has read and where, and the tokens that it goes by or has not looked at yet."""
    other = seen(wrote=3.0, read=(R1, 4.0))
    other.pending, other.carried = (POINT,), (POINT,)
    session = Frontier()
    session.follow(other)
    assert (session.moment, session.wrote_at, session.replica, session.read_at) == (3.0, 3.0, R1, 4.0)
    assert session.pending == (POINT, POINT)
    session.follow(seen(read=(R2, 9.0)))
    assert session.required(R1) == session.required(R3) == 9.0


def test_to_start_over_forgets_what_the_former_primary_had() -> None:
    """Only a failover may do that: what is required then is the new primary's."""
    session = seen(wrote=3.0, read=(R1, 4.0))
    session.start_over(8.0)
    assert {session.required(node) for node in NODES} == {8.0}
    assert session.cause is Reason.OLD_REIGN
    assert session.since == 8.0


def test_to_start_over_keeps_what_the_new_primary_was_seen_to_have() -> None:
    """A session that follows two, one from before a failover and one from after it, sees both's past."""
    session = seen(read=(R1, 1.0))
    session.follow(seen(wrote=9.0))
    assert (session.since, session.before(5.0)) == (1.0, 1.0)
    session.start_over(5.0)
    assert {session.required(node) for node in NODES} == {9.0}
    assert (session.wrote_at, session.cause, session.since) == (9.0, Reason.OWN_WRITE, 9.0)


def test_what_a_former_primary_answers_late_takes_nothing_back() -> None:
    """It is noted as of the reign before, and what the session has seen of the new one stays required."""
    for late in (Frontier.note_write, Frontier.note_primary):
        session = seen(wrote=9.0)
        late(session, 4.9)
        assert (session.moment, session.since, session.before(5.0)) == (9.0, 4.9, 4.9)


def test_the_later_of_two_pasts_does_not_hide_the_earlier() -> None:
    """What one session wrote before a failover is looked at although the other has written since."""
    session = seen(wrote=3.0)
    session.follow(seen(wrote=9.0))
    assert (session.moment, session.since, session.before(5.0)) == (9.0, 3.0, 3.0)


def test_of_several_pasts_the_last_before_a_failover_counts() -> None:
    """What was seen last of the former primary may be lost where what was seen first is not."""
    early, late = seen(wrote=1.0), seen(wrote=4.0)
    late.follow(early)
    session = Frontier()
    for each in (late, seen(wrote=9.0), seen(wrote=8.0)):
        session.follow(each, 5.0)
    assert (session.moment, session.since, session.before(5.0)) == (9.0, 1.0, 4.0)
    session.start_over(5.0)
    assert session.since == 9.0


Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["write", "primary", "replica", "move", "follow"]), st.integers(0, 2)),
    max_size=30,
)


def take(session: Frontier, step: Step, at: float) -> None:
    """Let a session take one step at a time."""
    kind, number = step
    node = NODES[number]
    match kind:
        case "write":
            session.note_write(at)
        case "primary":
            session.note_primary(at)
        case "move":
            session.move(node)
        case "replica":  # as requests do: they move before they read
            if session.replica is None:
                session.move(node)
            session.note_replica(node, at, at, -math.inf)
        case "follow":
            session.follow(seen(wrote=at - 0.5 if number else None, read=(node, at)))


@given(steps)
def test_nothing_lets_the_requirement_go_down(taken: list[Step]) -> None:
    """Whatever is noted in whatever order: of each replica as much is required as before, or more.

    A replica is excused from what it has shown itself, while the session stays there; a restart ends that.
    """
    session = Frontier()
    shown: dict[Node, float] = {}  # what each replica has shown to the session
    anywhere = -math.inf  # what the session has seen, wherever
    for number, step in enumerate(taken):
        at = float(number)
        before = session.moment
        take(session, step, at)
        if step[0] in ("replica", "follow"):
            shown[NODES[step[1]]] = at
        if step[0] != "move":
            anywhere = at
        assert session.moment >= before
        assert session.restarted() >= anywhere
        for node in NODES:
            elsewhere = max((then for each, then in shown.items() if each is not node), default=-math.inf)
            assert session.required(node) >= elsewhere
        assert session.since <= session.restarted() or session.since == math.inf


@given(steps, steps)
def test_who_follows_requires_as_much_as_who_is_followed(first: list[Step], second: list[Step]) -> None:
    """Of every replica, whatever both have seen before."""
    one, other = Frontier(), Frontier()
    for session, taken in ((one, first), (other, second)):
        for number, step in enumerate(taken):
            take(session, step, float(number))
    needed = {node: max(one.required(node), other.required(node)) for node in NODES}
    restarted = max(one.restarted(), other.restarted())
    one.follow(other)
    assert all(one.required(node) >= needed[node] for node in NODES)
    assert one.restarted() >= restarted
