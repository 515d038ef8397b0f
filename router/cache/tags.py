"""Tags: each type that has a packed form made of scalars and lists, and the ways there and back. Pure.

A series is ``[tag, values]``: values of one type share a tag; of several types each has its own, and the tag
of the series is ``*``. NULL needs none. Whatever is read here may come from a stranger: what is wrong raises
some error, and nothing takes longer than its length asks for. So sets and keys of dicts are text only: its
hashes cannot be made to collide.
"""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import sys
import uuid
import zoneinfo
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from router.cache.kinds import DEEPEST, Unkeepable

Series = list[Any]

_MIXED = "*"
_NULLS = ""
_LONG = 1 << 63


class Tag(NamedTuple):
    """Name a type in packed form, with both ways; ``encode`` is ``None`` where MessagePack has the type."""

    name: str
    of: type
    encode: Callable[[Any, int], Any] | None
    decode: Callable[[Any], Any]


def series_of(values: Sequence[Any], depth: int = 0) -> Series:
    """Return the values as a series; raise Unkeepable for a type without a tag."""
    if depth > DEEPEST:
        raise Unkeepable
    types = set(map(type, values))
    types.discard(type(None))
    if not types:
        return [_NULLS, values]
    if len(types) > 1:
        return [_MIXED, [None if each is None else _pair(each, depth) for each in values]]
    tag = _tag_of(types.pop())
    encode = tag.encode
    if encode is None:
        return [tag.name, values]
    return [tag.name, [None if each is None else encode(each, depth) for each in values]]


def values_of(series: Any) -> list[Any]:
    """Return the values of a series."""
    name, packed = _exactly(list, series)
    _exactly(list, packed)
    if name == _NULLS:
        return _of_type(type(None), packed)
    if name == _MIXED:
        return [None if each is None else _one(*each) for each in packed]
    tag = _tag_named(name)
    if tag.encode is None:
        return _of_type(tag.of, packed)
    return [None if each is None else tag.decode(each) for each in packed]


def _of_type(of: type, values: list[Any]) -> list[Any]:
    """Return the values if each is of a type or NULL."""
    if not set(map(type, values)) <= {of, type(None)}:
        raise ValueError
    return values


def _pair(value: Any, depth: int) -> list[Any]:
    tag = _tag_of(type(value))
    return [tag.name, value if tag.encode is None else tag.encode(value, depth)]


def _one(name: str, packed: Any) -> Any:
    if name == _MIXED or packed is None:
        raise ValueError
    return values_of([name, [packed]])[0]


# --- numbers and times -----------------------------------------------------------------------------------


def _integer(value: int, depth: int) -> int | str:
    return (
        value if -_LONG <= value < 2 * _LONG else f"{value:x}"
    )  # decimal digits take long if there are many


def _integer_of(packed: Any) -> int:
    return int(packed, 16) if type(packed) is str else int(_exactly(int, packed))


def _datetime(value: datetime.datetime, depth: int) -> str | list[Any]:
    if type(value.tzinfo) is not zoneinfo.ZoneInfo:
        _refuse_odd_zone(value)
        return value.isoformat()
    offset = value.utcoffset()
    if value.tzinfo.key is None or offset is None:
        raise Unkeepable
    return [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo.key, str(offset)]


def _datetime_of(packed: Any) -> datetime.datetime:
    if type(packed) is str:
        return datetime.datetime.fromisoformat(packed)
    text, fold, key, offset = packed
    value = datetime.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zoneinfo.ZoneInfo(key))
    if str(value.utcoffset()) != offset:
        raise ValueError  # here the zone has other rules
    return value


def _time(value: datetime.time, depth: int) -> str:
    _refuse_odd_zone(value)
    return value.isoformat()


def _refuse_odd_zone(value: datetime.datetime | datetime.time) -> None:
    """Refuse what the ISO format does not show: zones with rules or names, the second of two same hours."""
    zone = value.tzinfo
    if value.fold or not (zone is None or type(zone) is datetime.timezone):
        raise Unkeepable
    if zone is None or zone is datetime.UTC:
        return
    offset = zone.utcoffset(None)
    # of less than a second Python's own parser makes UTC
    if offset.microseconds or zone.tzname(None) != datetime.timezone(offset).tzname(None):
        raise Unkeepable


def _interval(value: datetime.timedelta, depth: int) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


# --- containers ------------------------------------------------------------------------------------------


def _list(value: Sequence[Any], depth: int) -> Series:
    return series_of(value, depth + 1)


def _texts(value: Any, depth: int) -> list[str]:
    texts = list(value)
    if not set(map(type, texts)) <= {str}:
        raise Unkeepable
    return texts


def _texts_of(packed: Any) -> list[str]:
    if type(packed) is not list or not set(map(type, packed)) <= {str} or len(set(packed)) != len(packed):
        raise ValueError
    return packed


def _dict(value: dict[Any, Any], depth: int) -> list[Any]:
    return [_texts(value, depth), series_of(list(value.values()), depth + 1)]


def _dict_of(packed: Any) -> dict[str, Any]:
    keys, series = packed
    return dict(zip(_texts_of(keys), values_of(series), strict=True))


