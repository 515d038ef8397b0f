"""Make tokens for tests, good ones and such as nobody should believe."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from itsdangerous import URLSafeSerializer

from router.config import Secret
from router.positions import Lsn
from router.tokens import BadToken, Point, Refusal, Tokens

KEY, OLD_KEY, OTHER_KEY = "canary-key-of-the-present", "canary-key-of-the-past", "canary-key-of-somebody"
LIFETIME = 600.0
POINT = Point("main", "7301234567890123456", "3", Lsn(0x16_B374D848))


class Wall:
    """Be a clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def tokens(wall: Wall, *keys: str) -> Tokens:
    return Tokens([Secret(key) for key in keys or (KEY,)], LIFETIME, wall)


def refusal(reader: Tokens, text: str, tenant: str = "acme") -> Refusal:
    """Read what must be refused."""
    with pytest.raises(BadToken) as caught:
        reader.read(tenant, text)
    assert caught.value.__context__ is None and caught.value.__cause__ is None
    return caught.value.refusal


def serializer(key: str = KEY, salt: str = "router.tokens.r1", **more: Any) -> URLSafeSerializer:
    """Return what signs as tokens are signed, for contents that Tokens would not sign."""
    how = {"key_derivation": "hmac", "digest_method": hashlib.sha256, **more}
    return URLSafeSerializer(key, salt=salt, signer_kwargs=how)


def content(**changes: Any) -> list[Any]:
    return list(
        {
            "tenant": "acme",
            "issued": 1_800_000_000,
            "rows": [["main", "7301234567890123456", "3", "lsn:16/B374D848"]],
            **changes,
        }.values()
    )


def many(count: int) -> list[Point]:
    """Return points of as many reigns."""
    return [Point("main", "7301234567890123456", str(reign), Lsn(reign)) for reign in range(count)]
