"""Values as the cache keeps them in this process: frozen once, thawed for each reader. Pure.

What was read is a row, a list of rows or ``None``. Most columns hold values that nobody can change: such rows
are kept as they came and every reader gets the same ones. Where a column holds a list, a dict or the like,
the cache keeps a copy and each reader gets one of their own. What is not known to be either is not kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from router.cache.kinds import FIXED, Unkeepable, copied, itself, kind_of
from router.rows import Row, TupleRow, row_class

Value = list[Row] | Row | None


class Frozen:
    """Hold a result that nobody can change; ``size`` is the memory it takes, in bytes.

    Names of columns are not counted: all results of a statement share them.
    """

    __slots__ = ("size",)
    size: int

    def thaw(self) -> Any:
        """Return the result for one reader, who may do anything with it."""
        raise NotImplementedError


class _Shared(Frozen):
    """Hold one row, or None, that every reader may have as it is."""

    __slots__ = ("_value",)

    def __init__(self, value: Row | None) -> None:
        self._value = value

    def thaw(self) -> Row | None:
        return self._value


class _SharedRows(Frozen):
    """Hold rows that every reader may have as they are, in a list of their own."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)

    def thaw(self) -> list[Row]:
        return list(self._rows)


class _Copied(Frozen):
    """Hold rows with values that could be changed, so that each reader gets copies of these."""

    __slots__ = ("_columns", "_make", "_rows")

    def __init__(self, rows: Sequence[Row]) -> None:
        first = rows[0]
        # a record of asyncpg's cannot be made by anyone else; a row of ours says the same
        self._make: Callable[[Sequence[Any]], Any] = (
            type(first) if isinstance(first, TupleRow) else row_class(names_of(first))
        )
        self._columns = tuple(
            [index for index in range(len(first)) if any(_changing(type(row[index])) for row in rows)]
        )
        self._rows = tuple(self._made(rows))  # from now on nobody else has these values

    def thaw(self) -> list[Row]:
        return self._made(self._rows)

    def _made(self, rows: Sequence[Row]) -> list[Row]:
        made = []
        for row in rows:
            values = list(row)
            for index in self._columns:
                values[index] = copied(values[index])
            made.append(self._make(values))
        return made


class _CopiedOne(_Copied):
    """Hold one such row."""

    __slots__ = ()

    def thaw(self) -> Any:
        return self._made(self._rows)[0]


def freeze(value: Value, limit: int = sys.maxsize) -> Frozen | None:
    """Return what keeps ``value``, or ``None`` if that is not safe or takes more than ``limit`` bytes.

    ``value`` stays the caller's: nothing that is done with it shows in what is kept.
    """
    many = isinstance(value, list)
    rows: Sequence[Row] = value if isinstance(value, list) else () if value is None else (value,)
    try:
        size, changing = _weigh(rows, limit)
        kept = _kept(rows, many, changing)
    except Unkeepable:
        return None
    kept.size = size + itself(kept)
    if many or changing:
        kept.size += itself(()) + 8 * len(rows)
    return kept if kept.size <= limit else None


def names_of(row: Row) -> tuple[str, ...]:
    """Return the names of the columns, as :func:`router.rows.row_class` takes them.

    Raises Unkeepable for what is no row of a driver's, and for a record of asyncpg's in which two columns
    share a name: by name it gives the last of them, our own row the first.
    """
    if isinstance(row, TupleRow):
        return row._columns
    if not _is_record(type(row)):
        raise Unkeepable
    names = tuple(row.keys())
    if len(set(names)) != len(names):
        raise Unkeepable
    return names


def _kept(rows: Sequence[Row], many: bool, changing: bool) -> Frozen:
    if changing:
        return _Copied(rows) if many else _CopiedOne(rows)
    return _SharedRows(rows) if many else _Shared(rows[0] if rows else None)


def _weigh(rows: Sequence[Row], limit: int) -> tuple[int, bool]:
    """Return the bytes that the rows take, and whether they hold anything that can change."""
    size, changing = 0, False
    of = type(rows[0]) if rows else TupleRow
    if not (issubclass(of, TupleRow) or _is_record(of)):
        raise Unkeepable
    for row in rows:
        if type(row) is not of:
            raise Unkeepable
        size += itself(row)
        for value in row:
            if (fixed := FIXED.get(type(value))) is not None:
                size += fixed
                continue
            weigh, copy = kind_of(type(value))
            size += weigh(value, 0)
            changing = changing or copy is not None
        if size > limit:
            raise Unkeepable
    return size, changing


def _changing(of: type) -> bool:
    return of not in FIXED and kind_of(of).copy is not None


def _is_record(of: type) -> bool:
    asyncpg = sys.modules.get("asyncpg")  # whoever has one of its records has loaded it
    return asyncpg is not None and issubclass(of, asyncpg.Record)
