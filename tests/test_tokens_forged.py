"""Rules of router.tokens against who wants to be believed: changed, foreign, made-up and exploding tokens."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import itsdangerous.url_safe
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from itsdangerous import Signer, URLSafeSerializer, URLSafeTimedSerializer
from itsdangerous.encoding import base64_encode

from router.tokens import MOST_CHARACTERS, MOST_POINTS, Refusal
from tests.forging import KEY, OLD_KEY, OTHER_KEY, POINT, Wall, content, many, refusal, serializer, tokens


@pytest.fixture
def wall() -> Wall:
    return Wall()


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


# --- hostile contents ------------------------------------------------------------------------------------


@pytest.fixture
def decompressed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the size of everything that is decompressed."""
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
