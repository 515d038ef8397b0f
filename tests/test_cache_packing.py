"""Packing: rows come back from bytes with every value and type as they were, or are not packed at all."""

import datetime
import ipaddress
import sys
import time
import uuid
import zoneinfo
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cache import envelope, packing, tags
from router.cache.packing import Malformed, pack, unpack
from router.errors import MissingExtra
from router.rows import TupleRow, row_class
from tests.exact import same

FIXED_ZONES = st.integers(-80_000, 80_000).map(
    lambda seconds: datetime.timezone(datetime.timedelta(seconds=seconds))
)
FLOATS = st.floats() | st.just(-0.0)
POINTS = st.tuples(FLOATS, FLOATS).map(lambda pair: asyncpg.Point(*pair))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 66), 1 << 66),
    FLOATS,
    st.text(st.characters(codec="utf-8")),
    st.binary(),
    st.binary().map(bytearray),
    st.decimals(),
    st.sampled_from(
        [Decimal("1.00"), Decimal("-0E-9"), Decimal("sNaN12"), Decimal("-NaN"), Decimal("1E+30")]
    ),
    st.datetimes().map(lambda at: at.replace(fold=0)),
    st.datetimes(timezones=st.just(datetime.UTC)).map(lambda at: at.replace(fold=0)),
    st.datetimes(timezones=FIXED_ZONES).map(lambda at: at.replace(fold=0)),
    st.datetimes(timezones=st.timezones()),
    st.dates(),
    st.times().map(lambda at: at.replace(fold=0)),
    st.times(timezones=FIXED_ZONES).map(lambda at: at.replace(fold=0)),
    st.timedeltas(),
    st.uuids(),
    st.ip_addresses(),
    st.ip_addresses().map(ipaddress.ip_network),
    st.ip_addresses(v=4).map(lambda each: ipaddress.ip_interface((each, 20))),
    st.ip_addresses(v=6).map(lambda each: ipaddress.ip_interface((each, 70))),
    POINTS,
    st.tuples(POINTS, POINTS).map(lambda pair: asyncpg.Box(*pair)),
    st.tuples(POINTS, FLOATS).map(lambda pair: asyncpg.Circle(*pair)),
    st.builds(
        lambda points, closed: asyncpg.Path(*points, is_closed=closed), st.lists(POINTS), st.booleans()
    ),
    st.lists(POINTS).map(lambda points: asyncpg.Polygon(*points)),
    st.builds(asyncpg.BitString, st.text("01")),
    st.builds(asyncpg.Range, st.none() | st.dates(), st.none() | st.dates(), empty=st.booleans()),
    st.sets(st.text("abc")),
    st.frozensets(st.text("abc")),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text("xyz"), inner),
    max_leaves=8,
)
ORDINARY: list[TupleRow] = [
    row_class(("id", "name", "at", "price", "tags", "odd"))(values)
    for values in (
        (1, "ä", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), Decimal("1.50"), ["a", "b"], 1),
        (1 << 70, "", None, Decimal("NaN"), [], "x"),
        (None, None, None, None, None, asyncpg.Range(1, 2)),
    )
]


def row(*values: Any) -> TupleRow:
    return row_class(tuple(f"c{index}" for index in range(len(values))))(values)


def returned(value: Any) -> Any:
    packed = pack(value)
    assert packed is not None
    return unpack(packed)


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_every_value_comes_back(values: list[Any]) -> None:
    """Values of all these types are packed, and come back with the same type, digits, zone and sign."""
    assert same(returned(row(*values)), row(*values))
    column = [row(value) for value in values]
    assert same(returned(column), column)


@pytest.mark.parametrize("value", [None, [], row(None), [row(None), row(None)], [row(1)] * 1000])
def test_shapes_come_back(value: Any) -> None:
    """No row, no rows, NULL and many rows are values of their own."""
    assert same(returned(value), value)


def test_columns_that_share_a_name_come_back() -> None:
    """Of our own rows both columns are there, by position and by name as before."""
    twice = row_class(("id", "id", "a b"))((1, 2, 3))
    found = returned([twice])[0]
    assert same(found, twice)
    assert (found["id"], found[1], found.keys()) == (1, 2, ("id", "a b"))


class Named(str):
    __slots__ = ()


class Zone(datetime.tzinfo):
    def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(0)


UNKNOWN = [
    object(),
    Named("x"),
    memoryview(b"x"),
    1j,
    "\ud800",
    datetime.datetime(2026, 1, 1, tzinfo=Zone()),
    datetime.datetime(2026, 1, 1, fold=1),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "MEZ")),
    datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(microseconds=1))),  # parsed as UTC
    datetime.time(1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    {1: "x"},
    {1, 2},
    msgspec.UNSET,
]


