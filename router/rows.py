"""Rows and results as users see them, the same on every engine, and their conversion into users' types."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol, TypeVar, overload

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from router.errors import NoRow, UsageError

T = TypeVar("T")


class Column(NamedTuple):
    """Name a column of a result and its type, in the words of the server (``int4``, ``VARCHAR``, ...)."""

    name: str
    type_name: str


class Row(Protocol):
    """Describe one row of a result: ``row.name``, ``row["name"]``, ``row[0]``, ``row[1:]``.

    As a sequence (iteration, ``len``, index, ``values()``) a row holds every column in order. As a mapping
    (``keys``, ``items``, ``get``, ``in``, ``dict(row)``) it goes by column name. Attributes reach names that
    are identifiers, do not start with an underscore and are not ``keys``, ``values``, ``items`` or ``get``;
    any name works as a key.
    """

    def __getattr__(self, name: str) -> Any: ...
    @overload
    def __getitem__(self, key: str | int, /) -> Any: ...
    @overload
    def __getitem__(self, key: slice, /) -> tuple[Any, ...]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: object, /) -> bool: ...
    def keys(self) -> Iterable[str]:
        """Return the column names in order."""
        ...

    def values(self) -> Iterable[Any]:
        """Return the values in order."""
        ...

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return pairs of column name and value in order."""
        ...

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return the value of a column, or ``default`` if there is no such column."""
        ...


_METHODS = frozenset({"keys", "values", "items", "get"})
_item = tuple.__getitem__


class TupleRow(tuple[Any, ...]):
    """Hold one row as a tuple that knows its columns; make classes of it with :func:`row_class`.

    Of columns that share a name the mapping side sees the first, the sequence side sees all. ``in`` asks for
    column names, as ``asyncpg.Record`` does, so that a program means the same on every engine.
    """

    __slots__ = ()
    _columns: ClassVar[tuple[str, ...]] = ()
    _index: ClassVar[dict[str, int]] = {}

    def __getitem__(self, key: Any, /) -> Any:
        if key.__class__ is not str:
            return _item(self, key)
        index = self._index.get(key)
        if index is None:
            raise KeyError(f"no column {key!r}; columns: {', '.join(self._columns)}")
        return _item(self, index)

    def __getattr__(self, name: str) -> NoReturn:
        if name in self._index:
            raise AttributeError(f"column {name!r} is not reachable as an attribute; use row[{name!r}]")
        raise AttributeError(f"row has no column {name!r}; columns: {', '.join(self._columns)}")

    def __contains__(self, name: object, /) -> bool:
        return name in self._index

    def keys(self) -> tuple[str, ...]:
        """Return the distinct column names in order."""
        return tuple(self._index)

    def values(self) -> tuple[Any, ...]:
        """Return the values of all columns in order."""
        return tuple(self)

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Return pairs of distinct column name and value in order."""
        if len(self._index) == len(self):
            return tuple(zip(self._index, self, strict=True))
        return tuple((name, _item(self, index)) for name, index in self._index.items())

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return the value of a column, or ``default`` if there is no such column."""
        index = self._index.get(name)
        return default if index is None else _item(self, index)

    def __repr__(self) -> str:
        return (
            f"Row({', '.join(f'{name}={value!r}' for name, value in zip(self._columns, self, strict=False))})"
        )

    def __reduce__(self) -> tuple[Callable[..., TupleRow], tuple[tuple[str, ...], tuple[Any, ...]]]:
        return _restore, (self._columns, tuple(self))


def _restore(columns: tuple[str, ...], values: tuple[Any, ...]) -> TupleRow:
    return row_class(columns)(values)


@lru_cache(maxsize=1024)
def row_class(columns: tuple[str, ...]) -> type[TupleRow]:
    """Return the row class for these column names; call it with the values as one sequence.

    Cached for the 1,024 column sets used last. Attribute access is done by the getters of ``namedtuple``:
    they read the tuple in C and never enter ``__getitem__``, which ``property(itemgetter(i))`` would.
    """
    shape = namedtuple("shape", [f"c{i}" for i in range(len(columns))])  # type: ignore[misc]
    index: dict[str, int] = {}
    for position, name in enumerate(columns):
        index.setdefault(name, position)
    attributes = {
        name: getattr(shape, f"c{position}")
        for name, position in index.items()
        if name.isidentifier() and not name.startswith("_") and name not in _METHODS
    }
    return type("Row", (TupleRow,), {**attributes, "__slots__": (), "_columns": columns, "_index": index})


class Result:
    """Hold what a statement gave: rows, their columns, and what it changed.

    ``rowcount`` is the number of rows returned or changed (-1 where the server does not say), ``lastrowid``
    the key generated last where the engine has that notion. A result is always true, also without rows: it
    says that the statement ran. Ask ``len(result)`` for rows.
    """

    __slots__ = ("columns", "lastrowid", "rowcount", "rows")

    def __init__(
        self,
        rowcount: int = -1,
        lastrowid: int | None = None,
        columns: tuple[Column, ...] = (),
        rows: list[Row] | None = None,
    ) -> None:
        self.rowcount = rowcount
        self.lastrowid = lastrowid
        self.columns = columns
        self.rows: list[Row] = [] if rows is None else rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Result rowcount={self.rowcount}, {len(self.columns)} columns, {len(self.rows)} rows>"

    def one(self) -> Row:
        """Return the only row; raise NoRow if there is none, UsageError if there are more."""
        if not self.rows:
            raise NoRow("one() needs a row, the statement returned none. Use first() if that is fine")
        if len(self.rows) > 1:
            raise UsageError(
                f"one() needs 1 row, the statement returned {len(self.rows)}. Use first() or LIMIT 1"
            )
        return self.rows[0]

    def first(self) -> Row | None:
        """Return the first row, or None."""
        return self.rows[0] if self.rows else None

    def scalar(self) -> Any:
        """Return the first column of the first row, or None if there is no row."""
        return self.rows[0][0] if self.rows else None


# --- into= -----------------------------------------------------------------------------------------------


def converter(into: type[T]) -> Callable[[Row], T]:
    """Return the function that makes an ``into`` of a row, by column name.

    ``into`` is a dataclass (columns and fields must match, values are passed as the driver gave them), a
    pydantic model or dataclass, or a ``msgspec.Struct`` (both convert, and treat extra columns as the class
    is configured). Raises UsageError for any other ``into``; the function raises it for a row that does not
    fit, naming columns and never values. Cached for the 512 types used last.
    """
    if not isinstance(into, type):
        _refuse(into)
    wanted: Any = into  # mypy doubts that a type[T] is hashable
    make: Callable[[Row], T] = _converter(wanted)
    return make


def _refuse(into: object) -> NoReturn:
    name = into.__qualname__ if isinstance(into, type) else f"an instance of {type(into).__qualname__}"
    raise UsageError(f"into= takes a dataclass, a pydantic model or a msgspec.Struct class, not {name}")


@lru_cache(maxsize=512)
def _converter(into: Any) -> Callable[[Row], Any]:
    if issubclass(into, BaseModel):
        return _by_pydantic(into, into.model_validate)
    if is_pydantic_dataclass(into):
        return _by_pydantic(into, TypeAdapter(into).validate_python)
    if dataclasses.is_dataclass(into):
        return _by_dataclass(into)
    if hasattr(into, "__struct_fields__"):
        return _by_msgspec(into)
    _refuse(into)


def _misfit(into: type, details: Iterable[str]) -> UsageError:
    return UsageError(f"the row does not fit {into.__qualname__}: {'; '.join(details)}")


# The three makers raise outside their except block: ``raise ... from None`` would hide the library's own
# error but keep it on __context__, and that error holds the values of the row.


def _by_dataclass(into: Any) -> Callable[[Row], Any]:
    parameters = inspect.signature(into).parameters
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]

    def make(row: Row) -> Any:
        data = dict(row.items())
        if data.keys() <= parameters.keys() and all(name in data for name in required):
            return into(**data)
        missing = [f"column {name!r} is missing" for name in required if name not in data]
        extra = [f"column {name!r} has no field" for name in data if name not in parameters]
        raise _misfit(into, missing + extra)

    return make


def _by_pydantic(into: type, validate: Callable[[Any], Any]) -> Callable[[Row], Any]:
    def make(row: Row) -> Any:
        try:
            return validate(dict(row.items()))
        except ValidationError as error:
            # Only place and error type: messages of validators, and deeper places, can hold values.
            found = error.errors(include_url=False, include_context=False, include_input=False)
        raise _misfit(
            into, dict.fromkeys(_describe(into, problem["loc"], problem["type"]) for problem in found)
        )

    return make


def _describe(into: type, place: tuple[int | str, ...], problem: str) -> str:
    if not place:
        return f"refused as a whole ({problem})"
    column = place[0]
    if problem == "missing" and len(place) == 1:
        return f"column {column!r} is missing"
    wanted = inspect.get_annotations(into).get(str(column))
    kind = f" of type {getattr(wanted, '__name__', wanted)}" if wanted is not None else ""
    return f"column {column!r}{kind} refused ({problem})"


_MSGSPEC_PLACE = re.compile(r" - at `\$\.(\w+)")
_MSGSPEC_SAFE = re.compile(
    r"Expected `[^`]+`(?:, got `[^`]+`)?|Object (?:missing required|contains unknown) field `\w+`"
)


def _by_msgspec(into: Any) -> Callable[[Row], Any]:
    import msgspec  # only a program that has a Struct gets here, so the package is there

    def make(row: Row) -> Any:
        try:
            # Not strict, so that SQLite's 0 and 1 fit a bool, as pydantic lets them.
            return msgspec.convert(dict(row.items()), into, strict=False)
        except msgspec.ValidationError as error:
            text = str(error)
        place, safe = _MSGSPEC_PLACE.search(text), _MSGSPEC_SAFE.match(text)
        column = f"column {place[1]!r}: " if place else ""
        raise _misfit(into, [f"{column}{safe[0] if safe else 'value refused'}"])

    return make
