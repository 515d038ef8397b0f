"""Where the primary was, and when: what makes a replica's position mean "it has all until then"."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.health import Health
from router.lineage import Lineage
from router.positions import Lsn, MariadbGtid
from router.routing import Progress
from router.servers import Rules, Server
from router.standing import History, Limits, Observation
from router.topology import Cluster, Node, Role
from tests.test_breaker import Middle
from tests.test_pool import Clock

PRIMARY = Node("primary", "main", Role.PRIMARY, "db", 1)
R1, R2 = (Node(name, "main", Role.REPLICA, "db", 2) for name in ("r1", "r2"))


def history(*seen: tuple[float, int]) -> History:
    made = History()
    for at, position in seen:
        made.add(at, Lsn(position))
    return made


# --- positions for moments, and moments for positions ----------------------------------------------------


def test_a_position_asked_for_later_holds_what_was_committed_before() -> None:
    """Of those known the least one; none if the primary was not asked since."""
    known = history((1, 10), (2, 20), (3, 30))
    assert [known.after(moment) for moment in (0.5, 1.0, 1.5, 2.0, 3.0)] == [*map(Lsn, (10, 10, 20, 20, 30))]
    assert known.after(3.1) is None
    assert History().after(0.0) is None


def test_an_idle_primary_still_stands_where_it_stood() -> None:
    """Being asked again is news, though the answer is the same."""
    known = history((1, 10), (2, 20), (5, 20), (9, 20))
    assert known.after(8.0) == Lsn(20)
    assert known.current(Lsn(20)) == 9.0
    assert known.current(Lsn(19)) == 1.0


def test_a_replica_is_current_up_to_the_last_position_that_it_has_reached() -> None:
    """To the moment when the primary was asked for it, and no later."""
    known = history((1, 10), (2, 20), (3, 30))
    assert [known.current(Lsn(each)) for each in (9, 10, 25, 30, 99)] == [-math.inf, 1.0, 2.0, 3.0, 3.0]
    assert known.current(None) == History().current(Lsn(1)) == -math.inf


def test_what_comes_late_changes_nothing() -> None:
    """An answer to a question that was asked before the last known one is old news."""
    known = history((1, 10), (3, 30))
    known.add(2, Lsn(99))
    assert (known.last, known.asked, known.after(2.0)) == (Lsn(30), 3, Lsn(30))


def test_a_server_that_counts_nothing_proves_nothing() -> None:
    """An empty position is reached by everybody: nothing follows from that."""
    known = History()
    known.add(1.0, MariadbGtid({}))
    assert known.after(0.5) is None
    assert known.current(MariadbGtid({})) == -math.inf


@given(
    st.lists(
        st.tuples(st.sampled_from(["commit", "ask", "ask late"]), st.sampled_from([0.0, 0.25, 1.0, 3.0])),
        max_size=40,
    ),
    st.integers(1, 6),
    st.sampled_from([2.0, 120.0]),
)
def test_no_answer_of_a_history_is_unsound(steps: list[tuple[str, float]], most: int, span: float) -> None:
    """Whoever has reached ``after(m)`` has all committed before m; and nobody is more current than he is.

    Whatever is committed and asked when, and however much was forgotten.
    """
    known, now, lsn = History(span, most), 0.0, 1
    commits: list[tuple[float, int]] = []  # when, and the position that holds it
    for kind, wait in steps:
        now += wait
        if kind == "commit":
            lsn += 1
            commits.append((now, lsn))
        elif kind == "ask":
            known.add(now, Lsn(lsn))
        else:  # more was committed between the question and its answer
            lsn += 1
            commits.append((now, lsn))
            known.add(now - wait, Lsn(lsn))
    moments = sorted({0.0, now, *(at + more for at, _ in commits for more in (-0.125, 0.0, 0.125))})
    for moment in moments:
        position = known.after(moment)
        if position is not None:
            assert isinstance(position, Lsn)
            assert all(position.value >= there for at, there in commits if at < moment)
    for value in range(lsn + 2):
        current = known.current(Lsn(value))
        assert all(there <= value for at, there in commits if at < current)


# --- who led, and what was handed over -------------------------------------------------------------------


def server(name: str, role: Role = Role.REPLICA) -> Server:
    return Server.of(Node(name, "main", role))


def replica(at: float, position: int | None, timeline: int | None = None) -> Observation:
    return Observation(at, False, None if position is None else Lsn(position), timeline, "id")


def leader(at: float, position: int, reign: str) -> Observation:
    return Observation(at, True, Lsn(position), int(reign), "id", reign)


def lineage(*asked: tuple[float, int]) -> Lineage:
    """Return the lineage of a primary of reign 1 that was asked so."""
    made, first = Lineage(), server("a", Role.PRIMARY)
    for at, position in asked:
        first.seen = leader(at, position, "1")
        made.led_by(first, at)
        made.reign(first)
    return made


def promoted(made: Lineage, at: float, had: int | None, began: int, reign: str, follows: str = "1") -> Server:
    """Let another server take over at ``at``; it had got to ``had`` of a reign and begins at ``began``."""
    new = server(f"of-{reign}")
    new.before = None if had is None else replica(at - 1, had)
    new.follows = frozenset({follows})
    new.seen = leader(at, began, reign)
    made.turn(new, at)
    made.reign(new)
    return new


def test_what_the_new_primary_had_before_it_took_over_has_survived() -> None:
    """Known only by the last position it showed as a replica; what came after may be there or not."""
    made = lineage((1, 10), (2, 20), (3, 30))
    promoted(made, 5.0, 20, 31, "2")
    assert made.survived(1.5) and made.survived(2.0)
    assert not made.survived(2.5)  # the replica is not known to have got that far
    assert not made.survived(3.5)  # nor was the old primary asked since


def test_nothing_is_known_to_have_survived_in_a_server_not_seen_before() -> None:
    """It may have been set up from an old backup."""
    made = lineage((1, 10))
    assert not made.survived(0.5)  # there was no turn: nobody needs to ask
    promoted(made, 5.0, None, 31, "2")
    assert not made.survived(0.5)


def test_a_token_of_the_reign_before_is_received_lost_or_unknown() -> None:
    """Received if the new primary had it as a replica; lost if it began below it; else nobody knows."""
    made = lineage((1, 10), (3, 30))
    promoted(made, 5.0, 20, 25, "2")
    assert made.received("1", Lsn(20)) is True
    assert made.received("1", Lsn(23)) is None
    assert made.received("1", Lsn(26)) is False
    assert made.received("7", Lsn(20)) is None  # a reign that was never seen
    assert made.received("7", Lsn(26)) is False  # but beyond all that there is


def test_what_the_new_primary_wrote_itself_brings_nothing_back() -> None:
    """Its log grows past the positions that were lost: they are lost all the same."""
    made = lineage((1, 10), (3, 30))
    new = promoted(made, 5.0, 20, 25, "2")
    new.seen = leader(9.0, 99, "2")
    made.led_by(new, 9.0)
    assert made.received("1", Lsn(26)) is False


def test_survival_of_two_failovers_is_not_judged_by_the_second() -> None:
    """What the first one may have lost is not in question any more when the second one comes."""
    made = lineage((1, 10), (3, 30))
    second = promoted(made, 5.0, 10, 12, "2")  # 3.0 is not known to have survived this
    second.seen = leader(6.0, 40, "2")
    made.led_by(second, 6.0)
    promoted(made, 9.0, 40, 41, "3", "2")  # this lost nothing of what it was asked for at 6.0
    assert made.survived(6.0)
    assert not made.survived(2.5)


def test_nothing_survives_in_a_server_that_did_not_follow() -> None:
    """It was left on another branch of history, and counts as far by other writes."""
    made = lineage((1, 10), (3, 30))
    promoted(made, 5.0, 30, 31, "2")
    promoted(made, 9.0, 99, 100, "3", follows="1")
    assert not made.survived(5.0)
    assert made.received("2", Lsn(31)) is None


def test_a_position_that_the_primary_has_not_reached_is_of_nobody() -> None:
    """Once the primary was asked since the token came; before that it may just be new."""
    made = lineage((1, 10), (3, 30))
    assert made.beyond(Lsn(31), 3.0)
    assert not made.beyond(Lsn(31), 3.5)
    assert not made.beyond(Lsn(30), 3.0)
    assert made.beyond(MariadbGtid({0: 1}), 3.0)
    assert not Lineage().beyond(Lsn(1), 0.0)


def test_the_new_primary_s_history_is_its_own() -> None:
    """Positions of the former one stand for moments of its own time only."""
    made = lineage((1, 10), (3, 30))
    promoted(made, 5.0, 20, 31, "2")
    assert made.after(4.0) == Lsn(31)
    assert made.history.current(Lsn(30)) == -math.inf
    assert made.position == Lsn(31)


def test_a_server_that_leads_in_another_reign_is_another_primary() -> None:
    """Behind one address another server was promoted, or the same one went back to a backup."""
    made, first = lineage((1, 10), (3, 30)), server("a", Role.PRIMARY)
    first.before, first.seen = leader(3.0, 30, "1"), leader(5.0, 25, "2")
    made.led_by(first, 5.5)
    reign = made.reign(first)
    assert (reign.name, reign.began) == ("2", 5.5)
    assert made.received("1", Lsn(28)) is False
    assert not made.survived(2.0)
    assert made.after(4.0) == Lsn(25)


# --- what requests are told of it ------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    made = Health(
        Cluster("main", "postgresql", PRIMARY, (R1, R2)),
        clock,
        rules=Rules(Limits(10.0, 1000)),
        probed=True,
        rng=Middle(),
    )
    news(made, clock, 0.0, primary=100, r1=100, r2=100)
    return made


def answer(at: float, position: int, *, writable: bool = False, timeline: int = 1) -> Observation:
    """Return what a server says: a replica of which timelines it has something."""
    name = str(timeline)
    if writable:
        return Observation(at, True, Lsn(position), timeline, "id", name)
    return Observation(at, False, Lsn(position), None, "id", follows=frozenset({name}))


def news(health: Health, clock: Clock, after: float = 1.0, **positions: int) -> float:
    """Let servers answer a probe ``after`` seconds later; return when that was."""
    clock.now += after
    for name, position in positions.items():
        writable = name == "primary"
        health.observed(name, answer(clock.now, position, writable=writable))
    return clock.now


def test_a_replica_is_as_current_as_what_it_has_reached(health: Health, clock: Clock) -> None:
    """And the whole cluster as the least current replica."""
    first = clock.now
    second = news(health, clock, primary=150, r1=150, r2=120)
    snapshot = health.snapshot()
    assert (snapshot.progress[R1].current, snapshot.progress[R2].current) == (second, first)
    assert (snapshot.current, snapshot.asked) == (first, second)
    assert snapshot.reign.asked == second


def test_an_answer_stays_true_and_grows_with_the_primary_s(health: Health, clock: Clock) -> None:
    """A replica that was ahead of what was known of the primary is judged anew when that is known."""
    asked = news(health, clock, r1=150)
    before = health.snapshot().progress[R1].current
    assert before < asked
    then = news(health, clock, primary=150)
    assert health.snapshot().progress[R1].current == then


def test_what_a_read_finds_out_is_for_all(health: Health, clock: Clock) -> None:
    """The next read need not ask again; an older answer than the last known one is no news."""
    at = news(health, clock, primary=150)
    assert health.snapshot().progress[R1].current < at
    health.noted("r1", answer(at, 150))
    assert health.snapshot().progress[R1].current == at
    health.noted("r1", answer(at - 0.5, 100))
    assert health.snapshot().progress[R1].position == Lsn(150)
    # a probe that was under way all the while
    health.observed("r1", answer(at - 0.5, 100))
    assert health.snapshot().progress[R1].position == Lsn(150)


def test_who_turns_out_to_be_a_primary_is_asked_by_a_probe(health: Health, clock: Clock) -> None:
    """A read's finding makes nobody the primary, and no position of it counts."""
    poked: list[str] = []
    health.poke = poked.append
    at = news(health, clock, primary=150)
    health.noted("r1", Observation(at, True, Lsn(999), 2, "id", "2"))
    assert poked == ["r1"]
    assert health.snapshot().progress[R1].position == Lsn(100)


