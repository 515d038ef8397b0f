"""Values in memory: what one reader does shows in no other's rows, and they weigh what they say."""

import datetime
import decimal
import gc
import ipaddress
import math
import sys
import time
import tracemalloc
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cache.packing import pack, unpack
from router.cache.values import freeze
from router.rows import TupleRow, row_class
from tests.exact import same
from tests.test_cache_packing import VALUES, row


def thawed(value: Any) -> Any:
    kept = freeze(value)
    assert kept is not None
    return kept.thaw()


def spoil(value: Any) -> None:
    """Change whatever can be changed in a value."""
    if isinstance(value, TupleRow | asyncpg.Record | tuple):
        for each in value:
            spoil(each)
    elif isinstance(value, list):
        for each in value:
            spoil(each)
        value.append("spoilt")
    elif isinstance(value, dict):
        for each in value.values():
            spoil(each)
        value["spoilt"] = True
    elif isinstance(value, set):
        value.add("spoilt")
    elif isinstance(value, bytearray):
        value.extend(b"spoilt")
    elif isinstance(value, asyncpg.Path):
        value.points = ()


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_no_reader_sees_what_another_did(values: list[Any]) -> None:
    """Neither who read it from the database nor who got it from the cache can change what others get."""
    given, untouched = [row(*values)], unpack(pack([row(*values)]) or b"")
    assert isinstance(untouched, list)
    one, many = freeze(given[0]), freeze(given)  # type: ignore[arg-type]
    assert one is not None
    assert many is not None
    spoil(given)
    for _ in range(2):
        assert same(one.thaw(), untouched[0])
        assert same(many.thaw(), untouched)
        spoil(one.thaw())
        spoil(many.thaw())


def test_rows_that_cannot_change_are_shared() -> None:
    """One row costs nothing to hand out, and of many only the list is made."""
    some: list[Any] = [row(1, "a", None), row(2, "b", (1, 2))]
    only_row = freeze(some[0])
    assert only_row is not None
    assert only_row.thaw() is some[0]
    kept = freeze(some[:1])
    assert kept is not None
    assert kept.thaw()[0] is some[0]
    assert kept.thaw() is not kept.thaw()


@pytest.mark.parametrize("value", [None, []])
def test_nothing_is_kept_too(value: Any) -> None:
    """That there is no such row is as good an answer as a row."""
    kept = freeze(value, limit=100)
    assert kept is not None
    assert same(kept.thaw(), value)
    assert 0 < kept.size <= 100


class Named(str):
    __slots__ = ()


class Zone(datetime.tzinfo):
    pass


UNKNOWN = [object(), Named("x"), memoryview(b"x"), 1j, datetime.datetime(2026, 1, 1, tzinfo=Zone())]


@pytest.mark.parametrize("value", UNKNOWN, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: [v], lambda v: (1, (v,)), lambda v: {"a": v}, lambda v: asyncpg.Range(v)]
)
def test_what_is_not_known_is_not_kept(value: Any, wrap: Any) -> None:
    """A type of somebody's own may change at any time, so it is refused, also inside others."""
    assert freeze(row(wrap(value))) is None
    assert freeze([row(1), row(wrap(value))]) is None


@pytest.mark.parametrize(
    "value",
    [asyncpg.Circle((1, [2]), 3.0), asyncpg.Range([1], None), frozenset({(asyncpg.Path((1, 2)),)})],
    ids=lambda value: type(value).__name__,
)
def test_what_hides_something_that_can_change_is_not_kept(value: Any) -> None:
    """Types that nobody changes are not copied, so they may hold nothing that can be changed."""
    assert freeze(row(value)) is None


def test_what_is_nested_too_deep_is_not_kept() -> None:
    """Nothing goes round for ever in a list that holds itself."""
    endless: list[Any] = []
    endless.append(endless)
    assert freeze(row(endless)) is None


@pytest.mark.parametrize("value", [(1, 2), "text", [(1,)], [row(1), row(1, 2)], [row(1), None]])
def test_what_is_no_result_is_not_kept(value: Any) -> None:
    """Only rows of a driver are kept, all of the same columns."""
    assert freeze(value) is None


