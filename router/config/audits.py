"""Check how writes are recorded: whether the key can be read, is long enough, and is kept from others."""

from __future__ import annotations

from collections.abc import Iterator

from router.config.keys import MAKE, SHORTEST, written_out
from router.config.observability import AuditConfig
from router.config.problems import Found, Loc

KEY: Loc = ("observability", "audit", "key")
_HERE: Loc = KEY[1:]  # in the section observability


def check(audit: AuditConfig) -> Iterator[Found]:
    """Yield what is wrong with the key as it is now, at places in the section observability."""
    key = audit.key
    if key is None:
        return
    if (flaw := key.flaw()) is not None:
        yield Found(_HERE, flaw.fact, flaw.remedy)
    elif len(key.resolve().reveal()) < SHORTEST:
        yield Found(_HERE, f"has fewer than {SHORTEST} characters", MAKE)


def remarks(audit: AuditConfig, *, in_file: bool) -> Iterator[Found]:
    """Yield what is allowed but risky: no key, or one that more people may read than have to."""
    key = audit.key
    if key is None:
        if audit.trail is not None or audit.outbox is not None:
            fact = "has no key: whoever can change records can make them fit together again"
            yield Found(_HERE[:-1], fact, MAKE)
        return
    for path in key.exposed():
        fact = f"is in {path}, which every user of this machine may read"
        yield Found(_HERE, fact, "Take the permission away: chmod o-r")
    if in_file and written_out(key):
        fact = "is written out: whoever reads this file can forge records"
        yield Found(_HERE, fact, "Write ${env:NAME} or ${file:PATH} in its place")
