"""Values on their way to MySQL and back: which ones may be sent, and rows and columns as they came."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import cast

import aiomysql
from pymysql.constants import FIELD_TYPE

from router.rows import Column, Row, row_class

_SENDABLE = frozenset(
    {int, float, str, bytes, bytearray, bool, type(None), decimal.Decimal}
    | {datetime.datetime, datetime.date, datetime.time, datetime.timedelta}
)
_TYPE_NAMES = {value: name.lower() for name, value in vars(FIELD_TYPE).items() if isinstance(value, int)}


def adapted(args: tuple[object, ...]) -> tuple[object, ...]:
    """Refuse what the driver would write as something else: it puts any object's ``str()`` into the text.

    A list would become ``(1, 2)``, so that a JSON body could change what a comparison means.
    """
    for value in args:
        if type(value) not in _SENDABLE:
            return tuple([_adapt(each) for each in args])
    return args


def _adapt(value: object) -> object:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, tuple(_SENDABLE - {type(None)})):
        return value  # a subclass, such as an enum of text
    raise TypeError(f"{type(value).__name__} is not a type that MySQL has")


def rows_of(cursor: aiomysql.Cursor) -> list[Row]:
    """Return the rows that the cursor has already received."""
    if cursor.description is None:
        return []
    made = row_class(tuple(each[0] for each in cursor.description))
    return cast("list[Row]", list(map(made, cursor._rows)))


def columns_of(cursor: aiomysql.Cursor) -> tuple[Column, ...]:
    """Return the columns of the answer that the cursor has received."""
    described = cursor.description or ()
    return tuple([Column(each[0], _TYPE_NAMES.get(each[1], "unknown")) for each in described])
