"""Rows: one surface on every engine, and conversion into users' types without leaking values."""

from __future__ import annotations

import copy
import pickle
import traceback
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

import msgspec
import pydantic
import pytest

from router.errors import NoRow, UsageError
from router.rows import Column, Result, TupleRow, converter, row_class

CANARY = "canary-value"


def row(**values: object) -> TupleRow:
    return row_class(tuple(values))(tuple(values.values()))


def test_a_value_is_reached_by_attribute_key_index_and_slice() -> None:
    """All four ways give the same value."""
    r = row(id=1, name="x", seats=7)
    assert (r.name, r["name"], r[1], r[-2]) == ("x", "x", "x", "x")
    assert r[1:] == ("x", 7)
    assert len(r) == 3
    assert list(r) == [1, "x", 7]


def test_a_row_is_a_tuple_and_a_mapping() -> None:
    """A row equals a tuple, unpacks like one, and dict(row) goes by name."""
    r = row(id=1, name="x")
    identifier, name = r
    assert r == (1, "x")
    assert (identifier, name) == (1, "x")
    assert dict(r) == {"id": 1, "name": "x"}
    assert (tuple(r.keys()), tuple(r.values()), tuple(r.items())) == (
        ("id", "name"),
        (1, "x"),
        (("id", 1), ("name", "x")),
    )
    assert r.get("id") == 1
    assert r.get("nope", 5) == 5
    assert repr(r) == "Row(id=1, name='x')"


def test_in_asks_for_column_names() -> None:
    """`in` looks at names and not at values, as asyncpg.Record does."""
    r = row(id=1, name="x")
    assert "name" in r
    assert "x" not in r
    assert 1 not in r


def test_names_of_tuple_methods_are_columns() -> None:
    """count and index, which every tuple has as methods, are ordinary columns."""
    r = row(count=3, index=4)
    assert (r.count, r.index) == (3, 4)


@pytest.mark.parametrize("name", ["keys", "values", "items", "get", "_private", "?column?", "", "a b", "1st"])
def test_awkward_names_are_reached_by_key(name: str) -> None:
    """Names that cannot be attributes work as keys, and the row's own methods stay."""
    r = row_class((name, "id"))((5, 6))
    assert r[name] == 5
    assert tuple(r.keys()) == (name, "id")
    assert r.get(name) == 5


def test_an_awkward_name_says_how_to_reach_it() -> None:
    """An attribute that cannot be names the key to use."""
    with pytest.raises(AttributeError, match=r"row\['_private'\]"):
        _ = row(_private=1)._private


def test_the_first_of_duplicate_names_wins_by_name() -> None:
    """The mapping side sees the first of a name, the sequence side sees every column."""
    r = row_class(("id", "id", "name"))((1, 2, "x"))
    assert (r.id, r["id"], r.get("id")) == (1, 1, 1)
    assert dict(r) == {"id": 1, "name": "x"}
    assert r.items() == (("id", 1), ("name", "x"))
    assert r.values() == (1, 2, "x")
    assert r[1] == 2


def test_a_missing_name_lists_the_columns() -> None:
    """Both errors name what is there."""
    r = row(id=1, name="x")
    with pytest.raises(AttributeError, match="'nope'; columns: id, name"):
        _ = r.nope
    with pytest.raises(KeyError, match="'nope'; columns: id, name"):
        r["nope"]
    with pytest.raises(IndexError):
        r[2]


def test_rows_survive_pickle_and_copy() -> None:
    """Copies keep values and names."""
    r = row(id=1, tags=["a"])
    for twin in (pickle.loads(pickle.dumps(r)), copy.copy(r), copy.deepcopy(r)):
        assert twin == r
        assert twin.tags == ["a"]
        assert type(twin) is type(r)
    assert copy.deepcopy(r).tags is not r.tags


def test_the_class_is_made_once_per_column_set() -> None:
    """Equal columns share a class; the cache has a bound."""
    assert row_class(("a", "b")) is row_class(("a", "b"))
    assert row_class(("a", "b")) is not row_class(("b", "a"))
    assert row_class.cache_info().maxsize is not None


def test_a_row_carries_no_dict() -> None:
    """Rows are as small as tuples: no attribute dictionary."""
    assert not hasattr(row(id=1), "__dict__")
    with pytest.raises(AttributeError):
        row(id=1).other = 2  # type: ignore[misc]


def test_zero_columns_make_an_empty_row() -> None:
    """PostgreSQL allows SELECT without columns."""
    assert row_class(())(()) == ()
    assert repr(row_class(())(())) == "Row()"


# --- Result ----------------------------------------------------------------------------------------------


def result(*rows: TupleRow) -> Result:
    return Result(rowcount=len(rows), columns=(Column("id", "int4"),), rows=list(rows))


def test_a_result_is_true_without_rows() -> None:
    """A result says that the statement ran; its length says how many rows came."""
    empty = Result(rowcount=0)
    assert bool(empty) is True
    assert len(empty) == 0
    assert list(result(row(id=1), row(id=2))) == [(1,), (2,)]


