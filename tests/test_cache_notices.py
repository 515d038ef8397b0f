"""Notices as text, kept until they are told, and the numbers that show whether all have come."""

import json
import math

import pytest

from router.cache.notices import EVERYTHING, Notice, Unsaid, decode, encode, encode_within
from router.cache.sequence import Gap, Sequence


def test_sequence_notices_every_gap() -> None:
    """A number that is not the next, or an answer that goes back, is a gap."""
    for number in (1, 5, 7, 0):
        sequence = Sequence()
        sequence.begin(5)
        with pytest.raises(Gap):
            sequence.came(number)
    sequence = Sequence()
    with pytest.raises(Gap):
        sequence.came(1)
    sequence.begin(5)
    with pytest.raises(Gap):
        sequence.answered(4, 1.0, before=5)


def test_sequence_reaches_a_moment_when_all_of_before_have_come() -> None:
    """An answer counts from when the last message it speaks of has come; until then it is overdue."""
    sequence = Sequence()
    sequence.begin(5)
    assert sequence.answered(5, 1.0, before=5) == 1.0
    assert sequence.answered(7, 2.0, before=5) is None
    assert sequence.answered(8, 3.0, before=5) is None
    assert not sequence.overdue(2.0)
    assert sequence.overdue(2.1)
    assert sequence.came(6) is None
    assert sequence.came(7) == 2.0
    assert sequence.answered(6, 2.5, before=6) == 2.5, "answered before 7 was sent, read after it came"
    assert sequence.came(8) == 3.0
    assert not sequence.overdue(math.inf)


def test_unsaid_merges_and_stays_small() -> None:
    """Notices merge by place; too many places become everything."""
    unsaid = Unsaid()
    unsaid.add(
        [Notice("a", frozenset("x")), Notice("b"), Notice("a", frozenset("y")), Notice("b", frozenset("z"))]
    )
    assert unsaid.take() == [Notice("a", frozenset("xy")), Notice("b")]
    assert not unsaid
    unsaid.add(Notice(str(number)) for number in range(1000))
    assert len(unsaid) == 1000
    unsaid.add([Notice("one more")])
    assert unsaid.take() == [EVERYTHING]
    unsaid.add([EVERYTHING, Notice("a")])
    assert unsaid.take() == [EVERYTHING]
    assert unsaid.take() == []


def test_messages_come_back_as_they_were() -> None:
    """Text of any kind survives, within any size; what does not fit is said more broadly, never left out."""
    notice = Notice("ä\U0001f600'\"\\\x00", frozenset(("t\n", "ü")))
    assert decode(encode("me", notice)) == ("me", notice)
    assert encode("me", notice).isascii()
    assert len(json.loads(encode("me", EVERYTHING))) == 3
    wide = Notice("p", frozenset(f"t{number}" for number in range(100)))
    texts = encode_within("me", wide, 60)
    assert all(len(text) <= 60 for text in texts)
    found = [decode(text) for text in texts]
    assert frozenset().union(*(each[1].tables or () for each in found if each)) == wide.tables
