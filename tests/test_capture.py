"""capture: errors of the router as values, everything else as ever."""

from __future__ import annotations

import asyncio

import pytest

from router.capture import Failure, Success, capture
from router.errors import NoRow, RouterError


async def give(value: object) -> object:
    if isinstance(value, BaseException):
        raise value
    return value


async def test_a_value_becomes_a_success() -> None:
    """What was returned is in value and comes out of unwrap."""
    outcome = await capture(give(5))
    assert outcome == Success(5)
    assert outcome.is_success
    assert outcome.unwrap() == 5


async def test_a_router_error_becomes_a_failure() -> None:
    """The error itself is kept and unwrap raises it."""
    error = NoRow("none")
    outcome = await capture(give(error))
    assert not outcome.is_success
    assert outcome == Failure(error)
    with pytest.raises(NoRow) as caught:
        outcome.unwrap()
    assert caught.value is error


@pytest.mark.parametrize("foreign", [ValueError("x"), asyncio.CancelledError()])
async def test_everything_else_propagates(foreign: BaseException) -> None:
    """Cancellation and foreign exceptions are not values."""
    with pytest.raises(type(foreign)):
        await capture(give(foreign))


async def test_outcomes_can_be_matched() -> None:
    """Both work as patterns with their one field."""
    seen = []
    for value in (1, RouterError("boom")):
        match await capture(give(value)):
            case Success(result):
                seen.append(result)
            case Failure(error):
                seen.append(error.message)
    assert seen == [1, "boom"]