def test_one_wants_exactly_one_row() -> None:
    """None is NoRow, more is misuse with the number."""
    assert result(row(id=1)).one() == (1,)
    with pytest.raises(NoRow):
        result().one()
    with pytest.raises(UsageError, match="returned 2"):
        result(row(id=1), row(id=2)).one()


def test_first_and_scalar_take_none_for_no_row() -> None:
    """first and scalar do not raise on an empty result."""
    assert result().first() is None
    assert result().scalar() is None
    assert result(row(id=4), row(id=5)).first() == (4,)
    assert result(row(id=4), row(id=5)).scalar() == 4


def test_the_repr_of_a_result_shows_no_rows() -> None:
    """A result in a log line gives numbers, not data."""
    text = repr(Result(rowcount=1, columns=(Column("a", "text"),), rows=[row(a=CANARY)]))
    assert text == "<Result rowcount=1, 1 columns, 1 rows>"


# --- into= -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plain:
    id: int
    name: str = "unnamed"
    derived: int = field(init=False, default=9)


class Model(pydantic.BaseModel):
    id: int
    name: Annotated[str, pydantic.Field(max_length=5)]

    @pydantic.field_validator("name")
    @classmethod
    def _not_bad(cls, value: str) -> str:
        if value == "bad":
            raise ValueError(f"bad name {CANARY}")
        return value


@pydantic.dataclasses.dataclass
class ModelDataclass:
    id: int


class Struct(msgspec.Struct):
    id: int
    name: str
    active: bool = True


class Colour(Enum):
    RED = "red"


class Painted(msgspec.Struct, forbid_unknown_fields=True):
    colour: Colour


class Picky(msgspec.Struct):
    id: int

    def __post_init__(self) -> None:
        raise ValueError(CANARY)


def test_a_dataclass_gets_its_columns_by_name() -> None:
    """Order does not matter, defaults fill in, init=False fields are not asked for."""
    assert converter(Plain)(row(name="x", id=1)) == Plain(1, "x")
    assert converter(Plain)(row(id=1)) == Plain(1)


def test_a_dataclass_names_missing_and_extra_columns() -> None:
    """The error names the class and both kinds of columns, never a value."""
    with pytest.raises(UsageError) as caught:
        converter(Plain)(row(nome=CANARY, x=1))
    assert str(caught.value) == (
        "the row does not fit Plain: column 'id' is missing; "
        "column 'nome' has no field; column 'x' has no field"
    )


def test_pydantic_models_convert_and_validate() -> None:
    """A model gets pydantic's conversions; extra columns go by the model's own setting."""
    assert converter(Model)(row(id="7", name="x", more=1)) == Model(id=7, name="x")
    assert converter(ModelDataclass)(row(id="7")).id == 7


def test_structs_convert_also_from_sqlite_booleans() -> None:
    """A Struct takes 0 and 1 for a bool, as SQLite stores it."""
    made = converter(Struct)(row(id=1, name="x", active=0))
    assert made == Struct(1, "x", False)


@pytest.mark.parametrize(
    ("into", "values", "message"),
    [
        (Model, {"id": CANARY, "name": "x"}, "Model: column 'id' of type int refused (int_parsing)"),
        (Model, {"name": "x"}, "Model: column 'id' is missing"),
        (Model, {"id": 1, "name": CANARY}, "column 'name'"),
        (Model, {"id": 1, "name": "bad"}, "refused (value_error)"),
        (ModelDataclass, {"id": CANARY}, "ModelDataclass: column 'id' of type int refused (int_parsing)"),
        (Struct, {"id": [CANARY], "name": "x"}, "Struct: column 'id': Expected `int`, got `array`"),
        (Struct, {"id": 1}, "Struct: Object missing required field `name`"),
        (Painted, {"colour": CANARY}, "Painted: column 'colour': value refused"),
        (Painted, {"colour": "red", "size": CANARY}, "Object contains unknown field `size`"),
        (Picky, {"id": 1}, "Picky: value refused"),
    ],
)
def test_a_row_that_does_not_fit_names_columns_and_no_values(
    into: type, values: dict[str, object], message: str
) -> None:
    """The error says which column and what was wrong; neither it nor what it chains holds a value."""
    with pytest.raises(UsageError) as caught:
        converter(into)(row(**values))
    error = caught.value
    assert message in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("into", [dict, int, object, 5, None, Plain(1)])
def test_other_targets_are_refused(into: object) -> None:
    """Anything else is misuse, and the error names what is accepted."""
    with pytest.raises(UsageError, match=r"a dataclass, a pydantic model or a msgspec\.Struct"):
        converter(into)  # type: ignore[arg-type]


def test_the_refusal_of_an_instance_does_not_show_it() -> None:
    """An instance given by mistake may hold data; only its class is named."""
    with pytest.raises(UsageError) as caught:
        converter(Plain(1, CANARY))  # type: ignore[arg-type]
    assert CANARY not in str(caught.value)


def test_converters_are_cached() -> None:
    """A converter is built once per class."""
    assert converter(Plain) is converter(Plain)
