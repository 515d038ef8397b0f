"""Spans by OpenTelemetry's conventions: one a request, complete, of its own time, and never with a value."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from router import Router, acting, events, parse
from router.context import Context
from router.errors import UsageError
from router.integrations.opentelemetry import instrument
from router.testing import record, sqlite_router
from router.topology import Node, Role
from tests.doubles import Server, opened
from tests.telling import PRIMARY, failed, finished
from tests.tracing import Telemetry, attributes, ids

CREATE = "CREATE TABLE plans (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with sqlite_router(folder=tmp_path, schemas=("analytics",)) as router:
        await router.execute(CREATE, tenant="acme")
        yield router


# --- one span a request ----------------------------------------------------------------------------------


async def test_a_read_is_one_client_span_of_stable_attributes(router: Router, telemetry: Telemetry) -> None:
    """Name, kind and attributes are those of the conventions, and ours have a prefix of their own."""
    with telemetry.instrument(router):
        await router.fetch_all("SELECT * FROM plans WHERE id = :id", {"id": 7}, tenant="acme")
    span, told = telemetry.span, attributes(telemetry.span)
    assert (span.name, span.kind, span.status.status_code) == (
        "SELECT plans",
        SpanKind.CLIENT,
        StatusCode.UNSET,
    )
    assert {name: value for name, value in told.items() if not name.startswith("router.")} == {
        "db.system.name": "sqlite",
        "db.namespace": "acme",
        "db.operation.name": "SELECT",
        "db.collection.name": "plans",
        "db.query.summary": "SELECT plans",
        "db.query.text": "SELECT * FROM plans WHERE id = :id",
        "db.response.returned_rows": 0,
    }
    assert {type(value) for value in told.values()} <= {str, int, float}  # exporters take no enums
    assert (told["router.tenant"], told["router.role"], told["router.reason"]) == ("acme", "replica", "read")
    assert (told["router.attempts"], told["router.kind"]) == (1, "read")
    assert told["router.node"].startswith("main/reader-")


async def test_a_span_has_the_time_of_the_request(router: Router, telemetry: Telemetry) -> None:
    """It begins when the request was asked for, and ends when its event is told."""
    with telemetry.instrument(router), record(router, events.RequestFinished) as recorded:
        await router.fetch_all("SELECT * FROM plans", tenant="acme")
    (event,) = recorded.of(events.RequestFinished)
    span = telemetry.span
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time == int(event.at * 1e9)
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(event.total, abs=1e-6)


async def test_the_parent_is_the_span_of_the_application(router: Router, telemetry: Telemetry) -> None:
    """Each request is a child of what its own task is in, also where tasks run at once."""

    async def handle(number: int) -> str:
        with telemetry.app(f"GET /{number}") as span:
            await asyncio.sleep(0)
            await router.fetch_all("SELECT :number", {"number": number}, tenant="acme")
            return ids(span)[1]

    with telemetry.instrument(router):
        expected = await asyncio.gather(*map(handle, range(5)))
    parents = [format(span.parent.span_id, "016x") for span in telemetry.spans if span.parent is not None]
    assert sorted(parents) == sorted(expected)


async def test_a_failure_has_status_code_and_type(router: Router, telemetry: Telemetry) -> None:
    """The error is named by class and code; the description is our own words, without values."""
    add = "INSERT INTO plans (name) VALUES (:name)"
    await router.execute(add, {"name": "canary-value"}, tenant="acme")
    with telemetry.instrument(router), pytest.raises(Exception, match="UNIQUE"):
        await router.execute(add, {"name": "canary-value"}, tenant="acme")
    span, told = telemetry.span, attributes(telemetry.span)
    assert (told["error.type"], told["db.response.status_code"]) == (
        "UniqueViolation",
        "SQLITE_CONSTRAINT_UNIQUE",
    )
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "UNIQUE constraint failed: plans.name"


async def test_each_retry_is_an_event_of_the_one_span(server: Server, telemetry: Telemetry) -> None:
    """A request that needed three attempts is one span with two events, each with its time and error."""
    async with opened(replicas=1) as router:
        with telemetry.instrument(router), record(router, events.RetryScheduled) as recorded:
            server.fail("fetch_all", ConnectionResetError("gone"), times=2, breaks=True)
            await router.fetch_all("SELECT 1", tenant="acme")
    span = telemetry.span
    assert attributes(span)["router.attempts"] == 3
    retries = recorded.of(events.RetryScheduled)
    assert [(each.name, each.timestamp) for each in span.events] == [
        ("router.retry", int(retry.at * 1e9)) for retry in retries
    ]
    told = dict(span.events[0].attributes or {})
    assert told["error.type"] == "ConnectionLost"
    assert told["router.attempt"] == 1
    assert told["router.node"] == "main/r1"
    assert told["router.delay_seconds"] >= 0
    assert span.status.status_code is StatusCode.UNSET


async def test_the_address_is_that_of_the_last_node(server: Server, telemetry: Telemetry) -> None:
    """After a retry elsewhere, server and peer are where the answer came from."""
    async with opened(replicas=1) as router:
        with telemetry.instrument(router):
            server.fail("fetch_all", ConnectionResetError("gone"), node="r1", breaks=True)
            await router.fetch_all("SELECT 1", tenant="acme")
    told = attributes(telemetry.span)
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", 1)
    assert (told["network.peer.address"], told["network.peer.port"]) == ("127.0.0.1", 1)
    assert told["router.node"] == "main/primary"


async def test_a_request_that_reached_no_node_has_a_span_too(server: Server, telemetry: Telemetry) -> None:
    """A refusal by the pool is an error of the request, without a server's address."""
    async with opened(replicas=1) as router:
        with telemetry.instrument(router):
            router.dispatcher.emit(failed(None, error="NoPrimary", code=None, message="there is no primary"))
    span, told = telemetry.span, attributes(telemetry.span)
    assert span.status.status_code is StatusCode.ERROR
    assert told["error.type"] == "NoPrimary"
    assert not {"server.address", "db.response.status_code", "router.node"} & set(told)


