"""The types of values that may be kept in memory: what each weighs, and how those are copied that can change.

What is not in the table is not kept: nobody knows who else may change it, nor what it holds on to. Pure.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import ipaddress
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from sys import getsizeof
from typing import Any, NamedTuple

DEEPEST = 8  # containers within containers: arrays of PostgreSQL have six dimensions


class Unkeepable(ValueError):
    """Say that a value is of no type that is known well enough to be kept."""


class Kind(NamedTuple):
    """Say how to weigh a value at a depth, and how to copy it: ``None`` where it cannot change."""

    weigh: Callable[[Any, int], int]
    copy: Callable[[Any], Any] | None = None


def kind_of(of: type) -> Kind:
    """Return what is known of a type that is not in :data:`FIXED`; raise Unkeepable if that is nothing."""
    found = _KINDS.get(of)
    if found is None and of.__module__.startswith("asyncpg."):
        _KINDS.update(_asyncpg_kinds())  # there is one to be had, so the driver is there too
        found = _KINDS.get(of)
    if found is None:
        raise Unkeepable
    return found


def copied(value: Any) -> Any:
    """Return a value that shares nothing that can change with this one, which has been weighed."""
    if type(value) in _PLAIN:
        return value
    make = kind_of(type(value)).copy
    return value if make is None else make(value)


def itself(value: Any) -> int:
    """Return the bytes of an object without those it refers to, as the allocator gives them: 16 at a time."""
    return getsizeof(value) + 15 & ~15


def _weigh(value: Any, depth: int) -> int:
    of = type(value)
    fixed = FIXED.get(of)
    return kind_of(of).weigh(value, depth) if fixed is None else fixed


def _within(values: Iterable[Any], depth: int) -> int:
    if depth >= DEEPEST:
        raise Unkeepable
    return sum([_weigh(each, depth + 1) for each in values])


def _container(value: Any, depth: int) -> int:
    return itself(value) + _within(value, depth)


def _firm(value: Any, depth: int) -> int:
    """Weigh what is never copied, and so may hold nothing that can change."""
    _refuse_changing(value)
    return _container(value, depth)


def _refuse_changing(values: Iterable[Any]) -> None:
    for value in values:
        if type(value) is tuple:
            _refuse_changing(value)
        elif type(value) not in FIXED and kind_of(type(value)).copy is not None:
            raise Unkeepable


def _mapping(value: dict[Any, Any], depth: int) -> int:
    return _firm(value, depth) + _within(value.values(), depth)  # iteration gives the keys


def _integer(value: int, depth: int) -> int:
    return 0 if -5 <= value <= 256 else getsizeof(value) + 15 & ~15  # Python has one object of each of these


def _text(value: str | bytes, depth: int) -> int:
    return getsizeof(value) + 15 & ~15 if len(value) > 1 else 0  # one of these too, of most characters


def _time(value: datetime.datetime | datetime.time, depth: int) -> int:
    zone = value.tzinfo
    if zone is None or zone is datetime.UTC or type(zone) is zoneinfo.ZoneInfo:
        return 48  # one zone for all
    if type(zone) is not datetime.timezone:
        raise Unkeepable  # one of somebody's own may change
    return 48 + 80


def _alone(value: Any, depth: int) -> int:
    return itself(value)


def _list_copied(value: list[Any]) -> list[Any]:
    made = value.copy()  # takes no room to grow, as a list that is filled one by one does
    if not _PLAIN.issuperset(map(type, made)):
        made[:] = map(copied, value)
    return made


def _dict_copied(value: dict[Any, Any]) -> dict[Any, Any]:
    made = value.copy()
    if not _PLAIN.issuperset(map(type, value.values())):
        made.update(zip(value, map(copied, value.values()), strict=True))
    return made


#: Bytes of the types that take the same for every value, and cannot change.
FIXED: dict[type, int] = {
    type(None): 0,
    bool: 0,
    float: 32,
    datetime.date: 32,
    datetime.timedelta: 48,
    uuid.UUID: 112,
    ipaddress.IPv4Address: 80,
    ipaddress.IPv6Address: 112,
    # addresses and networks in a dict
    ipaddress.IPv4Network: 192,
    ipaddress.IPv6Network: 224,
    ipaddress.IPv4Interface: 336,
    ipaddress.IPv6Interface: 400,
}

_KINDS: dict[type, Kind] = {
    int: Kind(_integer),
    str: Kind(_text),
    bytes: Kind(_text),
    decimal.Decimal: Kind(_alone),
    datetime.datetime: Kind(_time),
    datetime.time: Kind(_time),
    frozenset: Kind(_firm),
    list: Kind(_container, _list_copied),
    tuple: Kind(_container, lambda value: tuple(_list_copied(list(value)))),
    dict: Kind(_mapping, _dict_copied),
    set: Kind(_firm, set),
    bytearray: Kind(_alone, bytearray),
}

#: The types of Python's own whose values never change, for a quick look at many.
_PLAIN = frozenset({*FIXED, *(of for of, kind in _KINDS.items() if kind.copy is None)})


def _asyncpg_kinds() -> dict[type, Kind]:
    """Return the types of PostgreSQL's values that Python has none for."""
    from asyncpg import Record, types
    from asyncpg.pgproto.pgproto import UUID

    def bounds(value: Any, depth: int) -> int:
        ends = (value.lower, value.upper)
        _refuse_changing(ends)
        return itself(value) + _within(ends, depth)

    firm, path = Kind(_firm), Kind(lambda value, depth: itself(value) + _firm(value.points, depth), copy.copy)
    return {
        UUID: Kind(_alone),
        Record: firm,  # a composite value
        types.Range: Kind(bounds),
        types.BitString: Kind(lambda value, depth: itself(value) + _text(value.bytes, depth)),
        types.Path: path,  # its points are a public attribute
        types.Polygon: path,
        **dict.fromkeys((types.Point, types.Box, types.Line, types.LineSegment, types.Circle), firm),
    }
