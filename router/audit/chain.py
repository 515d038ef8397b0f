"""The chain: each record holds the hash of the one before and is itself hashed. Pure.

A record is one line: a JSON object whose last member is ``hash``, over the bytes of the same object without
it. What is verified are those bytes, so that not even white space can change unseen.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

VERSION: Final = 1
START: Final = "0" * 64
"""What stands for the hash before the first record of a chain."""

_MARK = b',"hash":"'
_TAIL = len(_MARK) + 64 + 2  # ,"hash":"<64 digits>"}
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class Seal:
    """Hash records: by HMAC-SHA256 with a key, else by SHA-256, which anybody can compute anew."""

    __slots__ = ("_key", "name")

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self.name = "sha256" if key is None else "hmac-sha256"

    def of(self, body: bytes) -> str:
        """Return the hash of a record's bytes."""
        if self._key is None:
            return hashlib.sha256(body).hexdigest()
        return hmac.digest(self._key, body, "sha256").hex()

    def fits(self, body: bytes, claimed: str) -> bool:
        """Tell whether ``claimed`` is the hash of a record's bytes."""
        return hmac.compare_digest(self.of(body), claimed)


class Head(NamedTuple):
    """Name the last record of a chain."""

    chain: str
    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.chain}:{self.seq}:{self.hash}"

    @classmethod
    def parsed(cls, text: str) -> Head:
        """Return the head that ``text`` names; raise ValueError if it names none."""
        chain, number, digest = text.strip().rsplit(":", 2)
        if len(digest) != 64 or not chain:
            raise ValueError("a head is chain:number:hash")
        return cls(chain, int(number), digest)


@dataclass(slots=True)
class Chain:
    """Add records to a chain."""

    seal: Seal
    id: str
    seq: int = 0  # of the next record
    last: str = START

    def line(self, facts: Mapping[str, Any]) -> bytes:
        """Return the next record as a line without its end; :attr:`seq` and :attr:`last` move on."""
        body = _encode({**facts, "v": VERSION, "chain": self.id, "seq": self.seq, "prev": self.last}).encode()
        self.last = self.seal.of(body)
        self.seq += 1
        return body[:-1] + _MARK + self.last.encode() + b'"}'

    @property
    def head(self) -> Head:
        """Return the last record that was added; there must be one."""
        return Head(self.id, self.seq - 1, self.last)


class Record(NamedTuple):
    """Hold one record as it was read."""

    facts: dict[str, Any]
    body: bytes  # what was hashed
    hash: str  # as claimed

    @property
    def head(self) -> Head:
        """Return the name of the record."""
        return Head(self.facts["chain"], self.facts["seq"], self.hash)


def read(line: bytes) -> Record | None:
    """Return the record in a line; ``None`` if there is none, such as in half of a line."""
    body, tail = line[:-_TAIL] + b"}", line[-_TAIL:]
    if not tail.startswith(_MARK) or not tail.endswith(b'"}'):
        return None
    try:
        facts = json.loads(body)
        digest = tail[len(_MARK) : -2].decode("ascii")
    except ValueError:
        return None
    if not isinstance(facts, dict) or not _named(facts):
        return None
    return Record(facts, body, digest)


def _named(facts: dict[str, Any]) -> bool:
    kinds = {"chain": str, "prev": str, "seq": int, "v": int}
    return all(type(facts.get(name)) is kind for name, kind in kinds.items())
