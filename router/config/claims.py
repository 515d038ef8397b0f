"""Whose place is whose, so that no two tenants are put where each would see the other's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain

from router.config.places import Place, Server


class _Shared:
    """Hold who has what of one database; of names and keys, since there may be 100,000."""

    __slots__ = ("keys", "schemas", "tables")

    def __init__(self) -> None:
        self.schemas: dict[str, str] = {}  # holders by schema
        self.keys: dict[str, str] = {}  # holders by the value that their rows have
        self.tables: Counter[str] = Counter()  # how many have rows in each schema's tables


class Claims:
    """Remember who has which place; a tenant's whole database excludes everyone else's schemas in it."""

    def __init__(self) -> None:
        self._whole: dict[tuple[Server, str], str] = {}
        self._shared: dict[tuple[Server, str], _Shared] = {}

    def holder(self, places: frozenset[Place], but: str) -> str | None:
        """Return who else than ``but`` has one of these places, if anybody has."""
        return next((found for place in places if (found := self._holder(place, but))), None)

    def _holder(self, place: Place, but: str) -> str | None:
        at = place[:2]
        whole = self._whole.get(at)
        if whole is not None and whole != but:
            return whole
        shared = self._shared.get(at)
        if shared is None:
            return None
        if place.schema is None:
            return _other(chain(shared.schemas.values(), shared.keys.values()), but)
        if (found := shared.schemas.get(place.schema, but)) != but:
            return found
        if place.key is not None:
            found = shared.keys.get(place.key, but)
            return None if found == but else found
        if shared.tables[place.schema]:
            return _other(shared.keys.values(), but)
        return None

    def take(self, holder: str, places: frozenset[Place], had: frozenset[Place] = frozenset()) -> str | None:
        """Take all of these places instead of those it ``had``, or none and return who has one of them."""
        if found := self.holder(places, holder):
            return found
        for place in places - had:
            at = place[:2]
            if place.schema is None:
                self._whole[at] = holder
                continue
            shared = self._shared.setdefault(at, _Shared())
            if place.key is None:
                shared.schemas[place.schema] = holder
            else:
                shared.keys[place.key] = holder
                shared.tables[place.schema] += 1
        self.release(had - places)
        return None

    def release(self, places: frozenset[Place]) -> None:
        """Give back places to who wants them."""
        for place in places:
            at = place[:2]
            shared = self._shared.get(at)
            if place.schema is None:
                self._whole.pop(at, None)
            elif shared is not None and place.key is None:
                shared.schemas.pop(place.schema, None)
            elif shared is not None and place.key is not None:
                shared.keys.pop(place.key, None)
                shared.tables[place.schema] -= 1


def _other(holders: Iterable[str], but: str) -> str | None:
    return next((holder for holder in holders if holder != but), None)