# --- what is shown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "namespace", "expected"),
    [
        ("postgresql", "schema", "app|acme"),
        ("postgresql", "database", "app"),
        ("postgresql", "none", None),
        ("mariadb", "schema", "acme"),
        ("mariadb", "database", "acme"),
    ],
)
async def test_the_namespace_is_that_of_the_engine(
    engine: str, namespace: str, expected: str | None, telemetry: Telemetry
) -> None:
    """PostgreSQL has database and schema, of which the second names the tenant; MySQL has one name."""
    login = {"writer": {"username": "app", "password": "x"}}
    section = {"engine": engine, "primary": {"host": "db-1"}, "credentials": login}
    tenant = {"cluster": "main", "isolation": "schema", "schema": "acme"}
    if engine == "postgresql":
        section["database"] = tenant["database"] = "app"
    router = Router(parse({"version": 1, "clusters": {"main": section}, "tenants": {"acme": tenant}}))
    async with router:
        router.session("acme")
        with telemetry.instrument(router, namespace=namespace):
            router.dispatcher.emit(finished(PRIMARY))
    told = attributes(telemetry.span)
    assert told["db.system.name"] == engine
    assert told.get("db.namespace") == expected
    assert (told["server.address"], told["server.port"]) == ("db-1", 5432)
    assert "network.peer.address" not in told  # of a name, only the driver knows what it led to


async def test_a_socket_is_no_port(router: Router, telemetry: Telemetry) -> None:
    """Where the server is reached by a Unix socket, the address is its path."""
    with telemetry.instrument(router):
        router.dispatcher.emit(finished(Node("primary", "main", Role.PRIMARY, "/run/postgresql", 5432)))
    told = attributes(telemetry.span)
    assert (told["server.address"], told["network.transport"]) == ("/run/postgresql", "unix")
    assert "server.port" not in told


async def test_text_is_shown_only_if_wanted(router: Router, telemetry: Telemetry) -> None:
    """Who wants no SQL in the traces can have it left out; the summary stays."""
    with telemetry.instrument(router, text=False):
        await router.fetch_all("SELECT * FROM plans", tenant="acme")
    told = attributes(telemetry.span)
    assert "db.query.text" not in told
    assert told["db.query.summary"] == "SELECT plans"


