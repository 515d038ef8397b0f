"""The rules of the cache, each with a way to switch it off: the checker must miss every one of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from typing import Any
from unittest.mock import patch

from router import caching
from router.cache import serving
from router.cache.entries import Entry
from router.cache.marks import Mark
from router.cache.shown import Shown
from router.consistency import Bounded, Consistency
from router.filling import Fill
from router.frontier import Frontier

_refusal, _answered = serving.refusal, Fill.answered
Mutant = Callable[[ExitStack], None]


@contextmanager
def without(rule: str) -> Iterator[None]:
    """Switch a rule off, in this process; "" for none."""
    with ExitStack() as stack:
        if rule:
            MUTANTS[rule](stack)
        yield


def _serving(change: Callable[[ExitStack, Entry, Frontier, list[Any]], None]) -> Mutant:
    """Return a mutant that shows something else to the rules of serving than what is."""

    def refusal(entry: Entry, seen: Frontier, *rest: Any, **more: Any) -> Any:
        changed = list(rest)
        with ExitStack() as shortly:
            change(shortly, entry, seen, changed)
            return _refusal(entry, seen, *changed, **more)

    return lambda stack: _replace(stack, caching, "refusal", refusal)


def _replace(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(patch.object(owner, name, value))


def _owed(stack: ExitStack, _: Entry, seen: Frontier, __: list[Any]) -> None:
    _replace(stack, seen, "owed", -inf)


def _goal(stack: ExitStack, _: Entry, seen: Frontier, __: list[Any]) -> None:
    _replace(stack, seen, "goal", None)


def _shown(stack: ExitStack, _: Entry, seen: Frontier, __: list[Any]) -> None:
    _replace(stack, seen, "shown", Shown())


def _reign(_: ExitStack, entry: Entry, __: Frontier, rest: list[Any]) -> None:
    rest[3] = entry.reign


def _bound(_: ExitStack, __: Entry, ___: Frontier, rest: list[Any]) -> None:
    rest[0] = Consistency.EVENTUAL if isinstance(rest[0], Bounded) else rest[0]


def _marks(stack: ExitStack, entry: Entry, _: Frontier, __: list[Any]) -> None:
    _replace(stack, entry, "marks", (Mark(-inf),))  # never written


def _written(stack: ExitStack) -> None:
    _serving(_marks)(stack)
    _replace(stack, Entry, "alive", True)


def _late(self: Fill, *given: Any) -> None:
    _answered(self, *given)
    if self.as_of > -inf:
        self.as_of = self.until


def _forgetful(stack: ExitStack) -> None:
    for name in ("entry", "own"):
        _replace(stack, Shown, name, lambda *_: None)


MUTANTS: dict[str, Mutant] = {
    "own writes": _serving(_owed),
    "tokens": _serving(_goal),
    "shown": _serving(_shown),
    "failover": _serving(_reign),
    "bound": _serving(_bound),
    "invalidation": _written,
    "age of answers": lambda stack: _replace(stack, Fill, "answered", _late),
    "writes in flight": lambda stack: _replace(
        stack, Entry, "high", lambda self, heard: max(heard, self.as_of)
    ),
    "memory of what was cached": _forgetful,
    "reads after a cached one": lambda stack: _replace(stack, Frontier, "note_cached", lambda *_: None),
}
