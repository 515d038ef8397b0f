"""References to stores in the configuration: where they may stand, what they need, and who asks for them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from router import ConfigurationError, Router, load, parse
from router.cli.app import app
from router.config import stores
from router.config.references import SecretReference, Stored
from tests import vaults
from tests.servers.passwords import CANARY

VAULT = "${vault:secret/data/app#password}"
SECRETS = {"vault": {"address": "https://vault:8200", "token": f"{CANARY}-token"}}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what this machine may say of a Vault."""
    for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


def document(login: dict[str, Any], secrets: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return what describes one cluster with a login."""
    cluster = {"engine": "postgresql", "primary": {"host": "127.0.0.1"}, "credentials": {"writer": login}}
    section = {} if secrets is None else {"secrets": secrets}
    return {"version": 1, "clusters": {"main": {**cluster, **more}}, **section}


def problems(data: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong: the facts with their remedies, by place."""
    with pytest.raises(ConfigurationError) as caught:
        parse(data)
    assert CANARY not in str(caught.value)
    found: dict[str, str] = {}
    for each in caught.value.problems:
        found[each.file] = f"{found.get(each.file, '')}{each.message}. {each.remedy}\n"
    return found


def login(password: str = VAULT, username: str = "app") -> dict[str, str]:
    """Return a login."""
    return {"username": username, "password": password}


# --- form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        (VAULT, Stored("vault", "secret/data/app", "password")),
        (
            "${vault:database/creds/my-app.v2#username}",
            Stored("vault", "database/creds/my-app.v2", "username"),
        ),
        ("${aws:prod/app}", Stored("aws", "prod/app", None)),
        ("${aws:prod/app@1#db password}", Stored("aws", "prod/app@1", "db password")),
        (
            "${aws:arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/app-AbCdEf#password}",
            Stored("aws", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/app-AbCdEf", "password"),
        ),
        ("${call:app}", Stored("call", "app", None)),
        ("${call:app#user}", Stored("call", "app", "user")),
    ],
)
def test_a_reference_is_read_and_shown_as_it_is_written(text: str, stored: Stored) -> None:
    """Store, path and field; it holds nothing secret, so it is shown as it is."""
    reference = SecretReference.parse(text)
    assert reference.parts == reference.stored == (stored,)
    assert str(reference) == text and repr(reference) == f"SecretReference('{text}')"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("${vault:secret/data/app}", "Write ${vault:PATH#FIELD}"),
        ("${vault:secret#password}", "Write ${vault:PATH#FIELD}"),
        ("${vault:secret/../sys/seal#x}", "Write ${vault:PATH#FIELD}"),
        ("${vault:secret/data/app?version=1#x}", "Write ${vault:PATH#FIELD}"),
        ("${vault:/secret/app#x}", "Write ${vault:PATH#FIELD}"),
        ("${vault:secret/app#}", "Write ${vault:PATH#FIELD}"),
        ("${aws:}", "Write ${aws:NAME}"),
        ("${aws:a b}", "Write ${aws:NAME}"),
        ("${call:two words}", "Write ${call:NAME}"),
        ("${call:app#a#b}", "Write ${call:NAME}"),
        ("${vualt:secret/app#x}", "${vault:PATH#FIELD}"),
    ],
)
def test_a_reference_that_is_odd_is_refused(text: str, remedy: str) -> None:
    """The mistake is told with its place and the right form."""
    (found,) = problems(document(login(text), SECRETS)).items()
    assert found[0] == "clusters.main.credentials.writer.password"
    assert "not understood" in found[1] and remedy in found[1]


