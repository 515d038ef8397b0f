"""Rules of router.tokens: what is signed comes back, and nothing else is believed."""

from __future__ import annotations

import copy
import pickle
import random
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import Secret
from router.errors import UsageError
from router.positions import LONGEST, Lsn, MariadbGtid, MysqlGtids, Position
from router.tokens import MOST_POINTS, BadToken, Point, Refusal, Tokens, merged
from tests.forging import KEY, LIFETIME, OLD_KEY, OTHER_KEY, POINT, Wall, many, refusal, tokens

A, B = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"


@pytest.fixture
def wall() -> Wall:
    return Wall()


# --- there and back --------------------------------------------------------------------------------------

POSITIONS: st.SearchStrategy[Position | None] = st.one_of(
    st.none(),
    st.builds(Lsn, st.integers(0, (1 << 64) - 1)),
    st.builds(MariadbGtid, st.dictionaries(st.integers(0, (1 << 32) - 1), st.integers(1, (1 << 64) - 1))),
    st.just(MysqlGtids.parse(f"{A}:1-5:7:backup:1-3,{B}:1")),
)
POINTS = st.builds(
    Point, st.text(max_size=20), st.none() | st.text(max_size=40), st.none() | st.text(max_size=40), POSITIONS
)


@given(st.text(max_size=63), st.lists(POINTS, max_size=3))
def test_a_token_comes_back_as_it_was(tenant: str, points: list[Point]) -> None:
    """Whatever is signed for a tenant is read for that tenant, as merged."""
    both = tokens(Wall())
    assert both.read(tenant, both.sign(tenant, points)) == merged(points)


def test_a_token_goes_wherever_text_goes(wall: Wall) -> None:
    """Its characters need no quoting in a header, a cookie or a URL; it names its version; it is short."""
    gtids = Point("main", None, A, MysqlGtids.parse(",".join(f"{A[:-2]}{n}:1-{n}" for n in range(10, 60))))
    for points in ([], [POINT], [gtids]):
        text = tokens(wall).sign("acme", points)
        assert text.startswith("r1.") and not set(text) - set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
        )
    assert len(tokens(wall).sign("acme", [POINT])) < 160


def test_a_process_that_has_the_key_reads_what_another_signed(wall: Wall) -> None:
    """Two objects share nothing but the key."""
    assert tokens(wall).read("acme", tokens(wall).sign("acme", [POINT])) == (POINT,)


# --- merging ---------------------------------------------------------------------------------------------


def test_points_of_one_reign_become_one() -> None:
    """Of several positions in one history only the one that has reached all is kept, in its place."""
    early, late = POINT, Point("main", POINT.identity, "3", Lsn(0x17_00000000))
    other = Point("orders", None, "1", MariadbGtid.parse("0-1-5"))
    other_domain = Point("orders", None, "1", MariadbGtid.parse("1-1-7"))
    joined = Point("orders", None, "1", MariadbGtid.parse("0-1-5,1-1-7"))
    assert merged([early, other, late, other_domain, early]) == (late, joined)


@pytest.mark.parametrize(
    "other",
    [
        Point("orders", POINT.identity, "3", Lsn(1)),
        Point("main", "another", "3", Lsn(1)),
        Point("main", POINT.identity, "4", Lsn(1)),
        Point("main", POINT.identity, "3", MariadbGtid.parse("0-1-5")),
        Point("main", POINT.identity, "3", None),
    ],
)
def test_points_of_different_histories_are_kept_apart(other: Point) -> None:
    """Neither clusters nor identities nor reigns are joined, nor positions of two engines."""
    assert merged([POINT, other]) == (POINT, other)


def test_a_cluster_without_positions_is_named_once() -> None:
    """SQLite's points say nothing more the second time."""
    nothing = Point("embedded", None, None, None)
    assert merged([nothing, nothing]) == (nothing,)


def test_merged_tokens_stand_for_all_of_them(wall: Wall) -> None:
    """One token of several holds the union of their points."""
    both = tokens(wall)
    second = Point("main", POINT.identity, "4", Lsn(5))
    third = Point("main", POINT.identity, "3", Lsn(0x17_00000000))
    one = both.merge(*(both.sign("acme", [point]) for point in (POINT, second, third)))
    assert both.read("acme", one) == (third, second)
    assert both.read("acme", both.merge(one)) == (third, second)


def test_a_merged_token_expires_with_its_oldest_part(wall: Wall) -> None:
    """Merging makes no old token young: it could be kept alive for ever."""
    both = tokens(wall)
    old = both.sign("acme", [POINT])
    wall.now += LIFETIME - 1
    one = both.merge(both.sign("acme", [POINT]), old)
    assert both.read("acme", one) == (POINT,)
    wall.now += 2
    assert refusal(both, one) is Refusal.EXPIRED


def test_tokens_that_cannot_be_merged_are_a_mistake(wall: Wall) -> None:
    """A bad one, tokens of two tenants, and none at all raise what the program can be corrected by."""
    both = tokens(wall)
    good = both.sign("acme", [POINT])
    with pytest.raises(UsageError, match="refused: forged"):
        both.merge(good, tokens(wall, OTHER_KEY).sign("acme", [POINT]))
    with pytest.raises(UsageError, match="refused: malformed"):
        both.merge(good, "")
    with pytest.raises(UsageError, match="one tenant"):
        both.merge(good, both.sign("globex", [POINT]))
    with pytest.raises(UsageError, match="at least one"):
        both.merge()


