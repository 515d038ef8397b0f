"""Envelopes: a value is taken only by the tenant and for the read that it was stored for, from one of us."""

import copy
import datetime
import itertools
import pickle
import traceback
import uuid
import zoneinfo
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cache import envelope
from router.cache.envelope import SHORTEST, Envelope, Seal
from router.errors import UsageError
from tests.test_cache_packing import VALUES

SECRET = b"a secret that is long enough"
SEAL = Seal(SECRET)
READ: dict[str, Any] = {
    "tenant": "acme",
    "cluster": "main",
    "database": "app",
    "schema": "public",
    "user": "reader",
    "verb": "fetch_all",
    "statement": "SELECT $1",
    "parameters": (1,),
}
STORED: dict[str, Any] = {
    "tenant": "acme",
    "key": "k1",
    "position": "lsn:0/3000060",
    "reign": "1",
    "tables": ("public.plans", "public.users"),
    "generations": ("g1", "g2"),
    "read_at": 1_790_000_000.25,
}
SEALED = SEAL.seal(b"body", **STORED)


def key_of(*parameters: object) -> str | None:
    return SEAL.key(**{**READ, "parameters": parameters})


# --- envelopes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"position": None, "reign": None, "tables": (), "generations": ()}])
def test_an_envelope_comes_back(change: dict[str, Any]) -> None:
    """All that was stored is there again, in any process that knows the secret."""
    stored = {**STORED, **change}
    sealed = SEAL.seal(b"\x00body", **stored)
    assert Seal(SECRET).open(sealed, tenant="acme", key="k1") == Envelope(**stored, body=b"\x00body")


@pytest.mark.parametrize("asked", [{"tenant": "globex"}, {"key": "k2"}, {"tenant": "acm", "key": "ek1"}])
def test_another_tenants_or_reads_value_is_refused(asked: dict[str, str]) -> None:
    """Whoever exchanges values between keys gets nothing read."""
    assert SEAL.open(SEALED, **{"tenant": "acme", "key": "k1", **asked}) is None


