"""Errors: one tree, context in words, predicates that see through wrappers, and no secrets."""

from __future__ import annotations

import traceback

import pytest

from router import errors, predicates
from router.errors import Problem, RouterError, Sent

CANARY = "canary-secret"

PREDICATES = {
    predicates.is_unique_violation: {errors.UniqueViolation},
    predicates.is_foreign_key_violation: {errors.ForeignKeyViolation},
    predicates.is_not_null_violation: {errors.NotNullViolation},
    predicates.is_check_violation: {errors.CheckViolation},
    predicates.is_deadlock: {errors.Deadlock},
    predicates.is_serialization_failure: {errors.SerializationFailure},
    predicates.is_timeout: {
        errors.RouterTimeout,
        errors.PoolTimeout,
        errors.PoolFull,
        errors.TenantBusy,
        errors.PoolDeadlock,
        errors.StatementTimeout,
        errors.LockTimeout,
    },
    predicates.is_connection_lost: {
        errors.ConnectError,
        errors.ServerRemoved,
        errors.AuthenticationFailed,
        errors.SecretUnavailable,
        errors.DatabaseNotFound,
        errors.TooManyConnections,
        errors.NoPrimary,
        errors.ConnectionLost,
        errors.CommitOutcomeUnknown,
    },
    predicates.is_read_only: {errors.ReadOnlyViolation},
    predicates.is_retryable: {
        errors.TransactionConflict,
        errors.Deadlock,
        errors.SerializationFailure,
        errors.LockTimeout,
        errors.TransactionLost,
        errors.StaleStatement,
        errors.StatementCancelled,
        errors.ConnectError,
        errors.NoPrimary,
        errors.SecretUnavailable,
        errors.CatalogUnavailable,
        errors.TooManyConnections,
        errors.ConnectionLost,
    },
}


def tree(root: type[RouterError]) -> set[type[RouterError]]:
    return {root}.union(*(tree(child) for child in root.__subclasses__()))


def make(kind: type[RouterError]) -> RouterError:
    if kind is errors.ConfigurationError:
        return errors.ConfigurationError([Problem("router.yaml", 3, 1, "unknown key", "Remove it")])
    if kind is errors.MissingExtra:
        return errors.MissingExtra("asyncpg", "postgresql")
    return kind("boom")


OURS = sorted(
    (kind for kind in tree(RouterError) if kind.__module__ == "router.errors"), key=lambda kind: kind.__name__
)


@pytest.mark.parametrize("predicate", PREDICATES, ids=lambda predicate: predicate.__name__)
def test_a_predicate_is_true_for_its_errors_only(predicate: object) -> None:
    """Over the whole tree a predicate accepts exactly the classes in the table."""
    assert callable(predicate)
    assert {kind for kind in OURS if predicate(make(kind))} == PREDICATES[predicate]


class OrmError(Exception):
    """Stand for an error that an ORM wraps around a driver's."""


def raised(error: BaseException, *, explicit: bool) -> BaseException:
    try:
        try:
            raise error
        except BaseException as inner:
            if explicit:
                raise OrmError("wrapped") from inner
            raise OrmError("wrapped")  # noqa: B904
    except OrmError as outer:
        return outer


@pytest.mark.parametrize("explicit", [True, False])
def test_predicates_see_causes_and_contexts(explicit: bool) -> None:
    """An error wrapped twice is still what it was."""
    error = raised(raised(make(errors.UniqueViolation), explicit=explicit), explicit=explicit)
    assert predicates.is_unique_violation(error)
    assert not predicates.is_deadlock(error)


def test_predicates_see_an_attached_error() -> None:
    """The SQLAlchemy bridge hangs our error on the driver-shaped one; also below another wrapper."""
    wrapped = OrmError("wrapped")
    wrapped.router_error = make(errors.Deadlock)  # type: ignore[attr-defined]
    assert predicates.is_deadlock(wrapped)
    assert predicates.is_deadlock(raised(wrapped, explicit=True))
    wrapped.router_error = "not an error"  # type: ignore[attr-defined]
    assert not predicates.is_deadlock(wrapped)


def test_predicates_see_the_cause_that_an_error_of_ours_carries() -> None:
    """An error of ours that was made of another one counts as both."""
    outer = errors.CommitOutcomeUnknown("boom", cause=make(errors.ConnectionLost))
    assert predicates.is_connection_lost(outer)
    assert predicates.is_timeout(RouterError("boom", cause=make(errors.StatementTimeout)))


