"""Where a read goes that must not be too old: truth tables over what is known of the replicas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.consistency import Bounded, Consistency
from router.frontier import Frontier
from router.positions import Lsn, MariadbGtid
from router.reasons import Reason
from router.routing import (
    Intent,
    Progress,
    Reign,
    Route,
    Snapshot,
    decide,
    decide_transaction,
    reached,
    since,
)
from router.topology import Node, Role

PRIMARY = Node("p", "main", Role.PRIMARY)
R1, R2 = NODES = tuple(Node(f"r{number}", "main", Role.REPLICA) for number in (1, 2))
SESSION, EVENTUAL, STRONG = Consistency.SESSION, Consistency.EVENTUAL, Consistency.STRONG
WAIT = 0.05


def known(position: int, current: float, *, at: float = 10.0, lag: float = 0.0, size: int = 0) -> Progress:
    """Return what is known of a replica: its position, and up to when it has all."""
    return Progress(Lsn(position), current, at, lag, size)


AHEAD, BEHIND, FAR = known(100, 9.0), known(50, 5.0), known(50, 5.0, lag=1.0, size=50)


def cluster(
    progress: Mapping[Node, Progress] | None = None, *, replicas: tuple[Node, ...] = NODES, asked: float = 9.0
) -> Snapshot:
    """Return what is known of a cluster whose primary was last asked at ``asked``."""
    progress = {R1: AHEAD, R2: BEHIND} if progress is None else progress
    currents = [progress.get(node, Progress()) for node in replicas]
    return Snapshot(
        PRIMARY,
        replicas,
        reign=Reign("1", "id", asked=asked),
        progress=progress,
        current=min((each.current for each in currents), default=-inf),
        asked=min((each.at for each in currents), default=-inf),
    )


@dataclass
class Seen:
    """Say what a session has seen."""

    wrote: float | None = None
    primary: float | None = None
    replica: tuple[Node, float] | None = None
    goal: int | None = None
    rests_until: float = -inf
    more: dict[str, Any] = field(default_factory=dict)

    def frontier(self) -> Frontier:
        made = Frontier()
        if self.wrote is not None:
            made.note_write(self.wrote)
        if self.primary is not None:
            made.note_primary(self.primary)
        if self.replica is not None:
            made.move(self.replica[0])
            made.note_replica(*self.replica, self.replica[1], -inf)
        made.goal = None if self.goal is None else Lsn(self.goal)
        made.rests_until = self.rests_until
        return made


def route(seen: Seen, snapshot: Snapshot, **given: Any) -> tuple[Reason, tuple[Node, ...]]:
    """Return reason and candidates of a proven read at 11.0, with 50 ms to wait."""
    made = decide(Reason.READ, snapshot, **{"seen": seen.frontier(), "now": 11.0, "patience": WAIT, **given})
    assert {node.role for node in made.candidates} == {made.role}
    assert made.behind is (made.reason in BEHIND_REASONS)
    return made.reason, made.candidates


BEHIND_REASONS = {
    Reason.OWN_WRITE,
    Reason.SEEN_ON_PRIMARY,
    Reason.READ_AHEAD,
    Reason.TOKEN_AHEAD,
    Reason.TOO_STALE,
}
TO_PRIMARY = (PRIMARY,)
UNKNOWN: dict[Node, Progress] = {}
LATE = {R1: FAR, R2: FAR}

# what the session has seen, what is known of the replicas, when the primary was asked -> reason, candidates
SESSIONS = {
    "nothing seen": (Seen(), None, 9.0, Reason.READ, NODES),
    "nothing seen, nothing known": (Seen(), UNKNOWN, -inf, Reason.READ, NODES),
    "all replicas have the write": (Seen(wrote=5.0), None, 9.0, Reason.CAUGHT_UP, NODES),
    "one replica has the write": (Seen(wrote=7.0), None, 9.0, Reason.CAUGHT_UP, (R1,)),
    "exactly the write": (Seen(wrote=9.0), None, 9.0, Reason.CAUGHT_UP, (R1,)),
    "a write since all were asked": (Seen(wrote=9.5), None, 9.0, Reason.OWN_WRITE, TO_PRIMARY),
    "a write, nothing known": (Seen(wrote=1.0), UNKNOWN, -inf, Reason.OWN_WRITE, TO_PRIMARY),
    "a write that the primary had when asked": (Seen(wrote=9.5), None, 9.6, Reason.CHECKED, (R1,)),
    "but no replica is near": (Seen(wrote=9.5), {R1: FAR, R2: FAR}, 9.6, Reason.OWN_WRITE, TO_PRIMARY),
    "only the late one is left out": (Seen(wrote=9.5), {R1: FAR, R2: BEHIND}, 9.6, Reason.CHECKED, (R2,)),
    "lag not known": (Seen(wrote=9.5), {R1: known(50, 5.0, lag=inf)}, 9.6, Reason.OWN_WRITE, TO_PRIMARY),
    "it rests after it waited in vain": (
        Seen(wrote=9.5, rests_until=11.5), None, 9.6, Reason.OWN_WRITE, TO_PRIMARY
    ),
    "its rest is over": (Seen(wrote=9.5, rests_until=11.0), None, 9.6, Reason.CHECKED, (R1,)),
    "seen on the primary": (Seen(primary=7.0), None, 9.0, Reason.CAUGHT_UP, (R1,)),
    "merely seen: the primary may be asked": (Seen(primary=9.5), None, 9.0, Reason.CHECKED, (R1,)),
    "merely seen, all late": (Seen(primary=9.5), LATE, 9.0, Reason.SEEN_ON_PRIMARY, TO_PRIMARY),
    "seen after a write that a replica has": (Seen(wrote=8.0, primary=9.5), None, 9.0, Reason.CHECKED, (R1,)),
    "seen after a write of none": (Seen(wrote=9.2, primary=9.5), None, 9.0, Reason.OWN_WRITE, TO_PRIMARY),
    "it stays on its replica": (Seen(replica=(R2, 8.0)), None, 9.0, Reason.READ, NODES),
    "its replica has the write": (Seen(wrote=4.0, replica=(R2, 8.0)), None, 9.0, Reason.CAUGHT_UP, NODES),
    "only the other has it": (Seen(wrote=7.0, replica=(R2, 6.0)), None, 9.0, Reason.CAUGHT_UP, (R1,)),
    "its replica lacks the write, the other what it read": (
        Seen(wrote=7.0, replica=(R2, 9.5)), {R1: AHEAD, R2: FAR}, 9.0, Reason.OWN_WRITE, TO_PRIMARY
    ),
    "its own replica need not show more than it has": (
        Seen(wrote=7.0, replica=(R2, 9.5)), None, 9.0, Reason.CHECKED, (R2,)
    ),
    "all have reached the token": (Seen(goal=50), None, 9.0, Reason.CAUGHT_UP, NODES),
    "one has reached the token": (Seen(goal=51), None, 9.0, Reason.CAUGHT_UP, (R1,)),
    "none has, all may soon": (Seen(goal=101), None, 9.0, Reason.CHECKED, (R1,)),
    "none has, all are late": (Seen(goal=101), {R1: FAR, R2: FAR}, 9.0, Reason.TOKEN_AHEAD, TO_PRIMARY),
    "a token, nothing known": (Seen(goal=1), UNKNOWN, 9.0, Reason.TOKEN_AHEAD, TO_PRIMARY),
    "a token and a write: each from another": (
        Seen(wrote=7.0, goal=60), {R1: known(55, 9.0, lag=1), R2: known(70, 5.0, lag=1)}, 9.0,
        Reason.READ_AHEAD, TO_PRIMARY,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "progress", "asked", "reason", "candidates"), SESSIONS.values(), ids=SESSIONS
)
def test_a_session_reads_where_all_is_that_it_has_seen(
    seen: Seen, progress: Any, asked: float, reason: Reason, candidates: Any
) -> None:
    """On replicas known to have it, else on one that is asked first, else on the primary; and says why."""
    found, nodes = route(seen, cluster(progress, asked=asked))
    if seen.goal is not None and seen.wrote is not None:
        assert nodes == candidates  # either word for it will do
        return
    assert (found, nodes) == (reason, candidates)


def test_another_replica_must_have_what_the_one_that_failed_has_shown() -> None:
    """After a failure, and where the session's replica is not used any more."""
    stays = Seen(replica=(R1, 8.0))
    assert route(stays, cluster(), without=(R1,)) == (Reason.CHECKED, (R2,))
    assert route(stays, cluster({R2: FAR}), without=(R1,)) == (Reason.READ_AHEAD, TO_PRIMARY)
    assert route(stays, cluster({R2: AHEAD}), without=(R1,)) == (Reason.CAUGHT_UP, (R2,))
    assert route(stays, cluster({R2: AHEAD}, replicas=(R2,))) == (Reason.CAUGHT_UP, (R2,))
    assert route(stays, cluster({R2: FAR}, replicas=(R2,))) == (Reason.READ_AHEAD, TO_PRIMARY)
    assert route(stays, cluster({R2: BEHIND}, replicas=(R2,))) == (Reason.CHECKED, (R2,))


