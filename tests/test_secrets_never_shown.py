"""No secret and no bound value is ever shown: not in logs, events, errors, traceback locals, or a repr.

Every password of the test servers holds a canary. A broad scenario runs on each engine with all logging at
DEBUG, and everything that a log handler, a listener or an error reporter could lay hands on is searched.
"""

import asyncio
import copy
import gc
import json
import logging
import pickle
import sys
import traceback
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from router import Router, errors, events
from router.config import Config, parse
from router.errors import RouterError
from tests import vaults
from tests.doubles import PASSWORD, Server, opened
from tests.engines import Engine, Recorder
from tests.servers.passwords import CANARY

VALUE = "bound-canary"


def on(*engines: str) -> pytest.MarkDecorator:
    """Run a test on these engines only."""
    return pytest.mark.parametrize("engine", engines, indirect=True, scope="module")


SERVED = ("postgresql", "postgresql-schema", "mariadb")


class Haul:
    """Collect texts from wherever a secret could surface, and look through them."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.errors: list[BaseException] = []

    def add(self, where: str, thing: object) -> None:
        """Keep what a person or program would see of ``thing``."""
        self.texts += [(f"repr of {where}", repr(thing)), (f"str of {where}", str(thing))]
        with suppress(TypeError):
            self.texts.append((f"format of {where}", f"{thing}"))

    async def error(
        self, where: str, call: Callable[[], Any], kind: type[BaseException] = RouterError
    ) -> None:
        """Expect an error and keep all that an error reporter would send of it."""
        with pytest.raises(kind) as caught:
            await call()
        self.caught(where, caught.value)

    def caught(self, where: str, exc: BaseException) -> None:
        """Keep an exception: its texts, its formatted traceback, and the locals of all its frames."""
        self.errors.append(exc)
        self.add(where, exc)
        self.texts.append((f"traceback of {where}", "".join(traceback.format_exception(exc))))
        for name, text in _locals(exc):
            self.texts.append((f"local {name} in {where}", text))

    def search(self, *needles: str) -> list[str]:
        """Return where one of the needles was found."""
        return [
            f"{where}: ...{text[max(0, text.index(needle) - 60) : text.index(needle) + 60]!r}"
            for where, text in self.texts
            for needle in needles
            if needle in text
        ]


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and everything that hangs on it."""
    seen: set[int] = set()
    left: list[Any] = [exc]
    while left:
        found = left.pop()
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            left += [found.__cause__, found.__context__, getattr(found, "cause", None)]
            left += list(getattr(found, "exceptions", ()))


def _locals(exc: BaseException) -> Iterator[tuple[str, str]]:
    """Yield name and repr of every local in every frame of the chain, as an error reporter sends them."""
    for link in _chain(exc):
        trace = link.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if "/tests/" not in frame.f_code.co_filename:  # the test itself knows its password
                for name, value in list(frame.f_locals.items()):
                    for text in _seen_in(value):
                        yield f"{frame.f_code.co_qualname}:{name}", text
            trace = trace.tb_next


def _seen_in(value: object) -> Iterator[str]:
    """Yield the repr of a value, and of what it holds: one level into containers and objects of ours."""
    yield _repr(value)
    if isinstance(value, dict):
        yield from map(_repr, value.values())
    elif isinstance(value, list | tuple | set):
        yield from map(_repr, value)
    elif type(value).__module__.partition(".")[0] == "router" and type(value).__name__ != "Secret":
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in [*slots, *getattr(value, "__dict__", {})]:
            yield _repr(getattr(value, name, None))


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as exc:
        return f"<repr failed: {type(exc).__name__}>"


def _told(heard: Recorder, haul: Haul) -> None:
    """Add every event: its repr and each of its fields."""
    for event in heard.events:
        haul.add(type(event).__name__, event)
        for kind in type(event).__mro__:
            for name in getattr(kind, "__slots__", ()):
                haul.add(f"{type(event).__name__}.{name}", getattr(event, name, None))


def _logged(caplog: pytest.LogCaptureFixture, haul: Haul) -> None:
    for record in caplog.records:
        haul.texts.append((f"log of {record.name}", record.getMessage()))
        haul.texts.append((f"log record of {record.name}", repr(record.__dict__)))
        if record.exc_info and record.exc_info[1]:
            haul.caught(f"log of {record.name}", record.exc_info[1])


