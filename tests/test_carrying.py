"""Rules of router.carrying: a token put somewhere is found there again, and odd headers raise nothing."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import router
from router.carrying import COOKIE, HEADER, cookie, from_headers, from_message, to_message
from router.config import Secret
from router.positions import Lsn
from router.tokens import Point, Tokens

POINTS = [Point("main", "7301234567890123456", str(reign), Lsn(reign)) for reign in range(8)]
TOKENS = Tokens([Secret("a key of sixteen and more")], 600.0, lambda: 1e9)
SHORT, LONG = TOKENS.sign("acme", []), TOKENS.sign("acme", POINTS)
ODD = ['x="', "=", ";", "a=b=c", '{"json": 1}', "\x00\xff", "$Version=1", f"{COOKIE}", f"my{COOKIE}=no", " "]


@pytest.mark.parametrize("token", [SHORT, LONG])
@pytest.mark.parametrize(
    "make",
    [
        lambda name, value: {name: value},
        lambda name, value: {name.lower(): value},
        lambda name, value: {name.upper().encode(): value.encode()},
        lambda name, value: {"Host": "x", name: value, "Accept": None, "n": 7},
        lambda name, value: [(name.lower().encode(), value.encode())],  # ASGI
        lambda name, value: iter([("host", b"x"), (name, value), (name, "a later one")]),
        lambda name, value: [(name, ""), (name, f"  {value} ")],
    ],
)
def test_a_token_is_found_in_a_header(make: Any, token: str) -> None:
    """In a mapping or in pairs, as text or bytes, in any case, the first that is not empty."""
    assert from_headers(make(HEADER, token)) == token
    assert from_message(make(HEADER, token)) == token


@pytest.mark.parametrize("token", [SHORT, LONG])
def test_a_cookie_comes_back(token: str) -> None:
    """What a browser sends back of the cookie that was set is the token, without quotes."""
    value = cookie(token, 600.0)
    pair = value.partition(";")[0]
    assert pair == f"{COOKIE}={token}"
    for sent in (pair, f"a=b; {pair}", f"a=b;{pair};c=d", f'{COOKIE}="{token}"', f"{COOKIE}=; {pair}"):
        assert from_headers([(b"cookie", sent.encode())]) == from_headers({"Cookie": sent}) == token
    assert from_headers([(b"cookie", b"a=b"), (b"cookie", pair.encode())]) == token
    assert from_message({"Cookie": pair}) is None


def test_a_cookie_is_kept_from_scripts_and_other_sites() -> None:
    """HttpOnly, Secure, SameSite=Lax and Path=/ are on; plain HTTP and another path must be asked for."""
    (morsel,) = SimpleCookie(cookie(SHORT, 90.5)).values()
    assert (morsel["httponly"], morsel["secure"], morsel["samesite"]) == (True, True, "Lax")
    assert (morsel["path"], morsel["max-age"]) == ("/", "90")
    (morsel,) = SimpleCookie(cookie(SHORT, 0, path="/app", secure=False)).values()
    assert (morsel["secure"], morsel["httponly"], morsel["path"], morsel["max-age"]) == (
        "",
        True,
        "/app",
        "0",
    )


def test_no_text_breaks_out_of_a_cookie() -> None:
    """Whatever is passed for a token, it adds no attribute and no header of its own."""
    for text in ("x; Domain=evil", "x\r\nSet-Cookie: a=b", "x\0", 'x"; Path=/y'):
        value = cookie(text, 1)
        assert "\r" not in value and "\n" not in value and "\0" not in value
        assert set(SimpleCookie(value)) == {COOKIE} and not SimpleCookie(value)[COOKIE]["domain"]


def test_the_header_wins_over_the_cookie() -> None:
    """A program that sets the header means it; an empty one says nothing."""
    headers = {"Cookie": f"{COOKIE}={LONG}", HEADER: SHORT}
    assert from_headers(headers) == SHORT
    assert from_headers({**headers, HEADER: " "}) == LONG


@pytest.mark.parametrize("odd", ODD)
def test_a_bad_cookie_hides_no_good_one(odd: str) -> None:
    """What other programs put into the cookies raises nothing and does not hide the token."""
    assert from_headers({"cookie": odd}) is None
    for header in (f"{odd}; {COOKIE}={SHORT}", f"{COOKIE}={SHORT}; {odd}"):
        assert from_headers([(b"cookie", header.encode("latin-1"))]) == SHORT


TEXT = st.text() | st.binary() | st.sampled_from([HEADER, COOKIE, "cookie", b"cookie", b"x-router-token"])


@given(st.lists(st.tuples(TEXT | st.none(), TEXT | st.none() | st.integers())))
def test_any_headers_are_read(pairs: list[tuple[Any, Any]]) -> None:
    """Whatever the headers hold, the answer is a text or nothing."""
    for headers in (pairs, dict(pairs)):
        for found in (from_headers(headers), from_message(headers)):
            assert found is None or (found and isinstance(found, str))


def test_a_message_in_a_mapping_carries_a_token() -> None:
    """As with Celery and AMQP: the token is put beside what is there, in place of an older one."""
    headers = {"id": "7", HEADER.lower(): SHORT}
    to_message(headers, LONG)
    assert headers == {"id": "7", HEADER: LONG} and from_message(headers) == LONG
    assert from_message({"id": "7"}) is from_message({}) is from_message(None) is None


def test_a_message_in_pairs_carries_a_token() -> None:
    """As with Kafka: names and bytes, in a list when it is sent and in a tuple when it comes."""
    headers = [("id", b"7"), (HEADER, SHORT.encode())]
    to_message(headers, LONG)
    assert headers == [("id", b"7"), (HEADER, LONG.encode())]
    assert from_message(tuple(headers)) == LONG
    assert from_message([("id", None), *headers]) == LONG  # type: ignore[list-item]


def test_the_helpers_come_with_the_package() -> None:
    """``import router`` is enough to reach them."""
    assert router.carrying.HEADER == HEADER
