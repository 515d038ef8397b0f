"""Stores of secrets through their real clients, hvac and boto3, against servers that speak like them."""

import asyncio
import logging
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

from router.config import Secret
from router.config.references import SecretReference, Stored
from router.config.stores import AwsConfig, VaultConfig
from router.stores.aws import Aws
from router.stores.calls import Calls
from router.stores.store import Answer, Unanswered
from router.stores.vault import Vault
from tests import vaults
from tests.servers.passwords import CANARY
from tests.test_pool import Clock

_PREPARED: WeakSet[Any] = WeakSet()  # the stores that can be asked
PASSWORD = f"{CANARY}-stored"


@pytest.fixture(scope="module")
def _server() -> Iterator[vaults.Vault]:
    with vaults.running(vaults.Vault()) as server:
        yield server


@pytest.fixture
def server(_server: vaults.Vault) -> vaults.Vault:
    _server.reset()
    return _server


def vault(server: vaults.Vault, folder: Path = Path(), clock: Any = None, **given: Any) -> Vault:
    """Return a store that asks the server."""
    given = {"auth": "token", "token": Secret(vaults.TOKEN), **given}
    if given["auth"] != "token":
        del given["token"]
    config = VaultConfig.model_validate({"address": server.address, **given})
    return Vault(config, folder, clock or Clock())


async def read(store: Any, path: str, timeout: float = 5.0) -> Answer | Unanswered:
    """Ask as the keeper does."""
    if store not in _PREPARED:
        assert await store.prepare(timeout) is None
        _PREPARED.add(store)
    found: Answer | Unanswered = await store.read(path, timeout)
    return found


async def why(store: Any, path: str, timeout: float = 5.0) -> str:
    """Return why there is no answer."""
    found = await read(store, path, timeout)
    assert isinstance(found, Unanswered)
    return found.why


# --- Vault -----------------------------------------------------------------------------------------------


async def test_vault_gives_the_fields_of_kv_of_both_versions(server: vaults.Vault) -> None:
    """Version 2 keeps them one level deeper; neither has a lease, though version 1 tells a time."""
    server.kv["secret/data/app"] = {"password": PASSWORD, "port": 5432, "flag": True, "more": {"a": 1}}
    server.kv1["kv/app"] = {"data": "not a mapping", "password": PASSWORD}
    for path in ("secret/data/app", "kv/app"):
        found = await read(vault(server), path)
        assert isinstance(found, Answer) and found.lease is None and found.whole is None
        assert found.value(Stored("vault", path, "password")) == Secret(PASSWORD)
        assert found.value(Stored("vault", path, "nothing")) is None
    assert {each.headers["x-vault-token"] for each in server.asked} == {vaults.TOKEN}
    assert {each.headers["x-vault-request"] for each in server.asked} == {"true"}


async def test_vault_gives_user_and_password_of_one_lease(server: vaults.Vault) -> None:
    """Credentials that a database engine makes come with how long they are good."""
    server.leases["database/creds/app"] = [("v-app-1", PASSWORD)]
    found = await read(vault(server), "database/creds/app")
    assert isinstance(found, Answer) and found.lease == 3600
    assert set(found.fields) == {"username", "password"}


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        ({"sealed": True}, "sealed or not ready (503)"),
        ({"tokens": set()}, "permission denied (403)"),
        ({}, "nothing is there (404)"),
        ({"slow": 0.3}, "does not answer in time"),
    ],
)
async def test_vault_says_why_it_gives_nothing(server: vaults.Vault, trouble: Any, text: str) -> None:
    """Each way to fail has its words; none of them holds what was sent or answered."""
    vars(server).update(trouble)
    said = await why(vault(server), "secret/data/none", 0.1)
    assert text in said and CANARY not in said


async def test_vault_that_is_not_there_cannot_be_reached(unused_tcp_port: int, server: vaults.Vault) -> None:
    """A refused connection is told as such."""
    store = vault(server, address=f"http://127.0.0.1:{unused_tcp_port}")
    assert await why(store, "secret/data/app") == "it cannot be reached"


async def test_the_token_is_not_sent_where_a_redirect_leads(server: vaults.Vault) -> None:
    """Whoever is answered with a redirect does not follow it: the token would go along."""
    server.redirect = f"{server.address}/v1/secret/data/app"
    server.kv["secret/data/app"] = {"password": PASSWORD}
    assert "HTTP 307" in await why(vault(server), "elsewhere/app")
    assert len(server.asked) == 1