def test_stores_are_for_logins_only() -> None:
    """Elsewhere a reference to a store is refused, at its place, with what may stand there."""
    data = document(login(), SECRETS)
    data["clusters"]["main"] |= {
        "database": "${aws:name}",
        "options": {"command_timeout": "${call:seconds}"},
        "replicas": [{"url": "${vault:secret/data/url#url}"}],
    }
    data |= {"tokens": {"keys": [VAULT]}, "defaults": {"slow_query": "${aws:slow}"}}
    data["observability"] = {"console": {"token": VAULT}}
    data["secrets"] = {"vault": {**SECRETS["vault"], "token": "${aws:vault-token}"}}
    found = problems(data)
    assert set(found) == {
        "clusters.main.database",
        "clusters.main.options.command_timeout",
        "clusters.main.replicas[0].url",
        "tokens.keys[0]",
        "defaults.slow_query",
        "observability.console.token",
        "secrets.vault.token",
    }
    assert {"asked for logins to databases only" in text for text in found.values()} == {True}


def test_logins_may_name_stores_wherever_they_stand() -> None:
    """Writer, reader, monitor, a node of its own, and a url; the pair may come from one secret."""
    creds = {key: f"${{vault:database/creds/app#{key}}}" for key in ("username", "password")}
    data = document(creds, SECRETS, replicas=[{"host": "127.0.0.2", **login("${aws:ro}", "ro")}])
    data["clusters"]["main"]["credentials"] |= {"monitor": login("${aws:monitor}")}
    data["clusters"]["other"] = {
        "engine": "postgresql",
        "primary": {"url": f"postgresql://app:{VAULT}@127.0.0.1/app"},
    }
    found = [str(each) for each in parse(data).stored]
    assert found == [*creds.values(), "${aws:ro}", "${aws:monitor}", VAULT]


def test_a_username_from_the_environment_is_still_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a store keeps is looked up later."""
    monkeypatch.setenv("APP_USER", "app")
    written = parse(document({"username": "${env:APP_USER}", "password": "x"}))
    assert written.clusters["main"].logins[0].username == "app"


def test_the_password_of_the_monitor_is_looked_for_when_loading() -> None:
    """As those of the writer and the reader are."""
    data = document(login("x"))
    data["clusters"]["main"]["credentials"]["monitor"] = login("${env:NOBODY_SETS_THIS}")
    assert set(problems(data)) == {"clusters.main.credentials.monitor.password"}


# --- what they need --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "extra"), [(VAULT, "vault"), ("${aws:app}", "aws")])
def test_a_missing_extra_is_told_before_any_connection(
    text: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that brings it."""
    monkeypatch.setattr(stores, "find_spec", lambda name: None)
    found = problems(document(login(text), SECRETS))
    assert f"pip install 'tenant-router[{extra}]'" in found["clusters.main.credentials.writer.password"]


@pytest.mark.parametrize(
    ("vault", "place", "text"),
    [
        ({}, "secrets.vault", "has no 'address'"),
        ({"address": "vault:8200"}, "secrets.vault.address", "Write https://host:port"),
        ({"address": f"https://me:{CANARY}@vault"}, "secrets.vault.address", "without a user"),
        ({"address": "https://vault"}, "secrets.vault", "has no 'token'"),
        ({"token": "${env:NOBODY_SETS_THIS}"}, "secrets.vault.token", "which is not set"),
        ({"auth": "kubernetes", "service_token": "/dev/null"}, "secrets.vault", "has no 'role'"),
        ({"auth": "kubernetes", "role": "r"}, "secrets.vault.service_token", "cannot be read"),
        ({"auth": "approle", "secret_id": "x"}, "secrets.vault", "has no 'role_id'"),
        ({"auth": "approle", "role_id": "x"}, "secrets.vault", "has no 'secret_id'"),
        ({"auth": "ldap"}, "secrets.vault.auth", "approle"),
        ({"token": "x", "ca": "nowhere.pem"}, "secrets.vault.ca", "cannot be read"),
    ],
)
def test_how_to_reach_vault_is_checked(vault: dict[str, str], place: str, text: str) -> None:
    """Everything that its login needs must be there, if some password is kept in it."""
    if vault and "address" not in vault:
        vault = {"address": "https://vault", **vault}
    assert text in problems(document(login(), {"vault": vault}))[place]


