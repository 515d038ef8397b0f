"""Passwords from stores on a real server: rotated while it serves, looked at anew when one is refused."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from router import Router, errors
from router.events import ConnectionClosed, ConnectionFailed, ConnectionOpened, SecretChanged, SecretFailed
from tests.engines import Engine, Recorder, only
from tests.servers.passwords import CANARY, new_password
from tests.vaults import TOKEN, Vault, running

PATH = "secret/data/app"
PASSWORD = f"${{vault:{PATH}#password}}"


@pytest.fixture(scope="module")
def _vault() -> Iterator[Vault]:
    with running(Vault()) as vault:
        yield vault


@pytest.fixture
def vault(_vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Vault:
    _vault.reset()
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    monkeypatch.setenv("VAULT_ADDR", _vault.address)
    return _vault


class Users:
    """Database users of one test."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.names: list[str] = []

    def add(self) -> tuple[str, str]:
        """Return a new user and its password."""
        name, password = f"v_{secrets.token_hex(4)}", new_password()
        self._server.run(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE router_app")
        self.names.append(name)
        return name, password

    def set(self, name: str, password: str) -> None:
        """Change a password."""
        self._server.run(f"ALTER ROLE {name} PASSWORD '{password}'")

    def drop(self, *names: str) -> None:
        """End the sessions of users and forget them, as a revoked lease does."""
        for name in names:
            text = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"
            self._server.run(text)
            self._server.run(f"DROP ROLE {name}")
            self.names.remove(name)


@pytest.fixture
def users(engine: Engine) -> Iterator[Users]:
    made = Users(engine.server)
    yield made
    made.drop(*made.names)


@asynccontextmanager
async def opened(
    engine: Engine, login: dict[str, str], *, refresh: str = "5m", **more: Any
) -> AsyncIterator[tuple[Router, Recorder]]:
    """Open a router that logs in on the primary with a login."""
    cluster = {"replicas": [], "credentials": {"writer": login}, "checks": {"interval": "1h"}, **more}
    given = {"refresh": refresh, "timeout": "500ms"}
    async with engine.open(("acme",), cluster=cluster, secrets=given) as router:
        yield router, Recorder(router)


class Load:
    """Ask in eight tasks until it is left; a failure is raised."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.done = 0
        self._turns = [0] * 8
        self._stopped = False

    async def _ask(self, number: int) -> None:
        while not self._stopped:
            assert await self._router.fetch_value("SELECT 1", tenant="acme", primary=True) == 1
            self.done += 1
            self._turns[number] += 1

    async def until(self, reached: Callable[[], bool]) -> None:
        """Return when something is so."""
        async with asyncio.timeout(10):
            while not reached():
                assert not self._asking.done()
                await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Return when what was being connected is over: it asks for a changed password once, no more."""
        before = list(self._turns)
        await self.until(lambda: all(now > then for now, then in zip(self._turns, before, strict=True)))
        await self.until(lambda: not any(each.opening for each in self._router.status().budgets))

    async def __aenter__(self) -> "Load":
        self._asking = asyncio.gather(*map(self._ask, range(8)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        await self._asking


@only("postgresql")
async def test_a_password_rotates_under_load_without_a_failed_request(
    engine: Engine, vault: Vault, users: Users
) -> None:
    """Vault has the new password, then the server: who was told the old one asks again, once."""
    name, first = users.add()
    vault.kv[PATH] = {"password": first}
    login = {"username": name, "password": PASSWORD}
    brief = {"connections": {"max": 4, "lifetime": "30ms"}}  # so that connections are opened all the time
    async with opened(engine, login, **brief) as (router, heard):
        await router.fetch_value("SELECT 1", tenant="acme")  # whatever is slow the first time
        async with Load(router) as load:
            for number in range(3):
                goal = load.done + 20
                await load.until(lambda goal=goal: load.done > goal)  # type: ignore[misc]
                new = new_password()
                vault.kv[PATH] = {"password": new}
                await asyncio.to_thread(users.set, name, new)
                await load.until(lambda number=number: len(heard.of(SecretChanged)) > number)  # type: ignore[misc]
                await load.settled()
        assert not heard.of(ConnectionFailed) and len(heard.of(ConnectionOpened)) > 12
        assert len(vault.asked) <= 1 + 2 * 3  # two at most share no question


@only("postgresql")
async def test_users_that_take_turns_are_never_refused(engine: Engine, vault: Vault, users: Users) -> None:
    """User and password come together and change together; both users are good meanwhile."""
    pairs = [users.add() for _ in range(2)]
    vault.kv[PATH] = dict(zip(("username", "password"), pairs[0], strict=True))
    login = {"username": f"${{vault:{PATH}#username}}", "password": PASSWORD}
    async with opened(engine, login, refresh="20ms", connections={"max": 2, "lifetime": "10ms"}) as (
        router,
        _,
    ):
        seen = set()
        for number in range(40):
            if number % 10 == 9:
                pair = pairs[number // 10 % 2]
                vault.kv[PATH] = dict(zip(("username", "password"), pair, strict=True))
            seen.add(await router.fetch_value("SELECT current_user::text", tenant="acme", primary=True))
            await asyncio.sleep(0.01)
        assert seen == {pairs[0][0], pairs[1][0]}


@only("postgresql")
async def test_connections_of_a_lease_are_closed_before_it_ends(
    engine: Engine, vault: Vault, users: Users
) -> None:
    """What was opened with leased credentials is not used beyond nine tenths of the lease."""
    path = "database/creds/app"
    vault.lease = 1
    vault.leases[path] = [users.add() for _ in range(3)]
    first = vault.leases[path][0][0]
    login = {f"{key}": f"${{vault:{path}#{key}}}" for key in ("username", "password")}
    async with opened(engine, login) as (router, heard):
        text = "SELECT current_user::text"
        assert await router.fetch_value(text, tenant="acme", primary=True) == first
        await asyncio.sleep(0.95)  # real time: it is the store's clock and ours that are compared
        users.drop(first)
        assert await router.fetch_value(text, tenant="acme", primary=True) != first
        assert {event.reason for event in heard.of(ConnectionClosed)} == {"lifetime"}
        assert not heard.of(ConnectionFailed)


@only("postgresql")
async def test_a_refused_login_asks_once_and_then_says_so(engine: Engine, vault: Vault, users: Users) -> None:
    """Where the store has nothing newer, the login is refused after one more question; no more attempts."""
    name, _ = users.add()
    vault.kv[PATH] = {"password": f"{CANARY}-wrong"}
    async with opened(engine, {"username": name, "password": PASSWORD}) as (router, heard):
        with pytest.raises(errors.AuthenticationFailed) as caught:
            await router.fetch_value("SELECT 1", tenant="acme", primary=True)
        assert len(heard.of(ConnectionFailed)) == 1 and CANARY not in str(caught.value)
        assert 2 <= len(vault.asked) <= 4  # that of the probe, and one more for each refusal


@only("postgresql")
async def test_a_sealed_vault_stops_nobody_who_has_a_password(
    engine: Engine, vault: Vault, users: Users
) -> None:
    """The last good password is used, the age is shown, and SecretFailed tells why; then it is read again."""
    name, first = users.add()
    vault.kv[PATH] = {"password": first}
    login = {"username": name, "password": PASSWORD}
    async with opened(engine, login, refresh="10ms", connections={"max": 1, "lifetime": "10ms"}) as (
        router,
        heard,
    ):
        await router.fetch_value("SELECT 1", tenant="acme", primary=True)
        vault.sealed = True
        await asyncio.sleep(0.05)
        await router.fetch_value("SELECT 1", tenant="acme", primary=True)
        (failed,) = heard.of(SecretFailed)
        assert (failed.user, failed.source, failed.kept) == (name, f"${{vault:{PATH}}}", True)
        assert "sealed" in failed.message
        text = router.metrics.render().decode()
        assert f'router_secret_failing{{source="${{vault:{PATH}}}"}} 1.0' in text
        assert f'router_secret_age_seconds{{source="${{vault:{PATH}}}"}} 0.' in text


@only("postgresql", "mariadb")
async def test_a_wrong_password_that_is_kept_is_looked_at_once(engine: Engine) -> None:
    """The server refuses it, the function has another by now, and the request does not notice."""
    right = engine.server.primary.password("router_app")
    answers = iter([f"{CANARY}-old", right])
    asked = []

    def function() -> str:
        asked.append(next(answers))
        return str(asked[-1])

    login = {"username": "router_app", "password": "${call:app}"}
    cluster = {"replicas": [], "credentials": {"writer": login}}
    async with Router.open(engine.config(("acme",), cluster=cluster), secrets={"app": function}) as router:
        heard = Recorder(router)
        assert await router.fetch_value("SELECT 1", tenant="acme", primary=True) == 1
        assert len(asked) == 2 and not heard.of(ConnectionFailed)
        assert [event.source for event in heard.of(SecretChanged)] == ["${call:app}"]


@only("postgresql")
async def test_a_reload_may_name_another_secret(engine: Engine, users: Users) -> None:
    """Requests are made as the new user from then on, and nothing is kept of the old secret."""
    pairs = {name: dict(zip(("username", "password"), users.add(), strict=True)) for name in ("one", "two")}

    def config(name: str) -> Any:
        login = {key: f"${{call:{name}#{key}}}" for key in ("username", "password")}
        return engine.config(("acme",), cluster={"replicas": [], "credentials": {"writer": login}})

    functions = {name: partial(dict, pair) for name, pair in pairs.items()}
    async with Router.open(config("one"), secrets=functions) as router:
        for name in ("one", "two"):
            await router.reload(config(name))
            found = await router.fetch_value("SELECT current_user::text", tenant="acme", primary=True)
            assert found == pairs[name]["username"]
            assert re.findall(
                r'router_secret_failing\{source="(.*?)"\}', router.metrics.render().decode()
            ) == [f"${{call:{name}}}"]
        with pytest.raises(errors.ConfigurationError, match="needs the function 'three'"):
            await router.reload(config("three"))


@only("postgresql")
@pytest.mark.parametrize("trouble", ["sealed", "slow"])
async def test_without_any_password_the_request_fails_within_its_timeout(
    engine: Engine, vault: Vault, users: Users, trouble: str
) -> None:
    """SecretUnavailable says which secret and why, in time, and the servers are not blamed for it."""
    name, first = users.add()
    vault.kv[PATH] = {"password": first}
    if trouble == "sealed":
        vault.sealed = True
    else:
        vault.slow = 30.0
    login = {"username": name, "password": PASSWORD}
    checks = {"interval": "100ms", "timeout": "50ms"}
    async with opened(engine, login, failover={"hold": "0s"}, checks=checks) as (router, _):
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(errors.SecretUnavailable, match=r"\$\{vault:secret/data/app\} cannot be had: "):
            await router.fetch_value("SELECT 1", tenant="acme", primary=True, timeout=1.5)
        assert loop.time() - began < 2.0
        (server,) = router._backends["main"].health.servers
        assert (server.misses, server.refused, server.breaker.banned) == (0, "", False)
