"""Say why a statement is refused before it is sent: what its tenants' sessions may not be asked to do."""

from __future__ import annotations

from collections.abc import Callable

from router import pooling
from router.belonging import Guard
from router.drivers.driver import Binding
from router.statements import Statement

Refusal = Callable[[Statement, bool], str | None]  # why, with the remedy; whether inside of a transaction
_UNBOUND = Binding()


class Refusals:
    """Give for each binding what refuses; bindings that differ only in whose they are share it."""

    __slots__ = ("_known", "_pooled")

    def __init__(self, *, pooled: bool) -> None:
        self._pooled = pooled  # a pooler gives each transaction another session
        self._known: dict[tuple[bool, bool, str | None], Refusal] = {}

    def of(self, binding: Binding | None) -> Refusal | None:
        """Return what says why a statement is refused under a binding; ``None`` if none is."""
        _, role, setting, _ = binding or _UNBOUND
        guarded = role is not None or setting is not None
        if not guarded and not self._pooled:
            return None
        key = guarded, binding is not None, setting
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._made(Guard(setting) if guarded else None, binding is not None)
        return found

    def _made(self, guard: Guard | None, bound: bool) -> Refusal:
        pooled = self._pooled

        def refusal(statement: Statement, inside: bool) -> str | None:
            why = None if guard is None else guard.refusal(statement)
            if why is None and pooled and bound:
                why = pooling.raw_refusal(statement)
            return pooling.refusal(statement, inside) if why is None and pooled else why

        return refusal
