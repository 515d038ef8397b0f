"""The slow-query log: one line for each slow request, and what the table tells of all requests."""

from __future__ import annotations

import logging
from types import MappingProxyType

import pytest

from router.context import Context
from router.dispatcher import Dispatcher
from router.events import SlowRequest
from router.reasons import Reason
from router.slowlog import SQL_LIMIT, SlowLog
from router.topology import Node, Role
from router.waits import Waits
from tests.telling import failed, finished

NODE = Node("r1", "main", Role.REPLICA, "db", 5432)


def slow(
    total: float,
    fingerprint: str = "f1",
    *,
    sql: str = "select ?",
    tenant: str = "acme",
    node: Node | None = NODE,
    reason: Reason = Reason.READ,
) -> SlowRequest:
    request = finished(
        node,
        fingerprint=fingerprint,
        sql="SELECT 'canary'",  # as written: not for the log
        normalized=sql,
        tenant=tenant,
        reason=reason,
        waits=Waits(queue=0.001),
        total=total,
    )
    return SlowRequest(1.0, request, 0.5)


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


def test_a_slow_request_is_one_warning_with_its_facts(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """The line is readable and its parts are fields for machines."""
    SlowLog(dispatcher)
    dispatcher.emit(slow(0.731))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("router.slow", logging.WARNING)
    assert record.getMessage() == (
        "slow request: 731.0 ms (threshold 500.0 ms) "
        "tenant=acme node=main/r1 reason=read outcome=ok: select ?"
    )
    fields = vars(record)
    assert (fields["tenant"], fields["node"], fields["reason"], fields["role"]) == (
        "acme",
        "main/r1",
        "read",
        "replica",
    )
    assert (fields["total_seconds"], fields["threshold_seconds"], fields["queue_seconds"]) == (
        0.731,
        0.5,
        0.001,
    )
    assert fields["sql"] == "select ?"
    assert "canary" not in str(fields)


def test_long_statements_are_cut(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    """The log holds no more than the limit of a statement."""
    SlowLog(dispatcher)
    dispatcher.emit(slow(1.0, sql="x" * 1_000_000))
    assert len(vars(caplog.records[0])["sql"]) == SQL_LIMIT
    assert len(caplog.records[0].getMessage()) < SQL_LIMIT + 200


def test_a_statement_cannot_forge_a_log_line(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Line breaks and control characters of the statement become spaces in the line."""
    SlowLog(dispatcher)
    dispatcher.emit(slow(1.0, sql="SELECT\n  1;\r\nERROR\x1b[31m forged\u2028line"))
    message = caplog.records[0].getMessage()
    assert message.endswith("SELECT 1; ERROR [31m forged line")


def test_a_request_without_a_node_is_logged_too(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Time spent waiting for a connection that never came is slow as well."""
    SlowLog(dispatcher)
    dispatcher.emit(slow(5.0, node=None))
    assert "node=none" in caplog.text


def test_the_line_has_what_leads_on(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    """Trace, context, tags and every step are fields, so that a log search finds what belongs together."""
    SlowLog(dispatcher)
    event = slow(1.0)
    event.request.context = Context("request 7", "1" * 32, tags=MappingProxyType({"route": "/plans"}))
    dispatcher.emit(event)
    fields = vars(caplog.records[0])
    assert (fields["context_id"], fields["trace_id"]) == ("request 7", "1" * 32)
    assert fields["tags"] == {"route": "/plans"}
    steps = ("lookup", "queue", "connect", "bind", "catch_up", "execute", "fetch", "total", "threshold")
    assert {f"{step}_seconds" for step in steps} <= fields.keys()


def test_a_digest_counts_all_requests_and_which_of_them_were_slow(dispatcher: Dispatcher) -> None:
    """The threshold is applied by the emitter; the table ranks by what all requests have cost."""
    log = SlowLog(dispatcher)
    for total in (0.1, 0.2):
        dispatcher.emit(finished(total=total))
    event = slow(0.5)
    dispatcher.emit(event.request)
    dispatcher.emit(event)
    dispatcher.emit(failed(total=0.3))
    (digest,) = log.digests()
    assert (digest.count, digest.slow, digest.errors, digest.total) == (4, 1, 1, pytest.approx(1.1))


def test_the_seconds_of_the_costliest_are_told_by_fingerprint(dispatcher: Dispatcher) -> None:
    """For a metric with few series: the costliest first, no more than asked for."""
    log = SlowLog(dispatcher)
    for n in range(30):
        dispatcher.emit(finished(fingerprint=f"f{n:02}", total=float(n)))
    assert len(log.seconds()) == 20
    assert log.seconds(3) == [("f29", 29.0), ("f28", 28.0), ("f27", 27.0)]


def test_the_load_fades_by_the_dispatcher_s_clock() -> None:
    """What is asked no more costs nothing now, though its total stays."""
    now = 1000.0
    dispatcher = Dispatcher(lambda: now)
    log = SlowLog(dispatcher)
    dispatcher.emit(finished(total=5.0, at=now))
    before = log.digests()[0]
    now = 1060.0
    after = log.digests()[0]
    assert after.load == pytest.approx(before.load / 2)
    assert after.total == before.total == 5.0
