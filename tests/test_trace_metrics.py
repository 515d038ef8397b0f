"""OpenTelemetry's own metrics: names, units, buckets and attributes of the conventions; all are bounded."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Metric
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from router import Router, events, parse
from router.errors import UsageError
from router.integrations.opentelemetry import instrument
from router.integrations.otel_operations import SETS
from router.testing import sqlite_router
from router.waits import Waits
from tests.doubles import Server, opened
from tests.telling import PRIMARY, REPLICA, failed, finished
from tests.tracing import Telemetry, begun, ids

DURATION = "db.client.operation.duration"
ROWS = "db.client.response.returned_rows"
POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with sqlite_router(folder=tmp_path) as router:
        yield router


def _ended(unit: int) -> events.TransactionEvent:
    return events.TransactionCommitted(103.0, "acme", None, PRIMARY, 3.0, 1, False, unit)


def points(metric: Metric) -> dict[frozenset[tuple[str, Any]], Any]:
    """Return the points of a metric by their attributes."""
    return {frozenset((point.attributes or {}).items()): point for point in metric.data.data_points}


async def test_the_instruments_are_those_of_the_conventions(server: Server, telemetry: Telemetry) -> None:
    """Names, units and buckets, of everything that a request, a transaction and a refusal tell."""
    async with opened(replicas=1) as router:
        with telemetry.instrument(router):
            await router.fetch_all("SELECT 1", tenant="acme")
            router.dispatcher.emit(begun())
            router.dispatcher.emit(_ended(7))
            router.dispatcher.emit(_refused("PoolTimeout"))
            metrics = telemetry.metrics()
    assert {name: metric.unit for name, metric in metrics.items()} == {
        DURATION: "s",
        ROWS: "{row}",
        "db.client.connection.count": "{connection}",
        "db.client.connection.max": "{connection}",
        "db.client.connection.pending_requests": "{request}",
        "db.client.connection.timeouts": "{timeout}",
        "db.client.connection.create_time": "s",
        "db.client.connection.wait_time": "s",
        "db.client.connection.use_time": "s",
    }
    bounds = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    for name in (DURATION, *(f"db.client.connection.{each}_time" for each in ("create", "wait", "use"))):
        assert all(point.explicit_bounds == bounds for point in metrics[name].data.data_points)
    (rows,) = metrics[ROWS].data.data_points
    assert rows.explicit_bounds == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


async def test_a_duration_has_the_stable_attributes_and_no_tenant(
    router: Router, telemetry: Telemetry
) -> None:
    """What fails is another time series than what succeeds; who asks is none."""
    with telemetry.instrument(router):
        await router.execute("CREATE TABLE plans (name TEXT UNIQUE)", tenant="acme")
        for _ in range(3):
            await router.fetch_all("SELECT * FROM plans", tenant="acme")
        await router.execute("INSERT INTO plans VALUES ('a')", tenant="acme")
        with pytest.raises(Exception, match="UNIQUE"):
            await router.execute("INSERT INTO plans VALUES ('a')", tenant="acme")
        found = points(telemetry.metrics()[DURATION])
    system, plans = ("db.system.name", "sqlite"), ("db.collection.name", "plans")
    read = frozenset({system, plans, ("db.operation.name", "SELECT")})
    insert = frozenset({system, plans, ("db.operation.name", "INSERT")})
    code = ("db.response.status_code", "SQLITE_CONSTRAINT_UNIQUE")
    refused = insert | {("error.type", "UniqueViolation"), code}
    assert set(found) == {frozenset({system, ("db.operation.name", "CREATE")}), read, insert, refused}
    assert found[read].count == 3
    assert 0 < found[read].sum < 3


async def test_the_server_is_that_of_the_last_node(server: Server, telemetry: Telemetry) -> None:
    """Address and port, not the peer, which metrics need not have."""
    async with opened(replicas=1) as router:
        with telemetry.instrument(router):
            await router.fetch_all("SELECT 1", tenant="acme")
            (point,) = telemetry.metrics()[DURATION].data.data_points
    assert dict(point.attributes or {}) == {
        "db.system.name": "scripted",
        "db.operation.name": "SELECT",
        "server.address": "127.0.0.1",
        "server.port": 2,
    }


async def test_the_namespace_is_told_only_if_wanted(router: Router, telemetry: Telemetry) -> None:
    """Where there are few tenants, their places may be told apart."""
    with telemetry.instrument(router, metric_namespace="schema"):
        await router.fetch_all("SELECT 1", tenant="acme")
        (point,) = telemetry.metrics()[DURATION].data.data_points
    assert (point.attributes or {})["db.namespace"] == "acme"


async def test_attribute_sets_are_bounded(router: Router, telemetry: Telemetry) -> None:
    """With more tables than the SDK takes sets of, new ones are told coarsely, and none overflows there."""
    with telemetry.instrument(router):
        for number in range(3 * SETS):
            sql = f"SELECT * FROM t{number}"
            router.dispatcher.emit(finished(sql=sql, tables=frozenset({f"t{number}"}), total=0.25))
        found = telemetry.metrics()[DURATION].data.data_points
    assert len(found) == SETS + 1
    coarse = [point for point in found if "db.collection.name" not in (point.attributes or {})]
    assert [point.count for point in coarse] == [2 * SETS]
    assert not any("otel.metric.overflow" in (point.attributes or {}) for point in found)


async def test_metrics_that_nobody_wants_are_not_made(router: Router, telemetry: Telemetry) -> None:
    """Each is named as it is exported; a name that means nothing is refused."""
    with telemetry.instrument(router, without=[ROWS, "db.client.connection.count"]):
        await router.fetch_all("SELECT 1", tenant="acme")
        names = set(telemetry.metrics())
    assert DURATION in names
    assert not {ROWS, "db.client.connection.count"} & names
    with pytest.raises(UsageError, match="there is no metric"):
        telemetry.instrument(router, without=["db.client.rows"])


async def test_cached_answers_are_no_operations(router: Router, telemetry: Telemetry) -> None:
    """No database was asked, so none is timed."""
    await router.execute("CREATE TABLE plans (name TEXT)", tenant="acme")
    await router.fetch_all("SELECT * FROM plans", tenant="acme", cache=60)
    with telemetry.instrument(router, cached=True):
        await router.fetch_all("SELECT * FROM plans", tenant="acme", cache=60)
        assert DURATION not in telemetry.metrics()


async def test_rows_are_counted_of_reads_alone(router: Router, telemetry: Telemetry) -> None:
    """What a write changed was not returned, and an unknown number is none."""
    with telemetry.instrument(router):
        for rows in (3, 0, -1):
            router.dispatcher.emit(finished(rows=rows))
        router.dispatcher.emit(finished(PRIMARY, rows=5))
        (point,) = telemetry.metrics()[ROWS].data.data_points
    assert (point.count, point.sum) == (2, 3)


# --- connections -----------------------------------------------------------------------------------------


def _refused(error: str) -> events.PoolRefused:
    return events.PoolRefused(1.0, PRIMARY, "app", "login", "acme", error, 5.0, 4, 1, 4)


async def test_connections_are_counted_by_node_and_state(server: Server, telemetry: Telemetry) -> None:
    """All pools of a node are one by name: databases and logins are not told apart."""
    async with opened(replicas=1, connections={"max": 3}) as router:
        with telemetry.instrument(router):
            for tenant in ("acme", "globex"):
                await router.fetch_all("SELECT 1", tenant=tenant)
            hold = server.block("fetch_all")
            waiting = asyncio.ensure_future(router.fetch_all("SELECT 1", tenant="acme"))
            await asyncio.sleep(0.01)
            metrics = telemetry.metrics()
            hold.set()
            await waiting
    count = points(metrics["db.client.connection.count"])
    assert {key: point.value for key, point in count.items()} == {
        frozenset({(POOL, "main/r1"), (STATE, "idle")}): 0,
        frozenset({(POOL, "main/r1"), (STATE, "used")}): 1,
    }
    (most,) = metrics["db.client.connection.max"].data.data_points
    assert getattr(most, "value", None) == 3
    assert not metrics["db.client.connection.count"].data.is_monotonic  # type: ignore[union-attr]


async def test_who_waits_is_counted(server: Server, telemetry: Telemetry) -> None:
    """Requests in a queue are pending; one that waited in vain is a timeout, a full queue is none."""
    async with opened(replicas=0, connections={"max": 1}) as router:
        with telemetry.instrument(router):
            hold = server.block("fetch_all")
            tasks = [asyncio.ensure_future(router.fetch_all("SELECT 1", tenant="acme")) for _ in range(3)]
            await asyncio.sleep(0.01)
            for error in ("PoolTimeout", "PoolTimeout", "PoolFull"):
                router.dispatcher.emit(_refused(error))
            metrics = telemetry.metrics()
            hold.set()
            await asyncio.gather(*tasks)
    (pending,) = metrics["db.client.connection.pending_requests"].data.data_points
    assert getattr(pending, "value", None) == 2
    (timeouts,) = metrics["db.client.connection.timeouts"].data.data_points
    assert (getattr(timeouts, "value", None), dict(timeouts.attributes or {})) == (2, {POOL: "main/primary"})


async def test_times_of_connections_are_those_of_the_events(router: Router, telemetry: Telemetry) -> None:
    """Waited for: queue and connect. Used: while a statement ran, or from begin to end of a transaction."""
    with telemetry.instrument(router):
        emit = router.dispatcher.emit
        emit(finished(REPLICA, execute=0.5, total=2.0, waits=Waits(queue=0.25, connect=0.5, bind=4.0)))
        emit(finished(PRIMARY, execute=0.5, total=0.5, unit=7))  # has the connection of its transaction
        emit(failed(None))  # has had none
        emit(begun(duration=1.0))  # has waited 0.5 s in a queue
        emit(_ended(7))
        emit(_ended(8))  # begun before
        metrics = telemetry.metrics()
    name = "db.client.connection"
    waited, used = points(metrics[f"{name}.wait_time"]), points(metrics[f"{name}.use_time"])
    primary, replica = frozenset({(POOL, "main/primary")}), frozenset({(POOL, "main/r1")})
    assert {key: (point.count, point.sum) for key, point in waited.items()} == {
        replica: (1, 0.75),
        primary: (1, 0.5),
    }
    assert {key: (point.count, point.sum) for key, point in used.items()} == {
        replica: (1, 0.5),
        primary: (1, 2.5),
    }


async def test_pools_may_be_asked_for_in_another_thread(server: Server, telemetry: Telemetry) -> None:
    """Exporters run in threads of their own, while requests come and pools are made."""
    stop, failures = threading.Event(), list[BaseException]()

    def export() -> None:
        try:
            while not stop.is_set():
                telemetry.metrics()
        except BaseException as error:
            failures.append(error)

    async with opened(replicas=1) as router:
        with telemetry.instrument(router):
            thread = threading.Thread(target=export)
            thread.start()
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                await router.fetch_all("SELECT 1", tenant="acme")
            stop.set()
            thread.join()
    assert failures == []


async def test_a_router_that_is_gone_is_not_kept(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A meter provider outlives routers: their instruments then tell nothing, and hold nothing."""
    section = {"engine": "sqlite", "primary": {"path": "unused"}}
    tenant = {"cluster": "main", "isolation": "database", "database": "acme"}
    router = Router(parse({"version": 1, "clusters": {"main": section}, "tenants": {"acme": tenant}}))
    telemetry.instrument(router)
    del router
    gc.collect()
    with caplog.at_level(logging.WARNING):
        assert telemetry.metrics() == {}
    assert caplog.records == []