def _shown(router: Router, config: Config, haul: Haul) -> None:
    """Add everything that a curious program can print of an open router."""
    haul.add("config", config)
    for name, cluster in config.clusters.items():
        haul.add(f"cluster {name}", cluster)
        haul.texts.append(("JSON of cluster", cluster.model_dump_json()))
        haul.add("dump of cluster", cluster.model_dump())
        haul.add("schema of cluster", json.dumps(cluster.model_json_schema()))
        for node in cluster.nodes:
            haul.add("node", node)
    haul.add("vars of router", vars(router))
    haul.add("router", router)
    haul.add("status", router.status())
    haul.add("metrics", router.metrics.render())
    haul.add("summary", router.metrics.summary())
    haul.add("slow log", router.slowlog.digests())
    for backend in router._backends.values():
        haul.add("backend", vars(backend))
        for access in backend._access.values():
            haul.add("access", access)
            haul.add("login", access.login)
    assert router._pools is not None
    for pool in router._pools._pools.values():
        haul.add("pool", pool)
        haul.add("vars of pool", vars(pool))
        haul.add("endpoint", pool.endpoint)
        for connection in [*pool._idle, *pool._used]:
            haul.add("connection", connection)
    for thing in (config, router, *config.clusters.values()):
        with suppress(Exception):
            haul.texts.append(("pickle", repr(pickle.dumps(thing))))
        with suppress(Exception):
            haul.add("copy", copy.deepcopy(thing))


@pytest.fixture
def haul(caplog: pytest.LogCaptureFixture) -> Iterator[Haul]:
    """Collect with all logging on, asyncio's debugging too."""
    caplog.set_level(logging.DEBUG)
    for name in ("asyncio", "sqlalchemy", "sqlalchemy.pool", "asyncpg", "aiomysql", "aiosqlite", "router"):
        caplog.set_level(logging.DEBUG, logger=name)
    made = Haul()
    yield made
    _logged(caplog, made)
    assert not made.search(CANARY, PASSWORD), made.search(CANARY, PASSWORD)


async def _errors_of_statements(router: Router, table: str, haul: Haul, engine: Engine) -> None:
    """Meet every class of answer that a statement can get, with bound values in play."""
    sql = f"INSERT INTO {table} (id, name) VALUES (:id, :name)"
    values = {"id": 1, "name": VALUE}
    await router.execute(sql, values, tenant="acme")
    calls: dict[str, Callable[[], Any]] = {
        "unique": lambda: router.execute(sql, {**values, "id": 1}, tenant="acme"),
        "unique name": lambda: router.execute(sql, {**values, "id": 2}, tenant="acme"),
        "many": lambda: router.execute_many(sql, [values, values], tenant="acme"),
        "type": lambda: router.execute(sql, {"id": [VALUE, object()], "name": 1}, tenant="acme"),
        "missing": lambda: router.execute(sql, {"id": VALUE}, tenant="acme"),
        "syntax": lambda: router.execute(
            f"SELEKT * FROM {table} WHERE name = :n", {"n": VALUE}, tenant="acme"
        ),
        "table": lambda: router.execute("SELECT * FROM nope WHERE n = :n", {"n": VALUE}, tenant="acme"),
        "list": lambda: router.execute(sql, [VALUE], tenant="acme"),  # type: ignore[arg-type]
        "timeout": lambda: router.execute(
            engine.sleep(2), tenant="acme", timeout=0.05, primary=True, idempotent=True
        ),
        "into": lambda: router.fetch_all(
            f"SELECT name AS id FROM {table}", tenant="acme", primary=True, into=_Row
        ),
    }
    for name, call in calls.items():
        await haul.error(name, call)
    await router.fetch_all(f"SELECT id FROM {table} WHERE name = :n", {"n": VALUE}, tenant="acme")
    await router.execute_many(sql, [{"id": n, "name": f"{VALUE}{n}"} for n in range(5, 8)], tenant="acme")
    async with router.session("acme") as session:
        await haul.error("transaction", lambda: _failing(session, sql, values))
        async for _ in session.stream(f"SELECT id FROM {table} WHERE name = :n", {"n": VALUE}):
            pass