# --- too much --------------------------------------------------------------------------------------------


def test_as_many_points_as_fit_are_kept(wall: Wall) -> None:
    """The most that a token takes comes back whole."""
    both = tokens(wall)
    assert both.read("acme", both.sign("acme", many(MOST_POINTS))) == tuple(many(MOST_POINTS))


def _long(count: int) -> MysqlGtids:
    """Return a set of many servers, which cannot be compressed well."""
    rng = random.Random(7)
    words = [f"{rng.getrandbits(128):032x}" for _ in range(count)]
    sources = [f"{w[:8]}-{w[8:12]}-{w[12:16]}-{w[16:20]}-{w[20:]}" for w in words]
    return MysqlGtids({source: ((1, rng.getrandbits(60)),) for source in sources})


@pytest.mark.parametrize(
    "points",
    [
        many(MOST_POINTS + 1),
        [Point("main", None, A, _long(100))],
        [
            Point(
                "main", None, A, MariadbGtid({(1 << 32) - 1 - n: (1 << 64) - 1 for n in range(LONGEST // 33)})
            )
        ],
        [Point("main", None, "x" * 10_000, Lsn(1)), POINT, Point("y", str(_long(100)), None, None)],
    ],
    ids=["points", "incompressible", "compressible", "names"],
)
def test_what_does_not_fit_is_never_left_out(wall: Wall, points: list[Point]) -> None:
    """A token that had to hold more says so, also through a merge: whoever reads it asks the primary."""
    both = tokens(wall)
    text = both.sign("acme", points)
    assert len(text) < 200 and refusal(both, text) is Refusal.OVERFULL
    assert refusal(both, both.merge(both.sign("acme", [POINT]), text)) is Refusal.OVERFULL


def test_a_merge_that_does_not_fit_says_so(wall: Wall) -> None:
    """Two tokens that are full make one that is overfull."""
    both = tokens(wall)
    halves = [both.sign("acme", many(MOST_POINTS)), both.sign("acme", [Point("orders", None, None, Lsn(1))])]
    assert refusal(both, both.merge(*halves)) is Refusal.OVERFULL


# --- keys ------------------------------------------------------------------------------------------------


def test_the_first_key_signs_and_all_verify(wall: Wall) -> None:
    """A new key put before the old one takes over; tokens of the old one hold until it is removed."""
    before, during, after = tokens(wall, OLD_KEY), tokens(wall, KEY, OLD_KEY), tokens(wall, KEY)
    old, new = before.sign("acme", [POINT]), during.sign("acme", [POINT])
    assert during.read("acme", old) == during.read("acme", new) == after.read("acme", new) == (POINT,)
    assert refusal(before, new) is refusal(after, old) is Refusal.FORGED
    assert after.read("acme", during.merge(old, new)) == (POINT,)


@pytest.mark.parametrize("keys", [(), ("",), ("x" * 15,), (KEY, "short")])
def test_a_key_that_can_be_guessed_is_refused(wall: Wall, keys: tuple[str, ...]) -> None:
    """No key and a short one sign nothing; the error does not show it."""
    with pytest.raises(UsageError, match="16 characters") as caught:
        Tokens([Secret(key) for key in keys], LIFETIME, wall)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("lifetime", [0.0, -1.0, float("nan")])
def test_a_lifetime_is_above_zero(wall: Wall, lifetime: float) -> None:
    """Tokens that never hold would be configured by mistake."""
    with pytest.raises(UsageError, match="lifetime"):
        Tokens([Secret(KEY)], lifetime, wall)


def test_keys_are_shown_nowhere(wall: Wall) -> None:
    """Neither repr nor an error nor the frames of its traceback has a key, and no copy of one is made."""
    both = tokens(wall, KEY, OLD_KEY)
    assert repr(both) == str(both) == "<Tokens: 2 keys, lifetime 600 s>"
    texts = ["", "r1.x", both.sign("globex", [POINT]), tokens(wall, OTHER_KEY).sign("acme", [POINT])]
    for text in texts:
        with pytest.raises(BadToken) as caught:
            both.read("acme", text)
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert "canary" not in "".join(shown.format()) + repr(caught.value) + str(caught.value)
        assert not text or text not in str(caught.value)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            copied(both)


# --- time ------------------------------------------------------------------------------------------------


def test_a_token_holds_for_its_lifetime(wall: Wall) -> None:
    """It is believed to its last second and not after; the clock of who reads it counts."""
    both = tokens(wall)
    text = both.sign("acme", [POINT])
    wall.now += LIFETIME
    assert both.read("acme", text) == (POINT,)
    wall.now += 1
    assert refusal(both, text) is Refusal.EXPIRED
    assert refusal(both, text, "globex") is Refusal.EXPIRED


def test_clocks_may_differ_by_a_minute(wall: Wall) -> None:
    """A token from a process whose clock is ahead holds, but one from far in the future never does."""
    both = tokens(wall)
    text = both.sign("acme", [POINT])
    wall.now -= 60
    assert both.read("acme", text) == (POINT,)
    wall.now -= 1
    assert refusal(both, text) is Refusal.EXPIRED