async def test_a_token_in_a_file_is_read_anew(server: vaults.Vault, tmp_path: Path) -> None:
    """An agent that renews the token writes it there; the next question uses it."""
    server.kv["secret/data/app"] = {"password": PASSWORD}
    file = tmp_path / "token"
    file.write_text(vaults.TOKEN)
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    store = vault(server, token=SecretReference.parse(f"${{file:{file}}}"), namespace="shop")
    assert isinstance(await read(store, "secret/data/app"), Answer)
    server.tokens = {f"{vaults.TOKEN}-2"}
    assert "403" in await why(store, "secret/data/app")
    file.write_text(f"{vaults.TOKEN}-2")
    assert isinstance(await read(store, "secret/data/app"), Answer)
    assert {each.headers["x-vault-namespace"] for each in server.asked} == {"shop"}
    file.unlink()
    assert str(file) in await why(store, "secret/data/app")


def logged_in(server: vaults.Vault, auth: str, folder: Path, clock: Clock) -> Vault:
    """Return a store that logs in by itself."""
    if auth == "approle":
        return vault(server, clock=clock, auth=auth, role_id="router", secret_id=Secret(vaults.SECRET_ID))
    file = folder / "account"
    file.write_text(vaults.SECRET_ID)
    return vault(server, folder, clock, auth=auth, role="router", service_token="account")


@pytest.mark.parametrize("auth", ["approle", "kubernetes"])
async def test_a_login_is_kept_until_it_is_old(server: vaults.Vault, auth: str, tmp_path: Path) -> None:
    """One serves until two thirds of the token's life; another replaces a token that was revoked."""
    clock = Clock()
    store = logged_in(server, auth, tmp_path, clock)
    server.kv["secret/data/app"] = {"password": PASSWORD}
    for seconds, logins in ((0, 1), (790, 1), (20, 2), (700, 2)):
        clock.now += seconds
        assert isinstance(await read(store, "secret/data/app"), Answer)
        assert server.logins == logins
    server.tokens.clear()
    assert isinstance(await read(store, "secret/data/app"), Answer)
    assert server.logins == 3
    server.kv.clear()  # no reason to log in again
    assert "404" in await why(store, "secret/data/app")
    assert server.logins == 3


async def test_a_login_that_is_refused_says_so(server: vaults.Vault, tmp_path: Path) -> None:
    """What proves who the router is may be wrong, or gone."""
    store = vault(server, auth="approle", role_id="router", secret_id=Secret(f"{CANARY}-wrong"))
    said = await why(store, "secret/data/app")
    assert said.startswith("the login by approle failed: ") and CANARY not in said
    store = vault(server, tmp_path, auth="kubernetes", role="router", service_token="gone")
    assert "the service account's token" in await why(store, "secret/data/app")


async def test_a_store_that_hangs_is_asked_by_one_thread_at_a_time(server: vaults.Vault) -> None:
    """Who gives up leaves the thread; until it ends nobody starts another for the same secret."""
    server.slow = 0.4
    store = vault(server)
    assert await store.prepare(5.0) is None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.read("secret/data/app", 5.0)
    assert "has not answered the last time" in await why(store, "secret/data/app")
    asking = [each for each in threading.enumerate() if each.name == "router secrets"]
    assert asking and all(each.daemon for each in asking)
    for thread in asking:
        await asyncio.to_thread(thread.join, 5)
    server.slow = 0.0
    assert "404" in await why(store, "secret/data/app")


# --- AWS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _amazon() -> Iterator[vaults.Aws]:
    with vaults.running(vaults.Aws()) as server:
        yield server


@pytest.fixture(scope="module")
def _aws(_amazon: vaults.Aws) -> Aws:
    """One store for all tests: making boto3's client is slow."""
    return Aws(AwsConfig(region="eu-test-1", endpoint=_amazon.address))


@pytest.fixture
def amazon(_amazon: vaults.Aws, monkeypatch: pytest.MonkeyPatch) -> vaults.Aws:
    _amazon.reset()
    vaults.aws_keys(monkeypatch)
    return _amazon