class _Row:
    """No dataclass: refused by into=."""


async def _failing(session: Any, sql: str, values: dict[str, Any]) -> None:
    async with session.transaction() as tx:
        await tx.execute(sql, values)


async def _orm(router: Router, table: str, haul: Haul) -> None:
    from sqlalchemy import column, insert
    from sqlalchemy import table as named

    items = named(table, column("id"), column("name"))
    async with router.session("acme") as session:
        await session.execute(insert(items).values(id=50, name=f"{VALUE}50"))
        await haul.error("core", lambda: session.execute(insert(items).values(id=50, name=VALUE)))
        with pytest.raises(Exception) as caught:
            async with session.orm() as orm:
                await orm.execute(insert(items).values(id=50, name=VALUE))
        haul.add("orm", caught.value)
        haul.texts.append(("traceback of orm", "".join(traceback.format_exception(caught.value))))


async def test_a_broad_scenario_shows_no_secret_and_no_value(
    engine: Engine, router: Router, heard: Recorder, items: str, haul: Haul, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes well or wrong, neither a password nor a bound value can be found afterwards."""
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 0.0001  # so that asyncio logs what it runs
    await _errors_of_statements(router, items, haul, engine)
    await _orm(router, items, haul)
    with pytest.raises(RuntimeError):  # a failing listener is logged, with the event in reach
        router.dispatcher.subscribe(events.RequestFinished, _failing_listener)
        await router.execute("SELECT 1", tenant="acme")
        raise RuntimeError
    _shown(router, router.config, haul)
    _told(heard, haul)
    # rows that SQLAlchemy's own DEBUG log would show are none here; bound values must not be in any log
    texts = [*haul.texts]
    _logged(caplog, haul)
    found = [
        each
        for each in haul.search(VALUE)
        if not each.startswith("local ")  # a frame of the driver's has the values that it was given
    ]
    assert not found, found
    haul.texts = texts


def _failing_listener(event: events.RequestFinished) -> None:
    raise RuntimeError("the listener failed")


# --- connecting ------------------------------------------------------------------------------------------


@asynccontextmanager
async def _open(engine: Engine, **cluster: Any) -> AsyncIterator[tuple[Router, Recorder]]:
    async with engine.open(cluster=cluster) as router:
        yield router, Recorder(router)


@on(*SERVED)
async def test_a_refused_login_shows_no_password(engine: Engine, haul: Haul) -> None:
    """Wrong password, unknown user, missing database: the password is in no frame, text or event."""
    for user in ("router_app", "nobody_here"):
        login = {"username": user, "password": f"{CANARY}-wrong"}
        async with _open(engine, credentials={"writer": login}) as (router, heard):
            await haul.error(user, lambda: router.execute("SELECT 1", tenant="acme"))
            await haul.error(f"{user} begins", lambda: router.session("acme").begin())
            haul.add("ping", await router.ping())
            _shown(router, router.config, haul)
            _told(heard, haul)
    assert {type(exc) for exc in haul.errors} == {errors.AuthenticationFailed}


@on(*SERVED)
async def test_an_unreachable_server_shows_no_password(
    engine: Engine, haul: Haul, unused_tcp_port: int
) -> None:
    """Connection refused: the frames of the driver that held the password are gone from every chain."""
    dead = {"primary": {"host": "127.0.0.1", "port": unused_tcp_port}, "replicas": []}
    async with _open(engine, **dead) as (router, heard):
        await haul.error("refused", lambda: router.execute("SELECT 1", tenant="acme"))
        _told(heard, haul)
    assert type(haul.errors[0]) is errors.NoPrimary


@asynccontextmanager
async def _silent() -> AsyncIterator[int]:
    """Listen, accept, and say nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.close()
        listening.close()


@on(*SERVED)
async def test_a_silent_server_shows_no_password(engine: Engine, haul: Haul) -> None:
    """Timed out or cancelled while connecting, from inside or outside: no frame of the driver's is left."""
    async with _silent() as port:
        dead = {"primary": {"host": "127.0.0.1", "port": port}, "replicas": []}
        async with _open(engine, **dead) as (router, heard):
            await haul.error("timeout", lambda: router.execute("SELECT 1", tenant="acme", timeout=0.1))

            async def outside() -> None:
                async with asyncio.timeout(0.1):
                    await router.execute("SELECT 1", tenant="acme")

            await haul.error("outer timeout", outside, TimeoutError)
            task = asyncio.create_task(router.execute("SELECT 1", tenant="acme"))
            await asyncio.sleep(0.1)
            task.cancel()
            await haul.error("cancelled", lambda: task, asyncio.CancelledError)
            _told(heard, haul)


@on(*SERVED)
async def test_a_password_by_url_env_or_file_is_not_shown(
    engine: Engine, haul: Haul, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the password is given, it connects and is not shown; if the source is gone, neither."""
    server = engine.server
    password = server.primary.password("router_app")
    monkeypatch.setenv("ROUTER_TEST_CANARY", password)
    file = tmp_path / "password"
    file.write_text(password + "\n")
    file.chmod(0o600)
    primary = {"host": server.primary.host, "port": server.primary.port}
    scheme = "postgresql" if engine.dialect == "postgresql" else "mariadb"
    url = f"{scheme}://router_app:{quote(password)}@{primary['host']}:{primary['port']}"
    forms: dict[str, dict[str, Any]] = {
        "env": {"primary": {**primary, "username": "router_app", "password": "${env:ROUTER_TEST_CANARY}"}},
        "file": {"primary": {**primary, "username": "router_app", "password": f"${{file:{file}}}"}},
        "url": {"primary": {"url": url}},
    }
    for name, section in forms.items():
        config = parse(
            {
                "version": 1,
                "clusters": {"main": {"engine": engine.cluster()["engine"], **section}},
                "tenants": {"acme": {"cluster": "main", **engine.tenant("acme")}},
            },
            tmp_path,
        )
        async with Router(config) as router:
            assert await router.fetch_value("SELECT 1", tenant="acme") == 1, name
            _shown(router, config, haul)
        if name == "file":
            file.unlink()
            async with Router(config) as router:
                heard = Recorder(router)
                await haul.error("file is gone", lambda: router.execute("SELECT 1", tenant="acme"))
                _told(heard, haul)


def _kept(router: Router, haul: Haul) -> None:
    """Add what is known of secrets in stores, and what reads them."""
    assert router._keeper is not None
    for entry in router._keeper._entries.values():
        haul.add("entry", vars(entry))
    for store in router._keeper._stores.values():
        haul.add("store", vars(store))
    haul.add("secrets", router.config.secrets)
    haul.texts.append(("JSON of secrets", router.config.secrets.model_dump_json()))


@on("postgresql")
@pytest.mark.parametrize("name", ["${vault:secret/data/app#password}", "${aws:app#password}", "${call:app}"])
async def test_a_password_from_a_store_is_not_shown(
    engine: Engine, haul: Haul, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither is the token that it was asked for with, nor what a store says that refuses it."""
    vaults.aws_keys(monkeypatch)
    password = str(engine.server.primary.password("router_app"))
    refused = False

    def function() -> str:
        if refused:
            raise ValueError(f"{password} is not right")
        return password

    with vaults.running(vaults.Vault()) as vault, vaults.running(vaults.Aws()) as aws:
        vault.kv["secret/data/app"] = {"password": password}
        aws.secrets["app"] = json.dumps({"password": password})
        approle = {"auth": "approle", "role_id": "router", "secret_id": vaults.SECRET_ID}
        section = {
            "vault": {"address": vault.address, **approle},
            "aws": {"region": "eu-test-1", "endpoint": aws.address},
        }
        login = {"username": "router_app", "password": name}
        config = engine.config(cluster={"credentials": {"writer": login}}, secrets=section)
        async with Router.open(config, secrets={"app": function}) as router:
            assert await router.fetch_value("SELECT 1", tenant="acme", primary=True) == 1
            _shown(router, config, haul)
            _kept(router, haul)
        refused = vault.sealed = True
        aws.refusal = "AccessDeniedException"
        async with Router.open(config, secrets={"app": function}) as router:
            heard = Recorder(router)
            await haul.error(name, lambda: router.execute("SELECT 1", tenant="acme", primary=True))
            _shown(router, config, haul)
            _kept(router, haul)
            _told(heard, haul)


def test_a_refused_configuration_shows_no_password(haul: Haul) -> None:
    """Mistakes around a password are told without it."""
    good: dict[str, Any] = {"host": "db", "port": 1}
    sections: list[dict[str, Any]] = [
        {"credentials": {"writer": {"username": 7, "password": CANARY}}},
        {"credentials": {"writer": {"username": "app", "passwort": CANARY}}},
        {"credentials": {"writer": {"username": "app", "password": [CANARY]}}},
        {"primary": {"url": f"postgresql://app:{CANARY}@"}},
        {"primary": {"url": f"postgresql://app:{CANARY}@db:99999/x"}},
        {"primary": {**good, "url": f"mysql://app:{CANARY}@db/x"}},
        {"options": {"password": CANARY}},
    ]
    for section in sections:
        data = {"version": 1, "clusters": {"main": {"engine": "postgresql", "primary": good, **section}}}
        with pytest.raises(errors.ConfigurationError) as caught:
            parse(data)
        haul.caught(str(list(section)), caught.value)


@on("postgresql")
async def test_the_command_shows_no_password(engine: Engine, haul: Haul, tmp_path: Path) -> None:
    """check, explain and ping, as tables and as JSON, with a password that is refused: it is not printed."""
    server = engine.server.primary
    tenant = json.dumps({"tenant": "acme", "cluster": "main", **engine.tenant("acme")})
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "acme.yaml").write_text(tenant)
    node = {"host": server.host, "port": server.port, "username": "router_app", "password": f"{CANARY}-x"}
    text = json.dumps({"version": 1, "clusters": {"main": {"engine": "postgresql", "primary": node}}})
    (tmp_path / "router.yaml").write_text(text)
    folder = ("--config", str(tmp_path))

    async def run(*arguments: str) -> None:
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "router", *arguments, stdout=PIPE, stderr=STDOUT
        )
        printed = (await command.communicate())[0].decode()
        assert printed.strip() and "Traceback" not in printed, printed
        haul.texts.append((f"output of {arguments[0]}", printed))

    await asyncio.gather(
        run("check", str(tmp_path)),
        run("ping", *folder, "--json"),
        run("ping", *folder),
        run("explain", *folder, "--tenant", "acme", "SELECT 1"),
    )


