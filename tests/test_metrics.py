"""Metrics: every event counted once, under few labels, on a registry of its own."""

from __future__ import annotations

from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from router import events
from router.dispatcher import Dispatcher
from router.errors import UsageError
from router.events import Event
from router.metrics import BUCKETS, Metrics
from router.reasons import Reason
from router.topology import Node, Role
from router.waits import Waits
from tests import telling
from tests.telling import PRIMARY, REPLICA, failed


def finished(node: Node | None = REPLICA, **given: Any) -> events.RequestFinished:
    return telling.finished(node, waits=Waits(queue=0.0004), execute=0.003, total=0.004, **given)


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


@pytest.fixture
def metrics(dispatcher: Dispatcher) -> Metrics:
    metrics = Metrics()
    metrics.attach(dispatcher)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"router_{name}", labels)


def test_a_request_is_counted_timed_and_explained(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """One event moves the counter, both histograms and the routing reason."""
    for _ in range(3):
        dispatcher.emit(finished())
    dispatcher.emit(finished(PRIMARY))
    place = {"cluster": "main", "role": "replica"}
    assert value(metrics, "requests_total", **place, kind="read", outcome="ok") == 3
    assert value(metrics, "routes_total", **place, reason="read") == 3
    assert value(metrics, "request_duration_seconds_count", **place, kind="read") == 3
    assert value(metrics, "request_duration_seconds_sum", **place, kind="read") == pytest.approx(0.012)
    assert value(metrics, "pool_acquire_duration_seconds_bucket", **place, le="0.0005") == 3
    place = {"cluster": "main", "role": "primary"}
    assert value(metrics, "requests_total", **place, kind="write", outcome="ok") == 1
    assert value(metrics, "routes_total", **place, reason="write") == 1


def test_labels_that_change_one_by_one_are_kept_apart(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """The cached series are looked up by every label: no request is counted under another's."""
    dispatcher.emit(finished())
    dispatcher.emit(finished(reason=Reason.DECLARED_READ))
    dispatcher.emit(finished(kind="other"))
    dispatcher.emit(finished(Node("r1", "second", Role.REPLICA, "db", 1)))
    requests = {
        (sample.labels["cluster"], sample.labels["kind"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "router_requests_total"
    }
    assert requests == {("main", "read"): 2, ("main", "other"): 1, ("second", "read"): 1}
    assert value(metrics, "routes_total", cluster="main", role="replica", reason="declared_read") == 1
    assert value(metrics, "routes_total", cluster="main", role="replica", reason="read") == 2


def test_a_failed_request_is_an_error_and_an_outcome(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """Failures count as requests too, and once by the name of their error."""
    dispatcher.emit(failed())
    dispatcher.emit(failed(node=None))
    assert value(metrics, "errors_total", cluster="main", error="Deadlock") == 1
    assert value(metrics, "errors_total", cluster="none", error="Deadlock") == 1
    labels = {"role": "primary", "kind": "write", "outcome": "error"}
    assert value(metrics, "requests_total", cluster="main", **labels) == 1
    assert value(metrics, "requests_total", cluster="none", **labels) == 1


def test_connections_retries_transactions_and_slow_requests(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """Each other event has its own series, by node or cluster and a word of ours."""
    dispatcher.emit(events.ConnectionOpened(1.0, REPLICA, "asyncpg", "app", "app", 0.02))
    dispatcher.emit(
        events.ConnectionFailed(
            1.0, REPLICA, "asyncpg", "app", "app", 0.1, error="ConnectionFailed", code=None, message="boom"
        )
    )
    dispatcher.emit(events.ConnectionClosed(1.0, REPLICA, "asyncpg", "app", "app", 60.0, reason="idle"))
    held = {"tenant": "acme", "task": "Task-1", "stack": ()}
    dispatcher.emit(events.ConnectionHeld(1.0, REPLICA, "asyncpg", "app", "app", 60.0, **held))
    dispatcher.emit(events.RetryScheduled(1.0, "acme", "f1", REPLICA, "Deadlock", "40P01", 1, 0.1))
    dispatcher.emit(events.StatementsLeft(1.0, REPLICA, 3, "ConnectError"))
    dispatcher.emit(events.SlowRequest(1.0, finished(), 0.001))
    dispatcher.emit(events.TokenIgnored(1.0, "acme", "main", "forged"))
    dispatcher.emit(events.WriteLost(1.0, "acme", "main", certain=False))
    for kind in (events.TransactionCommitted, events.TransactionRolledBack, events.CommitUnknown):
        dispatcher.emit(kind(1.0, "acme", None, PRIMARY, 0.1, 2, False, 7))
    node = "main/r1"
    assert value(metrics, "connections_opened_total", node=node) == 1
    assert value(metrics, "connect_duration_seconds_sum", node=node) == pytest.approx(0.02)
    assert value(metrics, "connections_failed_total", node=node, error="ConnectionFailed") == 1
    assert value(metrics, "connections_closed_total", node=node, reason="idle") == 1
    assert value(metrics, "connections_held_total", node=node) == 1
    assert value(metrics, "retries_total", error="Deadlock") == 1
    assert value(metrics, "statements_left_total", node=node, error="ConnectError") == 3
    assert value(metrics, "slow_requests_total", cluster="main") == 1
    assert value(metrics, "tokens_ignored_total", cluster="main", refusal="forged") == 1
    assert value(metrics, "writes_lost_total", cluster="main", certain="no") == 1
    for outcome in ("committed", "rolled_back", "unknown"):
        assert value(metrics, "transactions_total", cluster="main", outcome=outcome) == 1
    assert [stats.failed for stats in dispatcher.stats()] == [0] * len(dispatcher.stats())


def test_every_event_is_measured(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """A new event must be counted here, or be left out on purpose.

    To listen to RequestStarted would have every request build one; those that ended count.
    """
    known = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
    ours = [kind for kind in known if not any(other.__base__ is kind for other in known)]
    assert [kind.__name__ for kind in ours if not dispatcher.wants(kind)] == ["RequestStarted"]


def test_listeners_that_fail_or_lag_are_exported(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """The dispatcher's own counts are read at the scrape, summed by listener."""

    def broken(event: Event) -> None:
        raise ValueError

    async def without_a_loop(event: Event) -> None: ...

    for _ in range(2):
        dispatcher.subscribe(events.RequestFinished, broken)
    dispatcher.subscribe(events.RequestFinished, without_a_loop)
    dispatcher.emit(finished())
    name = f"{__name__}.test_listeners_that_fail_or_lag_are_exported.<locals>"
    assert value(metrics, "listener_errors_total", listener=f"{name}.broken") == 2
    assert value(metrics, "events_dropped_total", listener=f"{name}.without_a_loop") == 1


def test_the_summary_totals_by_word(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """People get totals by role, reason, error and outcome over all clusters."""
    for event in (finished(), finished(), finished(PRIMARY), failed(), failed(None)):
        dispatcher.emit(event)
    dispatcher.emit(events.SlowRequest(1.0, finished(), 0.001))
    dispatcher.emit(events.RetryScheduled(1.0, "acme", "f1", REPLICA, "LockTimeout", None, 1, 0.1))
    dispatcher.emit(events.TransactionCommitted(1.0, "acme", None, PRIMARY, 0.1, 2, False, 7))
    assert metrics.summary() == {
        "requests": {"replica": 2, "primary": 3},
        "outcomes": {"ok": 3, "error": 2},
        "reasons": {"read": 2, "write": 3},
        "errors": {"Deadlock": 2},
        "retries": {"LockTimeout": 1},
        "transactions": {"committed": 1},
        "slow": 1,
    }


def test_the_text_is_what_prometheus_reads(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """Both formats parse, and say what they are."""
    dispatcher.emit(finished())
    names = {family.name for family in parse(metrics.render().decode())}
    assert {"router_requests", "router_request_duration_seconds", "router_listener_errors"} <= names
    assert metrics.content_type().startswith("text/plain; version=0.0.4")
    accept = "application/openmetrics-text; version=1.0.0"
    assert {family.name for family in parse_openmetrics(metrics.render(accept).decode())} >= {
        "router_requests",
        "router_events_dropped",
    }
    assert metrics.content_type(accept).startswith("application/openmetrics-text")


def test_durations_have_the_same_buckets_everywhere(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """From half a millisecond to ten seconds, so that panels can compare."""
    dispatcher.emit(finished())
    dispatcher.emit(events.ConnectionOpened(1.0, REPLICA, "asyncpg", "app", "app", 0.02))
    bounds: dict[str, set[float]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                bounds.setdefault(sample.name, set()).add(float(sample.labels["le"]))
    assert len(bounds) == 3
    assert all(found == {*BUCKETS, float("inf")} for found in bounds.values())
    assert (BUCKETS[0], BUCKETS[-1]) == (0.0005, 10.0)


def test_the_global_registry_stays_untouched() -> None:
    """Two routers in a process, or a given registry, never meet on the global one."""
    before = set(prometheus_client.REGISTRY._names_to_collectors)
    own = CollectorRegistry()
    metrics = [Metrics(), Metrics(), Metrics(own, namespace="acme")]
    assert metrics[2].registry is own
    assert metrics[0].registry is not metrics[1].registry
    assert set(prometheus_client.REGISTRY._names_to_collectors) == before
    assert b"acme_requests" in metrics[2].render()


def test_metrics_attach_once(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """A second attach would count every request twice."""
    with pytest.raises(UsageError, match="attached already"):
        metrics.attach(dispatcher)


def test_no_series_carries_sql(dispatcher: Dispatcher, metrics: Metrics) -> None:
    """What has values without bound is no label."""
    dispatcher.emit(finished(sql="SELECT 'sql-canary'", fingerprint="print-canary"))
    dispatcher.emit(events.RetryScheduled(1.0, "acme", "print-canary", REPLICA, "x", None, 1, 0.1))
    assert b"canary" not in metrics.render()
