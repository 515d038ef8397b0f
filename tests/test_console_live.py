"""What the console, /status and `router top` show: recorded only while somebody looks, bounded, and right."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from router import Router, events, live, parse
from router.changes import LISTENED, change
from router.context import Context
from router.developing import busiest, clusters_of, request_row
from router.dispatcher import Dispatcher
from router.events import Event, RequestStarted
from router.live import Live
from router.picture import (
    CacheRow,
    ClusterRow,
    ListenerRow,
    NodeRow,
    Pace,
    PoolRow,
    RunningRow,
    TenantRow,
    encode,
)
from router.pools.bounds import PoolStatus
from router.reasons import Reason
from router.recording import Recorder
from router.status import NodeStatus
from router.topology import Role
from router.troubles import of_clusters, of_nodes, of_parts, of_pools, of_requests
from router.waits import Waits
from router.windows import busy, pace
from tests.telling import PRIMARY, REPLICA, failed, finished


class Clock:
    """Stand still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


@pytest.fixture
def recorder(dispatcher: Dispatcher, clock: Clock) -> Recorder:
    return Recorder(dispatcher, clock, clock)


def started(**given: Any) -> RequestStarted:
    """Return a request that begins."""
    facts: dict[str, Any] = {"at": 1.0, "tenant": "acme", "schema": None, "sql": "SELECT 1"}
    return RequestStarted(**facts, fingerprint="f1", kind="read", tables=frozenset(), **given)


# --- recording -------------------------------------------------------------------------------------------


def test_console_costs_requests_nothing_while_nobody_looks(
    dispatcher: Dispatcher, recorder: Recorder
) -> None:
    """No event of a request that goes well is wanted before somebody looks, nor afterwards."""
    assert not dispatcher.wants(events.RequestFinished)
    recorder.start()
    assert dispatcher.wants(events.RequestFinished)
    assert dispatcher.announces
    dispatcher.emit(finished())
    assert len(recorder.recorded().recent) == 1
    recorder.stop()
    assert not dispatcher.wants(events.RequestFinished)
    assert not dispatcher.announces
    assert recorder.recorded().recent == ()  # it would look like what happens when somebody looks again
    recorder.close()
    assert not any(dispatcher.wants(each) for each in LISTENED)


def test_console_remembers_failures_and_changes_always(dispatcher: Dispatcher, recorder: Recorder) -> None:
    """Who opens it after the fact sees what has failed and what has changed before."""
    dispatcher.emit(failed())
    dispatcher.emit(events.ReplicaChanged(1.0, REPLICA, False, "late"))
    recorded = recorder.recorded()
    assert [each.error for each in recorded.failed] == ["Deadlock"]
    assert [each.text for each in recorded.changes] == ["is not read: late"]


def test_console_keeps_a_bounded_number_of_everything(dispatcher: Dispatcher, recorder: Recorder) -> None:
    """However much happens, only the last of it is kept."""
    recorder.start()
    for number in range(1000):
        dispatcher.emit(finished(tenant=f"t{number}"))
        dispatcher.emit(failed(tenant=f"t{number}"))
        dispatcher.emit(events.ReplicaChanged(1.0, REPLICA, bool(number % 2), "late"))
    recorded = recorder.recorded()
    assert (len(recorded.recent), len(recorded.failed), len(recorded.changes)) == (50, 30, 50)
    assert recorded.recent[-1].tenant == "t999"


def test_console_counts_what_is_told_again_and_again(dispatcher: Dispatcher, recorder: Recorder) -> None:
    """A refusal that comes a thousand times is one line that says so, and pushes nothing else out."""
    for _ in range(1000):
        refused = events.PoolRefused(1.0, PRIMARY, "app", "u", "acme", "PoolTimeout", 5.0, 4, 9, 4)
        dispatcher.emit(refused)
    (row,) = recorder.recorded().changes
    assert (row.text, row.count) == ("acme got no connection: PoolTimeout", 1000)


async def test_console_follows_requests_until_they_end(
    dispatcher: Dispatcher, recorder: Recorder, clock: Clock
) -> None:
    """A request runs from its start to its end; what a task has left behind is gone with it."""
    recorder.start()
    dispatcher.emit(started())
    left = asyncio.create_task(_emit(dispatcher, started()), name="left")
    await left
    ((task, running),) = recorder.recorded().running
    assert (task, running.began) == (asyncio.current_task(), clock.now)
    dispatcher.emit(finished())
    assert recorder.recorded().running == ()


async def _emit(dispatcher: Dispatcher, event: Event) -> None:
    dispatcher.emit(event)


# --- rates -----------------------------------------------------------------------------------------------


