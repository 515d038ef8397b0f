"""Positions: what has reached what, on each engine's terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.positions import Lsn, MariadbGtid, MysqlGtids

BLOCK, SEGMENT = 8192, 16 * 1024 * 1024


def test_bytes_of_a_log_are_compared_and_counted() -> None:
    """A later byte has reached an earlier one, and the difference is known."""
    early, later = Lsn(100), Lsn(260)
    assert later.reached(early) and early.reached(early) and not early.reached(later)
    assert (early.behind(later), later.behind(early)) == (160, 0)
    assert str(Lsn(0x16_B374D848)) == "16/B374D848"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5 * BLOCK, 5 * BLOCK),
        (5 * BLOCK + 24, 5 * BLOCK),  # past the header of a page that holds nothing yet
        (SEGMENT + 40, SEGMENT),  # a segment's first page has a longer header
        (SEGMENT + 24, SEGMENT),
        (5 * BLOCK + 40, 5 * BLOCK + 40),  # on any other page that is data
        (5 * BLOCK + 25, 5 * BLOCK + 25),
    ],
)
def test_an_insert_pointer_past_a_page_header_means_the_page_before(value: int, expected: int) -> None:
    """No replica gets into a header before more is written, so waiting for it could last (fault case 14)."""
    assert Lsn.of_insert(value, BLOCK, SEGMENT) == Lsn(expected)


@given(st.integers(0, 1 << 40))
def test_normalising_never_goes_past_what_was_written(value: int) -> None:
    """It moves back by a header at most, and a second time changes nothing."""
    once = Lsn.of_insert(value, BLOCK, SEGMENT)
    assert 0 <= value - once.value <= 40
    assert Lsn.of_insert(once.value, BLOCK, SEGMENT) == once


def test_mariadb_compares_each_domain_for_itself() -> None:
    """Every domain of the other must be there, as far as the other is."""
    here = MariadbGtid.parse("0-1-270,5-2-7")
    assert here.reached(MariadbGtid.parse("0-9-270"))
    assert here.reached(MariadbGtid.parse(""))
    assert not here.reached(MariadbGtid.parse("0-1-271"))
    assert not here.reached(MariadbGtid.parse("0-1-1,6-1-1"))
    assert here.behind(MariadbGtid.parse("0-1-1")) == 0
    assert here.behind(MariadbGtid.parse("0-1-271")) is None


def test_mysql_compares_sets() -> None:
    """Gaps count: what is missing in between was not reached."""
    a, b = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
    here = MysqlGtids.parse(f"{a}:1-5:8-10,\n{b}:1")
    assert here.reached(MysqlGtids.parse(f"{a}:2-4"))
    assert here.reached(MysqlGtids.parse(f"{a}:8:10,{b}:1"))
    assert not here.reached(MysqlGtids.parse(f"{a}:5-8"))
    assert not here.reached(MysqlGtids.parse(f"{b}:1-2"))
    assert not here.reached(MysqlGtids.parse(f"{a}:tag:1"))
    assert MysqlGtids.parse(f"{a}:tag:1-3").reached(MysqlGtids.parse(f"{a}:tag:2"))
