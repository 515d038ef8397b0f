"""The cache's decisions by themselves: marks, what was shown, what may be served, what is hot."""

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies

from router.cache.entries import Entry
from router.cache.flights import Flights, again
from router.cache.heat import Heat
from router.cache.marks import EVERYTHING, Marks, Place, Writing
from router.cache.serving import Refusal, refusal
from router.cache.shown import Shown
from router.cache.values import freeze
from router.consistency import Bounded, Consistency
from router.errors import ServerError
from router.filling import Fill
from router.frontier import Frontier
from router.routing import Snapshot
from router.topology import Node, Role

SESSION, EVENTUAL = Consistency.SESSION, Consistency.EVENTUAL
T, U = Place("main", "db", "app", "t"), Place("main", "db", "app", "u")
NODE = Node("r1", "main", Role.REPLICA, "127.0.0.1", 1)
NOTHING = freeze(None)


class Clock:
    """Stand still until somebody turns it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def marks(clock: Clock) -> Marks:
    return Marks(clock)


def entry(marks: Marks, as_of: float, until: float, *places: Place, reign: float = -inf) -> Entry:
    """Return an entry that holds what was committed before ``as_of`` and nothing later than ``until``."""
    assert NOTHING is not None
    return Entry(
        NOTHING,
        places=places or (T,),
        marks=tuple(marks.of(each) for each in (*(places or (T,)), EVERYTHING)),
        as_of=as_of,
        until=until,
        born=until,
        position=None,
        reign=reign,
        node=NODE,
        cost=0.0,
    )


def unheard() -> float:
    return -inf


def ask(
    found: Entry,
    seen: Frontier,
    now: float,
    *,
    level: Consistency | Bounded = SESSION,
    ttl: float = 60.0,
    reign: float = -inf,
    heard: Callable[[], float] = unheard,
) -> Refusal | None:
    return refusal(found, seen, level, ttl, now, reign, heard)


# --- marks -----------------------------------------------------------------------------------------------


def test_a_write_kills_what_was_read_before_its_answer_and_nothing_else(marks: Marks, clock: Clock) -> None:
    """A read that was sent while the write was under way may or may not have seen it: it is dead too."""
    before, other = entry(marks, 100.0, 100.5), entry(marks, 100.0, 100.5, U)
    writing = Writing()
    clock.now = 101.0
    marks.begin(writing, (T,))
    during = entry(marks, 101.5, 101.7)
    clock.now = 102.0
    marks.end(writing, clock.now)
    assert not before.alive
    assert not during.alive
    assert other.alive
    assert entry(marks, 102.0, 102.5).alive


def test_a_write_that_never_was_kills_nothing(marks: Marks, clock: Clock) -> None:
    """A rollback leaves the marks as they were."""
    found, writing = entry(marks, 100.0, 100.5), Writing()
    clock.now = 101.0
    marks.begin(writing, (T,))
    assert found.high(inf) == 101.0
    marks.end(writing, None)
    assert found.alive
    assert found.high(inf) == inf


def test_what_is_known_ends_where_the_oldest_write_began(marks: Marks, clock: Clock) -> None:
    """Of several writers of one table the first counts, until the last of them has ended."""
    found, first, second = entry(marks, 99.0, 99.5), Writing(), Writing()
    marks.begin(first, (T, T))
    clock.now = 105.0
    marks.begin(second, (T,))
    assert found.high(inf) == 100.0
    marks.end(first, None)
    assert found.high(inf) == 100.0
    marks.end(second, None)
    assert found.high(inf) == inf


def test_a_table_that_is_written_twice_in_a_transaction_is_ended_once(marks: Marks) -> None:
    """The number of writers comes back to none."""
    writing = Writing()
    for _ in range(3):
        marks.begin(writing, (T, U))
    marks.end(writing, None)
    marks.end(writing, None)
    assert marks.of(T).writers == 0
    assert marks.of(T).since == inf


def test_a_mark_never_goes_back(marks: Marks) -> None:
    """An unknown outcome lets nothing be kept for a while, also where another write ends meanwhile."""
    marks.raised((T,), 160.0)
    marks.raised((T,), 110.0)
    assert marks.of(T).moment == 160.0


def test_a_forgotten_mark_refuses_too_much_rather_than_too_little(clock: Clock) -> None:
    """However many tables are written, no entry outlives the write of its table."""
    marks = Marks(clock, most=10)
    places = [T._replace(table=f"t{number}") for number in range(100)]
    for number, place in enumerate(places):
        marks.raised((place,), 200.0 + number)
    assert len(marks) <= 10
    assert not any(entry(marks, 199.9 + number, 300.0, places[number]).alive for number in range(100))


def test_a_mark_that_an_entry_holds_is_the_one_that_a_write_raises(clock: Clock) -> None:
    """Forgetting what was written takes no mark away from an entry, nor from a write that goes on."""
    marks = Marks(clock, most=4)
    found, writing = entry(marks, 150.0, 150.5), Writing()
    marks.begin(writing, (T,))
    for number in range(50):
        marks.raised((T._replace(table=f"x{number}"),), 120.0)
    assert found.alive
    assert found.high(inf) == 150.0
    marks.end(writing, 170.0)
    assert not found.alive


# --- what a session was shown ----------------------------------------------------------------------------


def test_an_older_entry_is_refused_to_who_has_seen_a_newer_answer(marks: Marks) -> None:
    """Of the same table only: another table cannot have been taken back."""
    shown = Shown()
    shown.tables((T,), 110.0)
    assert not shown.allows(entry(marks, 105.0, 106.0), unheard)
    assert shown.allows(entry(marks, 110.0, 111.0), unheard)
    assert shown.allows(entry(marks, 105.0, 106.0, U), unheard)
    assert not shown.allows(entry(marks, 105.0, 106.0, U, T), unheard)


def test_the_same_entry_may_be_shown_again(marks: Marks) -> None:
    """Though its content may be newer than what it certainly holds."""
    shown, found = Shown(), entry(marks, 105.0, 108.0)
    shown.entry(found)
    assert shown.allows(found, unheard)
    assert not shown.allows(entry(marks, 107.0, 107.5), unheard)
    assert shown.allows(entry(marks, 108.0, 109.0), unheard)


def test_of_two_answers_of_the_same_time_neither_is_shown_again(marks: Marks) -> None:
    """Nobody knows which is newer: the next one must be newer than both."""
    shown, one, other = Shown(), entry(marks, 105.0, 108.0), entry(marks, 106.0, 109.0)
    shown.entry(one)
    shown.entry(other)
    assert not shown.allows(one, unheard)
    assert not shown.allows(other, unheard)
    assert shown.allows(entry(marks, 109.0, 110.0), unheard)


def test_an_entry_is_as_new_as_all_writes_are_known(marks: Marks, clock: Clock) -> None:
    """Unless one of them goes on: then others may have seen it."""
    shown, found, writing = Shown(), entry(marks, 90.0, 91.0), Writing()
    shown.tables((T,), 102.0)
    assert not shown.allows(found, lambda: 101.0)
    assert shown.allows(found, lambda: 102.0)
    marks.begin(writing, (T,))
    assert not shown.allows(found, lambda: inf)
    clock.now = 103.0
    marks.end(writing, None)
    assert shown.allows(found, lambda: inf)


def test_a_session_of_many_tables_has_seen_them_all(marks: Marks) -> None:
    """What is remembered is bounded, and errs to the safe side."""
    shown = Shown()
    for number in range(Shown.MOST + 1):
        shown.tables((T._replace(table=f"t{number}"),), 100.0 + number)
    assert not shown.allows(entry(marks, 150.0, 151.0, U), unheard)
    assert shown.allows(entry(marks, 200.0, 201.0, U), unheard)
    assert shown.some


def test_who_follows_another_session_has_seen_what_it_has(marks: Marks) -> None:
    """Tables and all."""
    shown, other, third = Shown(), Shown(), Shown()
    other.tables((T,), 120.0)
    third.everything(110.0)
    shown.follow(other)
    shown.follow(third)
    assert not shown.allows(entry(marks, 115.0, 116.0), unheard)
    assert shown.allows(entry(marks, 115.0, 116.0, U), unheard)
    assert not shown.allows(entry(marks, 105.0, 106.0, U), unheard)


# --- serving ---------------------------------------------------------------------------------------------


shows = strategies.one_of(
    strategies.tuples(strategies.sampled_from(["entry", "own"]), strategies.integers(0, 5)),
    strategies.tuples(
        strategies.sampled_from(["table", "everything", "follow"]), strategies.integers(95, 115)
    ),
)


@given(strategies.lists(shows, max_size=12))
def test_the_entry_that_was_shown_last_may_be_shown_again(steps: list[tuple[str, int]]) -> None:
    """Whatever was shown before: ``last`` says so only where a look at all that is known says the same."""
    marks = Marks(Clock())
    entries = [entry(marks, 100.0 + n, 104.0 + n, *((T,), (U,), (T, U))[n % 3]) for n in range(6)]
    shown = Shown()
    for what, number in steps:
        if what == "entry":
            shown.entry(entries[number])
        elif what == "own":
            shown.own(entries[number], 108.0)
        elif what == "table":
            shown.tables((T,), number)
        elif what == "everything":
            shown.everything(number)
        else:
            other = Shown()
            other.tables((U,), number)
            shown.follow(other)
        last = shown.last
        if last is not None:
            assert shown.allows(last, unheard)
            known = dict(shown._tables)
            shown.entry(last)
            assert (shown._tables, shown.last) == (known, last)


def test_each_rule_refuses_by_itself(marks: Marks) -> None:
    """Age, writes, a failover, the session's own write and what it was shown each do."""
    seen, found = Frontier(), entry(marks, 100.0, 101.0)
    assert ask(found, seen, 160.9) is None
    assert ask(found, seen, 161.1) is Refusal.OLD
    assert ask(found, seen, 102.0, reign=50.0) is Refusal.FAILOVER
    seen.note_write(100.5)
    assert ask(found, seen, 102.0, heard=lambda: inf) is Refusal.OWN_WRITE
    assert ask(found, seen, 102.0, level=EVENTUAL) is None
    reader = Frontier()
    reader.shown = Shown()
    reader.shown.tables((T,), 102.0)
    assert ask(found, reader, 103.0) is Refusal.SHOWN
    marks.raised((T,), 100.1)
    assert ask(found, Frontier(), 102.0) is Refusal.WRITTEN
    assert ask(found, Frontier(), 102.0, level=EVENTUAL) is Refusal.WRITTEN