def test_console_shows_rates_of_the_last_ten_seconds(
    dispatcher: Dispatcher, recorder: Recorder, clock: Clock
) -> None:
    """What was before counts no more; half a second does not count yet."""
    recorder.start()
    dispatcher.emit(finished(total=9.0))
    for _ in range(10):
        clock.now += 1.0
        recorder.recorded()
    for _ in range(10):
        for _ in range(20):
            dispatcher.emit(finished(total=0.010))
        dispatcher.emit(failed(total=0.100))
        clock.now += 1.0
        recorder.recorded()
    for _ in range(500):
        dispatcher.emit(finished(total=5.0))
    found = pace(recorder.recorded().windows)
    assert found.requests == pytest.approx(21)
    assert found.errors == pytest.approx(1)
    assert found.mean == pytest.approx((20 * 0.010 + 0.100) / 21)
    assert found.p50 == pytest.approx(0.010, rel=0.25)
    assert found.p99 == pytest.approx(0.100, rel=0.25)
    assert [each.requests for each in found.seconds][-3:] == [21, 21, 21]


def test_console_shows_no_rates_before_there_are_any(recorder: Recorder) -> None:
    """Nothing is divided by nothing."""
    assert pace(recorder.recorded().windows) == Pace(0.0, 0.0, None, None, None, None, ())


def test_console_shows_tenants_by_the_time_they_take(
    dispatcher: Dispatcher, recorder: Recorder, clock: Clock
) -> None:
    """Few long requests come before many short ones."""
    recorder.start()
    for _ in range(100):
        dispatcher.emit(finished(tenant="many", total=0.001))
    dispatcher.emit(failed(tenant="long", total=2.0, waits=Waits(queue=1.5)))
    clock.now += 2.0
    rows = busy(recorder.recorded().windows, 10)
    assert rows[0] == TenantRow("long", requests=0.5, errors=0.5, seconds=1.0, waiting=0.75)
    assert (rows[1].tenant, rows[1].requests) == ("many", 50)
    assert len(busy(recorder.recorded().windows, 1)) == 1


# --- rows ------------------------------------------------------------------------------------------------


def test_console_shows_a_request_with_all_its_steps() -> None:
    """Where it went and why, what it waited for, who made it; never its text with literals."""
    retry = events.RetryScheduled(1.0, "acme", "f1", REPLICA, "ConnectionLost", None, 1, 0.02)
    event = failed(
        sql="SELECT 'secret'",
        normalized="select ?",
        waits=Waits(1.0, 2.0, 3.0, 4.0),
        retries=(retry,),
        unit=7,
    )
    event.context = Context("c1", "t" * 32, None, "ada")
    row = request_row(event)
    assert (row.node, row.role, row.reason, row.error) == ("main/primary", "primary", "write", "Deadlock")
    assert dataclasses.astuple(row.steps)[1:5] == (1.0, 2.0, 3.0, 4.0)
    assert (row.retries, row.unit) == (("main/r1: ConnectionLost",), 7)
    assert (row.actor, row.context_id, row.trace_id) == ("ada", "c1", "t" * 32)
    assert "secret" not in repr(row)
    cached = request_row(finished(None, role=Role.CACHE, reason=Reason.CACHED, cache="hit"))
    assert (cached.node, cached.role, cached.cache) == ("", "cache", "hit")


def _changes() -> Iterator[Event]:
    node = {"node": REPLICA, "driver": "d", "database": "app", "user": "u", "duration": 1.0}
    pool = (PRIMARY, "app", "u")
    yield events.PrimaryChanged(1.0, "main", None, PRIMARY, "no server of it takes writes")
    yield events.PrimaryChanged(1.0, "main", PRIMARY, None, "")
    yield events.ReplicaChanged(1.0, REPLICA, True, "")
    yield events.ReplicaChanged(1.0, PRIMARY, False, "primary")
    yield events.BreakerChanged(1.0, REPLICA, False, 3, "")
    yield events.BreakerChanged(1.0, REPLICA, True, 3, "ConnectError")
    yield events.PoolRefused(1.0, *pool, "", "PoolFull", 0.0, 4, 9, 4)
    yield events.ConnectionHeld(1.0, **node, tenant="acme", task="job", stack=("app.py:7 main",))  # type: ignore[arg-type]
    yield events.ConnectionFailed(1.0, **node, error="ConnectError", code=None, message="refused")  # type: ignore[arg-type]
    yield events.CommitUnknown(1.0, "acme", None, PRIMARY, 1.0, 1, False, 1)
    yield events.CommitResolved(1.0, "acme", PRIMARY, "77", True, 0.1)
    yield events.CommitResolved(1.0, "acme", PRIMARY, "77", False, 0.1)
    yield events.WriteLost(1.0, "acme", "main", True)
    yield events.StatementsLeft(1.0, PRIMARY, 2, "ConnectError")
    yield events.CacheTierChanged(1.0, False, "timeout")
    yield events.CacheTierChanged(1.0, True, "")
    yield events.CacheFlushed(1.0, None, "failover")
    yield events.ConfigurationLoaded(1.0, 2, 3, 40)
    yield events.ConfigurationLoaded(1.0, 3, 3, 41, 1, 0, 2, ("main",), ("cache",))
    yield events.ConfigurationRefused(1.0, 3, 2, "config/router.yaml:1:1: version is wrong. Correct it")
    yield events.CatalogChanged(1.0, False, "ConnectError")
    yield events.CatalogChanged(1.0, True, "")
    yield events.TenantRefused(1.0, "acme", ("catalog.acme.tier: it 'golden' is not in router.yaml",))
    yield events.SecretChanged(1.0, "app", "env:APP_PASSWORD")
    yield events.SecretFailed(1.0, "app", "${env:APP_PASSWORD}", "not set", kept=False)
    yield events.SecretFailed(1.0, "app", "${aws:app}", "it cannot be reached", kept=True)