def test_news_that_change_no_role_are_no_change(health: Health, clock: Clock) -> None:
    """Positions move all the time: who waits for a change of roles is not woken by them."""
    generation = health.snapshot().generation
    news(health, clock, primary=150, r1=150, r2=150)
    assert health.snapshot().generation == generation


def test_lack_of_news_makes_probes_quick_for_a_while(health: Health, clock: Clock) -> None:
    """All are asked now, and often from then on; many reads that lack news ask for it once."""
    poked: list[str] = []
    health.poke = poked.append
    clock.now += 60  # the alert of the start is over
    news(health, clock, 0.0, primary=200, r1=200, r2=200)
    assert health.interval == health.rules.interval
    for _ in range(5):
        health.wanted()
    assert sorted(poked) == ["primary", "r1", "r2"]
    assert health.interval == health.rules.quick
    clock.now += 3.0
    assert health.interval == health.rules.interval


def test_without_probes_readers_are_current_or_nothing_is_known(clock: Clock) -> None:
    """SQLite's readers see each commit; of others that nobody asks, nothing can be said."""
    readers = Health(Cluster("main", "sqlite", PRIMARY, (R1, R2), replicas_current=True), clock)
    others = Health(Cluster("main", "other", PRIMARY, (R1, R2)), clock)
    assert readers.snapshot().current == math.inf
    assert others.snapshot().current == -math.inf


