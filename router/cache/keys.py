"""The keys of cached answers inside of this process: exact, so that no two reads share one."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from sys import getsizeof
from types import NoneType
from typing import Any
from uuid import UUID

#: equal values of these types are the same to a database
_PLAIN = frozenset({int, str, bool, bytes, NoneType, date, timedelta, UUID})
#: equal values of these may be written differently: 0.0 and -0.0, 1.0 and 1.00, one moment in two zones
_WRITTEN = frozenset({float, Decimal, datetime, time})
_KEY = 200  # bytes of the tuples that a key is made of
_known: dict[tuple[type, ...], bool] = {(): True}  # whether all of the types are plain


def local_key(scope: object, verb: str, text: str, args: tuple[object, ...]) -> Hashable | None:
    """Return the key of a read; ``None`` if a parameter is of a type of which no exact key can be made."""
    types = tuple(map(type, args))
    plain = _known.get(types)
    if plain is None:
        if not all(each in _PLAIN or each in _WRITTEN for each in types):
            return None
        if len(_known) >= 10_000:
            _known.clear()
        plain = _known[types] = all(each in _PLAIN for each in types)
    if plain:
        return scope, verb, text, args, types
    return scope, verb, text, tuple(map(_exact, args)), types


def key_size(key: Any) -> int:
    """Return the bytes of a key that no other key has in common with it."""
    return _KEY + sum(map(getsizeof, key[3]))


def _exact(value: object) -> object:
    if isinstance(value, datetime | time):
        return repr(value), value.utcoffset()  # two zones may have one name
    return repr(value) if type(value) in _WRITTEN else value
