"""The router's log lines: fields that say what they are about, for any formatter, and none that clash."""

import ast
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from router import Router, acting, events
from router.context import Context
from router.logs import log_of, of
from router.testing import sqlite_router
from tests.telling import finished
from tests.tracing import Telemetry, ids

SOURCES = sorted((Path(__file__).resolve().parents[1] / "router").rglob("*.py"))
IDS = {"context_id", "trace_id", "span_id"}
#: What a record has by itself: ``logging`` refuses a field of that name.
TAKEN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def test_a_line_says_in_which_request_it_was_written(caplog: pytest.LogCaptureFixture) -> None:
    """The ids of the present context are fields of every line; a line in nobody's name has them empty."""
    log = log_of("test")
    log.warning("alone")
    with acting(context_id="r-1", trace_id="a" * 32, span_id="b" * 16):
        log.warning("with %d fields", 2, extra={"node": "main/r1", "tenant": "acme"})
    alone, within = map(vars, caplog.records)
    assert {alone[name] for name in IDS} == {None}
    assert (within["context_id"], within["trace_id"], within["span_id"]) == ("r-1", "a" * 32, "b" * 16)
    assert (within["node"], within["tenant"]) == ("main/r1", "acme")
    assert (within["name"], within["message"]) == ("router.test", "with 2 fields")
    assert within["funcName"] == "test_a_line_says_in_which_request_it_was_written"


def test_a_line_about_an_event_has_the_ids_of_the_event(caplog: pytest.LogCaptureFixture) -> None:
    """Also where it is written later, or by somebody else."""
    with acting(context_id="later"):
        log_of("test").warning("line", extra=of(Context("r-1", "a" * 32), tenant="acme"))
    fields = vars(caplog.records[0])
    assert (fields["context_id"], fields["trace_id"], fields["tenant"]) == ("r-1", "a" * 32, "acme")


def _calls() -> list[tuple[str, ast.Call]]:
    """Return all calls in the router's code, with the place."""
    return [
        (f"{path.name}:{node.lineno}", node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def test_all_loggers_are_made_in_one_place() -> None:
    """No line can lack the ids: only router.logs makes loggers; others touch handlers and foreign ones."""
    made = {
        place.partition(":")[0]
        for place, call in _calls()
        if isinstance(call.func, ast.Attribute) and call.func.attr == "getLogger"
    }
    assert made == {"logs.py", "__init__.py", "demo.py", "asking.py"}


def test_no_field_has_a_name_that_is_taken() -> None:
    """Logging raises KeyError for one, in the middle of a request."""
    named: dict[str, str] = {}
    for place, call in _calls():
        for keyword in call.keywords:
            if keyword.arg != "extra":
                continue
            if isinstance(keyword.value, ast.Dict):
                names = [key.value for key in keyword.value.keys if isinstance(key, ast.Constant)]
            elif isinstance(keyword.value, ast.Call):
                names = [each.arg for each in keyword.value.keywords]
            else:
                continue
            named |= {str(name): place for name in names}
    assert {"tenant", "node", "listener", "total_seconds"} <= set(named)
    assert {name: place for name, place in named.items() if name in TAKEN} == {}


async def test_the_slow_line_leads_to_the_trace(caplog: pytest.LogCaptureFixture) -> None:
    """It has the ids of the request's span, its tenant and node, and no literal."""
    telemetry = Telemetry()
    async with sqlite_router() as router:
        with telemetry.instrument(router), telemetry.app():
            request = finished(normalized="select ?", sql="SELECT 'canary'")
            router.dispatcher.emit(request)
            router.dispatcher.emit(events.SlowRequest(1.0, request, 0.5))
    fields = vars(caplog.records[0])
    assert (fields["trace_id"], fields["span_id"]) == ids(telemetry.span)
    assert (fields["tenant"], fields["node"], fields["role"]) == ("acme", "main/r1", "replica")
    assert "canary" not in str(fields)


async def test_the_line_about_a_failing_listener_names_request_and_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever looks for why finds the request that it failed at."""
    telemetry = Telemetry()

    def broken(event: events.RequestFinished) -> None:
        raise RuntimeError("broken")

    async with sqlite_router() as router:
        router.dispatcher.subscribe(events.RequestFinished, broken, name="billing")
        with telemetry.instrument(router), acting(context_id="r-1"):
            await router.fetch_all("SELECT 1", tenant="acme")
    (record,) = caplog.records
    fields = vars(record)
    assert (fields["listener"], fields["context_id"]) == ("billing", "r-1")
    assert (fields["trace_id"], fields["span_id"]) == ids(telemetry.span)


# --- formatters ------------------------------------------------------------------------------------------


def _written(formatter: logging.Formatter, router: Router) -> str:
    """Return the line of a slow request, as a formatter writes it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("router.slow")
    logger.addHandler(handler)
    try:
        request = finished(normalized="select ?")
        router.dispatcher.emit(events.SlowRequest(1.0, request, 0.5))
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


async def test_a_plain_formatter_shows_fields() -> None:
    """What a record has, a format string can name."""
    formatter = logging.Formatter("%(tenant)s %(node)s %(trace_id)s %(message)s")
    async with sqlite_router() as router:
        assert _written(formatter, router).startswith("acme main/r1 None slow request: ")


async def test_structlog_shows_fields() -> None:
    """Its processor for foreign records takes all of them over."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    async with sqlite_router() as router:
        line: dict[str, Any] = json.loads(_written(formatter, router))
    assert (line["tenant"], line["node"], line["level"]) == ("acme", "main/r1", "warning")
    assert line["event"].startswith("slow request: ")
    assert line["total_seconds"] == 0.0
