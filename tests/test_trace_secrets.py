"""No password, bound value or literal is in any span, metric or log line, whatever goes wrong."""

import logging
from contextlib import suppress
from typing import Any

import pytest

from router import Router, acting
from router.errors import RouterError
from tests.engines import Engine
from tests.servers.passwords import CANARY
from tests.tracing import Telemetry, attributes

VALUE, LITERAL = "bound-canary", "literal-canary"


def _seen(telemetry: Telemetry) -> list[str]:
    """Return all that an exporter sends of spans and metrics."""
    texts = [
        repr((span.name, attributes(span), span.status.description, [vars(event) for event in span.events]))
        + "".join(repr(dict(event.attributes or {})) for event in span.events)
        + span.to_json()
        for span in telemetry.spans
    ]
    return texts + [metric.to_json() for metric in telemetry.metrics().values()]


async def _work(router: Router, table: str) -> None:
    """Make statements with values and literals, which succeed, are refused, or are no SQL."""
    add, values = f"INSERT INTO {table} (id, name) VALUES (:id, :name)", {"id": 1, "name": VALUE}
    literal = f"INSERT INTO {table} (id, name) VALUES (2, '{LITERAL}') /* {LITERAL} */"
    texts: list[tuple[str, dict[str, Any] | None]] = [
        (add, values),
        (add, values),
        (literal, None),
        (literal, None),
        (f"SELECT * FROM {table} WHERE name = '{LITERAL}' AND id = :id -- {LITERAL}", {"id": 1}),
        (f"SELECT '{LITERAL}' FROM nothing_of_the_name", None),
        (f"UPDATE {table} SET id = CAST('{LITERAL}' AS INTEGER)", None),
        (f"SELECT FROM WHERE '{LITERAL}'", None),
        (f"'{LITERAL}' SELECT", None),
        (f"INSERT INTO {table} (id, name) VALUES (:id, :name)", {"id": VALUE, "name": 5}),
    ]
    for sql, params in texts:
        with suppress(RouterError):
            await router.execute(sql, params, tenant="acme")
    with suppress(RouterError):
        await router.execute_raw(f"UPDATE {table} SET name = '{LITERAL}'", tenant="acme")
    with suppress(RouterError):
        async with router.session("acme") as session, session.transaction() as tx:
            await tx.execute(add, values)


async def test_a_broad_scenario_shows_nothing_private(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Every request is slow, traced, measured and logged at DEBUG: none of it holds a canary."""
    telemetry = Telemetry()
    table = engine.name()
    async with engine.open(defaults={"slow_query": "0ms"}) as router:
        await router.execute(
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name VARCHAR(40))", tenant="acme"
        )
        with (
            telemetry.instrument(router, metric_namespace="schema"),
            caplog.at_level(logging.DEBUG, "router"),
        ):
            with acting(context_id="r-1", tags={"route": "/plans"}):
                await _work(router, table)
            rendered = router.metrics.render().decode()
            seen = _seen(telemetry)
    assert len(telemetry.spans) >= 11
    assert sum("db.query.text" in attributes(span) for span in telemetry.spans) >= 8
    logs = [repr(vars(record)) + record.getMessage() for record in caplog.records]
    assert any("slow request" in line for line in logs)
    for text in (*seen, *logs, rendered):
        assert not [needle for needle in (CANARY, VALUE, LITERAL) if needle in text], text
