"""Rules of router.tokens: what is signed comes back, and nothing else is believed."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from itsdangerous import Signer, URLSafeSerializer, URLSafeTimedSerializer
from itsdangerous.encoding import base64_encode

from router.config import Secret
from router.errors import UsageError
from router.positions import LONGEST, Lsn, MariadbGtid, MysqlGtids, Position
from router.tokens import MOST_CHARACTERS, MOST_POINTS, BadToken, Point, Refusal, Tokens, merged

KEY, OLD_KEY, OTHER_KEY = "canary-key-of-the-present", "canary-key-of-the-past", "canary-key-of-somebody"
LIFETIME = 600.0
A, B = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"
POINT = Point("main", "7301234567890123456", "3", Lsn(0x16_B374D848))


class Wall:
    """Be a clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


def tokens(wall: Wall, *keys: str) -> Tokens:
    return Tokens([Secret(key) for key in keys or (KEY,)], LIFETIME, wall)


def refusal(reader: Tokens, text: str, tenant: str = "acme") -> Refusal:
    """Read what must be refused."""
    with pytest.raises(BadToken) as caught:
        reader.read(tenant, text)
    assert caught.value.__context__ is None and caught.value.__cause__ is None
    return caught.value.refusal


def serializer(key: str = KEY, salt: str = "router.tokens.r1", **more: Any) -> URLSafeSerializer:
    """Return what signs as tokens are signed, for contents that Tokens would not sign."""
    import hashlib

    how = {"key_derivation": "hmac", "digest_method": hashlib.sha256, **more}
    return URLSafeSerializer(key, salt=salt, signer_kwargs=how)


def content(**changes: Any) -> list[Any]:
    return list(
        {
            "tenant": "acme",
            "issued": 1_800_000_000,
            "rows": [["main", "7301234567890123456", "3", "lsn:16/B374D848"]],
            **changes,
        }.values()
    )


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


def many(count: int) -> list[Point]:
    return [Point("main", "7301234567890123456", str(reign), Lsn(reign)) for reign in range(count)]


def test_as_many_points_as_fit_are_kept(wall: Wall) -> None:
    """The most that a token takes comes back whole."""
    both = tokens(wall)
    assert both.read("acme", both.sign("acme", many(MOST_POINTS))) == tuple(many(MOST_POINTS))


def _long(count: int) -> MysqlGtids:
    """Return a set of many servers, which cannot be compressed well."""
    import random

    rng = random.Random(7)
    words = [f"{rng.getrandbits(128):032x}" for _ in range(count)]
    sources = [f"{w[:8]}-{w[8:12]}-{w[12:16]}-{w[16:20]}-{w[20:]}" for w in words]
    return MysqlGtids({source: ((1, rng.getrandbits(60)),) for source in sources})