def test_another_writers_value_is_refused() -> None:
    """What was signed with another secret is not one of ours."""
    assert SEAL.open(Seal(SECRET + b"!").seal(b"body", **STORED), tenant="acme", key="k1") is None


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another version of the format makes misses, whichever of the two is newer."""
    monkeypatch.setattr(envelope, "_VERSION", b"rc0")
    older = Seal(SECRET).seal(b"body", **STORED)
    assert SEAL.open(SEALED, tenant="acme", key="k1") is None
    monkeypatch.undo()
    assert SEAL.open(older, tenant="acme", key="k1") is None
    assert (
        SEAL.open(b"rc1" + older[3:], tenant="acme", key="k1") is None
    )  # the signature says the version too


def test_what_was_changed_is_refused() -> None:
    """No bit can be flipped, nothing cut off and nothing added."""
    changed = [
        SEALED[:position] + bytes([SEALED[position] ^ 1 << bit]) + SEALED[position + 1 :]
        for position in range(len(SEALED))
        for bit in range(8)
    ]
    cut = [SEALED[:length] for length in range(len(SEALED))]
    for data in (*changed, *cut, SEALED + b"\x00", b"", b"rc1" + bytes(32)):
        assert SEAL.open(data, tenant="acme", key="k1") is None


@settings(max_examples=200, deadline=1000)
@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    """Bytes of any origin are a miss, and nothing is raised."""
    assert SEAL.open(data, tenant="acme", key="k1") is None
    assert SEAL.open(b"rc1" + data, tenant="acme", key="k1") is None


def test_a_key_is_no_signature() -> None:
    """What the secret makes of a read can never be passed off as a signature of the same bytes."""
    assert SEAL._key.digest() != SEAL._sign.digest()
    assert SEAL._key.copy().digest() != Seal(SECRET + b"!")._key.digest()


def test_the_secret_is_not_shown() -> None:
    """Neither text nor pickle nor the traceback of a refusal tells the secret."""
    assert "secret" not in repr(SEAL) + str(SEAL)
    with pytest.raises(TypeError):
        pickle.dumps(SEAL)
    with pytest.raises(TypeError):
        copy.deepcopy(SEAL)
    short = b"canary-short"
    assert len(short) < SHORTEST
    with pytest.raises(UsageError, match="16 bytes or more") as caught:
        Seal(short)
    frames = [frame for frame, _ in traceback.walk_tb(caught.tb) if frame.f_code.co_name == "__init__"]
    assert frames
    assert all("canary" not in repr(frame.f_locals) for frame in frames)
    assert "canary" not in str(caught.value)


# --- keys ------------------------------------------------------------------------------------------------


def test_the_same_read_has_the_same_key() -> None:
    """Processes with one secret find what others stored."""
    key = SEAL.key(**READ)
    assert key is not None
    assert key == Seal(SECRET).key(**READ)
    assert len(key) == 64
    assert key != Seal(SECRET + b"!").key(**READ)


@pytest.mark.parametrize("part", [part for part in READ if part != "parameters"])
def test_each_part_of_a_read_is_in_its_key(part: str) -> None:
    """Another tenant, place, user, verb or text is another key."""
    others = {
        SEAL.key(**{**READ, part: other}) for other in (READ[part], "", READ[part] + "x", READ[part][:-1])
    }
    assert len(others) == 4
    assert None not in others


def test_parts_do_not_run_into_each_other() -> None:
    """What is taken from one part and added to the next makes another key; no part is not an empty one."""
    texts = ("ab", "", "a", "b", None)
    keys = {
        SEAL.key(**{**READ, "database": database, "schema": schema, "user": user})
        for database, schema, user in itertools.product(texts, repeat=3)
    }
    assert len(keys) == 125
    moved = SEAL.key(**{**READ, "verb": "fetch_all" + READ["statement"], "statement": ""})
    assert moved not in {*keys, SEAL.key(**READ)}


DISTINCT: list[Any] = [
    1, 1.0, True, "1", b"1", bytearray(b"1"), Decimal("1"), Decimal("1.00"), Decimal("1E1"), Decimal("10"),
    10**30, "1" * 31,
    0, 0.0, -0.0, False, None, "", b"", "None", float("nan"), Decimal("NaN"), "nan",
    [], [1], [1.0], [True], [[1]], [1, None], [None], [None, None], ["1"], (1,), (), {}, {"1": 1},
    [1, 1.0], [1.0, 1],
    datetime.date(2026, 1, 1),
    datetime.datetime(2026, 1, 1),
    "2026-01-01T00:00:00",
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Vienna")),
    datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Vienna")),
    datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Vienna"), fold=1),
    datetime.time(0), datetime.time(0, tzinfo=datetime.UTC), datetime.timedelta(0), datetime.timedelta(1),
    uuid.UUID(int=1), str(uuid.UUID(int=1)), uuid.UUID(int=1).bytes, uuid.UUID(int=1).hex,
    asyncpg.Range(1, 2), asyncpg.Range(1, 2, upper_inc=True), asyncpg.Range(1.0, 2.0),
    asyncpg.Range(empty=True),
    asyncpg.BitString("0"), asyncpg.BitString("00"), asyncpg.Point(1, 2), (1.0, 2.0), [1.0, 2.0],
]  # fmt: skip


def test_parameters_differ_by_value_and_type() -> None:
    """What is equal in Python or looks the same as text may be another thing to the server."""
    keys = [key_of(each) for each in DISTINCT]
    assert None not in keys
    assert len(set(keys)) == len(DISTINCT)


def test_parameters_do_not_run_into_each_other() -> None:
    """How values are spread over parameters is part of the key."""
    spread: list[tuple[Any, ...]] = [
        (), ("",), ("", ""), ("ab",), ("a", "b"), ("b", "a"), (["a", "b"],), (["a"], "b"), (["a"], ["b"]),
        ([["a"], ["b"]],), (None,), (None, None), ([None],), (1, "a"), ("a", 1), (1, 2.0), (1.0, 2),
    ]  # fmt: skip
    assert len({key_of(*each) for each in spread}) == len(spread)


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, max_size=3))
def test_a_key_is_stable(parameters: list[Any]) -> None:
    """Every value that can be packed can be in a key, and the same values make the same one."""
    assert key_of(*parameters) is not None
    assert key_of(*parameters) == key_of(*parameters)


class Named(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value", [object(), Named("x"), memoryview(b"x"), 1j, "\ud800", [object()], msgspec.UNSET]
)
def test_a_parameter_of_an_unknown_type_has_no_key(value: Any) -> None:
    """Nobody knows what the driver makes of it, so it is not kept outside the process."""
    assert key_of(value) is None
    assert key_of(1, value) is None


def test_a_text_that_is_none_has_no_key() -> None:
    """A lone surrogate cannot be sent, so it cannot be a key either."""
    assert SEAL.key(**{**READ, "tenant": "\ud800"}) is None
