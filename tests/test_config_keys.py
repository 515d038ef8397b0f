"""Rules of the sections tokens and freshness: keys are kept and hidden, bad input is told in its place."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from router import parts
from router.config import Config, Settings, load, parse
from router.consistency import Bounded, Consistency, Otherwise
from router.errors import ConfigurationError, Problem, UsageError
from router.positions import Lsn
from router.tokens import Point

CANARY = "canary-key-4f1d-of-tokens"
ROUTER = """\
version: 1
clusters:
  main: {engine: sqlite, primary: {path: data}}
"""
POINT = Point("main", None, "1", Lsn(1))


def folder(path: Path, router: str) -> Path:
    (path / "tenants").mkdir(exist_ok=True)
    (path / "tenants" / "acme.yaml").write_text(
        "tenant: acme\ncluster: main\nisolation: database\ndatabase: acme\n"
    )
    (path / "router.yaml").write_text(ROUTER + router)
    return path


def told(problems: tuple[Problem, ...]) -> list[tuple[int, int, str]]:
    return [(problem.line, problem.column, problem.message) for problem in problems]


def refused(path: Path, router: str) -> list[tuple[int, int, str]]:
    with pytest.raises(ConfigurationError) as caught:
        load(folder(path, router))
    return told(caught.value.problems)


def built(**more: Any) -> Config:
    tenants = {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}}
    main = {"engine": "sqlite", "primary": {"path": "data"}}
    return parse({"version": 1, "clusters": {"main": main}, "tenants": tenants, **more})


# --- tokens ----------------------------------------------------------------------------------------------


def test_without_the_section_there_are_no_tokens() -> None:
    """Nothing is signed with a key that nobody has chosen."""
    config = built()
    assert config.tokens is None and parts.tokens(config, lambda: 0.0) is None


def test_keys_come_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read when the router is built, not when the file is: the first signs, both verify."""
    monkeypatch.setenv("ROUTER_T_KEY", CANARY)
    (tmp_path / "old").write_text("the-key-before-this-one\n")
    (tmp_path / "old").chmod(0o600)
    text = 'tokens: {keys: ["${env:ROUTER_T_KEY}", "${file:old}"], lifetime: 1h}\n'
    config = load(folder(tmp_path, text))
    assert config.warnings == () and config.tokens is not None and config.tokens.lifetime == 3600.0
    first = parts.tokens(config, lambda: 1e9)
    monkeypatch.setenv("ROUTER_T_KEY", "another-key-" + CANARY)
    second = parts.tokens(config, lambda: 1e9)
    alone = parts.tokens(built(tokens={"keys": ["the-key-before-this-one"]}), lambda: 1e9)
    assert first is not None and second is not None and alone is not None
    assert second.read("acme", alone.sign("acme", [POINT])) == (POINT,)
    for signed, reader in ((first, second), (first, alone), (second, first)):
        with pytest.raises(ValueError, match="forged"):
            reader.read("acme", signed.sign("acme", [POINT]))


def test_the_lifetime_is_ten_minutes_unless_said() -> None:
    """The default is what the documentation says, and it arrives where tokens are read."""
    now = [1e9]
    tokens = parts.tokens(built(tokens={"keys": [CANARY]}), lambda: now[0])
    assert tokens is not None
    text = tokens.sign("acme", [POINT])
    now[0] += 600
    assert tokens.read("acme", text) == (POINT,)
    now[0] += 1
    with pytest.raises(ValueError, match="expired"):
        tokens.read("acme", text)


