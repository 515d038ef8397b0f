"""Events: cheap to build, closed in shape, and without room for values."""

from __future__ import annotations

import dataclasses

import pytest

from router import events
from router.events import Event
from router.reasons import Reason
from router.topology import Node, Role

# By name, not by __subclasses__(): that also lists the classes which slots=True has replaced, until the
# garbage collector finds them.
KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_events_are_slotted_and_start_with_their_time(kind: type[Event]) -> None:
    """No event has a __dict__ (it would cost as much as the event), and all are stamped."""
    assert all("__dict__" not in vars(base) for base in kind.__mro__)
    assert dataclasses.fields(kind)[0].name == "at"


def request(kind: type[events.RequestEvent], **more: object) -> events.RequestEvent:
    node = Node("r1", "main", Role.REPLICA, "db", 5432)
    return kind(
        at=1.0,
        tenant="acme",
        schema=None,
        sql="SELECT 1",
        fingerprint="f",
        kind="read",
        node=node,
        role=Role.REPLICA,
        reason=Reason.READ,
        attempts=1,
        acquire=0.0,
        execute=0.0,
        total=0.0,
        **more,
    )


def test_requests_tell_their_outcome_by_class() -> None:
    """A finished request is ok, a failed one an error; neither can be told otherwise."""
    assert request(events.RequestFinished).outcome == "ok"
    failed = request(events.RequestFailed, error="Deadlock", code="40P01", message="boom")
    assert failed.outcome == "error"
    with pytest.raises(TypeError):
        request(events.RequestFinished, outcome="error")


def test_a_failed_request_must_say_how() -> None:
    """The error's name, code and message are not optional."""
    with pytest.raises(TypeError):
        request(events.RequestFailed)


def test_no_event_has_a_place_for_values() -> None:
    """Parameters travel as names and types only; a field that could hold more must be thought about here."""
    suspicious = {"params", "args", "arguments", "values", "password", "dsn", "url", "rows_data"}
    for kind in KINDS:
        assert not suspicious & {field.name for field in dataclasses.fields(kind)}
    assert events.RequestEvent.__annotations__["parameters"] == "tuple[str, ...]"


def test_the_repr_of_an_event_has_no_credentials() -> None:
    """A logged event shows where a node listens and nothing more of it."""
    assert "<Node main/r1 replica at db:5432>" in repr(request(events.RequestFinished))