# --- exporters -------------------------------------------------------------------------------------------


async def test_prometheus_can_export_them(router: Router) -> None:
    """Names and units as the OpenTelemetry exporter for Prometheus writes them."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry)
    with instrument(router, meter_provider=MeterProvider([reader], shutdown_on_exit=False)):
        await router.fetch_all("SELECT 1", tenant="acme")
        text = generate_latest(registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name for name in families if name.startswith("db_")} == {
        "db_client_operation_duration_seconds",
        "db_client_response_returned_rows",
        "db_client_connection_count",
        "db_client_connection_max",
        "db_client_connection_pending_requests",
        "db_client_connection_create_time_seconds",
        "db_client_connection_wait_time_seconds",
        "db_client_connection_use_time_seconds",
    }
    buckets = {
        sample.labels["le"]
        for sample in families["db_client_operation_duration_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    assert buckets == {"0.001", "0.005", "0.01", "0.05", "0.1", "0.5", "1.0", "5.0", "10.0", "+Inf"}
    assert families["db_client_connection_count"].type == "gauge"


async def test_an_exemplar_leads_to_the_span(router: Router, telemetry: Telemetry) -> None:
    """The trace and span of a duration's exemplar are those of the request's exported span."""
    with telemetry.instrument(router):
        await router.fetch_all("SELECT 1", tenant="acme")
        metrics = telemetry.metrics()
    for name in (DURATION, ROWS, "db.client.connection.use_time"):
        (point,) = metrics[name].data.data_points
        (exemplar,) = point.exemplars
        assert (format(exemplar.trace_id, "032x"), format(exemplar.span_id, "016x")) == ids(telemetry.span)


async def test_exemplars_of_the_routers_own_metrics_lead_to_spans(
    router: Router, telemetry: Telemetry
) -> None:
    """Also where the metrics are scraped: the trace of a bucket's exemplar was exported."""
    with telemetry.instrument(router), telemetry.app():
        await router.fetch_all("SELECT 1", tenant="acme")
    assert exemplars(router) == {ids(telemetry.span)[0]}
    (digest,) = router.slowlog.digests()
    assert digest.trace_id == ids(telemetry.span)[0]


async def test_no_exemplar_leads_to_a_trace_that_is_not_kept(router: Router) -> None:
    """A link that leads nowhere is worse than none; the digest keeps the last trace that is there."""
    telemetry = Telemetry(ParentBased(ALWAYS_OFF))
    with telemetry.instrument(router), telemetry.app():
        await router.fetch_all("SELECT 1", tenant="acme")
    assert exemplars(router) == set()
    assert router.slowlog.digests()[0].trace_id is None


def exemplars(router: Router) -> set[str]:
    """Return the traces that the router's own metrics name."""
    text = router.metrics.render("application/openmetrics-text").decode()
    return {
        sample.exemplar.labels["trace_id"]
        for family in openmetrics(text)
        for sample in family.samples
        if sample.exemplar is not None
    }
