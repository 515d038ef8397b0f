"""Check who may see the console: whether its token can be read, is long enough, and is kept from others."""

from __future__ import annotations

from collections.abc import Iterator

from router.config.keys import MAKE, SHORTEST, written_out
from router.config.observability import ConsoleConfig
from router.config.problems import Found, Loc

TOKEN: Loc = ("observability", "console", "token")
_HERE: Loc = TOKEN[1:]  # in the section observability


def check(console: ConsoleConfig) -> Iterator[Found]:
    """Yield what is wrong, at places in the section observability."""
    if console.token is None:
        if console.enabled:
            fact = "is enabled without a token, and shows statements of all tenants"
            yield Found(_HERE[:-1], fact, MAKE, absent=True)
    elif (flaw := console.token.flaw()) is not None:
        yield Found(_HERE, flaw.fact, flaw.remedy)
    elif len(console.token.resolve().reveal()) < SHORTEST:
        yield Found(_HERE, f"has fewer than {SHORTEST} characters", MAKE)


def remarks(console: ConsoleConfig, *, in_file: bool) -> Iterator[Found]:
    """Yield what is allowed but risky: a token that more people may read than have to."""
    if console.token is None:
        return
    for path in console.token.exposed():
        fact = f"is in {path}, which every user of this machine may read"
        yield Found(_HERE, fact, "Take the permission away: chmod o-r")
    if in_file and written_out(console.token):
        fact = "is written out: whoever reads this file can see the console"
        yield Found(_HERE, fact, "Write ${env:NAME} or ${file:PATH} in its place")