def test_when_all_replicas_have_failed_the_primary_is_left() -> None:
    """For each level; that is no lack of news, so that no StaleReadError comes of it."""
    for consistency in (SESSION, EVENTUAL, Bounded(seconds=1.0)):
        found = decide(
            Reason.READ, cluster(), consistency=consistency, seen=Seen(wrote=5.0).frontier(), without=NODES
        )
        assert found == Route(TO_PRIMARY, Role.PRIMARY, Reason.REPLICA_FAILED)


def test_replicas_that_are_always_current_need_no_news() -> None:
    """SQLite's readers see every commit: nothing that a session has seen sends it to the primary."""
    readers = Snapshot(PRIMARY, NODES, current=inf)
    for seen in (
        Seen(wrote=9.0),
        Seen(primary=9.0),
        Seen(replica=(R1, 9.0)),
        Seen(wrote=1.0, replica=(R2, 9.0)),
    ):
        assert route(seen, readers) == (Reason.READ, NODES)


def test_of_current_replicas_any_replaces_the_one_that_failed() -> None:
    """A reader that is lost or banned is no reason to leave the readers."""
    readers, seen = Snapshot(PRIMARY, NODES, current=inf), Seen(replica=(R1, 9.0))
    assert route(seen, readers, without=(R1,))[1] == (R2,)
    assert route(seen, Snapshot(PRIMARY, (R2,), current=inf))[1] == (R2,)


