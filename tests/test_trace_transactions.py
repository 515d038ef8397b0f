"""Spans of transactions: one tree from begin to end, whatever ends them, and none left open."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from router import Router, events
from router.testing import sqlite_router
from tests.doubles import Server, opened
from tests.telling import PRIMARY, finished
from tests.tracing import Telemetry, attributes, begun, ids, parent


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    async with sqlite_router(folder=tmp_path) as router:
        await router.execute("CREATE TABLE plans (name TEXT)", tenant="acme")
        yield router


async def test_a_transaction_is_the_parent_of_its_requests(router: Router, telemetry: Telemetry) -> None:
    """Its span lasts from when it was asked for to its end, under the application's."""
    with telemetry.instrument(router), telemetry.app() as app:
        router.dispatcher.emit(begun())
        router.dispatcher.emit(finished(PRIMARY, at=102.0, total=0.5, unit=7))
        end = events.TransactionCommitted(103.0, "acme", None, PRIMARY, 3.0, 1, False, 7)
        router.dispatcher.emit(end)
    request, transaction = telemetry.spans
    assert (transaction.name, transaction.kind) == ("transaction main", SpanKind.INTERNAL)
    assert (transaction.start_time, transaction.end_time) == (100_000_000_000, 103_000_000_000)
    assert request.parent is not None
    assert transaction.parent is not None
    assert request.parent.span_id == transaction.get_span_context().span_id
    assert transaction.parent.span_id == app.get_span_context().span_id
    told = attributes(transaction)
    assert (told["router.outcome"], told["router.statements"]) == ("committed", 1)
    assert told["router.queue_seconds"] == 0.5
    assert (end.trace_id, end.context and end.context.span_id) == ids(transaction)


@pytest.mark.parametrize(
    ("ended", "outcome", "error"),
    [
        (lambda *given: events.TransactionRolledBack(*given), "rolled_back", None),
        (lambda *given: events.TransactionRolledBack(*given, error="Deadlock"), "rolled_back", "Deadlock"),
        (lambda *given: events.CommitUnknown(*given), "unknown", "CommitOutcomeUnknown"),
    ],
)
async def test_the_end_of_a_transaction_is_told_as_it_was(
    ended: object, outcome: str, error: str | None, router: Router, telemetry: Telemetry
) -> None:
    """A rollback that was asked for is no error; one after an error is, and so is an unknown commit."""
    assert callable(ended)
    with telemetry.instrument(router):
        router.dispatcher.emit(begun())
        router.dispatcher.emit(ended(103.0, "acme", None, PRIMARY, 3.0, 1, False, 7))
    told = attributes(telemetry.span)
    assert (told["router.outcome"], told.get("error.type")) == (outcome, error)
    assert (telemetry.span.status.status_code is StatusCode.ERROR) == (error is not None)


async def test_transactions_that_never_end_are_bounded(
    router: Router, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the application forgot gives up its span to newer ones; none is left open by undo()."""
    monkeypatch.setattr("router.integrations.otel_spans.OPEN", 2)
    with telemetry.instrument(router):
        for unit in (1, 2, 3):
            router.dispatcher.emit(begun(unit))
        assert len(telemetry.spans) == 1
    assert len(telemetry.spans) == 3


async def test_transactions_can_be_left_out(router: Router, telemetry: Telemetry) -> None:
    """The requests then are children of the application's span."""
    with telemetry.instrument(router, transactions=False), telemetry.app() as app:
        router.dispatcher.emit(begun())
        router.dispatcher.emit(finished(PRIMARY, unit=7))
    assert telemetry.span.parent is not None
    assert telemetry.span.parent.span_id == app.get_span_context().span_id


async def test_a_transaction_that_is_run_is_one_tree(router: Router, telemetry: Telemetry) -> None:
    """Begin to commit is a span; its statements, and a stream's, are its children."""
    with telemetry.instrument(router), telemetry.app() as app:
        async with router.session("acme") as session:
            async with session.transaction() as tx:
                await tx.execute("INSERT INTO plans (name) VALUES ('a')")
                await tx.fetch_all("SELECT * FROM plans")
            assert [row.name async for row in session.stream("SELECT * FROM plans")] == ["a"]
    spans = {span.name: span for span in telemetry.spans}
    names = [span.name for span in telemetry.spans]
    assert names == ["INSERT plans", "SELECT plans", "transaction main", "SELECT plans", "transaction main"]
    first, second = (span for span in telemetry.spans if span.name == "transaction main")
    assert parent(first) == parent(second) == ids(app)[1]
    assert [parent(span) for span in telemetry.spans if span.kind is SpanKind.CLIENT] == [
        ids(first)[1],
        ids(first)[1],
        ids(second)[1],
    ]
    assert attributes(spans["INSERT plans"])["router.reason"] == "transaction"
    assert attributes(second)["router.readonly"] is True


async def test_the_orm_is_traced_like_all_else(router: Router, telemetry: Telemetry) -> None:
    """Its statements are spans with a text that has placeholders, under the span of its transaction."""
    from sqlalchemy import text

    with telemetry.instrument(router):
        async with router.session("acme") as session, session.orm() as orm:
            await orm.execute(text("INSERT INTO plans (name) VALUES (:name)"), {"name": "canary"})
            await orm.commit()
    request, transaction = telemetry.spans
    assert attributes(request)["db.query.text"] == "INSERT INTO plans (name) VALUES (?)"
    assert (request.name, transaction.name) == ("INSERT plans", "transaction main")
    assert parent(request) == ids(transaction)[1]


@pytest.mark.parametrize("verb", ["fetch_all", "commit", "rollback"])
async def test_a_cancelled_transaction_ends_its_span(verb: str, server: Server, telemetry: Telemetry) -> None:
    """Wherever it is cancelled: in a statement, in its commit, in its rollback. None stays open."""

    async def work(router: Router) -> None:
        async with router.session("acme") as session, session.transaction() as tx:
            await tx.fetch_all("SELECT 1")
            if verb == "rollback":
                raise ValueError("of the application")

    async with opened(replicas=1) as router:
        with telemetry.instrument(router) as handle:
            server.block(verb)
            task = asyncio.ensure_future(work(router))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not handle._spans._open
    transaction = telemetry.spans[-1]
    assert transaction.name == "transaction main"
    assert attributes(transaction)["router.outcome"] in ("rolled_back", "unknown")
    if verb == "fetch_all":
        assert attributes(telemetry.spans[0])["error.type"] == "CancelledError"