async def test_what_the_application_says_is_on_the_span(router: Router, telemetry: Telemetry) -> None:
    """The id of its request and its tags; not who acts, which is for the audit."""
    await router.execute(CREATE, tenant="acme", schema="analytics")
    said = acting(actor="ann@example.com", context_id="r-17", tags={"route": "/plans"})
    with telemetry.instrument(router), said:
        await router.fetch_all("SELECT * FROM plans", tenant="acme", schema="analytics")
    told = attributes(telemetry.span)
    assert (told["router.context_id"], told["router.tag.route"]) == ("r-17", "/plans")
    assert told["router.schema"] == "analytics"
    assert told["db.namespace"] == "acme|acme_analytics"
    assert "ann" not in str(told)


# --- cached answers --------------------------------------------------------------------------------------


async def test_a_cached_answer_has_a_span_only_if_wanted(router: Router, telemetry: Telemetry) -> None:
    """No database was asked; who wants to see it gets an internal span without a server."""
    sql = "SELECT * FROM plans"
    await router.fetch_all(sql, tenant="acme", cache=60)
    with telemetry.instrument(router):
        await router.fetch_all(sql, tenant="acme", cache=60)
    assert telemetry.spans == []
    with telemetry.instrument(router, cached=True):
        await router.fetch_all(sql, tenant="acme", cache=60)
    span, told = telemetry.span, attributes(telemetry.span)
    assert (span.name, span.kind) == ("cache SELECT plans", SpanKind.INTERNAL)
    assert (told["router.cache"], told["router.role"]) == ("hit", "cache")
    assert "server.address" not in told


# --- what others hear ------------------------------------------------------------------------------------


async def test_listeners_hear_the_trace_of_the_span(router: Router, telemetry: Telemetry) -> None:
    """Whoever subscribed before, and a queue that is read later, find the span by the event."""
    later: list[events.RequestFinished] = []

    async def queued(event: events.RequestFinished) -> None:
        later.append(event)

    with record(router, events.RequestFinished) as recorded:
        router.dispatcher.subscribe(events.RequestFinished, queued)
        with telemetry.instrument(router), telemetry.app() as app, acting(actor="ann"):
            await router.fetch_all("SELECT 1", tenant="acme")
        await asyncio.sleep(0.01)
    (event,) = recorded.of(events.RequestFinished)
    assert event.context is not None
    assert (event.trace_id, event.context.span_id) == ids(telemetry.span)
    assert event.trace_id == ids(app)[0]
    assert (event.context.actor, event.context.sampled) == ("ann", True)
    assert later == [event]


async def test_other_events_have_the_trace_of_the_application(router: Router, telemetry: Telemetry) -> None:
    """A connection that is opened for a request, a retry, a slow request: all say in which trace it was."""
    with telemetry.instrument(router), telemetry.app() as app, record(router) as recorded:
        await router.execute("INSERT INTO plans (name) VALUES ('a')", tenant="acme", schema=None)
        await router.fetch_all("SELECT 1", tenant="acme")
        router.dispatcher.emit(events.RetryScheduled(1.0, "acme", "f", None, "Deadlock", None, 1, 0.0))
    opened_ = recorded.of(events.ConnectionOpened)
    assert opened_
    for event in (*opened_, *recorded.of(events.RetryScheduled)):
        assert event.context is not None
        assert (event.trace_id, event.context.span_id) == ids(app)


async def test_a_session_made_outside_of_the_span_has_its_trace(router: Router, telemetry: Telemetry) -> None:
    """What counts is where the request is made: also with an id of the session's own."""
    session = router.session("acme", context_id="s-1")
    telemetry.instrument(router)
    with record(router) as recorded, telemetry.app() as app, acting(actor="ann"):
        await session.fetch_all("SELECT 1")
    for event in recorded.events:
        assert event.trace_id == ids(app)[0]
    (finished_,) = recorded.of(events.RequestFinished)
    assert finished_.context is not None
    assert (finished_.context_id, finished_.context.actor) == ("s-1", "ann")


