"""The keys of cached answers: no two reads that a database could answer differently share one."""

import datetime
import enum
import zoneinfo
from dataclasses import dataclass
from decimal import Decimal
from math import inf, nan
from uuid import UUID

import pytest

from router.cache.keys import local_key


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    pass


@dataclass(frozen=True)
class Money:
    cents: int


class Zone(datetime.tzinfo):
    """A zone whose name does not tell its offset."""

    def __init__(self, hours: int) -> None:
        self._offset = datetime.timedelta(hours=hours)

    def utcoffset(self, _: datetime.datetime | None) -> datetime.timedelta:
        return self._offset

    def dst(self, _: datetime.datetime | None) -> None:
        return None

    def tzname(self, _: datetime.datetime | None) -> None:
        return None

    def __repr__(self) -> str:
        return "Zone()"


NOON = datetime.datetime(2026, 1, 1, 12)
VIENNA, BERLIN = zoneinfo.ZoneInfo("Europe/Vienna"), zoneinfo.ZoneInfo("Europe/Berlin")
FAMILIES: list[list[object]] = [
    [1, 1.0, True, "1", b"1", Decimal("1"), Decimal("1.0"), Decimal("1.00")],
    [0, 0.0, -0.0, False, Decimal("0"), Decimal("-0"), None, "", b""],
    [Decimal("100"), Decimal("1E+2"), 100],
    [nan, inf, -inf],
    [NOON, NOON.date(), NOON.time(), NOON.replace(tzinfo=VIENNA), NOON.replace(tzinfo=BERLIN)],
    [NOON.replace(tzinfo=datetime.UTC), datetime.datetime(2026, 1, 1, 13, tzinfo=VIENNA)],
    [NOON.replace(fold=1), NOON],
    [NOON.replace(tzinfo=Zone(1)), NOON.replace(tzinfo=Zone(2))],
    [NOON.time().replace(tzinfo=Zone(1)), NOON.time().replace(tzinfo=Zone(2))],
    [UUID(int=1), str(UUID(int=1)), 1],
    [datetime.timedelta(seconds=1), 1, 1.0],
]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_parameters_that_are_equal_but_not_the_same_have_keys_of_their_own(family: list[object]) -> None:
    """Python finds 1, 1.0 and True equal, and one moment in two zones; a database does not."""
    keys = [local_key(0, "fetch_one", "SELECT :x", (value,)) for value in family]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_parameters_of_a_type_that_is_not_known_have_no_key() -> None:
    """Nobody knows what a driver makes of them, nor what equality means there."""
    for value in (Colour.RED, Text("a"), [1], (1,), {"a": 1}, bytearray(b"x"), Money(1), object(), 1j):
        assert local_key(0, "fetch_one", "SELECT :x", (value,)) is None
        assert local_key(0, "fetch_one", "SELECT :x, :y", (1, value)) is None


def test_a_key_tells_scope_verb_text_and_order_apart() -> None:
    """The same parameters elsewhere, or the other way round, are another read."""
    keys = [
        local_key(*each)
        for each in (
            ("a", "fetch_one", "SELECT 1", (1, 2)),
            ("b", "fetch_one", "SELECT 1", (1, 2)),
            ("a", "fetch_all", "SELECT 1", (1, 2)),
            ("a", "fetch_one", "SELECT  1", (1, 2)),
            ("a", "fetch_one", "SELECT 1", (2, 1)),
            ("a", "fetch_one", "SELECT 1", (1,)),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert local_key("a", "v", "t", (1, "x", None)) == local_key("a", "v", "t", (1, "x", None))
