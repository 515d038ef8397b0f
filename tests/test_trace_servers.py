"""What spans say of requests to real servers, on every engine."""

import pytest
from opentelemetry.trace import StatusCode

from router import Router
from router.errors import UniqueViolation
from tests.engines import Engine
from tests.tracing import Telemetry, attributes

CODES = {"postgresql": "23505", "mysql": "1062", "sqlite": "SQLITE_CONSTRAINT_PRIMARYKEY"}


async def test_a_refusal_is_told_in_the_words_of_the_server(
    engine: Engine, router: Router, items: str
) -> None:
    """System, namespace, address and the server's own code, and no value of the row that was refused."""
    telemetry = Telemetry()
    add = f"INSERT INTO {items} (id, name) VALUES (:id, :name)"
    await router.execute(add, {"id": 1, "name": "canary-value"}, tenant="acme")
    with telemetry.instrument(router), pytest.raises(UniqueViolation):
        await router.execute(add, {"id": 1, "name": "canary-value"}, tenant="acme")
    span, told = telemetry.span, attributes(telemetry.span)
    assert (span.name, span.status.status_code) == (f"INSERT {items}", StatusCode.ERROR)
    assert told["db.response.status_code"] == CODES[engine.dialect]
    assert told["db.system.name"] in (engine.dialect, "mariadb")
    assert told["db.namespace"]
    assert told["db.query.text"] == add
    if engine.server is not None:
        assert told["server.address"]
        assert told["server.port"] > 0
    assert "canary" not in span.to_json()