@pytest.mark.parametrize("value", UNKNOWN, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: (1, v), lambda v: {"a": v}])
def test_what_would_not_come_back_is_not_packed(value: Any, wrap: Any) -> None:
    """A type or value that the bytes cannot say is refused, also inside others and beside known ones."""
    assert pack(row(wrap(value))) is None
    assert pack([row(1), row(wrap(value))]) is None


def test_what_is_nested_too_deep_is_not_packed() -> None:
    """Eight lists within each other come back, more are refused, and a list within itself too."""
    deep: Any = 1
    for _ in range(8):
        deep = [deep, "x", {"a": deep}][:2]
    assert same(returned(row(deep)), row(deep))
    assert pack(row([deep])) is None
    endless: list[Any] = []
    endless.append(endless)
    assert pack(row(endless)) is None


@pytest.mark.parametrize("value", [(1, 2), "text", 5, [(1,)], [row(1), row(1, 2)], [row(1), None], row()])
def test_what_is_no_result_is_not_packed(value: Any) -> None:
    """Only rows of a driver are packed, all of the same columns, and no row without columns."""
    assert pack(value) is None


def test_more_than_the_limit_is_not_packed() -> None:
    """The limit is in bytes, and itself allowed."""
    packed = pack(ORDINARY)  # type: ignore[arg-type]
    assert packed is not None
    assert pack(ORDINARY, len(packed)) == packed  # type: ignore[arg-type]
    assert pack(ORDINARY, len(packed) - 1) is None  # type: ignore[arg-type]


