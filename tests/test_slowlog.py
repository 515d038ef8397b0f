"""The slow-query log: one line per slow request, and a table that stays small."""

from __future__ import annotations

import logging

import pytest

from router.dispatcher import Dispatcher
from router.events import RequestFinished, SlowRequest
from router.reasons import Reason
from router.slowlog import SQL_LIMIT, SlowLog
from router.topology import Node, Role

NODE = Node("r1", "main", Role.REPLICA, "db", 5432)


def slow(
    total: float,
    fingerprint: str = "f1",
    *,
    sql: str = "SELECT :id",
    tenant: str = "acme",
    node: Node | None = NODE,
    reason: Reason = Reason.READ,
) -> SlowRequest:
    request = RequestFinished(
        1.0, tenant, None, sql, fingerprint, "read", node, Role.REPLICA, reason, 1, 0.001, total, total
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
        "tenant=acme node=main/r1 reason=read outcome=ok: SELECT :id"
    )
    fields = vars(record)
    assert (fields["tenant"], fields["node"], fields["reason"], fields["role"]) == (
        "acme",
        "main/r1",
        "read",
        "replica",
    )
    assert (fields["total_seconds"], fields["threshold_seconds"], fields["acquire_seconds"]) == (
        0.731,
        0.5,
        0.001,
    )
    assert fields["sql"] == "SELECT :id"


def test_long_statements_are_cut(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    """Neither log nor table holds more than the limit of a statement."""
    log = SlowLog(dispatcher)
    dispatcher.emit(slow(1.0, sql="x" * 1_000_000))
    assert len(vars(caplog.records[0])["sql"]) == SQL_LIMIT
    assert len(caplog.records[0].getMessage()) < SQL_LIMIT + 200
    assert len(log.entries()[0].sql) == SQL_LIMIT


def test_a_statement_cannot_forge_a_log_line(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Line breaks and control characters of the statement become spaces in the line."""
    SlowLog(dispatcher)
    dispatcher.emit(slow(1.0, sql="SELECT\n  1;\r\nERROR\x1b[31m forged\u2028line"))
    message = caplog.records[0].getMessage()
    assert message.endswith("SELECT 1; ERROR [31m forged line")


def test_entries_sum_up_by_fingerprint(dispatcher: Dispatcher) -> None:
    """Count, total and maximum add up; the last place and reason are kept; the first text stays."""
    log = SlowLog(dispatcher)
    dispatcher.emit(slow(1.0, sql="SELECT  :id"))
    dispatcher.emit(slow(3.0, tenant="globex", node=None, reason=Reason.OWN_WRITE))
    dispatcher.emit(slow(2.0, tenant="initech", reason=Reason.READ))
    (entry,) = log.entries()
    assert (entry.count, entry.total, entry.maximum) == (3, 6.0, 3.0)
    assert (entry.last_tenant, entry.last_node, entry.last_reason) == ("initech", "main/r1", Reason.READ)
    assert entry.sql == "SELECT  :id"


def test_a_request_without_a_node_is_logged_too(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Time spent waiting for a connection that never came is slow as well."""
    log = SlowLog(dispatcher)
    dispatcher.emit(slow(5.0, node=None))
    assert "node=none" in caplog.text
    assert log.entries()[0].last_node == "none"


def test_entries_come_by_total_time(dispatcher: Dispatcher) -> None:
    """What costs most in sum is first, not what was slowest once."""
    log = SlowLog(dispatcher)
    dispatcher.emit(slow(5.0, "once"))
    for _ in range(10):
        dispatcher.emit(slow(1.0, "often"))
    assert [entry.fingerprint for entry in log.entries()] == ["often", "once"]


def test_the_table_keeps_what_costs_most(dispatcher: Dispatcher) -> None:
    """When it is full the smallest total makes room, so a flood of rare statements cannot grow it."""
    log = SlowLog(dispatcher, capacity=3)
    dispatcher.emit(slow(9.0, "a"))
    dispatcher.emit(slow(8.0, "b"))
    for n in range(100):
        dispatcher.emit(slow(1.0, f"rare {n}"))
    assert [entry.fingerprint for entry in log.entries()] == ["a", "b", "rare 99"]
    dispatcher.emit(slow(1.0, "a"))
    assert log.entries()[0].total == 10.0


def test_only_slow_requests_are_heard(dispatcher: Dispatcher) -> None:
    """The threshold is applied by the emitter; ordinary events cost nothing here."""
    SlowLog(dispatcher)
    assert dispatcher.wants(SlowRequest)
    assert not dispatcher.wants(RequestFinished)
