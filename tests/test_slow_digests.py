"""Digests: what is counted of a statement, who is held, and that all of it stays small."""

from __future__ import annotations

import json
import random
from math import exp2
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.context import Context
from router.digests import TEXT_LIMIT, Digest, Plan, merged, parsed, quantile
from router.ledger import Entry, Ledger
from router.topology import Node, Role
from router.waits import Waits
from tests.observe.digests import found, zipf
from tests.telling import PRIMARY, REPLICA, failed, finished

HOUR = 3600.0


def counted(*totals: float, capacity: int = 10, **given: Any) -> Ledger:
    ledger = Ledger(capacity)
    for total in totals:
        ledger.finished(finished(total=total, **given))
    return ledger


def only(ledger: Ledger, now: float = 1.0) -> Digest:
    (digest,) = ledger.digests(now)
    return digest


# --- what is counted -------------------------------------------------------------------------------------


def test_all_requests_of_a_statement_are_summed_up() -> None:
    """Count, rows, errors, times, waits, nodes and the last of all; whether they were slow or not."""
    ledger = Ledger()
    what: dict[str, Any] = {"normalized": "select ?", "kind": "read", "tables": frozenset({"b", "a"})}
    ledger.finished(finished(REPLICA, total=0.25, rows=3, at=1.0, **what))
    ledger.finished(finished(PRIMARY, total=0.5, rows=-1, at=1.5, waits=Waits(0.125, 0.125), **what))
    ledger.finished(finished(REPLICA, total=0.125, rows=4, at=1.75, **what))
    ledger.failed(failed(None, total=1.0, at=1.9, waits=Waits(queue=1.0), **what))
    found = only(ledger)
    assert (found.fingerprint, found.text, found.kind, found.tables) == ("f1", "select ?", "read", ("a", "b"))
    assert (found.count, found.cached, found.slow, found.errors, found.rows) == (4, 0, 0, 1, 7)
    assert (found.total, found.waited, found.maximum) == (1.875, 1.25, 1.0)
    assert found.nodes == {"main/r1": 2, "main/primary": 1}
    assert found.tenants == {"acme": 1.875}
    assert (found.since, found.last, found.error, found.missed) == (1.0, 1.9, "Deadlock", 0.0)


def test_the_text_has_no_literals_and_an_end() -> None:
    """What is kept to be shown is the normalised text, up to a limit; never the text as written."""
    ledger = counted(0.1, sql="SELECT 'secret'", normalized="select ?" + "x" * TEXT_LIMIT)
    digest = only(ledger)
    assert digest.text.startswith("select ?")
    assert len(digest.text) == TEXT_LIMIT
    assert "secret" not in repr(digest)


def test_an_answer_from_memory_costs_no_database_time() -> None:
    """It is counted for itself, and only of statements that are held."""
    memory: dict[str, Any] = {"role": Role.CACHE, "cache": "hit", "total": 5.0}
    ledger = counted()
    ledger.finished(finished(**memory))
    assert not ledger.held
    ledger.finished(finished(total=0.5))
    ledger.finished(finished(**memory))
    found = only(ledger)
    assert (found.count, found.cached, found.total, found.maximum) == (1, 1, 0.5, 0.5)


def test_the_last_trace_is_that_of_the_last_request_that_had_one() -> None:
    """A request without a trace does not hide the one that can be looked at."""
    ledger = Ledger()
    for trace in ("1" * 32, "2" * 32, None):
        event = finished(total=0.1)
        event.context = Context(trace_id=trace)
        ledger.finished(event)
    assert only(ledger).trace_id == "2" * 32


def test_slow_requests_are_counted_where_their_statement_is_held() -> None:
    """The emitter has told the request before it says that it was slow."""
    ledger = counted(1.0)
    ledger.slow("f1")
    ledger.slow("unknown")
    assert only(ledger).slow == 1


def test_a_plan_is_kept_with_its_statement() -> None:
    """Only while the statement is held; the digest shows it."""
    ledger, plan = counted(1.0), Plan("Seq Scan on t", "main/r1", 2.0)
    assert ledger.keep("f1", plan)
    assert not ledger.keep("gone", plan)
    assert only(ledger).plan is plan