@pytest.mark.parametrize(
    "points",
    [
        many(MOST_POINTS + 1),
        [Point("main", None, A, _long(100))],
        [Point("main", None, A, MariadbGtid(dict.fromkeys(range(LONGEST // 5), 1)))],
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


# --- forged ----------------------------------------------------------------------------------------------


def test_every_changed_character_is_found(wall: Wall) -> None:
    """No single bit and no single character of a token can be changed: there is one text for one token."""
    both = tokens(wall)
    for text in (both.sign("acme", [POINT]), both.sign("acme", many(MOST_POINTS))):
        for at in range(len(text)):
            others = {chr(ord(text[at]) ^ 1 << bit) for bit in range(8)} | set("AZaz09-_.=") - {text[at]}
            for other in others:
                assert refusal(both, text[:at] + other + text[at + 1 :]) in (
                    Refusal.FORGED,
                    Refusal.MALFORMED,
                )


def test_a_cut_or_longer_token_is_refused(wall: Wall) -> None:
    """No beginning of a token, and none with something around it, is a token."""
    both = tokens(wall)
    text = both.sign("acme", [POINT])
    wrong = [text[:end] for end in range(len(text))]
    wrong += [text + more for more in ("A", ".", "=", "==", "\n", " ", "\0", text)]
    wrong += [more + text for more in ("r1.", ".", " ", "\n", "\ufeff")]
    for each in wrong:
        assert refusal(both, each) in (Refusal.FORGED, Refusal.MALFORMED)


def test_parts_of_two_tokens_make_none(wall: Wall) -> None:
    """A signature holds for its own content only."""
    both = tokens(wall)
    mine, theirs = both.sign("acme", [POINT]), both.sign("globex", [POINT])
    for one, other in ((mine, theirs), (theirs, mine)):
        swapped = one.rpartition(".")[0] + "." + other.rpartition(".")[2]
        assert refusal(both, swapped) is Refusal.FORGED


@pytest.mark.parametrize(
    "text",
    [
        "r1." + serializer(OTHER_KEY).dumps(content()),
        "r1." + serializer(salt="router.tokens").dumps(content()),
        "r1." + serializer(salt="session").dumps(content()),
        "r1." + serializer(key_derivation="none").dumps(content()),
        "r1." + serializer(key_derivation="django-concat").dumps(content()),
    ],
)
def test_the_key_signs_tokens_only_as_tokens(wall: Wall, text: str) -> None:
    """Another key, and the same one used for something else, sign no token."""
    assert tokens(wall).read("acme", "r1." + serializer().dumps(content())) == (POINT,), "the test's own way"
    assert refusal(tokens(wall), text) is Refusal.FORGED


def test_other_signatures_of_the_library_are_none(wall: Wall) -> None:
    """A weaker digest, a timed signature or a bare one with the same key is no token."""
    import hashlib

    weak = URLSafeSerializer(KEY, salt="router.tokens.r1", signer_kwargs={"digest_method": hashlib.sha1})
    timed = URLSafeTimedSerializer(KEY, salt="router.tokens.r1")
    bare = Signer(KEY, salt="router.tokens.r1")
    for text in (weak.dumps(content()), timed.dumps(content()), bare.sign("x").decode()):
        assert refusal(tokens(wall), f"r1.{text}") is Refusal.MALFORMED
    nothing = base64_encode(json.dumps(content()).encode()).decode()
    for signature in ("", "A" * 43, "A" * 86):
        assert refusal(tokens(wall), f"r1.{nothing}.{signature}") in (Refusal.FORGED, Refusal.MALFORMED)


def test_a_token_of_another_tenant_is_foreign(wall: Wall) -> None:
    """Who has a token of one tenant cannot use it for another, whatever the names look like."""
    both = tokens(wall)
    assert refusal(both, both.sign("acme", [POINT]), "globex") is Refusal.FOREIGN
    for tenant in ("", "acme ", "Acme", "acm", "acme\0", "acme.eu"):
        assert refusal(both, both.sign("acme", [POINT]), tenant) is Refusal.FOREIGN


@given(st.text() | st.text(alphabet="r1.-_AB=", max_size=80))
@example("r1.." + "A" * 43)
@example("r1.\ud800." + "A" * 43)
@example("r1.e30." + "\u0410" * 43)
@example("R1.e30." + "A" * 43)
@example("r2.e30." + "A" * 43)
def test_any_text_is_refused(text: str) -> None:
    """Whatever somebody sends is refused, and nothing else is raised."""
    assert refusal(tokens(Wall()), text) in (Refusal.FORGED, Refusal.MALFORMED)


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


# --- hostile contents ------------------------------------------------------------------------------------


@pytest.fixture
def decompressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the size of everything that is decompressed."""
    import itsdangerous.url_safe

    sizes: list[int] = []

    class Noting:
        compress = staticmethod(zlib.compress)

        @staticmethod
        def decompress(data: bytes) -> bytes:
            whole = zlib.decompress(data)
            sizes.append(len(whole))
            return whole

    monkeypatch.setattr(itsdangerous.url_safe, "zlib", Noting)
    return sizes


def bomb() -> str:
    """Return as much as fits into a token, blown up a thousandfold when decompressed."""
    packed = zlib.compress(b"[" * 2_900_000, 9)
    return "." + base64_encode(packed).decode()


def test_nothing_is_decompressed_before_its_signature_holds(wall: Wall, decompressed: list[int]) -> None:
    """A forged token costs one signature for each key, whatever it would become."""
    both = tokens(wall, KEY, OLD_KEY)
    good = both.sign("acme", many(MOST_POINTS))
    assert good.startswith("r1..") and both.read("acme", good) and len(decompressed) == 1
    signature = good.rpartition(".")[2]
    for text in (f"r1.{bomb()}.{signature}", good[:-1] + ("A" if good[-1] != "A" else "E")):
        assert len(text) <= MOST_CHARACTERS and refusal(both, text) is Refusal.FORGED
    assert len(decompressed) == 1


def test_even_with_the_key_a_bomb_is_small(wall: Wall, decompressed: list[int]) -> None:
    """The length of a token bounds what it can become: some megabytes, refused without anything else."""
    text = "r1." + serializer().make_signer(b"router.tokens.r1").sign(bomb()).decode()
    assert len(text) <= MOST_CHARACTERS and refusal(tokens(wall), text) is Refusal.MALFORMED
    assert decompressed == [2_900_000]


def test_a_long_text_is_not_looked_at(wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten megabytes are refused by their length, before any matching or signature."""
    both = tokens(wall)
    monkeypatch.setattr("router.tokens._SHAPE", None)
    monkeypatch.setattr(both, "_serializer", None, raising=False)
    for text in ("r1." + "A" * 10_000_000, "x" * (MOST_CHARACTERS + 1)):
        assert refusal(both, text) is Refusal.MALFORMED


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [],
        "acme",
        content()[:2],
        [*content(), 1],
        content(tenant=7),
        content(issued="1800000000"),
        content(issued=1.8e9),
        content(issued=10**400),
        content(issued=-1),
        content(rows={}),
        content(rows=[[]]),
        content(rows=[["main", None, None, "lsn:x"]]),
        content(rows=[["main", None, None, 7]]),
        content(rows=[["main", None, 3, "lsn:0/1"]]),
        content(rows=[[None, None, None, "lsn:0/1"]]),
        content(rows=[["main", None, None, "lsn:0/1", "more"]]),
        content(rows=[["main", None, None, "lsn:0/1"]] * (MOST_POINTS + 1)),
    ],
)
def test_signed_nonsense_is_malformed(wall: Wall, data: Any) -> None:
    """What another version or program signed with the key and the salt is no token either."""
    assert refusal(tokens(wall), "r1." + serializer().dumps(data)) is Refusal.MALFORMED


def test_signed_bytes_that_are_no_data_are_malformed(wall: Wall) -> None:
    """Neither broken JSON nor broken compression raises anything else."""
    signer = serializer().make_signer(b"router.tokens.r1")
    for payload in ("AAAA", ".AAAA", "A", base64_encode(b"[" * 2000).decode()):
        assert refusal(tokens(wall), "r1." + signer.sign(payload).decode()) is Refusal.MALFORMED