def test_levels_without_a_session_do_not_look_at_it() -> None:
    """Eventual takes any replica, strong none, whatever the session has seen."""
    seen = Seen(wrote=9.5, goal=1000)
    assert route(seen, cluster(), consistency=EVENTUAL) == (Reason.READ, NODES)
    assert route(seen, cluster(), consistency=STRONG) == (Reason.STRONG, TO_PRIMARY)
    assert route(seen, cluster(), consistency=Bounded(seconds=8.0)) == (Reason.READ, NODES)


BOUNDS = {
    "all are near enough": (Bounded(seconds=6.0), None, 9.0, Reason.READ, NODES),
    "one is": (Bounded(seconds=2.5), None, 9.0, Reason.READ, (R1,)),
    "none is known to be": (Bounded(seconds=1.0), None, 9.0, Reason.TOO_STALE, TO_PRIMARY),
    "exactly": (Bounded(seconds=2.0), None, 9.0, Reason.READ, (R1,)),
    "the primary's position is younger": (Bounded(seconds=1.0), None, 10.5, Reason.CHECKED, (R1,)),
    "all too late to be asked": (Bounded(seconds=1.0), LATE, 10.5, Reason.TOO_STALE, TO_PRIMARY),
    "nothing known": (Bounded(seconds=1.0), UNKNOWN, -inf, Reason.TOO_STALE, TO_PRIMARY),
    "bytes": (Bounded(size=49), {R1: AHEAD, R2: FAR}, 9.0, Reason.READ, (R1,)),
    "exactly the bytes": (Bounded(size=50), {R1: AHEAD, R2: FAR}, 9.0, Reason.READ, NODES),
    "bytes of none": (Bounded(size=49), {R1: FAR, R2: FAR}, 9.0, Reason.TOO_STALE, TO_PRIMARY),
    "bytes not known": (Bounded(size=1), {R1: AHEAD._replace(size=None)}, 9.0, Reason.TOO_STALE, TO_PRIMARY),
    "both bounds, each from another": (
        Bounded(seconds=2.5, size=10), {R1: known(50, 9.0, size=50), R2: known(99, 5.0, size=1)}, 9.0,
        Reason.TOO_STALE, TO_PRIMARY,
    ),
    "both bounds": (
        Bounded(seconds=2.5, size=50), {R1: known(50, 9.0, size=50), R2: known(99, 5.0, size=1)}, 9.0,
        Reason.READ, (R1,),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("bound", "progress", "asked", "reason", "candidates"), BOUNDS.values(), ids=BOUNDS)
def test_a_bounded_read_goes_where_rows_are_known_to_be_young_enough(
    bound: Bounded, progress: Any, asked: float, reason: Reason, candidates: Any
) -> None:
    """Both bounds hold if both are given; what is not known is too old."""
    assert route(Seen(), cluster(progress, asked=asked), consistency=bound) == (reason, candidates)


def test_bounds_are_kept_after_a_failure_too() -> None:
    """The replica that is left must be near enough as well."""
    bound, far = Bounded(seconds=2.5), cluster({R1: AHEAD, R2: FAR})
    assert route(Seen(), cluster(), consistency=bound, without=(R1,)) == (Reason.CHECKED, (R2,))
    assert route(Seen(), far, consistency=bound, without=(R1,)) == (Reason.TOO_STALE, TO_PRIMARY)
    assert route(Seen(), far, consistency=bound, without=(R2,)) == (Reason.READ, (R1,))


def test_without_a_primary_a_read_that_needs_it_waits() -> None:
    """No candidate means that a primary is waited for; old rows are shown to nobody instead."""
    headless = cluster()
    headless = Snapshot(
        None, NODES, reign=headless.reign, progress=headless.progress, current=5.0, asked=10.0
    )
    found = decide(Reason.READ, headless, seen=Seen(wrote=9.5).frontier(), now=11.0, patience=-inf)
    assert found == Route((), Role.PRIMARY, Reason.OWN_WRITE, behind=True)
    found = decide(Reason.READ, headless, seen=Seen(wrote=7.0).frontier(), now=11.0, patience=WAIT)
    assert found == Route((R1,), Role.REPLICA, Reason.CAUGHT_UP)


def test_positions_of_another_engine_reach_nothing() -> None:
    """A cluster may have got another engine since a token was made."""
    gtid = MariadbGtid({0: 5})
    assert not reached(Lsn(1 << 40), gtid) and not reached(gtid, Lsn(0))
    assert reached(gtid, MariadbGtid({0: 5})) and not reached(gtid, MariadbGtid({0: 6}))


@pytest.mark.parametrize("readonly", [True, False])
def test_read_only_transactions_follow_the_same_rules(readonly: bool) -> None:
    """With the same reasons; one that may write is on the primary whatever is known."""

    def begin(seen: Seen, **given: Any) -> tuple[Reason, tuple[Node, ...]]:
        made = decide_transaction(
            cluster(), **{"readonly": readonly, "consistency": SESSION, "seen": seen.frontier(), "now": 11.0,
                          "patience": WAIT, **given}
        )  # fmt: skip
        return made.reason, made.candidates

    if not readonly:
        assert begin(Seen()) == begin(Seen(wrote=1.0)) == (Reason.TRANSACTION, TO_PRIMARY)
        return
    assert begin(Seen()) == (Reason.READ_TRANSACTION, NODES)
    assert begin(Seen(wrote=7.0)) == (Reason.CAUGHT_UP, (R1,))
    assert begin(Seen(wrote=9.5)) == (Reason.OWN_WRITE, TO_PRIMARY)
    assert begin(Seen(replica=(R1, 8.0)), without=(R1,)) == (Reason.CHECKED, (R2,))
    assert begin(Seen(replica=(R1, 9.5)), without=(R1,)) == (Reason.CHECKED, (R2,))
    assert begin(Seen(wrote=9.5), consistency=STRONG) == (Reason.STRONG, TO_PRIMARY)
    assert begin(Seen(), consistency=Bounded(seconds=1.0)) == (Reason.TOO_STALE, TO_PRIMARY)


# --- which connections may be believed -------------------------------------------------------------------

WRITTEN = Seen(wrote=5.0).frontier()


@pytest.mark.parametrize(
    ("seen", "consistency", "expected"),
    [
        (Seen(), SESSION, inf),  # nothing to fall behind
        (Seen(wrote=5.0), SESSION, 8.0),  # the first of the answers that it relies on
        (Seen(goal=50), SESSION, 8.0),
        (Seen(replica=(R1, 7.0)), SESSION, 7.0),  # what it has shown, it had then
        (Seen(wrote=5.0, replica=(R1, 7.0)), SESSION, 7.0),
        (Seen(wrote=5.0, replica=(R1, 9.5)), SESSION, 8.0),
        (Seen(wrote=5.0), EVENTUAL, inf),
        (Seen(wrote=5.0), Bounded(seconds=9.0), 8.0),
    ],
)
def test_a_connection_is_believed_if_it_is_older_than_what_is_known(
    seen: Seen, consistency: Any, expected: float
) -> None:
    """A younger one may lead to a server that has restarted, and shows an older state for a while."""
    progress = {R1: known(100, 9.0, at=10.0), R2: known(50, 5.0, at=8.0)}
    snapshot = cluster(progress)
    made = decide(Reason.READ, snapshot, consistency=consistency, seen=seen.frontier(), now=11.0)
    assert made.role is Role.REPLICA
    assert since(made, snapshot, seen.frontier(), consistency) == expected


def test_who_is_to_be_asked_is_asked_whatever_the_connection() -> None:
    """Nothing is known to rely on; but nothing needs to be known of replicas that are always current."""
    snapshot = cluster(asked=9.6)
    made = decide(Reason.READ, snapshot, seen=Seen(wrote=9.5).frontier(), now=11.0, patience=WAIT)
    assert since(made, snapshot, Seen(wrote=9.5).frontier(), SESSION) == -inf
    readers = Snapshot(PRIMARY, NODES, current=inf)
    made = decide(Reason.READ, readers, seen=WRITTEN)
    assert since(made, readers, WRITTEN, SESSION) == inf


# --- all of it -------------------------------------------------------------------------------------------

moments = st.integers(0, 12).map(float)
progresses = st.builds(
    lambda position, current, lag, late: Progress(Lsn(position), current, max(current, late), lag, 0),
    st.integers(0, 12), moments, st.sampled_from([0.0, 0.04, 1.0, inf]), moments,
)  # fmt: skip
seens = st.builds(
    Seen,
    wrote=st.none() | moments,
    primary=st.none() | moments,
    replica=st.none() | st.tuples(st.sampled_from(NODES), moments),
    goal=st.none() | st.integers(0, 12),
)


@given(
    seens,
    st.dictionaries(st.sampled_from(NODES), progresses),
    moments,
    st.sampled_from([(), (R1,), (R2,)]),
    st.sampled_from([Intent.AUTO, Intent.READONLY]),
)
def test_no_route_leads_behind_what_the_session_has_seen(
    seen: Seen, progress: dict[Node, Progress], asked: float, without: Any, intent: Intent
) -> None:
    """A replica that is not asked first has all of it, or is the one that has shown it itself."""
    session = seen.frontier()
    found = decide(
        Reason.READ, cluster(progress, asked=asked), intent=intent, seen=session, now=13.0, patience=WAIT,
        without=without,
    )  # fmt: skip
    assert not set(found.candidates) & set(without)
    if found.role is Role.PRIMARY or found.reason is Reason.CHECKED:
        return
    for node in found.candidates:
        # of all that are named the session takes its own replica first
        if session.replica in found.candidates and node is not session.replica:
            continue
        each = progress.get(node, Progress())
        assert each.current >= session.required(node)
        assert session.goal is None or (each.position is not None and each.position.reached(session.goal))