def test_a_key_that_became_short_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was good at load and is not any more when the router is built is refused then."""
    monkeypatch.setenv("ROUTER_T_KEY", CANARY)
    config = built(tokens={"keys": ["${env:ROUTER_T_KEY}"]})
    monkeypatch.setenv("ROUTER_T_KEY", "short")
    with pytest.raises(UsageError, match="16 characters"):
        parts.tokens(config, lambda: 0.0)
    monkeypatch.delenv("ROUTER_T_KEY")
    with pytest.raises(ConfigurationError, match="ROUTER_T_KEY, which is not set"):
        parts.tokens(config, lambda: 0.0)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("tokens: {}", (4, 9), "tokens has no 'keys'"),
        ("tokens: {keys: []}", (4, 16), "tokens.keys has fewer items than 1"),
        ("tokens: {keys: canary-key-4f1d-of-tokens}", (4, 16), "list"),
        (
            "tokens: {keys: [" + "canary-key-4f1d-of-tokens, " * 9 + "]}",
            (4, 16),
            "tokens.keys has more items than 8",
        ),
        ("tokens: {keys: [short]}", (4, 17), "tokens.keys[0] has fewer than 16 characters"),
        ('tokens: {keys: ["canary-key-4f1d-of-tokens", "x${env:HOME:-}"]}', (4, 46), "keys[1] has fewer"),
        ('tokens: {keys: ["${env:ROUTER_T_NONE}"]}', (4, 17), "ROUTER_T_NONE, which is not set"),
        ('tokens: {keys: ["${file:none}"]}', (4, 17), "which cannot be read"),
        ('tokens: {keys: ["${vault:x}"]}', (4, 17), "not understood"),
        ("tokens: {keys: [7]}", (4, 17), "must be text"),
        ('tokens: {keys: ["canary-key-4f1d-of-tokens"], lifetime: 0s}', (4, 57), "greater than 0"),
        ('tokens: {keys: ["canary-key-4f1d-of-tokens"], lifetime: 600}', (4, 57), "must be a duration"),
        ('tokens: {keys: ["canary-key-4f1d-of-tokens"], age: 1s}', (4, 47), "age"),
        ("tokens: canary-key-4f1d-of-tokens", (4, 9), "tokens"),
    ],
)
def test_what_tokens_may_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, place: tuple[int, int], words: str
) -> None:
    """Each mistake has its line and column, and none repeats a key."""
    monkeypatch.setenv("HOME", "/root")
    with pytest.raises(ConfigurationError) as caught:
        load(folder(tmp_path, text + "\n"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == place and words in problem.message and problem.remedy
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = "".join(line for line in shown.format() if str(Path(__file__)) not in line)
    assert "canary" not in f"{caught.value}{problem}{frames}"


def test_a_mistake_elsewhere_does_not_hide_a_bad_key(tmp_path: Path) -> None:
    """The keys are looked at whatever else is wrong."""
    text = "tokens: {keys: [short, 7], lifetime: 5}\ndefaults: {slow_query: 5}\n"
    assert [each[:2] for each in refused(tmp_path, text)] == [(4, 17), (4, 24), (4, 38), (5, 24)]


def test_a_key_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    """A key written out in the file and one in a file for all eyes are used, and told with their places."""
    (tmp_path / "key").write_text(CANARY)
    (tmp_path / "key").chmod(0o644)
    text = f'tokens: {{keys: ["${{file:key}}", {CANARY}, "${{env:ROUTER_T_NONE:-{CANARY}}}"]}}\n'
    config = load(folder(tmp_path, text))
    exposed, plain = told(config.warnings)
    assert exposed[:2] == (4, 17) and "every user" in exposed[2]
    assert plain[:2] == (4, 32) and "written out" in plain[2]
    assert built(tokens={"keys": [CANARY]}).warnings == (), "code is no file"


def test_a_loaded_configuration_shows_no_key(tmp_path: Path) -> None:
    """repr, str and JSON mask literal keys."""
    config = load(folder(tmp_path, f"tokens: {{keys: [{CANARY}]}}\n"))
    assert config.tokens is not None
    shown = f"{config!r}{config}{config.tokens!r}{config.tokens}{config.warnings}"
    shown += f"{config.tokens.model_dump_json()}{config.tokens.model_dump()!r}"
    assert "canary" not in shown and "***" in shown


# --- freshness -------------------------------------------------------------------------------------------


def settings(**more: Any) -> Settings:
    return built(**more).tenants["acme"].settings


def test_freshness_has_defaults() -> None:
    """Five seconds, no bytes, a short wait, then the primary."""
    found = settings()
    assert (found.bounded, found.wait) == (Bounded(seconds=5.0), 0.05)
    assert found.otherwise is Otherwise.PRIMARY and found.consistency is Consistency.SESSION


def test_freshness_is_inherited_key_by_key() -> None:
    """The tenant's own value wins, then its tier's, then defaults, each key for itself."""
    config = built(
        defaults={"consistency": "bounded", "freshness": {"max_bytes": "1KiB", "wait": "0s"}},
        tiers={"gold": {"freshness": {"max_time": "2s", "wait": "1s"}}},
        tenants={
            "a": {
                "cluster": "main",
                "isolation": "database",
                "database": "a",
                "tier": "gold",
                "freshness": {"max_time": "3s", "otherwise": "error"},
            },
            "b": {"cluster": "main", "isolation": "database", "database": "b"},
        },
    )
    a, b = config.tenants["a"].settings, config.tenants["b"].settings
    assert (a.bounded, a.wait, a.otherwise) == (Bounded(3.0, 1024), 1.0, Otherwise.ERROR)
    assert (b.bounded, b.wait, b.otherwise) == (Bounded(5.0, 1024), 0.0, Otherwise.PRIMARY)
    assert a.consistency is b.consistency is Consistency.BOUNDED


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("max_time: 0s", (4, 34), "greater than 0"),
        ("max_time: 5", (4, 34), "must be a duration"),
        ("max_bytes: 0B", (4, 35), "greater than 0"),
        ("max_bytes: 5s", (4, 35), "must be a size"),
        ("wait: -1s", (4, 30), "must be a duration"),
        ("otherwise: primry", (4, 35), "primary"),
        ("max_lag: 5s", (4, 24), "max_lag"),
    ],
)
def test_what_freshness_may_not_say(tmp_path: Path, text: str, place: tuple[int, int], words: str) -> None:
    """Each mistake has its line and column."""
    ((line, column, message),) = refused(tmp_path, f"defaults: {{freshness: {{{text}}}}}\n")
    assert (line, column) == place and words in message


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"seconds": 0},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"size": 0},
        {"size": -1},
        {"size": 1.5},
        {"seconds": 1.0, "size": 0},
    ],
)
def test_a_bound_is_above_zero(bounds: dict[str, Any]) -> None:
    """A bound that no replica or every replica keeps is refused, with what to give."""
    with pytest.raises(UsageError, match="Give"):
        Bounded(**bounds)


def test_either_bound_is_enough() -> None:
    """Seconds, bytes, or both; equal bounds are equal keys."""
    assert Bounded(seconds=1) == Bounded(1.0) and hash(Bounded(1.0, 5)) == hash(Bounded(1.0, 5))
    assert Bounded(size=1).seconds is None
