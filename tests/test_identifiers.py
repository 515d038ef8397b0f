"""Rules of router.identifiers."""

from __future__ import annotations

import re
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.identifiers import check_logical_name, check_physical_name, check_tenant_id, quote, shown

HOSTILE = [
    "", " ", "a b", "A", "Acme", "ACME", 'a"; drop schema x; --', "../", "..", "a/b", "%", "a%00", "a\0",
    "\0", "\u202eacme", "caf\xe9", "cafe\u0301", "\uff21\uff23\uff2d\uff25", "\uff41cme", "acme\n", "\nacme",
    "acme\r", "a.b", "a,b", "a;b", "a'b", "a`b", "a\\b", "-acme", "$user", "a" * 64, "a" * 1000, "\xe9" * 32,
    "\u0131", "\u017f", "\ud800",
]  # fmt: skip
CHECKS = [check_tenant_id, check_physical_name, check_logical_name]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_refused(check, text):
    """Every name outside the allow-list is refused, and the message is printable ASCII of bounded length."""
    with pytest.raises(ValueError) as caught:
        check(text)
    assert str(caught.value).isascii() and str(caught.value).isprintable() and len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [None, 7, b"acme", ["acme"]])
@pytest.mark.parametrize("check", CHECKS)
def test_what_is_not_text_is_refused(check, value):
    """A name is text; another type is a ValueError like any other bad name."""
    with pytest.raises(ValueError):
        check(value)


@pytest.mark.parametrize(
    "name",
    ["public", "pg_catalog", "pg_temp", "pg_x", "information_schema", "mysql", "performance_schema", "sys",
     "template0", "template1", "sqlite_master"],
)  # fmt: skip
def test_reserved_physical_names_are_refused(name):
    """A tenant is never placed in what belongs to the server or to everyone."""
    with pytest.raises(ValueError, match="reserved"):
        check_physical_name(name)


def test_public_passes_only_where_it_is_asked_for():
    """``public`` may be an extension schema; nothing else reserved comes through with it."""
    assert check_physical_name("public", public=True) == "public"
    with pytest.raises(ValueError):
        check_physical_name("pg_temp", public=True)


@pytest.mark.parametrize("text", ["acme", "a", "0acme", "a-b_c", "a" * 63])
def test_plain_tenant_ids_pass(text):
    """Allowed ids come back unchanged, up to 63 characters."""
    assert check_tenant_id(text) == text


@given(st.text(max_size=80))
def test_what_passes_matches_the_pattern(text):
    """No text outside the documented patterns passes any check."""
    patterns = [r"[a-z0-9][a-z0-9_-]{0,62}", r"[a-z_][a-z0-9_]{0,62}", r"[a-z][a-z0-9_-]{0,62}"]
    for check, pattern in zip(CHECKS, patterns, strict=True):
        try:
            passed = check(text)
        except ValueError:
            continue
        assert re.fullmatch(pattern, passed) and len(passed.encode()) <= 63


@given(
    st.text(
        alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30
    )
)
def test_quoted_names_mean_themselves_to_a_database(name):
    """A quoted name, whatever is in it, is one identifier: SQLite gives it back as the column's name."""
    for mark in ('"', "`"):
        cursor = sqlite3.connect(":memory:").execute(f"SELECT 1 AS {quote(name, mark)}")
        assert cursor.description[0][0] == name
        cursor.connection.close()


@pytest.mark.parametrize(("name", "mark"), [("", '"'), ("a\0b", '"'), ("a", "'"), ("a", "")])
def test_what_cannot_be_quoted_is_refused(name, mark):
    """Empty names, NUL and unknown quotes are refused."""
    with pytest.raises(ValueError):
        quote(name, mark)


def test_names_in_messages_are_escaped_and_cut():
    """A message shows no raw control or bidirectional character and at most 80 characters of a name."""
    assert shown("a\u202e\n") == r"'a\u202e\n'"
    assert len(shown("x" * 10_000)) < 120