def test_without_msgspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has not installed it is told what to install, by values and by envelopes."""
    monkeypatch.setitem(sys.modules, "msgspec", None)
    for coder in (packing._Coder, envelope._Coder):
        with pytest.raises(MissingExtra, match=r"msgspec is not installed.*tenant-router\[cache\]"):
            coder()


# --- bytes of strangers ----------------------------------------------------------------------------------


def read(data: bytes) -> bool:
    """Read bytes of any origin; return whether they were rows. Nothing but Malformed may be raised."""
    try:
        unpack(data)
    except Malformed:
        return False
    return True


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    """What nobody packed is Malformed."""
    assert not read(data)


def test_truncated_bytes_are_refused() -> None:
    """Every part of a packed value is Malformed, and so is one with more behind it."""
    packed = pack(ORDINARY)  # type: ignore[arg-type]
    assert packed is not None
    assert not any(read(packed[:length]) for length in range(len(packed)))
    assert not read(packed + b"\x00")


def test_flipped_bits_raise_nothing_else() -> None:
    """With any bit changed a value is read as another or refused, and quickly."""
    packed = pack([*ORDINARY, row_class(ORDINARY[0]._columns)(SAMPLE)])
    assert packed is not None
    began = time.process_time()
    for position in range(len(packed)):
        for bit in range(8):
            read(packed[:position] + bytes([packed[position] ^ 1 << bit]) + packed[position + 1 :])
    assert time.process_time() - began < 10


SAMPLE = (
    uuid.UUID(int=7),
    asyncpg.BitString("10101010101"),
    ipaddress.ip_interface("10.0.0.1/8"),
    asyncpg.Path((1.0, 2.0), (3.0, 4.0)),
    datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
    {"a": datetime.timedelta(1), "b": {"x"}, "c": datetime.time(1), "d": (1, datetime.date.min)},
)

NAMES = st.sampled_from([*tags._BY_NAME, "*", "pR", "pB", "pp", "pg", "g0", "g1", "g4", "?"])
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(NAMES, st.lists(inner, max_size=3)),
    max_leaves=12,
)


@settings(max_examples=200, deadline=1000)
@given(
    st.lists(st.text("ab"), max_size=2), st.lists(st.tuples(NAMES, st.lists(JUNK, max_size=3)), max_size=2)
)
def test_wrong_contents_raise_nothing_else(names: list[str], table: list[Any]) -> None:
    """Well-formed MessagePack with the right outline and wrong contents is Malformed."""
    for what in (1, 2):
        read(msgspec.msgpack.encode([1, what, names, table]))


def test_maps_are_refused_before_they_are_made() -> None:
    """Keys that were chosen to have one hash would make a map take longer and longer."""
    keys = colliding(20_000)
    assert len(set(map(hash, keys))) == 1
    table = b"".join(msgspec.msgpack.encode(list(key)) + b"\x00" for key in keys)
    began = time.process_time()
    assert not read(b"\x94\x01\x02\x91\xa1a\x91\x92\xa1s\x91\xdf" + len(keys).to_bytes(4, "big") + table)
    assert time.process_time() - began < 0.5


def colliding(count: int) -> list[tuple[int, int]]:
    """Return pairs of one hash: that of Objects/tupleobject.c, solved for the second number."""
    first, second, start, bits = 11400714785074694791, 14029467366897019727, 2870177450012600261, 1 << 64
    found = []
    number = 0
    while len(found) < count:
        number += 1
        lane = (start + number * second) % bits
        lane = (lane << 31 | lane >> 33) * first % bits
        other = (12345 - lane) * pow(second, -1, bits) % bits
        other -= bits if other >= bits >> 1 else 0
        if abs(other) < (1 << 61) - 1:
            found.append((number, other))
    return found


@pytest.mark.parametrize(
    "data",
    {
        "nothing": b"",
        "long array": b"\xdd\xff\xff\xff\xff",
        "arrays of long arrays": b"\xdd\x00\x10\x00\x00" * 1000,
        "long text": b"\xdb\xff\xff\xff\xff",
        "deep": b"\x91" * 1_000_000,
        "map": msgspec.msgpack.encode([1, 2, ["a"], [["s", [{1: 2}]]]]),
        "many columns": msgspec.msgpack.encode([1, 2, ["a"] * 20_000, [["", [None]]] * 20_000]),
        "long number": msgspec.msgpack.encode([1, 2, ["a"], [["i", ["f" * 3_000_000 + "x"]]]]),
        "long decimal": msgspec.msgpack.encode([1, 2, ["a"], [["n", ["9" * 3_000_000 + "x"]]]]),
        "long address": msgspec.msgpack.encode([1, 2, ["a"], [["ip0", ["1" * 3_000_000]]]]),
        "long time": msgspec.msgpack.encode([1, 2, ["a"], [["T", ["1" * 3_000_000 + "x"]]]]),
        "long zone": msgspec.msgpack.encode(
            [1, 2, ["a"], [["T", [["2026-01-01", 0, "x" * 3_000_000, "0"]]]]]
        ),
        "zone of another folder": msgspec.msgpack.encode(
            [1, 2, ["a"], [["T", [["2026-01-01", 0, "../../etc/passwd", "0"]]]]]
        ),
        "other version": msgspec.msgpack.encode([2, 2, ["a"], [["i", [1]]]]),
        "text for names": msgspec.msgpack.encode([1, 2, "ab", [["i", [1]], ["i", [1]]]]),
        "number for a name": msgspec.msgpack.encode([1, 2, [1], [["i", [1]]]]),
        "surplus column": msgspec.msgpack.encode([1, 2, ["a"], [["i", [1]], ["i", [1]]]]),
        "short column": msgspec.msgpack.encode([1, 2, ["a", "b"], [["i", [1, 2]], ["i", [1]]]]),
        "two rows for one": msgspec.msgpack.encode([1, 1, ["a"], [["i", [1, 2]]]]),
        "number as text": msgspec.msgpack.encode([1, 2, ["a"], [["s", [1]]]]),
        "twice in a set": msgspec.msgpack.encode([1, 2, ["a"], [["S", [["x", "x"]]]]]),
        "numbers in a set": msgspec.msgpack.encode([1, 2, ["a"], [["S", [[1, 2]]]]]),
        "other rules of a zone": msgspec.msgpack.encode(
            [1, 2, ["a"], [["T", [["2026-01-01T00:00:00", 0, "Europe/Berlin", "5:00:00"]]]]]
        ),
    }.items(),
    ids=lambda item: str(item[0]),
)
def test_hostile_bytes_are_refused_at_once(data: tuple[str, bytes]) -> None:
    """Lengths without contents, depths and texts made to take long: Malformed after little work."""
    began = time.process_time()
    assert not read(data[1])
    assert time.process_time() - began < 0.5


def test_many_rows_are_fast() -> None:
    """Packing and reading take time in proportion to the rows: 20 times the rows, far less than 400 times."""
    few, many = ([row(number, str(number), None, 0.5) for number in range(count)] for count in (500, 10_000))

    def seconds(rows: list[Any]) -> float:
        began = time.process_time()
        returned(rows)
        return time.process_time() - began

    assert min(seconds(many) for _ in range(3)) < 100 * min(seconds(few) for _ in range(3))
