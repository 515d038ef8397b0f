"""Whether two values are the same in all that a program could see: type, digits, zone, sign of zero."""

import datetime
import struct
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import asyncpg

from router.rows import TupleRow


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same; a row may be a record of asyncpg's or one of ours."""
    if _is_row(one) or _is_row(other):
        return _is_row(one) and _is_row(other) and _same_rows(one, other)
    if isinstance(one, uuid.UUID) and isinstance(other, uuid.UUID):
        return (one, hash(one), str(one)) == (other, hash(other), str(other))  # asyncpg has its own class
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, datetime.datetime | datetime.time):
        return _time(one) == _time(other)
    if isinstance(one, list | tuple):
        return _each(one, other)
    if isinstance(one, dict):
        return _each(one.keys(), other.keys()) and _each(one.values(), other.values())
    if isinstance(one, set | frozenset):
        return _each(sorted(one), sorted(other))
    if isinstance(one, asyncpg.Range):
        return one == other and same(one.lower, other.lower) and same(one.upper, other.upper)
    if isinstance(one, asyncpg.Path):
        return one.is_closed == other.is_closed and _each(one.points, other.points)
    return bool(one == other)


def _is_row(value: Any) -> bool:
    return isinstance(value, TupleRow | asyncpg.Record)


def _columns(row: Any) -> tuple[str, ...]:
    return row._columns if isinstance(row, TupleRow) else tuple(row.keys())


def _same_rows(one: Any, other: Any) -> bool:
    return _columns(one) == _columns(other) and _each(tuple(one), tuple(other))


def _each(some: Iterable[Any], others: Iterable[Any]) -> bool:
    some, others = list(some), list(others)
    return len(some) == len(others) and all(map(same, some, others))


def _time(value: Any) -> tuple[Any, ...]:
    zone = value.tzinfo
    return value.isoformat(), value.fold, type(zone), None if zone is None else (str(zone), value.tzname())
