"""Tokens: what a session must see, as one opaque text for another request, process or queue. Pure.

A token holds points: positions in the histories of clusters. It is signed, not encrypted: who has one can
read the names and positions in it, but can neither change nor make one. It belongs to one tenant and is
believed for a limited time. A token that is not believed never weakens a read; the reader must then take
all that the primary has.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn

from itsdangerous import BadData, BadSignature, URLSafeSerializer

from router.config import Secret
from router.config.keys import SHORTEST
from router.errors import UsageError
from router.positions import LONGEST, Position, parse_position

MOST_CHARACTERS = 4096  # of a token: more than headers and cookies take
MOST_POINTS = 8  # in a token; a tenant has one cluster, and few primaries within a token's lifetime

_VERSION = "r1."
# The last of a signature's 43 characters carries four bits: each signature has one form only.
_SHAPE = re.compile(r"r1\.(\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])")
_END = 1 << 40  # no time of issue is later
_SKEW = 60  # seconds that the clock of the process that signed may be ahead


@dataclass(frozen=True, slots=True)
class Point:
    """Name a position in the history of one cluster.

    ``identity`` tells clusters apart that bear one name in turn; ``reign`` says which primary the position
    is of: PostgreSQL's timeline, MariaDB's server id, MySQL's server uuid. Without a position (SQLite)
    there is nothing to wait for.
    """

    cluster: str
    identity: str | None
    reign: str | None
    position: Position | None


def merged(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points with those of one cluster, identity and reign made one, in order of appearance.

    Positions of two reigns are never joined: what the former primary had, the new one may lack.
    """
    found: dict[tuple[object, ...], Point] = {}
    for point in points:
        # the kind too: a cluster without an identity may have got another engine
        key = (point.cluster, point.identity, point.reign, type(point.position))
        if point.position is not None and (other := found.get(key)) is not None:
            assert other.position is not None  # noqa: S101 - of the same type, by the key
            point = replace(point, position=point.position.union(other.position))
        found[key] = point
    return tuple(found.values())


class Refusal(StrEnum):
    """Say why a token is not believed; each is a bounded metric label."""

    MALFORMED = "malformed"  # no token of this version
    FORGED = "forged"  # signed with none of the keys: tampered with, or its key was removed
    FOREIGN = "foreign"  # of another tenant
    EXPIRED = "expired"  # issued longer ago than its lifetime, or in the future
    OVERFULL = "overfull"  # its session had to see more than a token can hold
    NO_KEY = "no_key"  # no keys are configured, so that none can be checked
    NO_POSITION = "no_position"  # made where servers count no positions, such as MySQL without GTIDs
    OTHER_CLUSTER = "other_cluster"  # of another history than that of the tenant's cluster
    FUTURE = "future"  # its position is beyond what the primary has
    OLD_REIGN = "old_reign"  # of a primary before the present one


