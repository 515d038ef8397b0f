"""Errors as values, for code that prefers ``match`` to ``try``."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, Literal, NoReturn, TypeAlias, TypeVar

from router.errors import RouterError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Success(Generic[T_co]):
    """Hold the value of what went well."""

    value: T_co

    @property
    def is_success(self) -> Literal[True]:
        """Return True."""
        return True

    def unwrap(self) -> T_co:
        """Return the value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Failure:
    """Hold the error of what went wrong."""

    error: RouterError

    @property
    def is_success(self) -> Literal[False]:
        """Return False."""
        return False

    def unwrap(self) -> NoReturn:
        """Raise the error."""
        raise self.error


Outcome: TypeAlias = Success[T] | Failure


async def capture(awaitable: Awaitable[T]) -> Success[T] | Failure:
    """Await and return the outcome as a value.

    Only router errors become a Failure; cancellation and foreign exceptions propagate, because a program
    that does not expect them must not carry on.
    """
    try:
        return Success(await awaitable)
    except RouterError as error:
        return Failure(error)