# --- sizes -----------------------------------------------------------------------------------------------

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
RESULTS: dict[str, Callable[[int], tuple[Any, ...]]] = {
    "a customer": lambda i: (
        i + 1000,
        f"customer {i}",
        f"customer-{i}@example.com",
        NOW + datetime.timedelta(seconds=i),
        decimal.Decimal(i) / 100,
        i % 2 == 0,
        None,
    ),
    "a measurement": lambda i: (i + 1000, i * 0.37, NOW + datetime.timedelta(seconds=i), f"sensor-{i}"),
    "a document": lambda i: (uuid.UUID(int=i), "x" * 700 + str(i), b"y" * (i % 300)),
    "arrays": lambda i: (i + 1000, [f"tag {i}", f"word {i}"], [[i + 500, i + 600], [i + 700]]),
    "objects": lambda i: (i + 1000, {f"k{i}": i * 0.5, f"l{i}": [i + 500]}, {f"a{i}", f"b{i}"}),
    "wide text": lambda i: (f"grüße {i} " * 3, f"日本 {i}", f"😀 {i}"),
    "dates": lambda i: (
        datetime.date.fromordinal(700_000 + i),
        datetime.time(1, 2, 3, i),
        datetime.timedelta(i, 5, 7),
    ),
    "addresses": lambda i: (
        ipaddress.ip_address(0x0A000000 + i),
        ipaddress.ip_address(f"fe80::{i + 1:x}"),
        ipaddress.ip_network((0x0A000000 + (i << 8), 24)),
    ),
    "interfaces": lambda i: (
        ipaddress.ip_interface((0x0A000000 + i, 24)),
        ipaddress.ip_interface((i + (1 << 100), 64)),
    ),
    "shapes": lambda i: (
        asyncpg.Point(i, 0.5 + i),
        asyncpg.Path((i, 1.5), (2.5, i)),
        asyncpg.Range(i + 1000, i + 2000),
        asyncpg.BitString("1" * (20 + i % 50)),
    ),
}


TYPICAL = ("a customer", "a measurement", "a document", "arrays", "objects", "wide text", "dates")


@pytest.mark.parametrize("many", [True, False], ids=["all", "one"])
@pytest.mark.parametrize("name", RESULTS)
def test_a_size_is_what_the_memory_grows_by(name: str, many: bool) -> None:
    """The bytes said to be kept are those that Python has taken, within 15 %.

    Of all types they are what the allocator gave out, in steps of 16 bytes; of typical rows also what was
    asked of it.
    """
    make = RESULTS[name]
    of = row_class(tuple(f"c{index}" for index in range(len(make(0)))))
    freeze([of(make(0))])
    gc.collect()
    tracemalloc.start()
    try:
        results: list[Any] = (
            [[of(make(i)) for i in range(100)]] if many else [of(make(i)) for i in range(100)]
        )
        kept: list[Any] = [None] * len(results)
        for index in range(len(results)):
            kept[index] = freeze(results[index])
            results[index] = None
        gc.collect()
        taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
    finally:
        tracemalloc.stop()
    said = sum(each.size for each in kept)
    held = -sum(map(sys.getsizeof, (results, kept)))  # the test's own two lists
    given_out = held + sum((trace.size + 15) & ~15 for trace in taken.traces)
    assert abs(said / given_out - 1) <= 0.15, (said, given_out)
    if name in TYPICAL:
        asked = held + sum(trace.size for trace in taken.traces)
        assert abs(said / asked - 1) <= 0.15, (said, asked)


def test_what_takes_too_much_is_not_kept() -> None:
    """The limit is in bytes, itself allowed, and counting ends where it is passed."""
    some: list[Any] = [row(1000 + number, "x" * 100) for number in range(100)]
    kept = freeze(some)
    assert kept is not None
    assert freeze(some, kept.size) is not None
    assert freeze(some, kept.size - 1) is None

    class Unread(list[Any]):
        def __iter__(self) -> Any:
            yield from some
            raise AssertionError("counted on")

    assert freeze(Unread(some), 5_000) is None


def test_a_hit_costs_less_than_a_microsecond() -> None:
    """To hand out one row takes a method call and nothing else; the best of many runs is taken."""
    kept = freeze(row(1, "a", NOW))
    assert kept is not None
    best = math.inf
    for _ in range(20):
        began = time.process_time()
        for _ in range(1000):
            kept.thaw()
        best = min(best, time.process_time() - began)
    assert best < 0.001