# --- the tags --------------------------------------------------------------------------------------------


def _exactly(of: type, packed: Any) -> Any:
    if type(packed) is not of:
        raise ValueError
    return packed


def _as_text(value: Any, depth: int) -> str:
    return str(value)


def _raw(value: bytes | bytearray, depth: int) -> str:
    """Return bytes as text, a character each: a decoder that forbids maps reads text or bytes, not both."""
    return value.decode("latin-1")


def _raw_of(packed: Any) -> bytes:
    return bytes(packed.encode("latin-1"))


def _from_text(of: type) -> Callable[[Any], Any]:
    return lambda packed: of(_exactly(str, packed))


_TAGS = (
    Tag("b", bool, None, bool),
    Tag("f", float, None, float),
    Tag("s", str, None, str),
    Tag("x", bytes, _raw, _raw_of),
    Tag("i", int, _integer, _integer_of),
    Tag("n", decimal.Decimal, _as_text, _from_text(decimal.Decimal)),
    Tag("D", datetime.date, lambda value, depth: value.isoformat(), datetime.date.fromisoformat),
    Tag("T", datetime.datetime, _datetime, _datetime_of),
    Tag("t", datetime.time, _time, datetime.time.fromisoformat),
    Tag("p", datetime.timedelta, _interval, lambda packed: datetime.timedelta(*_of_type(int, packed))),
    Tag("u", uuid.UUID, lambda value, depth: value.hex, uuid.UUID),
    Tag("[", list, _list, values_of),
    Tag("(", tuple, _list, lambda packed: tuple(values_of(packed))),
    Tag("{", dict, _dict, _dict_of),
    Tag("S", set, _texts, lambda packed: set(_texts_of(packed))),
    Tag("F", frozenset, _texts, lambda packed: frozenset(_texts_of(packed))),
    Tag("X", bytearray, _raw, lambda packed: bytearray(_raw_of(packed))),
    *[
        Tag(f"ip{number}", of, _as_text, _from_text(of))
        for number, of in enumerate(
            (
                ipaddress.IPv4Address,
                ipaddress.IPv6Address,
                ipaddress.IPv4Network,
                ipaddress.IPv6Network,
                ipaddress.IPv4Interface,
                ipaddress.IPv6Interface,
            )
        )
    ],
)
_BY_TYPE: dict[type, Tag] = {tag.of: tag for tag in _TAGS}
_BY_NAME: dict[str, Tag] = {tag.name: tag for tag in _TAGS}


def _tag_of(of: type) -> Tag:
    if of not in _BY_TYPE and of.__module__.startswith("asyncpg."):
        _learn_asyncpg()
    tag = _BY_TYPE.get(of)
    if tag is None:
        raise Unkeepable
    return tag


def _tag_named(name: str) -> Tag:
    if name not in _BY_NAME and "asyncpg" in sys.modules:
        _learn_asyncpg()
    return _BY_NAME[name]


# --- types of PostgreSQL's that Python has none for -------------------------------------------------------


def _learn_asyncpg() -> None:
    """Take up the driver's types, but not its records: nobody else can make them."""
    from asyncpg import types
    from asyncpg.pgproto.pgproto import UUID

    def range_of(packed: Any) -> Any:
        ends, lower_inc, upper_inc, empty = packed
        lower, upper = values_of(ends)
        flags = {"lower_inc": lower_inc, "upper_inc": upper_inc, "empty": empty}
        return types.Range(lower, upper, **{name: _exactly(bool, flag) for name, flag in flags.items()})

    def path_of(packed: Any) -> Any:
        points, closed = packed
        return types.Path(*values_of(points), is_closed=_exactly(bool, closed))

    def bits_of(packed: Any) -> Any:
        held, length = packed
        return types.BitString.frombytes(_raw_of(held), _exactly(int, length))

    tags = [
        Tag("pR", types.Range, _range, range_of),
        Tag("pB", types.BitString, lambda value, depth: [_raw(value.bytes, depth), len(value)], bits_of),
        Tag("pp", types.Path, lambda value, depth: [_list(value.points, depth), value.is_closed], path_of),
        Tag(
            "pg",
            types.Polygon,
            lambda value, depth: _list(value.points, depth),
            lambda packed: types.Polygon(*values_of(packed)),
        ),
        *[
            Tag(f"g{number}", of, _list, _from_parts(of))
            for number, of in enumerate((types.Point, types.Box, types.Line, types.LineSegment, types.Circle))
        ],
    ]
    _BY_NAME.update({tag.name: tag for tag in tags})
    # the driver's own UUID is one of Python's in all but its speed, and comes back as that
    _BY_TYPE.update({**{tag.of: tag for tag in tags}, UUID: _BY_TYPE[uuid.UUID]})


def _range(value: Any, depth: int) -> list[Any]:
    return [_list([value.lower, value.upper], depth), value.lower_inc, value.upper_inc, value.isempty]


def _from_parts(of: type) -> Callable[[Any], Any]:
    return lambda packed: of(*values_of(packed))
