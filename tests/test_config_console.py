"""Rules of observability.console: nobody sees the console without a token that is worth the name."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.config import load
from router.errors import ConfigurationError
from tests.test_config_keys import folder, refused, told

CANARY = "canary-token-of-the-console"


def test_console_is_off_unless_enabled(tmp_path: Path) -> None:
    """Without the section there is no console and no token."""
    console = load(folder(tmp_path, "")).observability.console
    assert (console.enabled, console.token) == (False, None)


def test_console_needs_a_token(tmp_path: Path) -> None:
    """A console that anybody could see is refused when the configuration is loaded."""
    found = refused(tmp_path, "observability:\n  console: {enabled: true}\n")
    fact = "is enabled without a token, and shows statements of all tenants"
    assert found == [(5, 12, f"observability.console {fact}")]


def test_console_tells_a_token_that_cannot_be_read_once(tmp_path: Path) -> None:
    """What is wrong with a token is told; not also that it is missing."""
    ((*_, message),) = refused(tmp_path, "observability: {console: {enabled: true, token: '${nope}'}}\n")
    assert "observability.console.token has a reference that is not understood" in message


@pytest.mark.parametrize(
    ("token", "flaw"),
    [
        ("short", "has fewer than 16 characters"),
        ("${env:NOT_THERE_AT_ALL}", "needs the environment variable NOT_THERE_AT_ALL, which is not set"),
    ],
)
def test_console_refuses_a_token_that_is_none(token: str, flaw: str, tmp_path: Path) -> None:
    """A token that can be guessed or is not there is told in its place."""
    found = refused(tmp_path, f"observability:\n  console:\n    token: '{token}'\n")
    assert found == [(6, 12, f"observability.console.token {flaw}")]


def test_console_warns_of_a_token_that_others_may_read(tmp_path: Path) -> None:
    """One that is written out, or in a file that all may read, is taken with a remark."""
    config = load(folder(tmp_path, f"observability: {{console: {{token: {CANARY}}}}}\n"))
    ((_, _, message),) = told(config.warnings)
    assert message.endswith("is written out: whoever reads this file can see the console")
    assert CANARY not in repr(config.observability) + str(config.warnings)
    secret = tmp_path / "token"
    secret.write_text(CANARY)
    secret.chmod(0o644)
    config = load(folder(tmp_path, "observability: {console: {token: '${file:token}'}}\n"))
    ((_, _, message),) = told(config.warnings)
    assert message.endswith(f"is in {secret}, which every user of this machine may read")


def test_console_reads_its_token_when_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference is kept as one, so that the token itself is nowhere in the configuration."""
    monkeypatch.setenv("CONSOLE_TOKEN", CANARY)
    config = load(folder(tmp_path, "observability: {console: {token: '${env:CONSOLE_TOKEN}'}}\n"))
    token = config.observability.console.token
    assert token is not None
    assert (str(token), token.resolve().reveal()) == ("${env:CONSOLE_TOKEN}", CANARY)


def test_console_knows_no_other_keys(tmp_path: Path) -> None:
    """A key that does not exist is refused, as everywhere."""
    with pytest.raises(ConfigurationError, match=r"observability\.console\.password"):
        load(folder(tmp_path, "observability: {console: {password: x}}\n"))