def test_who_shares_a_read_of_a_replica_that_lags_is_not_taken_back(marks: Marks, clock: Clock) -> None:
    """That it was just made does not make up for a write that it lacks, though all writes are heard of."""
    seen = Frontier()
    seen.shown = Shown()
    found = entry(marks, 101.0, 120.0)
    marks.raised((T,), 110.0)
    seen.shown.tables((T,), 115.0)
    shared = refusal(found, seen, SESSION, 60.0, 120.0, -inf, lambda: inf, fresh=True)
    assert shared is Refusal.SHOWN


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("as_of", "tables"), [(-inf, (T,)), (-inf, ()), (101.0, ())])
def test_an_answer_of_unknown_age_or_tables_is_for_those_who_have_seen_nothing(
    marks: Marks, as_of: float, tables: tuple[Place, ...], early: bool
) -> None:
    """That all writes since the process began are heard of does not say what it lacks."""
    seen, found = Frontier(), entry(marks, as_of, 120.0)
    seen.shown = Shown()
    if not tables:
        found.places = found.marks = ()

    def shared() -> Refusal | None:
        return refusal(found, seen, SESSION, 60.0, 120.0, -inf, lambda: inf, fresh=True)

    assert shared() is None
    if early:  # it began before the cache did
        seen.shown = None
        seen.note_cached(found.node, 115.0, -inf)
    else:
        seen.shown.everything(115.0)
    assert shared() is Refusal.SHOWN