def test_a_failover_is_a_new_reign_with_a_history_of_its_own(health: Health, clock: Clock) -> None:
    """Nothing that replicas had reached of the old primary counts for the new one's time."""
    news(health, clock, primary=200, r1=200, r2=200)
    clock.now += 1.0
    health.missed("primary", None)
    health.missed("primary", None)
    assert health.snapshot().primary is None
    assert health.snapshot().reign.name == "1"  # while nobody leads, who did
    clock.now += 1.0
    health.observed("r1", Observation(clock.now, True, Lsn(210), 2, "id", "2"))
    reign = health.snapshot().reign
    assert (reign.name, reign.began) == ("2", clock.now)
    assert R2 not in health.snapshot().replicas  # it may have stayed behind with the old one
    health.observed("r2", answer(clock.now, 205))
    assert R2 not in health.snapshot().replicas
    health.observed("r2", answer(clock.now, 205, timeline=2))
    assert health.snapshot().progress[R2].current == -math.inf  # it lacks what the new one had then
    health.observed("r2", answer(clock.now + 0.1, 210, timeline=2))
    assert health.snapshot().progress[R2].current == reign.began


def test_another_reign_behind_the_same_address_is_a_failover_too(health: Health, clock: Clock) -> None:
    """The name of the primary may lead to another server now: what the old one had may be lost."""
    news(health, clock, primary=200, r1=200, r2=200)
    clock.now += 1.0
    health.observed("primary", Observation(clock.now, True, Lsn(150), 2, "id", "2"))
    reign = health.snapshot().reign
    assert (reign.name, reign.began) == ("2", clock.now)
    assert health.snapshot().primary is PRIMARY
    assert health.lineage.received("1", Lsn(190)) is False


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["commit", "replay r1", "replay r2", "ask primary", "ask r1", "ask r2", "note r1"]
            ),
            st.sampled_from([0.0, 0.5, 1.0]),
        ),
        max_size=60,
    )
)
def test_no_replica_counts_as_more_current_than_it_is(steps: list[tuple[str, float]]) -> None:
    """Whatever is asked in whatever order: who is named for a moment had all that was committed before."""
    clock = Clock()
    health = Health(
        Cluster("main", "postgresql", PRIMARY, (R1, R2)),
        clock,
        rules=Rules(Limits(10.0)),
        probed=True,
        rng=Middle(),
    )
    there = {"primary": 100, "r1": 100, "r2": 100}
    news(health, clock, 0.0, **there)
    commits = [(clock.now, 100)]
    for step, wait in steps:
        clock.now += wait
        kind, _, name = step.partition(" ")
        if kind == "commit":
            there["primary"] += 1
            commits.append((clock.now, there["primary"]))
        elif kind == "replay":
            there[name] = min(there[name] + 1, there["primary"])
        elif kind == "ask":
            news(health, clock, 0.0, **{name: there[name]})
        else:
            health.noted(name, answer(clock.now, there[name]))
        snapshot = health.snapshot()
        for node in snapshot.replicas:
            current = snapshot.progress[node].current
            assert all(position <= there[node.name] for at, position in commits if at < current)
            assert snapshot.current <= current and snapshot.asked <= snapshot.progress[node].at


def test_an_unknown_replica_has_nothing() -> None:
    """Before it has answered it is neither current nor anywhere."""
    assert Lineage().progress(server("r1")) == Progress()
    assert not Progress().has(-1.0, None)
    assert not Progress(None, 5.0).has(1.0, Lsn(1))
    assert Progress(Lsn(1), 5.0).has(5.0, Lsn(1))
