"""Functions of the application as a store of secrets."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from router.config.secret import Secret
from router.stores.asking import Threads
from router.stores.store import Answer, Unanswered

Given: TypeAlias = str | Secret | Mapping[str, str | Secret]
Function: TypeAlias = Callable[[], Given | Awaitable[Given]]
NO_FUNCTIONS: Mapping[str, Function] = MappingProxyType({})


class Calls:
    """Call a function for its secret: a coroutine's on the event loop, another in a thread."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self._functions = functions
        self._threads = Threads()

    async def prepare(self, timeout: float) -> None:
        """Need nothing."""

    async def read(self, path: str, timeout: float) -> Answer | Unanswered:
        """Return what the function of this name gives."""
        function = self._functions.get(path)
        if function is None:
            return Unanswered("the application gives no function of this name")
        try:
            if inspect.iscoroutinefunction(function):
                return _answer(await function())
            given = await self._threads.ask(path, function)
            if isinstance(given, Unanswered):
                return given
            return _answer(await given if inspect.isawaitable(given) else given)
        except Exception as exc:  # no text: it may hold what it was about
            return Unanswered(f"the function raised {type(exc).__name__}")

    def close(self) -> None:
        """Hold nothing."""


def _answer(given: object) -> Answer | Unanswered:
    if isinstance(given, Mapping):
        fields = {name: _secret(value) for name, value in given.items() if isinstance(value, str | Secret)}
        return Answer(fields)
    if isinstance(given, str | Secret):
        return Answer(whole=_secret(given))
    return Unanswered(f"the function gave {type(given).__name__}, neither text nor a mapping of fields")


def _secret(value: str | Secret) -> Secret:
    return value if isinstance(value, Secret) else Secret(value)
