"""Rules of router.credentials."""

from __future__ import annotations

import pytest

from router.config import LoginConfig, Secret, SecretReference
from router.credentials import Credentials, mask_url
from router.errors import ConfigurationError

CANARY = "canary-c7e1"


def test_the_password_is_read_anew_each_time(monkeypatch):
    """A rotated secret is used by the next connection without a restart."""
    credentials = Credentials("app", SecretReference.parse("${env:ROUTER_TEST_PW}"))
    monkeypatch.setenv("ROUTER_TEST_PW", "one")
    assert credentials.resolve() == ("app", Secret("one"))
    monkeypatch.setenv("ROUTER_TEST_PW", "two")
    assert credentials.resolve() == ("app", Secret("two"))
    monkeypatch.delenv("ROUTER_TEST_PW")
    with pytest.raises(ConfigurationError, match="ROUTER_TEST_PW, which is not set"):
        credentials.resolve()


def test_no_password_is_none():
    """A login without a password (peer authentication) resolves to no secret at all."""
    assert Credentials.of(LoginConfig(username="app")).resolve() == ("app", None)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("db-1", 5432, "postgresql://a%40pp:***@db-1:5432/app"),
        ("::1", 5432, "postgresql://a%40pp:***@[::1]:5432/app"),
        ("/run/postgresql", 5432, "postgresql://a%40pp:***@/app?host=/run/postgresql"),
    ],
)
def test_the_dsn_for_people_is_masked(host, port, expected):
    """The shown address has user, host, port and database, and *** for the password; so has the repr."""
    credentials = Credentials("a@pp", SecretReference.parse(CANARY))
    assert credentials.masked_dsn("postgresql", host, port, "app") == expected
    assert CANARY not in repr(credentials)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://app:{CANARY}@db/app",
        f"postgresql://app:x%40{CANARY}%2F@db/app",
        f"postgresql://app:x@{CANARY}/y@db/app",
        f"mysql://app:{CANARY}/?x#@db:3306/app?ssl=1",
        f"postgresql://db/app?user=app&password={CANARY}",
        f"postgresql://db/app?sslmode=require&sslpassword={CANARY}&x=1",
        f"cannot reach postgresql://:{CANARY}@db, nor mysql://u:{CANARY}@db2",
    ],
)
def test_passwords_in_urls_are_masked(url):
    """A password in the user part or the query is masked, also one that is badly encoded."""
    assert CANARY not in mask_url(url) and "***" in mask_url(url)


def test_text_without_a_password_is_unchanged():
    """Masking leaves other text alone."""
    assert (
        mask_url("postgresql://app@db:5432/app?sslmode=require")
        == "postgresql://app@db:5432/app?sslmode=require"
    )