def test_vault_may_be_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its own command reads it; and nothing is needed of it by who keeps nothing there."""
    assert parse(document(login("x"))).stored == ()
    monkeypatch.setenv("VAULT_ADDR", "https://vault")
    monkeypatch.setenv("VAULT_TOKEN", f"{CANARY}-token")
    assert not parse(document(login())).warnings


def test_a_token_in_plain_text_on_a_network_is_a_warning(tmp_path: Path) -> None:
    """Or in a file that all may read; not on this machine."""
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    vault = {"address": "http://vault", "token": f"${{file:{token}}}"}
    said = [each.message for each in parse(document(login(), {"vault": vault})).warnings]
    assert "without TLS" in said[0] and "every user of this machine" in said[1]
    local = {"address": "http://127.0.0.1:8200", "token": "x"}
    assert not parse(document(login(), {"vault": local})).warnings


# --- functions -------------------------------------------------------------------------------------------


def test_a_function_that_is_not_given_is_told_before_any_connection(tmp_path: Path) -> None:
    """With its place in the file; in code with its reference; and how to give it."""
    (tmp_path / "router.yaml").write_text(json.dumps(document(login("${call:mine}"))))
    with pytest.raises(ConfigurationError, match=r"router\.yaml:1:\d+: .*password needs the function 'mine'"):
        Router.open(tmp_path, secrets={"other": lambda: "x"})
    config = load(tmp_path)  # which does not know what the application gives
    with pytest.raises(ConfigurationError, match=r"known: none.*secrets=\{'mine': function\}"):
        Router.open(config)
    Router.open(tmp_path, secrets={"mine": lambda: "x"})


# --- commands --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _vault() -> Iterator[vaults.Vault]:
    with vaults.running(vaults.Vault()) as server:
        yield server


@pytest.fixture
def folder(_vault: vaults.Vault, tmp_path: Path) -> Path:
    """Write a configuration of a server that nobody runs, with passwords in a store that somebody does."""
    _vault.reset()
    _vault.kv["secret/data/app"] = {"password": f"{CANARY}-stored"}
    secrets = {"vault": {"address": _vault.address, "token": vaults.TOKEN}}
    data = document(login(), secrets)
    data["clusters"]["main"]["credentials"]["reader"] = login("${call:mine}")
    (tmp_path / "router.yaml").write_text(json.dumps(data))
    (tmp_path / "tenants").mkdir()
    tenant = {"tenant": "acme", "cluster": "main", "isolation": "database", "database": "acme"}
    (tmp_path / "tenants" / "acme.yaml").write_text(json.dumps(tenant))
    return tmp_path


def test_commands_that_look_ask_no_store(folder: Path, _vault: vaults.Vault) -> None:
    """check and explain need no secret, and none of the application's functions."""
    for arguments in (["check", str(folder)], ["explain", "--config", str(folder), "-t", "acme", "SELECT 1"]):
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, found.output
    assert not _vault.asked


def test_check_can_ask_for_every_secret(folder: Path, _vault: vaults.Vault) -> None:
    """Each once, shown by its reference and never by its value; one that cannot be had is a no."""
    found = CliRunner().invoke(app, ["check", str(folder), "--secrets", "--json"])
    assert (found.exit_code, len(_vault.asked)) == (0, 1)
    assert json.loads(found.output)["secrets"] == [
        {"secret": "${vault:secret/data/app}", "ok": True, "message": ""},
        {"secret": "${call:mine}", "ok": None, "message": "a function of the application"},
    ]
    _vault.sealed = True
    refused = CliRunner().invoke(app, ["check", str(folder), "--secrets"])
    assert refused.exit_code == 1 and "sealed" in refused.output
    assert CANARY not in found.output + refused.output