def test_who_is_primary_no_more_is_not_believed() -> None:
    """What it answers while another takes over is neither kept nor given to those who wait for it."""
    old, new = (Node(name, "main", Role.PRIMARY, "127.0.0.1", 1) for name in ("old", "new"))
    connection: Any = SimpleNamespace(opened_at=0.0)
    for before, after, node in ((old, old, old), (old, new, None), (old, None, None)):
        health = SimpleNamespace(lineage=SimpleNamespace(position=None), steady=lambda name: -inf)
        cluster = SimpleNamespace(replicas_current=False)
        target: Any = SimpleNamespace(backend=SimpleNamespace(health=health, cluster=cluster))
        fill = Fill()
        health.snapshot = partial(Snapshot, before, ())
        fill.asks(target, 100.0)
        health.snapshot = partial(Snapshot, after, ())
        fill.answered(target, old, connection, 101.0)
        assert (fill.node, fill.as_of) == (node, -inf if node is None else 100.0)


def test_own_writes_count_for_all_tables_and_to_the_moment(marks: Marks) -> None:
    """An entry of just after the write does; nothing that others have let us hear makes an older one do."""
    seen = Frontier()
    seen.note_write(110.0)
    assert ask(entry(marks, 110.0, 110.5, U), seen, 111.0) is None
    assert ask(entry(marks, 109.9, 110.5, U), seen, 111.0, heard=lambda: inf) is Refusal.OWN_WRITE


