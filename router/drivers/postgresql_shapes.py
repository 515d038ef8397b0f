"""Which prepared statements the schemas of a database may share.

To PostgreSQL a prepared statement is the parsed text, the types of its parameters and the description of its
result. All else is found anew whenever the search path is another than at its last use: which tables, views,
functions, operators and types the names in it mean, and the plan. (Likewise if a table changes, or the role
where row security depends on it; rights are checked, and settings read, at each execution.) So a statement
that was prepared under one schema does under another exactly what one prepared there would do, if text,
parameter types and result are the same in both. Where they are not, sharing would fail, or worse: the
parameters would keep the types that they have in the other schema. Hence a schema's own types are asked for
once for each text, by preparing it there.

Of the result it tells not all: no collations, and a domain as the type below. So what was prepared under
another schema is planned once here before it is used, which fails if the result is not the same; see
:attr:`Place.unproven`.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakValueDictionary

_MOST = 25_000  # pairs of schema and text remembered in each of two generations, of one database
_TRIES = 3  # shapes of one signature that a place may turn out to have


class Signature(NamedTuple):
    """Hold what the server tells of a prepared statement's types."""

    parameters: tuple[int, ...]  # OIDs
    columns: tuple[tuple[str, int], ...]  # name and OID


class Family:
    """Hold the shapes of one text that the server tells nothing apart of."""

    __slots__ = ("__weakref__", "shapes", "signature")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.shapes: list[Shape] = []  # those that other places may have as well


class Shape:
    """Stand for the statements of one text that are the same to the server."""

    __slots__ = ("family",)

    def __init__(self, family: Family) -> None:
        self.family = family


class Place:
    """Remember for one schema which shapes the texts have there."""

    __slots__ = ("name", "shapes", "unproven")

    def __init__(self, name: str) -> None:
        self.name = name
        self.shapes: dict[str, Shape] = {}
        #: texts whose statement of another schema has yet to be planned here
        self.unproven: set[str] = set()

    def forget(self, sql: str | None = None) -> None:
        """Forget a text, or all of them: something in the schema has changed."""
        if sql is None:
            self.shapes.clear()
            self.unproven.clear()
        else:
            self.shapes.pop(sql, None)
            self.unproven.discard(sql)


class Shapes:
    """Know the places of one database on one server, those used last if there are many."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._count = 0  # of the texts of all young places
        self._young: dict[str, Place] = {}
        self._old: dict[str, Place] = {}
        self._families: WeakValueDictionary[tuple[str, Signature], Family] = WeakValueDictionary()

    def place(self, name: str) -> Place:
        """Return what is known of a schema."""
        found = self._young.get(name)
        if found is None:
            if self._count >= self._most:
                self._old, self._young, self._count = self._young, {}, 0
            found = self._young[name] = self._old.pop(name) if name in self._old else Place(name)
            self._count += 1 + len(found.shapes)
        return found

    def learn(self, place: Place, sql: str, signature: Signature) -> Shape:
        """Take note of the types that a text has in a place, and return its shape there."""
        known = place.shapes.get(sql)
        if known is not None and known.family.signature == signature:
            return known
        family = self._families.get((sql, signature))
        if family is None:
            family = self._families[sql, signature] = Family(signature)
            family.shapes.append(Shape(family))
            place.unproven.discard(sql)
        elif signature.columns:
            place.unproven.add(sql)
        self._count += known is None
        place.shapes[sql] = family.shapes[0]
        return family.shapes[0]

    @staticmethod
    def differ(place: Place, sql: str, shape: Shape) -> None:
        """Take note that statements of a shape do not fit a place: another shape may, else it has its own."""
        if place.shapes.get(sql) is not shape:
            return  # found to have other types meanwhile
        others = shape.family.shapes
        further = others[others.index(shape) + 1 :]
        if further:
            place.shapes[sql] = further[0]
            return
        place.shapes[sql] = own = Shape(shape.family)
        place.unproven.discard(sql)
        if len(others) < _TRIES:
            others.append(own)