async def test_no_step_of_a_request_shows_the_password(server: Server, haul: Haul) -> None:
    """A driver that keeps the password on its connection: cancelled or failing anywhere, it is not shown."""
    for verb in ("connect", "bind", "execute", "reset", "close"):
        async with opened(replicas=0) as router:
            heard = Recorder(router)
            server.fail(verb, OSError("gone"), breaks=True, times=3)
            with suppress(RouterError):
                await router.execute("SET a = 1", tenant="acme")
            server.faults.clear()
            gate = server.block(verb)
            task = asyncio.create_task(router.execute("SET a = 1", tenant="acme"))
            await asyncio.sleep(0.01)
            task.cancel()
            try:
                await task
            except (asyncio.CancelledError, RouterError) as exc:
                haul.caught(verb, exc)
            gate.set()
            server.faults.clear()
            _shown(router, router.config, haul)
            _told(heard, haul)


def test_the_search_finds_what_is_there() -> None:
    """The net of these tests is not torn: planted secrets are found in texts, chains and frames."""
    haul = Haul()
    code = compile(
        f"def leak():\n    password = '{CANARY}'\n    raise ValueError('x')\n", "planted.py", "exec"
    )
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    try:
        try:
            namespace["leak"]()
        except ValueError as exc:
            raise RouterError("ours", cause=RuntimeError("theirs")) from exc
    except RouterError as error:
        haul.caught("planted", error)
    assert [each for each in haul.search(CANARY) if "leak:password" in each]
    haul.add("a text", f"x {CANARY}")
    assert any(each.startswith("repr of a text") for each in haul.search(CANARY))
    assert not gc.garbage
