"""Events: cheap to build, closed in shape, and without room for values."""

from __future__ import annotations

import dataclasses

import pytest

from router import events
from router.events import Event
from tests.telling import failed, finished

# By name, not by __subclasses__(): that also lists the classes which slots=True has replaced, until the
# garbage collector finds them.
KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_events_are_slotted_and_start_with_their_time(kind: type[Event]) -> None:
    """No event has a __dict__ (it would cost as much as the event), and all are stamped."""
    assert all("__dict__" not in vars(base) for base in kind.__mro__)
    assert dataclasses.fields(kind)[0].name == "at"


def test_requests_tell_their_outcome_by_class() -> None:
    """A finished request is ok, a failed one an error; neither can be told otherwise."""
    assert finished().outcome == "ok"
    assert failed().outcome == "error"
    with pytest.raises(TypeError):
        finished(outcome="error")


def test_a_failed_request_must_say_how() -> None:
    """The error's name, code and message are not optional."""
    with pytest.raises(TypeError):
        events.RequestFailed(*[None] * 17)


def test_no_event_has_a_place_for_values() -> None:
    """Parameters travel as names and types only; a field that could hold more must be thought about here."""
    suspicious = {"params", "args", "arguments", "values", "password", "dsn", "url", "rows_data"}
    for kind in KINDS:
        assert not suspicious & {field.name for field in dataclasses.fields(kind)}
    assert events.RequestEvent.__annotations__["parameters"] == "tuple[str, ...]"


def test_the_repr_of_an_event_has_no_credentials() -> None:
    """A logged event shows where a node listens and nothing more of it."""
    assert "<Node main/r1 replica at db-2:5432>" in repr(finished())
