"""Rules of router.config.secret and router.config.references: nothing shows a secret but reveal()."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from router.config import Secret, SecretReference
from router.config.files import read_text
from router.config.problems import Flaw
from router.errors import ConfigurationError

CANARY = "canary-5e7f"


class Holder(BaseModel):
    secret: Secret
    reference: SecretReference


def shows(value: object) -> str:
    return f"{value} {value!r} {value!s}"


def test_a_secret_is_masked_everywhere():
    """str, repr, format, pydantic's dumps and errors show ***; only reveal() gives the text."""
    secret = Secret(CANARY)
    holder = Holder(secret=secret, reference=CANARY)
    everything = [shows(secret), f"{secret:>40}", format(secret), repr([secret]), repr(holder)]
    everything += [holder.model_dump_json(), json.dumps(holder.model_dump(mode="json")), str(vars(holder))]
    assert CANARY not in "".join(everything) and secret.reveal() == CANARY
    assert json.loads(holder.model_dump_json()) == {"secret": "***", "reference": "***"}
    assert not hasattr(secret, "__dict__")


def test_pydantic_errors_do_not_show_secrets():
    """A model that is wrong beside a secret, or in it, does not repeat it."""
    for data in ({"secret": Secret(CANARY)}, {"secret": [Secret(CANARY)], "reference": Secret(CANARY)}):
        with pytest.raises(ValidationError) as caught:
            Holder.model_validate(data)
        assert CANARY not in f"{caught.value} {caught.value.errors()!r}"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol):
    """A pickle would be a plain copy, so there is none, also not inside something else."""
    for value in (Secret(CANARY), [Secret(CANARY)], SecretReference.parse(CANARY)):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(value, protocol)


def test_copies_are_the_secret_itself():
    """Copying makes no second one, so nothing of it is taken apart."""
    secret = Secret(CANARY)
    assert copy.copy(secret) is secret and copy.deepcopy(secret) is secret
    assert copy.deepcopy({"a": secret})["a"] is secret


def test_secrets_compare_and_hash_by_value_but_never_to_text():
    """Equal secrets are equal keys; text is never equal to a secret; any character is fine."""
    assert Secret("a") == Secret("a") != Secret("b") and len({Secret("é"), Secret("é")}) == 1
    assert Secret("a") != "a" and Secret("\ud800") == Secret("\ud800")


def test_a_secret_does_not_change():
    """Neither its text nor other attributes can be set or deleted."""
    secret = Secret(CANARY)
    for change in (lambda: setattr(secret, "_value", "x"), lambda: delattr(secret, "_value")):
        with pytest.raises(AttributeError):
            change()
    with pytest.raises(TypeError):
        Secret(CANARY.encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${env:ROUTER_T}", "value"),
        ("a${env:ROUTER_T}b${env:ROUTER_T}", "avaluebvalue"),
        ("${env:ROUTER_NONE:-fallback:-x}", "fallback:-x"),
        ("${env:ROUTER_EMPTY:-fallback}", "fallback"),
        ("${env:ROUTER_T:-fallback}", "value"),
        ("$${env:ROUTER_T}", "${env:ROUTER_T}"),
        ("$x $ {y}", "$x $ {y}"),
        ("${file:pw}", "from file"),
    ],
)
def test_references_resolve(monkeypatch, tmp_path, text, expected):
    """env, env with default, file (less one newline, relative to the folder), and $${ for a literal ${."""
    monkeypatch.setenv("ROUTER_T", "value")
    monkeypatch.setenv("ROUTER_EMPTY", "")
    (tmp_path / "pw").write_text("from file\n")
    assert SecretReference.parse(text, tmp_path).resolve().reveal() == expected


def test_only_one_newline_is_taken_from_a_file(tmp_path):
    """A secret that ends in a newline of its own keeps it."""
    for written, meant in ((b"a\n\n", "a\n"), (b"a\r\n\r\n", "a\r\n"), (b"a ", "a ")):
        (tmp_path / "pw").write_bytes(written)
        assert SecretReference.parse("${file:pw}", tmp_path).resolve().reveal() == meant


@pytest.mark.parametrize(
    "text",
    ["${", "${}", "${NAME}", "${env:}", "${env:1x}", "${env:a b}", "${file:}", "${vault:x}", "${env:A",
     "${env:${env:B}}"],
)  # fmt: skip
def test_unknown_references_are_refused(text):
    """What looks like a reference but is none is refused, and its text is not repeated."""
    with pytest.raises(Flaw) as caught:
        SecretReference.parse(text + CANARY)
    assert CANARY not in f"{caught.value}{caught.value.remedy}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (CANARY, "***"),
        ("${env:X:-" + CANARY + "}", "${env:X:-***}"),
        (CANARY + "${env:X}", "***${env:X}"),
        (Secret(CANARY), "***"),
    ],
)
def test_a_reference_shows_where_but_not_what(text, shown):
    """The repr helps to find the variable; literals and defaults in it are masked."""
    reference = SecretReference.parse(text)
    assert str(reference) == shown and CANARY not in shows(reference) + repr(reference.parts)


def test_a_secret_that_cannot_be_read_leaks_nothing(monkeypatch, tmp_path):
    """The error names the variable or file; no frame of its traceback holds the part that was read."""
    (tmp_path / "pw").write_text(CANARY)
    reference = SecretReference.parse("${file:pw}${env:ROUTER_NONE}", tmp_path)
    with pytest.raises(ConfigurationError, match="ROUTER_NONE, which is not set") as caught:
        reference.resolve()
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(line for line in frames.format() if str(Path(__file__)) not in line)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe", b"x" * 70_000])
def test_unusable_secret_files_are_flaws(tmp_path, content):
    """Missing, empty, undecodable and huge files are told with the path, not used."""
    if content is not None:
        (tmp_path / "pw").write_bytes(content)
    flaw = SecretReference.parse("${file:pw}", tmp_path).flaw()
    assert flaw is not None and str(tmp_path / "pw") in flaw.fact and flaw.remedy


def test_a_file_that_all_may_read_is_named(tmp_path):
    """Permissions for others are found; a private file is not named."""
    (tmp_path / "pw").write_text("x")
    reference = SecretReference.parse("${file:pw}", tmp_path)
    (tmp_path / "pw").chmod(0o600)
    assert reference.exposed() == ()
    (tmp_path / "pw").chmod(0o644)
    assert reference.exposed() == (str(tmp_path / "pw"),)


def test_a_pipe_or_folder_is_refused_without_waiting(tmp_path):
    """Opening a named pipe that nobody writes to would hang; it is refused as not a regular file."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(Flaw, match="not a regular file"):
            read_text(path, 100)
    with pytest.raises(Flaw, match="not a possible path"):
        read_text("a\0b", 100)