def test_a_session_that_began_before_the_cache_has_seen_what_it_has(marks: Marks) -> None:
    """Without a record of tables, all that it read counts for every table."""
    seen = Frontier()
    seen.note_replica(NODE, 110.0, 110.0, -inf)
    seen.move(NODE)
    seen.note_replica(NODE, 110.0, 110.0, -inf)
    assert ask(entry(marks, 105.0, 106.0, U), seen, 111.0) is Refusal.SHOWN
    assert ask(entry(marks, 110.0, 111.0, U), seen, 111.0) is None


def test_a_bound_is_measured_from_what_the_entry_certainly_holds(marks: Marks) -> None:
    """Not from when its answer came."""
    found = entry(marks, 100.0, 104.0)
    assert ask(found, Frontier(), 105.0, level=Bounded(seconds=5.0)) is None
    assert ask(found, Frontier(), 105.1, level=Bounded(seconds=5.0)) is Refusal.BOUND


# --- heat ------------------------------------------------------------------------------------------------


def test_a_read_is_hot_from_the_nth_time_in_the_window_on() -> None:
    """Each key by itself; what is older than the window does not count."""
    heat = Heat(3, 10.0)
    assert [heat.hot("a", now) for now in (1.0, 2.0, 3.0, 4.0)] == [False, False, True, True]
    assert not heat.hot("b", 4.0)
    assert not heat.hot("a", 40.0)
    assert not heat.hot("a", 60.0)
    assert not heat.hot("a", 80.0)


def test_a_steady_trickle_below_the_rate_is_never_hot() -> None:
    """Two reads in each window are not three, however long it goes on."""
    heat = Heat(3, 10.0)
    assert not any(heat.hot("a", 1.0 + 7.5 * number) for number in range(200))


def test_a_scan_of_many_keys_takes_bounded_room() -> None:
    """Counting keys that come once does not grow without end."""
    heat = Heat(2, 10.0)
    for number in range(100_000):
        heat.hot(number, 1.0)
    assert len(heat._now) + len(heat._before) <= 40_000


# --- flights ---------------------------------------------------------------------------------------------


async def test_a_failure_that_nobody_waited_for_is_not_shared() -> None:
    """The next one tries by itself; one that many waited for counts for a moment."""
    clock = Clock()
    flights: Any = Flights(clock)
    alone = flights.begin("a")
    alone.error = ServerError("no")
    flights.end("a", alone)
    assert flights.failed("a") is None
    many = flights.begin("a")
    follower = asyncio.create_task(many.wait(1.0))
    await asyncio.sleep(0)
    many.error = ServerError("no", code="42").at(tenant="acme")
    flights.end("a", many)
    await follower
    found = flights.failed("a")
    assert found is many.error
    made = again(found)
    assert made is not found
    assert (type(made), str(made), made.code, made.tenant) == (ServerError, str(found), "42", "acme")
    clock.now += 0.06
    assert flights.failed("a") is None
    assert len(flights) == 0
