"""Values on their way to another process: rows as bytes that give back the same values and types, or none.

MessagePack knows fewer types than a database. So each column is packed with a tag that names its type, and
columns of several types (SQLite has them) tag each value. What has no tag is not packed. Nothing in the bytes
can name code to run, and they are read as if a stranger had written them. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from router.cache.kinds import DEEPEST, Unkeepable
from router.cache.tags import Series, series_of, values_of
from router.cache.values import Value, names_of
from router.errors import MissingExtra
from router.rows import Row, row_class

_FORMAT = 1
_NOTHING, _ROW, _ROWS = range(3)  # what was read
_MOST_COLUMNS = 4096  # of a result, as MariaDB; a class for very many would take long to make
_NESTED = 8 + 4 * DEEPEST  # arrays in arrays of the packed form: four for each container, the rest around


class Malformed(ValueError):
    """Say that bytes are nothing that :func:`pack` makes; what they held is not shown."""

    def __init__(self) -> None:
        super().__init__("no packed rows of this version")


def pack(value: Value, limit: int | None = None) -> bytes | None:
    """Return the bytes of what a read gave, or ``None`` if they would not give back exactly that.

    ``limit`` is the most bytes that are wanted.
    """
    coder = _coder()
    try:
        packed: bytes = coder.encode(_shape(value))
    except ValueError:  # Unkeepable, and text that UTF-8 does not have
        return None
    return packed if limit is None or len(packed) <= limit else None


def unpack(data: bytes) -> Value:
    """Return what was packed; raise Malformed, and nothing else, for any other bytes."""
    coder = _coder()
    try:
        return _value_of(coder.decode(data))
    except Exception:  # noqa: BLE001, RUF100 - each constructor has errors of its own for what it cannot take
        raise Malformed from None


def pack_values(values: Sequence[Any]) -> bytes | None:
    """Return bytes that differ whenever the values or their types do, or ``None`` for types not known."""
    coder = _coder()
    try:
        packed: bytes = coder.encode(series_of(values, 0))
    except ValueError:
        return None
    return packed


class _Coder:
    """Hold msgspec's encoder and a decoder that refuses all but scalars and arrays, and too many of these.

    A map would let a stranger choose keys that collide, which take very long.
    """

    __slots__ = ("decode", "encode")

    def __init__(self) -> None:
        try:
            from msgspec import msgpack
        except ImportError:
            raise MissingExtra("msgspec", "cache") from None
        cell: Any = bool | int | float | str | None
        for _ in range(_NESTED):
            cell = list[cell] | bool | int | float | str | None
        self.encode = msgpack.Encoder().encode
        self.decode = msgpack.Decoder(list[cell]).decode


_coder = cache(_Coder)


def _shape(value: Value) -> list[Any]:
    if value is None:
        return [_FORMAT, _NOTHING]
    if not isinstance(value, list):
        return [_FORMAT, _ROW, *_table([value])]
    return [_FORMAT, _ROWS, *_table(value)]


def _table(rows: list[Row]) -> tuple[tuple[str, ...], list[Series]]:
    """Return the names of the columns, and the values of each column in one series."""
    if not rows:
        return (), []
    names, of = names_of(rows[0]), type(rows[0])
    if not 0 < len(names) <= _MOST_COLUMNS or any(type(row) is not of for row in rows):
        raise Unkeepable
    return names, [series_of(column, 0) for column in zip(*rows, strict=True)]


def _value_of(shape: list[Any]) -> Value:
    if shape == [_FORMAT, _NOTHING]:
        return None
    version, what, names, table = shape
    if version != _FORMAT or what not in (_ROW, _ROWS) or len(names) > _MOST_COLUMNS:
        raise ValueError
    if type(names) is not list or not set(map(type, names)) <= {str}:
        raise ValueError
    if not names and table == [] and what == _ROWS:
        return []
    columns = [values_of(series) for series in table]
    if len(columns) != len(names):
        raise ValueError
    rows: list[Any] = list(map(row_class(tuple(names)), zip(*columns, strict=True)))
    if what == _ROWS and rows:
        return rows
    (row,) = rows
    return row  # type: ignore[no-any-return]