async def test_a_trace_that_is_not_kept_says_so(router: Router) -> None:
    """Log lines still have its id, but nothing should link to it: no exemplar, no last trace."""
    telemetry = Telemetry(ParentBased(ALWAYS_OFF))
    with telemetry.instrument(router), telemetry.app() as app, record(router) as recorded:
        await router.fetch_all("SELECT 1", tenant="acme")
    assert telemetry.spans == []
    (event,) = recorded.of(events.RequestFinished)
    assert event.context is not None
    assert event.trace_id == ids(app)[0]
    assert not event.context.sampled


async def test_without_a_provider_the_context_stays(router: Router) -> None:
    """Where the application has set up no SDK, ids given by hand are kept."""
    given = {"trace_id": "a" * 32, "span_id": "b" * 16}
    instrument(router, tracer_provider=trace.NoOpTracerProvider())
    with record(router) as recorded, acting(**given):
        await router.fetch_all("SELECT 1", tenant="acme")
    (event,) = recorded.of(events.RequestFinished)
    assert event.context == Context(**given)


# --- on and off ------------------------------------------------------------------------------------------


async def test_undo_ends_it(router: Router, telemetry: Telemetry) -> None:
    """Nothing is told afterwards, a second call is harmless, and it may be done anew."""
    before = router.dispatcher.stats()
    handle = telemetry.instrument(router)
    await router.fetch_all("SELECT 1", tenant="acme")
    handle.undo()
    handle.undo()
    await router.fetch_all("SELECT 1", tenant="acme")
    assert len(telemetry.spans) == 1
    assert len(router.dispatcher.stats()) == len(before)
    with telemetry.instrument(router):
        await router.fetch_all("SELECT 1", tenant="acme")
    assert len(telemetry.spans) == 2


async def test_a_router_is_instrumented_once(router: Router, telemetry: Telemetry) -> None:
    """Twice would be two spans for each request."""
    with telemetry.instrument(router), pytest.raises(UsageError, match="instrumented already"):
        telemetry.instrument(router)


async def test_no_provider_is_made_or_replaced(router: Router) -> None:
    """The application's providers are asked for and left alone; without any nothing happens."""
    before = trace.get_tracer_provider()
    with instrument(router):
        assert await router.fetch_value("SELECT 1", tenant="acme") == 1
    assert trace.get_tracer_provider() is before


async def test_a_namespace_of_another_kind_is_refused(router: Router) -> None:
    """A word that means nothing is not ignored."""
    with pytest.raises(UsageError, match="schema, database, none"):
        instrument(router, namespace="tenant")  # type: ignore[arg-type]


async def test_a_broken_exporter_fails_no_request(
    router: Router, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """What the SDK does wrong is counted as any listener's failure."""

    class Broken:
        def on_start(self, *given: object) -> None:
            raise RuntimeError("broken")

        on_end = shutdown = force_flush = on_start

    telemetry.tracers.add_span_processor(Broken())  # type: ignore[arg-type]
    with telemetry.instrument(router):
        assert await router.fetch_value("SELECT 1", tenant="acme") == 1
        assert sum(each.failed for each in router.dispatcher.stats()) == 1
    telemetry.tracers._active_span_processor._span_processors = ()  # the SDK calls it at the end again


async def test_a_processor_that_stores_spans_through_the_router_comes_to_an_end(
    router: Router, telemetry: Telemetry
) -> None:
    """What it does itself is in no span: else each would cause the next."""
    tasks: list[asyncio.Task[object]] = []

    class Storing(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            work = router.execute("INSERT INTO plans (name) VALUES (:id)", {"id": span.name}, tenant="acme")
            tasks.append(asyncio.ensure_future(work))

    telemetry.tracers.add_span_processor(Storing())
    with telemetry.instrument(router):
        await router.fetch_all("SELECT 1", tenant="acme")
        await asyncio.sleep(0.05)
    assert len(tasks) == len(telemetry.spans) == 1


def test_without_the_package_the_extra_is_named() -> None:
    """Who has not installed OpenTelemetry is told how."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "try:\n    import router.integrations.opentelemetry\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tenant-router[opentelemetry]'" in done.stdout
