"""Check the keys that sign tokens: whether each can be read, is long enough, and is kept from others."""

from __future__ import annotations

from collections.abc import Iterator

from router.config.models import TokensConfig
from router.config.problems import Found, Loc
from router.config.references import Literal, SecretReference

SHORTEST = 16  # characters: what is shorter can be guessed offline by whoever has one token

LOC: Loc = ("tokens", "keys")
MAKE = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'


def check(tokens: TokensConfig) -> Iterator[Found]:
    """Yield what is wrong with the keys as they are now."""
    for index, key in enumerate(tokens.keys):
        if (flaw := key.flaw()) is not None:
            yield Found((*LOC, index), flaw.fact, flaw.remedy)
        elif len(key.resolve().reveal()) < SHORTEST:
            yield Found((*LOC, index), f"has fewer than {SHORTEST} characters", MAKE)


def remarks(tokens: TokensConfig, *, in_file: bool) -> Iterator[Found]:
    """Yield what is allowed but risky: keys that more people may read than have to."""
    for index, key in enumerate(tokens.keys):
        for path in key.exposed():
            fact = f"is in {path}, which every user of this machine may read"
            yield Found((*LOC, index), fact, "Take the permission away: chmod o-r")
        if in_file and written_out(key):
            fact = "is written out: whoever reads this file can sign tokens"
            yield Found((*LOC, index), fact, "Write ${env:NAME} or ${file:PATH} in its place")


def written_out(key: SecretReference) -> bool:
    """Tell whether a secret stands in the file itself."""
    return all(isinstance(part, Literal) for part in key.parts)