class BadToken(ValueError):
    """Carry the reason why a token is not believed to who reads it; users never see it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"token refused: {refusal}")
        self.refusal = refusal


class _Content(NamedTuple):
    """Hold what a token says; its points are ``None`` where they were too many."""

    tenant: str
    issued: int  # seconds since the epoch
    points: tuple[Point, ...] | None


class Tokens:
    """Sign and read tokens. The first key signs, all verify; ``lifetime`` is in seconds, of ``wall`` time.

    The keys stay inside: they are shown nowhere, and the object is not pickled.
    """

    __slots__ = ("_lifetime", "_serializer", "_wall")

    def __init__(self, keys: Sequence[Secret], lifetime: float, wall: Callable[[], float]) -> None:
        if not keys or any(len(key.reveal()) < SHORTEST for key in keys):
            raise UsageError(f"tokens need a key, and each of {SHORTEST} characters or more")
        if not lifetime > 0:
            raise UsageError(f"tokens with a lifetime of {lifetime} seconds. Give a number above zero")
        self._serializer: URLSafeSerializer = URLSafeSerializer(
            [key.reveal().encode(errors="surrogatepass") for key in reversed(keys)],  # its last one signs
            salt=b"router.tokens.r1",  # the same key may sign other things elsewhere
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )
        self._lifetime = lifetime
        self._wall = wall

    def sign(self, tenant: str, points: Iterable[Point]) -> str:
        """Return the token of ``tenant`` that stands for ``points``.

        Where they are too many or too long, it says that they were: it is refused as overfull when it is
        read, which is safe, while a point left out would not be.
        """
        return self._signed(_Content(tenant, int(self._wall()), merged(points)))

    def read(self, tenant: str, text: str) -> tuple[Point, ...]:
        """Return the points of a token that anybody may have sent; raise :class:`BadToken` to refuse it."""
        content = self._opened(text)
        if content.tenant != tenant:  # told apart from forged only to operators, never to who sent it
            raise BadToken(Refusal.FOREIGN)
        if content.points is None:
            raise BadToken(Refusal.OVERFULL)
        return content.points

    def merge(self, *texts: str) -> str:
        """Return one token for what several of one tenant stand for; it expires with the oldest of them.

        Raises :class:`router.errors.UsageError` if one is refused, if their tenants differ, or for none.
        """
        contents = self._all_opened(texts)
        if isinstance(contents, Refusal):
            raise UsageError(f"a token to merge is refused: {contents}. Pass only valid ones")
        if len({content.tenant for content in contents}) != 1:
            raise UsageError("merge needs tokens of one tenant, at least one of them")
        full = [content.points for content in contents if content.points is not None]
        points = None if len(full) < len(contents) else merged(point for each in full for point in each)
        return self._signed(_Content(contents[0].tenant, min(each.issued for each in contents), points))

    def _all_opened(self, texts: Sequence[str]) -> list[_Content] | Refusal:
        try:
            return [self._opened(text) for text in texts]
        except BadToken as bad:
            return bad.refusal

    def _signed(self, content: _Content) -> str:
        rows = _rows(content.points)
        text = self._text(content, rows)
        return text if len(text) <= MOST_CHARACTERS else self._text(content, None)

    def _text(self, content: _Content, rows: list[list[str | None]] | None) -> str:
        return _VERSION + self._serializer.dumps([content.tenant, content.issued, rows])

    def _opened(self, text: str) -> _Content:
        """Return what is in a token of any tenant, if it is ours and not expired."""
        match = _SHAPE.fullmatch(text) if len(text) <= MOST_CHARACTERS else None
        content = Refusal.MALFORMED if match is None else self._verified(match[1])
        if isinstance(content, Refusal):
            raise BadToken(content)
        if not -_SKEW <= self._wall() - content.issued <= self._lifetime:
            raise BadToken(Refusal.EXPIRED)
        return content

    def _verified(self, text: str) -> _Content | Refusal:
        try:
            # decodes, and decompresses, only what a key of ours has signed
            return _content(self._serializer.loads(text))
        except BadSignature:
            return Refusal.FORGED
        except (BadData, ValueError):
            return Refusal.MALFORMED

    def __repr__(self) -> str:
        return f"<Tokens: {len(self._serializer.secret_keys)} keys, lifetime {self._lifetime:g} s>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("Tokens cannot be pickled: their keys would be written out")


def _rows(points: tuple[Point, ...] | None) -> list[list[str | None]] | None:
    """Return the points as they are signed; ``None`` if they are too many, or a position is too long."""
    if points is None or len(points) > MOST_POINTS:
        return None
    texts = [None if point.position is None else point.position.tagged for point in points]
    if any(text is not None and len(text) > LONGEST for text in texts):
        return None
    return [[each.cluster, each.identity, each.reign, text] for each, text in zip(points, texts, strict=True)]


def _content(data: Any) -> _Content:
    """Return what verified data says; raise ValueError if it is not what this version signs."""
    match data:
        case [str(tenant), int(issued), None] if 0 <= issued < _END:
            return _Content(tenant, issued, None)
        case [str(tenant), int(issued), list(rows)] if 0 <= issued < _END and len(rows) <= MOST_POINTS:
            return _Content(tenant, issued, tuple(map(_point, rows)))
    raise ValueError("not the content of a token")


def _point(row: Any) -> Point:
    match row:
        case [str(cluster), str() | None as identity, str() | None as reign, str() | None as position]:
            return Point(cluster, identity, reign, None if position is None else parse_position(position))
    raise ValueError("not a point of a token")