def test_console_says_every_change_in_a_sentence() -> None:
    """Each of the events that it listens to has a place, a level and words."""
    said = [change(event) for event in _changes()]
    assert {type(event) for event in _changes()} == set(LISTENED)
    assert {row.level for row in said} == {"good", "info", "bad"}
    assert all(row.where and row.text and row.kind for row in said)
    assert said[0].text == "nobody takes the writes: no server of it takes writes"
    assert all("None" not in row.text for row in said)


def _pool(database: str, in_use: int, waiting: int) -> PoolStatus:
    return PoolStatus("main/primary", database, "u", 4, 4 - in_use, in_use, waiting, 4)


def test_console_shows_the_busiest_pools_first() -> None:
    """Those that most wait for, then those that most hold; fifty at most."""
    rows = busiest([_pool("idle", 0, 0), _pool("used", 3, 0), _pool("full", 4, 2)])
    assert [row.database for row in rows] == ["full", "used", "idle"]
    assert len(busiest([_pool(f"d{number}", 0, 0) for number in range(1000)])) == 50


def _node(name: str, role: str, usable: bool, reason: str = "") -> NodeStatus:
    return NodeStatus("main", name, role, "db:1", usable, reason, None, None, 0, 0.0)


def test_console_shows_clusters_by_their_nodes() -> None:
    """A primary that is not usable is none."""
    nodes = [_node("a", "primary", False), _node("b", "replica", True), _node("c", "replica", False)]
    assert clusters_of(nodes) == (ClusterRow("main", "", 2, 1),)


# --- troubles --------------------------------------------------------------------------------------------


def test_console_points_at_what_is_wrong() -> None:
    """Each kind of trouble is named with where it is; what is well is not."""
    node = NodeRow("main", "r1", "replica", "db", False, "went_back", False, None, None, 0, 0.0)
    pool = PoolRow("main/primary", "app", "u", 4, 0, 4, 9, 4)
    lately = Pace(100.0, 7.0, 0.1, 0.1, 0.1, 0.1, ())
    tenants = (TenantRow("acme", 10, 1, 1, 1), TenantRow("globex", 90, 6, 1, 1))
    running = RunningRow(1.0, 75.0, "acme", "", "select ?", "f", "read", "job", "", "", "")
    cache = CacheRow(0, 0, 0, 0, False, False, 0, 0, 0, 0, None, 0.0)
    listeners = (ListenerRow("a", 1, 9, 0, 0, True), ListenerRow("b", 1, 0, 5, 0, False))
    found = [
        *of_clusters((ClusterRow("main", "", 2, 0), ClusterRow("well", "db-1", 0, 0))),
        *of_nodes((node,)),
        *of_pools((pool,)),
        *of_requests(lately, tenants, (running,)),
        *of_parts(cache, listeners),
    ]
    assert [(each.level, each.where, each.text) for each in found] == [
        ("bad", "main", "nobody takes its writes"),
        ("bad", "main", "none of its 2 replicas may be read: all reads go to the primary"),
        ("warn", "main/r1", "is not used: went back"),
        ("bad", "main/primary app", "9 wait for a connection; 4 of 4 are in use"),
        ("bad", "requests", "7.0% of the last ten seconds failed, most of globex"),
        ("warn", "acme", "has a request that runs for 75 s"),
        ("bad", "cache", "writes of other processes are not heard: cached answers are not used"),
        ("warn", "cache", "the shared tier does not answer, and is left alone"),
        ("bad", "a", "failed 9 times and is muted"),
        ("warn", "b", "has missed 5 events"),
    ]


# --- pictures --------------------------------------------------------------------------------------------


async def test_console_stops_recording_when_nobody_asks_any_more(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Each picture has requests recorded for a while; the last one's time runs out."""
    monkeypatch.setattr(live, "PATIENCE", 0.05)
    tenants = {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}}
    main = {"engine": "sqlite", "primary": {"path": str(tmp_path)}}
    config = parse({"version": 1, "clusters": {"main": main}, "tenants": tenants})
    async with Router.open(config) as router:
        watched = Live(router, clock=clock)
        assert not router.dispatcher.announces
        await watched.picture()
        assert router.dispatcher.announces
        await asyncio.sleep(0.1)
        assert router.dispatcher.announces  # by its clock no time has passed
        clock.now += 1.0
        await asyncio.sleep(0.15)
        assert not router.dispatcher.announces
        watched.close()


def test_console_writes_pictures_as_json() -> None:
    """Rows are objects with the names of their fields; half a surrogate pair does not break the text."""
    row = request_row(finished(normalized="select '\ud800'"))
    found = json.loads(encode({"rows": (row,)}))["rows"][0]
    assert set(found) == {each.name for each in dataclasses.fields(row)}
    assert found["steps"]["queue"] == 0.0
    assert found["text"] == "select '\ud800'"
