"""Envelopes: what says that a value from outside is the one that was asked for, and keys that tell nothing.

Whoever can write to the remote tier can put any bytes under any key. So a value repeats its tenant and its
key and is signed over all: one of another tenant, of another key, of another version or of another writer is
not taken. It is signed, not encrypted: who can read the remote tier can read the rows, though not the
parameters that they were asked with. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, NamedTuple

from router.cache.packing import pack_values
from router.errors import MissingExtra, UsageError

SHORTEST = 16  # bytes of a secret: what is shorter can be guessed offline by whoever has one envelope

_VERSION = b"rc1"
_SIGNATURE = 32  # bytes, as those of a key


class Envelope(NamedTuple):
    """Hold a value of the remote tier with what decides who may have it.

    ``key`` is that of :meth:`Seal.key`, ``position`` a tagged position that the value holds all of,
    ``generations`` those of its ``tables`` when it was read, ``read_at`` seconds of wall time.
    """

    tenant: str
    key: str
    position: str | None
    reign: str | None
    tables: tuple[str, ...]
    generations: tuple[str, ...]
    read_at: float
    body: bytes


class Seal:
    """Sign envelopes and read them again, and make keys, all with one secret that every process knows.

    The secret stays inside: it is shown nowhere, and the object cannot be pickled.
    """

    __slots__ = ("_key", "_sign")

    def __init__(self, secret: bytes) -> None:
        long_enough = len(secret) >= SHORTEST
        # two keys of one secret: nothing that was signed as the one is ever valid as the other
        self._key = blake2b(key=_derived(secret, b"router.cache.key"), digest_size=_SIGNATURE)
        self._sign = blake2b(key=_derived(secret, b"router.cache.env"), digest_size=_SIGNATURE)
        del secret  # a traceback may show local variables
        if not long_enough:
            raise UsageError(f"the cache needs a secret of {SHORTEST} bytes or more")

    def key(
        self,
        *,
        tenant: str,
        cluster: str,
        database: str | None,
        schema: str | None,
        user: str | None,
        verb: str,
        statement: str,
        parameters: Sequence[object],
    ) -> str | None:
        """Return the key of a read in hex, or ``None`` if a parameter is of a type that is not known exactly.

        Two reads have the same key only if all parts are the same, the types of parameters included.
        """
        place = pack_values([tenant, cluster, database, schema, user, verb, statement])
        given = pack_values(parameters)
        if place is None or given is None:
            return None
        digest = self._key.copy()
        digest.update(place)  # which says itself where it ends
        digest.update(given)
        return digest.hexdigest()

    def seal(
        self,
        body: bytes,
        *,
        tenant: str,
        key: str,
        position: str | None,
        reign: str | None,
        tables: Sequence[str],
        generations: Sequence[str],
        read_at: float,
    ) -> bytes:
        """Return the signed bytes of an envelope."""
        content = _coder().encode(
            (tenant, key, position, reign, tuple(tables), tuple(generations), read_at, body)
        )
        return _VERSION + self._signature(content) + content

    def open(self, data: bytes, *, tenant: str, key: str) -> Envelope | None:
        """Return the envelope if it is one of ours, of this tenant and of this key."""
        head = len(_VERSION) + _SIGNATURE
        version, signature, content = data[: len(_VERSION)], data[len(_VERSION) : head], data[head:]
        if version != _VERSION or not compare_digest(signature, self._signature(content)):
            return None
        envelope = Envelope(*_coder().decode(content))
        return envelope if (envelope.tenant, envelope.key) == (tenant, key) else None

    def _signature(self, content: bytes) -> bytes:
        digest = self._sign.copy()
        digest.update(_VERSION)
        digest.update(content)
        return digest.digest()


class _Coder:
    """Hold msgspec's encoder and decoder of an envelope's content."""

    __slots__ = ("decode", "encode")

    def __init__(self) -> None:
        try:
            from msgspec import msgpack
        except ImportError:
            raise MissingExtra("msgspec", "cache") from None
        texts = tuple[str, ...]
        kind: Any = tuple[str, str, str | None, str | None, texts, texts, float, bytes]
        self.encode = msgpack.Encoder().encode
        self.decode = msgpack.Decoder(kind).decode


_coder = cache(_Coder)


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return blake2b(secret, person=purpose, digest_size=64).digest()