def test_predicates_end_on_circular_causes() -> None:
    """A ring of causes is walked once."""
    a, b = OrmError("a"), OrmError("b")
    a.__cause__, b.__cause__ = b, a
    assert not predicates.is_deadlock(a)


def test_an_unknown_outcome_is_never_retryable() -> None:
    """What caused it may be run again by itself, but not if a commit was on its way (fault cases 2, 3)."""
    lost = make(errors.ConnectionLost)
    assert predicates.is_retryable(lost)
    unknown = errors.CommitOutcomeUnknown("boom", cause=lost)
    assert not predicates.is_retryable(unknown)
    assert not predicates.is_retryable(raised(unknown, explicit=True))
    assert predicates.is_retryable(errors.TransactionLost("boom", cause=lost))


def test_predicates_are_false_for_foreign_errors() -> None:
    """A TimeoutError of somebody else is not ours."""
    assert not any(predicate(TimeoutError()) for predicate in PREDICATES)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_text_carries_the_context(kind: type[RouterError]) -> None:
    """str and repr say where, with which code, and what was tried before."""
    error = make(kind).at(tenant="acme", schema="analytics", cluster="main", node="r1", fingerprint="f1")
    error.code = "40001"
    error.attempts = ("Deadlock on r1",)
    for text in (str(error), repr(error)):
        assert "[tenant=acme schema=analytics cluster=main node=r1 code=40001 fingerprint=f1]" in text
        assert "(1 attempts: Deadlock on r1)" in text
    assert repr(error).startswith(kind.__name__)


def test_without_context_the_text_is_the_message() -> None:
    """Nothing known adds no empty brackets."""
    assert str(RouterError("boom")) == "boom"
    assert RouterError("boom").context() == {}


def test_the_first_to_know_the_place_is_believed() -> None:
    """at() fills what is missing and never overwrites: the innermost caller knows best."""
    error = RouterError("boom").at(node="r1").at(node="p", tenant="acme")
    assert error.context() == {"tenant": "acme", "node": "r1"}


def test_what_was_sent_has_a_safe_default_per_class() -> None:
    """Errors of the server were answered, lost connections are open, the rest was not sent."""
    assert make(errors.UniqueViolation).sent is Sent.ANSWERED
    assert {make(kind).sent for kind in tree(errors.DatabaseError)} == {Sent.ANSWERED}
    for kind in (errors.ConnectionLost, errors.CommitOutcomeUnknown, errors.StatementTimeout):
        assert make(kind).sent is Sent.UNKNOWN
    for kind in (errors.ConnectError, errors.PoolTimeout, errors.UsageError, errors.UnknownTenant):
        assert make(kind).sent is Sent.NO
    assert errors.ConnectionLost("boom", sent=Sent.NO).sent is Sent.NO
    assert make(errors.ConnectionLost).sent is Sent.UNKNOWN, "one error's answer is not the class's"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.RouterTimeout, TimeoutError),
        (errors.ConnectError, ConnectionError),
        (errors.ConnectionLost, ConnectionError),
        (errors.ParameterError, ValueError),
        (errors.NoRow, LookupError),
        (errors.MissingExtra, ImportError),
    ],
)
def test_errors_are_also_what_python_calls_them(kind: type[RouterError], builtin: type[Exception]) -> None:
    """Code that knows only the built-in class catches ours."""
    assert issubclass(kind, builtin)


def fail_with(password: str) -> None:
    raise ValueError(f"password {password} refused")


def test_the_drivers_error_is_kept_but_never_shown() -> None:
    """Its text may hold values and its frames the password: neither text nor traceback has them."""
    try:
        fail_with(CANARY)
    except ValueError as inner:
        error = RouterError("refused", code="28P01", cause=inner)
    assert isinstance(error.cause, ValueError)
    assert error.cause.__traceback__ is None
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert CANARY not in shown + str(error) + repr(error)


def test_a_refused_configuration_lists_every_problem() -> None:
    """All mistakes are listed with place and remedy; a whole file has no line."""
    error = errors.ConfigurationError(
        [
            Problem("router.yaml", 3, 5, "unknown key", "Remove it"),
            Problem("tenants/a.yaml", 0, 0, "empty file", "Fill it"),
        ]
    )
    assert str(error).splitlines() == [
        "configuration refused, 2 mistakes:",
        "router.yaml:3:5: unknown key. Remove it",
        "tenants/a.yaml: empty file. Fill it",
    ]
    assert len(error.problems) == 2


def test_a_missing_extra_says_how_to_install_it() -> None:
    """The next step is a command."""
    assert "pip install 'tenant-router[postgresql]'" in str(make(errors.MissingExtra))
