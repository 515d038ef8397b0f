"""Say which tables a read depends on and which a write may change, from what the database's catalog says.

A name in a text may be a view, a parent of other tables, or a table whose foreign keys and triggers change
others. What the catalog does not show is unknown: then a read is not cached, and a write may have changed
anything. An id is ``schema.table``, the same whichever schema it is seen from, so what is known to depend on
an id has to be found by every writer of that database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from router.cache.refusal import Refusal
from router.cache.rules import system
from router.cache.views import PLAIN, View, view
from router.statements import Dialect


@dataclass(frozen=True, slots=True)
class Fact:
    """Hold what a catalog says of one relation; names within the schema asked about stand without it."""

    holds: bool = True  # has rows of its own
    shows: tuple[str, ...] = ()  # relations whose rows it shows too: a view's tables, a parent's children
    drags: tuple[str, ...] = ()  # relations that its foreign keys let a change of it change
    acts: bool = False  # a trigger or rule may change anything, or nobody knows that none does
    refusal: Refusal | None = None  # why no read of it is cached
    text: str | None = None  # of a view whose tables only its text tells


TABLE: Final = Fact()
HIDDEN: Final = Fact(acts=True, refusal=Refusal.UNKNOWN_TABLE)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Shape:
    """Hold the facts of a schema without its name, so that schemas which look the same share them."""

    dialect: Dialect
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True, eq=False)
class Relations:
    """Answer for one schema; ``declared`` names what changes with a table, or what a view shows."""

    schema: str
    path: tuple[str, ...]  # schemas in which names are looked for after the first
    shape: Shape
    declared: Mapping[str, tuple[str, ...]]

    def read(self, names: frozenset[str]) -> frozenset[str] | Refusal:
        """Return the ids of the tables whose change may change what a read of ``names`` answers."""
        ids: set[str] = set()
        for name, fact in self._closure(names, self._shown):
            refusal = system(name, self.shape.dialect)
            if fact is None:
                return refusal or Refusal.UNKNOWN_TABLE
            refusal = refusal or fact.refusal or self._view(name, fact).refusal
            if refusal is not None:
                return refusal
            if fact.holds:
                ids.add(self.id(name))
        return frozenset(ids) or Refusal.NO_TABLES

    def written(self, names: frozenset[str]) -> frozenset[str] | None:
        """Return the ids of the tables that may change when ``names`` are written.

        ``None``: any table of the schemas that :meth:`schemas` returns.
        """
        ids: set[str] = set()
        for name, fact in self._closure(names, self._changed):
            if fact is None or (fact.acts and name not in self.declared):
                return None
            if fact.text is not None and self._view(name, fact).refusal is Refusal.UNKNOWN_TABLE:
                return None
            if fact.holds:
                ids.add(self.id(name))
        return frozenset(ids) or None

    def schemas(self, names: frozenset[str]) -> frozenset[str]:
        """Return the schemas that ``names`` are in: those to doubt if a write's tables are not known."""
        return frozenset((self.schema, *(name.rpartition(".")[0] for name in names if "." in name)))

    def id(self, name: str) -> str:
        """Return the id of a relation that is named as facts name it."""
        return name if "." in name else f"{self.schema}.{name}"

    def _closure(
        self, names: Iterable[str], following: Callable[[str, Fact], Iterable[str]]
    ) -> Iterator[tuple[str, Fact | None]]:
        """Yield each relation once, with all that follow from it; without a fact what is not known."""
        waiting = list(map(self._resolve, names))
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            fact = self.shape.facts.get(name)
            yield name, fact
            if fact is not None:
                waiting.extend(map(self._resolve, following(name, fact)))

    def _resolve(self, name: str) -> str:
        """Return the name under which the server finds what ``name`` means here."""
        facts = self.shape.facts
        if name in facts:
            return name
        schema, _, rest = name.partition(".")
        if schema == self.schema and rest:
            return rest
        if not rest:
            for each in self.path:
                if f"{each}.{name}" in facts:
                    return f"{each}.{name}"
        return name

    def _shown(self, name: str, fact: Fact) -> Iterable[str]:
        if fact.holds:
            return fact.shows
        return (*fact.shows, *self._view(name, fact).tables, *self.declared.get(name, ()))

    def _changed(self, name: str, fact: Fact) -> Iterable[str]:
        return (*fact.shows, *fact.drags, *self._view(name, fact).tables, *self.declared.get(name, ()))

    def _view(self, name: str, fact: Fact) -> View:
        """Return what a view's text says; one that is not understood shows what is declared."""
        if fact.text is None:
            return PLAIN
        found = view(fact.text, self.shape.dialect)
        return PLAIN if not found.tables and name in self.declared else found