async def test_aws_gives_a_text_and_the_fields_of_json(amazon: vaults.Aws, _aws: Aws) -> None:
    """A signed request for the current version; a text that is no JSON is a secret as a whole."""
    amazon.secrets = {"prod/app": f'{{"username": "app", "password": "{PASSWORD}", "port": 5432}}'}
    amazon.secrets["plain"] = PASSWORD
    found = await read(_aws, "prod/app")
    assert isinstance(found, Answer) and found.lease is None
    assert found.value(Stored("aws", "prod/app", "password")) == Secret(PASSWORD)
    assert found.value(Stored("aws", "prod/app", "port")) == Secret("5432")
    plain = await read(_aws, "plain")
    assert isinstance(plain, Answer) and plain.value(Stored("aws", "plain", None)) == Secret(PASSWORD)
    assert not plain.fields
    assert amazon.asked[0].headers["x-amz-security-token"] == vaults.SESSION_TOKEN
    assert amazon.asked[0].headers["content-type"] == "application/x-amz-json-1.1"


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        ({}, "nothing is there"),
        ({"refusal": "AccessDeniedException"}, "may not secretsmanager:GetSecretValue"),
        ({"refusal": "InternalServiceError"}, "the request failed (InternalServiceError)"),
        ({"refusal": "1 odd code"}, "the request failed (ClientError)"),
        ({"secrets": {"prod/app": b""}}, "it is bytes, not text"),
    ],
)
async def test_aws_says_why_it_gives_nothing(amazon: vaults.Aws, _aws: Aws, trouble: Any, text: str) -> None:
    """By the code of the answer, whose text is never repeated."""
    vars(amazon).update(trouble)
    said = await why(_aws, "prod/app")
    assert text in said and CANARY not in said


async def test_aws_without_a_region_or_profile_says_so(
    amazon: vaults.Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What boto3 does not find is told before anything is asked."""
    for config, text in ((AwsConfig(), "no region is known"), (AwsConfig(profile="nobody"), "the profile")):
        found = await Aws(config).prepare(1.0)
        assert found is not None and text in found.why
    assert not amazon.asked


async def test_nothing_secret_is_logged_by_the_clients(
    server: vaults.Vault, amazon: vaults.Aws, _aws: Aws, caplog: pytest.LogCaptureFixture
) -> None:
    """botocore logs whole answers at DEBUG; not in our threads, while others' are left alone."""
    caplog.set_level(logging.DEBUG)
    server.kv["secret/data/app"] = {"password": PASSWORD}
    amazon.secrets["plain"] = PASSWORD
    assert isinstance(await read(vault(server), "secret/data/app"), Answer)
    assert isinstance(await read(_aws, "plain"), Answer)
    assert CANARY not in caplog.text
    logging.getLogger("botocore.parsers").debug("of another thread")
    assert "of another thread" in caplog.text


# --- functions -------------------------------------------------------------------------------------------


async def test_functions_give_text_or_fields() -> None:
    """A coroutine's runs on the event loop, another in a thread; either may give a mapping."""
    loop_thread, threads = threading.current_thread(), []

    def plain() -> str:
        threads.append(threading.current_thread())
        return PASSWORD

    async def fields() -> dict[str, Any]:
        threads.append(threading.current_thread())
        return {"username": "app", "password": Secret(PASSWORD), "port": 5432}

    calls = Calls({"plain": plain, "fields": fields, "lambda": lambda: fields()})
    assert await read(calls, "plain") == Answer(whole=Secret(PASSWORD))
    pair = Answer({"username": Secret("app"), "password": Secret(PASSWORD)})
    assert await read(calls, "fields") == await read(calls, "lambda") == pair
    assert threads[0] is not loop_thread and set(threads[1:]) == {loop_thread}


async def test_functions_that_fail_are_told_by_class() -> None:
    """What a function raises may hold what it was about; SystemExit ends a thread and nothing else."""

    async def raises() -> str:
        raise ValueError(CANARY)

    def leaves() -> str:
        raise SystemExit(CANARY)

    calls = Calls({"raises": raises, "leaves": leaves, "number": lambda: 7})  # type: ignore[dict-item, return-value]
    assert "raised ValueError" in await why(calls, "raises")
    assert "raised SystemExit" in await why(calls, "leaves")
    assert "gave int" in await why(calls, "number")
    assert "no function of this name" in await why(calls, "nobody")