# --- durations -------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_within_its_bucket(durations: list[float], share: float) -> None:
    """It is at most 4.5 % off the duration that so many are at most."""
    buckets = counted(*durations).held["f1"].buckets
    exact = sorted(durations)[max(-int(-share * len(durations) // 1) - 1, 0)]
    assert quantile(buckets, share) == pytest.approx(exact, rel=0.0455)


def test_the_99th_percentile_is_of_recent_requests() -> None:
    """A statement that has become slow shows it after some thousand requests, not after millions."""
    ledger = counted(*[0.001] * 100_000)
    assert only(ledger).p99 == pytest.approx(0.001, rel=0.05)
    for _ in range(500):
        ledger.finished(finished(total=1.0))
    assert only(ledger).p99 == pytest.approx(1.0, rel=0.05)
    assert only(ledger).p50 == pytest.approx(0.001, rel=0.05)


def test_no_percentile_is_above_the_maximum() -> None:
    """A bucket's middle may be more than anything in it."""
    found = only(counted(0.1))
    assert found.p50 == found.p99 == found.maximum == 0.1


def test_there_are_no_durations_where_there_were_no_requests() -> None:
    """Of nothing every percentile is zero."""
    assert quantile({}, 0.99) == 0.0


# --- load ------------------------------------------------------------------------------------------------


def test_the_load_is_how_many_ran_at_once_lately() -> None:
    """Two seconds of work in each second are a load of two; it fades while nothing is asked."""
    ledger = Ledger()
    for second in range(1, 1001):
        ledger.finished(finished(total=2.0, at=float(second)))
    assert only(ledger, 1000.0).load == pytest.approx(2.0, rel=0.02)
    assert only(ledger, 1060.0).load == pytest.approx(1.0, rel=0.02)
    assert only(ledger, 1000.0 + HOUR).load < 1e-9


def test_clocks_that_leap_do_no_harm() -> None:
    """The wall clock may be set: by years, forwards and backwards."""
    ledger = Ledger(3)
    rng = random.Random(1)
    for n in range(2000):
        at = rng.choice([0.0, 1.0, 1e9, 1.7e9, 2e9, 4e9, 1e12]) + n
        ledger.finished(finished(total=0.5, fingerprint=f"f{rng.randrange(6)}", at=at))
    for digest in ledger.digests(5.0):
        assert 0.0 <= digest.load < 1e9
        assert 0.0 <= digest.missed < 1e9
        assert digest.total == digest.count / 2


# --- who is held -----------------------------------------------------------------------------------------


def test_they_come_by_total_time() -> None:
    """What costs most in sum is first, not what was slowest once."""
    ledger = counted(*[1.0] * 10, fingerprint="often")
    ledger.finished(finished(total=5.0, fingerprint="once"))
    assert [digest.fingerprint for digest in ledger.digests(1.0)] == ["often", "once"]


def test_the_table_keeps_what_costs_most() -> None:
    """A flood of rare statements neither grows it nor pushes out what is expensive."""
    ledger = counted(9.0, fingerprint="a", capacity=3)
    ledger.finished(finished(total=8.0, fingerprint="b"))
    for n in range(100):
        ledger.finished(finished(total=0.1, fingerprint=f"rare {n}"))
    assert [digest.fingerprint for digest in ledger.digests(1.0)][:2] == ["a", "b"]
    assert len(ledger.held) == 3


def test_what_begins_to_cost_much_comes_in_soon_however_long_the_process_has_run() -> None:
    """After four days under load, a statement that takes one second in each second is held in seconds."""
    ledger = Ledger(50)
    day, now = 24 * HOUR, 0.0
    rng = random.Random(3)
    while now < 4 * day:
        now += 60.0
        for _ in range(20):  # one statement at a time, all day long
            rank = int(exp2(rng.uniform(0.0, 13.0)))
            ledger.finished(finished(total=3.0, fingerprint=f"f{rank}", at=now))
    assert len(ledger.held) == 50
    for second in range(1, 61):
        ledger.finished(finished(total=1.0, fingerprint="new", at=now + second))
        if "new" in ledger.held:
            break
    assert second <= 60
    assert "new" in ledger.held
    (found,) = (digest for digest in ledger.digests(now + second) if digest.fingerprint == "new")
    assert found.missed <= 60.0


def test_what_cost_much_some_hours_ago_is_held_still() -> None:
    """The report that ran for half an hour last night is there in the morning."""
    ledger = Ledger(50)
    ledger.finished(finished(total=1800.0, fingerprint="report", at=1.0))
    rng = random.Random(4)
    for minute in range(6 * 60):
        for _ in range(50):
            rank = int(exp2(rng.uniform(0.0, 13.0)))
            ledger.finished(finished(total=0.1, fingerprint=f"f{rank}", at=60.0 * minute))
    assert ledger.digests(6 * HOUR)[0].fingerprint == "report"


def test_the_costliest_of_a_long_trace_are_found() -> None:
    """Of 100,000 statements by Zipf's law, 500 are held, and the top 50 among them; see ``make observe``."""
    assert found(zipf(1.0, 5, 50_000)) >= 48


# --- bounds ----------------------------------------------------------------------------------------------


def test_the_tenants_that_spend_most_are_named() -> None:
    """Among ten thousand of one statement, the one with a third of the time; and no more than six names."""
    ledger, rng = Ledger(), random.Random(5)
    for _ in range(20_000):
        tenant = "heavy" if rng.random() < 1 / 3 else f"t{rng.randrange(10_000)}"
        ledger.finished(finished(total=0.01, tenant=tenant))
    found = only(ledger)
    assert len(found.tenants) == 6
    assert next(iter(found.tenants)) == "heavy"
    assert found.tenants["heavy"] / found.total == pytest.approx(1 / 3, rel=0.1)
    assert sum(found.tenants.values()) == pytest.approx(found.total)


def test_nodes_are_few() -> None:
    """What changes its servers for years is counted by no more than seventeen names."""
    ledger = Ledger()
    for n in range(100):
        ledger.finished(finished(Node(f"r{n}", "main", Role.REPLICA), total=0.1))
    assert len(only(ledger).nodes) == 17
    assert only(ledger).nodes["_other"] == 84


def test_an_entry_stays_small_whatever_is_asked() -> None:
    """Durations of all sizes, any tenant, long texts: what is kept of a statement is bounded."""
    ledger, rng = Ledger(), random.Random(6)
    for n in range(20_000):
        event = finished(total=exp2(rng.uniform(-20, 12)), tenant=f"t{n}", sql="x" * 1_000_000)
        ledger.finished(event)
    entry: Entry = ledger.held["f1"]
    assert len(entry.buckets) <= 32 * 8
    assert len(entry.tenants) <= 5
    assert entry.sample is None  # a text that long is not kept to be explained
    assert entry.filled <= 4096


# --- as JSON, and of several processes -------------------------------------------------------------------


def test_a_digest_comes_back_from_json_as_it_was() -> None:
    """What one process writes another reads, plan and durations included."""
    ledger = counted(0.1, 0.2, 0.3, rows=1, tables=frozenset({"a"}))
    ledger.keep("f1", Plan("Seq Scan on a", "main/r1", 2.0))
    digest = only(ledger)
    assert parsed(json.loads(json.dumps(digest.json()))) == digest
    assert digest.json()["p99"] == digest.p99


@pytest.mark.parametrize("wrong", [{}, {"tables": None}, {"durations": [1]}, {"plan": {"what": 1}}])
def test_what_is_no_digest_is_refused(wrong: dict[str, Any]) -> None:
    """Another program's JSON is a ValueError, not a crash."""
    with pytest.raises(ValueError, match="not a digest"):
        parsed(only(counted(0.1)).json() | wrong if wrong else wrong)


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.integers(0, 2), st.integers(0, 8)), min_size=1))
def test_digests_of_several_processes_are_those_of_one_that_saw_it_all(
    requests: list[tuple[float, int, int]],
) -> None:
    """Counts and percentiles are exact; so are tenants as long as they are few."""
    alone, parts = Ledger(), [Ledger() for _ in range(3)]
    for n, (total, process, tenant) in enumerate(requests):
        event = finished(total=total, tenant=f"t{tenant % 4}", at=1.0 + n / len(requests), rows=2)
        alone.finished(event)
        parts[process].finished(event)
    whole = only(alone, 2.0)
    (found,) = merged(each for part in parts for each in part.digests(2.0))
    for name in ("count", "rows", "maximum", "nodes", "since", "last", "durations", "text"):
        assert getattr(found, name) == getattr(whole, name), name
    assert found.p99 == whole.p99
    assert found.total == pytest.approx(whole.total)
    assert found.load == pytest.approx(whole.load, rel=0.02)  # time passes in steps of a second
    assert found.tenants == pytest.approx(whole.tenants)


def test_merging_keeps_the_latest_of_what_is_about_one_request() -> None:
    """Trace and error are those of the process that was asked last, if it has any; the plan is the newest."""
    old, new = counted(0.1, at=1.0), counted(0.1, at=5.0)
    event = failed(total=0.1, at=2.0)
    event.context = Context(trace_id="1" * 32)
    old.failed(event)
    old.keep("f1", Plan("old", "main/r1", 9.0))
    (found,) = merged([*new.digests(6.0), *old.digests(6.0)])
    assert (found.last, found.trace_id, found.error) == (5.0, "1" * 32, "Deadlock")
    assert found.plan == Plan("old", "main/r1", 9.0)
