"""Bad input: each a clear error of ours, at once, with what to do next; and the router works right after."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router import Router, errors
from router.config import parse
from router.errors import (
    ConcurrentUse,
    ConnectError,
    DatabaseNotFound,
    InvalidStatement,
    ParameterError,
    RouterClosed,
    RouterError,
    StatementError,
    TransactionStateError,
    UnknownSchema,
    UnknownTenant,
    UsageError,
    WrongEventLoop,
)
from tests.engines import Engine, Sqlite
from tests.servers.passwords import CANARY

Call = Callable[[Router], Awaitable[Any]]


def on(*engines: str) -> pytest.MarkDecorator:
    """Run a test on these engines only."""
    return pytest.mark.parametrize("engine", engines, indirect=True, scope="module")


SERVED = ("postgresql", "postgresql-schema", "mariadb")


async def good(router: Router) -> None:
    """Assert that the router works: a read and a write, each in good time, and nothing lent or waiting."""
    async with asyncio.timeout(5):
        assert await router.fetch_value("SELECT 1", tenant="acme") == 1
        assert await router.fetch_value("SELECT 2", tenant="acme", primary=True) == 2
    assert not [pool for pool in router.status().pools if pool.in_use or pool.waiting]


@asynccontextmanager
async def refused(
    router: Router, kind: type[RouterError], *words: str, tenant: str | None = None
) -> AsyncIterator[None]:
    """Expect exactly this error, with these words in its text, and a router that still works."""
    with pytest.raises(RouterError) as caught:
        yield
    error = caught.value
    assert type(error) is kind, repr(error)
    for word in words:
        assert word in str(error), str(error)
    assert CANARY not in str(error) + repr(error)
    if tenant is not None:
        assert error.tenant == tenant, repr(error)
    await good(router)


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nobody", "", "Acme", "acme ", "acme\n", "a" * 500, "'; DROP TABLE t"])
async def test_an_unknown_tenant_is_refused(router: Router, name: str) -> None:
    """There is no default tenant, and nothing near counts; what was asked for is shown, but not at length."""
    async with refused(router, UnknownTenant, "there is no tenant ", "Add tenants/<id>.yaml"):
        await router.fetch_all("SELECT 1", tenant=name)
    with pytest.raises(UnknownTenant) as caught:
        router.session(name)
    assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, 7, b"acme"])
async def test_a_tenant_that_is_no_text_is_refused(router: Router, name: Any) -> None:
    """A tenant that is None, a number or bytes is unknown; it never means some default."""
    async with refused(router, UnknownTenant):
        await router.fetch_all("SELECT 1", tenant=name)


@pytest.mark.parametrize("name", ["analytic", "", "public", "acme"])
async def test_an_unknown_schema_is_refused(router: Router, name: str) -> None:
    """A schema is a name that the tenant's file lists; the error lists them and says which is near."""
    async with refused(router, UnknownSchema, "it has: analytics", tenant="acme"):
        await router.fetch_all("SELECT 1", tenant="acme", schema=name)
    with pytest.raises(UnknownSchema, match="Did you mean 'analytics'"):
        router.session("acme", schema="analytic")


async def test_a_name_that_cannot_be_hashed_is_refused(router: Router) -> None:
    """A list in place of a name, as out of a JSON body, is refused like any unknown name."""
    bad: Any = ["acme"]
    async with refused(router, UnknownTenant):
        await router.fetch_all("SELECT 1", tenant=bad)
    async with refused(router, UnknownSchema):
        await router.fetch_all("SELECT 1", tenant="acme", schema=bad)


# --- statements and parameters ---------------------------------------------------------------------------

STATEMENTS: dict[str, tuple[Call, type[RouterError], str]] = {
    "empty": (lambda r: r.fetch_all("", tenant="acme"), StatementError, "empty"),
    "blank": (lambda r: r.execute(" \n ", tenant="acme"), StatementError, "empty"),
    "comment": (lambda r: r.fetch_all("-- nothing", tenant="acme"), StatementError, "empty"),
    "none": (lambda r: r.fetch_all(None, tenant="acme"), StatementError, "not NoneType"),
    "number": (lambda r: r.execute(7, tenant="acme"), StatementError, "not int"),
    "bytes": (lambda r: r.execute(b"SELECT 1", tenant="acme"), StatementError, "not bytes"),
    "nul": (lambda r: r.fetch_all("SELECT 1\0", tenant="acme"), StatementError, "NUL"),
    "raw nul": (lambda r: r.execute_raw("SELECT 1\0", tenant="acme"), StatementError, "NUL"),
    "raw empty": (lambda r: r.execute_raw("  ", tenant="acme"), StatementError, "empty"),
    "raw none": (lambda r: r.execute_raw(None, tenant="acme"), StatementError, "not NoneType"),  # type: ignore[arg-type]
    "surrogate": (lambda r: r.fetch_all("SELECT '\ud800'", tenant="acme"), StatementError, "surrogate"),
    "open literal": (lambda r: r.fetch_all("SELECT 'a", tenant="acme"), StatementError, "not closed"),
    "two": (lambda r: r.fetch_all("SELECT 1; SELECT 2", tenant="acme"), StatementError, "execute_raw()"),
    "begin": (lambda r: r.execute("BEGIN", tenant="acme"), StatementError, "session.transaction()"),
    "syntax": (lambda r: r.fetch_all("SELEKT 1", tenant="acme"), InvalidStatement, "syntax error"),
    "no table": (lambda r: r.fetch_all("SELECT * FROM nope", tenant="acme"), InvalidStatement, "nope"),
    "missing": (lambda r: r.fetch_all("SELECT :a", tenant="acme"), ParameterError, "missing a"),
    "extra": (
        lambda r: r.fetch_all("SELECT 1", {"b": 1}, tenant="acme"),
        ParameterError,
        "unexpected b",
    ),
    "near": (
        lambda r: r.fetch_all("SELECT :name", {"nmae": 1}, tenant="acme"),
        ParameterError,
        "is nmae meant as name?",
    ),
    "list": (lambda r: r.fetch_all("SELECT :a", [1], tenant="acme"), ParameterError, "by name"),  # type: ignore[arg-type]
    "text": (lambda r: r.fetch_all("SELECT :a", "x", tenant="acme"), ParameterError, "by name"),  # type: ignore[arg-type]
    "object": (
        lambda r: r.fetch_all("SELECT CAST(:a AS CHAR(9))", {"a": object()}, tenant="acme"),
        ParameterError,
        "of a type that",
    ),
    "many missing": (
        lambda r: r.execute_many("SELECT :a", [{"a": 1}, {}], tenant="acme"),
        ParameterError,
        "missing a",
    ),
    "many of no mappings": (
        lambda r: r.execute_many("SELECT :a", [1], tenant="acme"),  # type: ignore[list-item]
        ParameterError,
        "by name",
    ),
    "level": (
        lambda r: r.fetch_all("SELECT 1", tenant="acme", consistency="exact"),
        UsageError,
        "eventual",
    ),
    "both": (
        lambda r: r.fetch_all("SELECT 1", tenant="acme", readonly=True, primary=True),
        UsageError,
        "contradict",
    ),
    "zero": (lambda r: r.fetch_all("SELECT 1", tenant="acme", timeout=0), UsageError, "above 0"),
    "negative": (lambda r: r.execute("SELECT 1", tenant="acme", timeout=-1), UsageError, "above 0"),
    "nan": (lambda r: r.execute("SELECT 1", tenant="acme", timeout=float("nan")), UsageError, "above 0"),
    "words": (lambda r: r.execute("SELECT 1", tenant="acme", timeout="1s"), UsageError, "above 0"),
    "raw zero": (lambda r: r.execute_raw("SELECT 1", tenant="acme", timeout=0), UsageError, "above 0"),
    "into": (lambda r: r.fetch_all("SELECT 1 AS a", tenant="acme", into=int), UsageError, "a dataclass"),
    "into one": (lambda r: r.fetch_one("SELECT 1 AS a", tenant="acme", into=[]), UsageError, "a dataclass"),
}


@pytest.mark.parametrize("case", STATEMENTS)
async def test_a_bad_statement_is_refused(router: Router, case: str) -> None:
    """What cannot be run says why and what to do, on every engine alike, and costs no connection."""
    call, kind, word = STATEMENTS[case]
    async with refused(router, kind, word):
        await call(router)


async def test_bad_arguments_are_refused_before_the_statement_runs(router: Router, items: str) -> None:
    """A mistake in into= must not be found after a write has been done."""
    sql = f"INSERT INTO {items} (name) VALUES ('once') RETURNING id"
    async with refused(router, UsageError, "a dataclass"):
        await router.fetch_all(sql, tenant="acme", into=int)
    async with refused(router, UsageError, "a dataclass"):
        await router.fetch_one(sql, tenant="acme", into=int)
    assert await router.fetch_value(f"SELECT count(*) FROM {items}", tenant="acme", primary=True) == 0


@on("postgresql")
async def test_a_wrong_type_names_the_parameter_not_the_value(engine: Engine, router: Router) -> None:
    """Which parameter is said where the driver tells; the value never is."""
    with pytest.raises(ParameterError, match="parameter :b is of a type") as caught:
        await router.fetch_all(
            "SELECT CAST(:a AS int), CAST(:b AS int)", {"a": 1, "b": "bound-canary"}, tenant="acme"
        )
    assert "bound-canary" not in str(caught.value)


async def test_no_rows_for_execute_many_is_no_mistake(router: Router, items: str) -> None:
    """An empty batch changes nothing, and says so with 0."""
    assert await router.execute_many(f"INSERT INTO {items} (name) VALUES (:n)", [], tenant="acme") == 0
    async with router.session("acme") as session, session.transaction() as tx:
        assert await tx.execute_many(f"INSERT INTO {items} (name) VALUES (:n)", []) == 0
    await good(router)


async def test_a_huge_statement_is_run_or_refused_in_time(router: Router) -> None:
    """A megabyte of SQL neither stops the loop for long nor breaks the router."""
    async with asyncio.timeout(10):
        await router.fetch_all(f"SELECT '{'x' * 1_000_000}' AS a", tenant="acme")
        with pytest.raises(RouterError):
            await router.fetch_all(f"SELECT {'(' * 50_000}1{')' * 50_000}", tenant="acme")
    await good(router)


async def test_an_empty_many_is_no_excuse_for_a_bad_statement(router: Router) -> None:
    """Bad text is refused also where there is nothing to run it with."""
    async with refused(router, StatementError, "empty"):
        await router.execute_many("", [], tenant="acme")


# --- the wrong moment ------------------------------------------------------------------------------------


async def test_a_router_that_is_not_open_refuses(engine: Engine) -> None:
    """Before connect() and after close() every call says what the router is and how it is opened."""
    router = Router(engine.config())
    for state in ("not open yet", "closed"):
        for call in (
            lambda: router.session("acme"),
            lambda: router.explain("SELECT 1", tenant="acme"),
        ):
            with pytest.raises(RouterClosed, match=f"the router is {state}. .*async with Router.open"):
                call()
        for verb in (router.fetch_all, router.execute, router.execute_raw, router.fetch_value):
            with pytest.raises(RouterClosed, match=state):
                await verb("SELECT 1", tenant="acme")
        with pytest.raises(RouterClosed, match=state):
            await router.ping()
        await router.close()
    with pytest.raises(RouterClosed, match="Open a new one"):
        await router.connect()


async def test_what_a_closed_router_left_refuses(engine: Engine) -> None:
    """Sessions, transactions and prepared statements of a closed router raise, also on nodes never used."""
    async with engine.open() as router:
        fresh, used = router.session("acme"), router.session("acme")
        await used.fetch_value("SELECT 1", primary=True)
        prepared = await fresh.prepare("SELECT 1")
    for call in (
        lambda: fresh.fetch_all("SELECT 1"),
        lambda: used.execute("SELECT 1", primary=True),
        lambda: prepared.fetch_all(),
        lambda: fresh.begin(),
    ):
        with pytest.raises(RouterClosed):
            await call()


async def test_a_closed_session_refuses(router: Router) -> None:
    """A session that is closed refuses each of its verbs."""
    session = router.session("acme")
    prepared = await session.prepare("SELECT 1")
    await session.close()
    await session.close()
    calls: list[Callable[[], Any]] = [
        lambda: session.fetch_all("SELECT 1"),
        lambda: session.execute("SELECT 1"),
        lambda: session.execute_raw("SELECT 1"),
        lambda: session.prepare("SELECT 1"),
        lambda: session.begin(),
        lambda: session.commit(),
        lambda: prepared.fetch_value(),
        lambda: anext(session.stream("SELECT 1")),
        lambda: session.orm().__aenter__(),
        lambda: session.connection().__aenter__(),
    ]
    for call in calls:
        async with refused(router, RouterClosed, "the session is closed. Open a new one", tenant="acme"):
            await call()


async def test_a_transaction_that_has_ended_refuses(router: Router) -> None:
    """After commit, after rollback, and before it has begun, a transaction refuses statements and ends."""
    async with router.session("acme") as session:
        committed = session.transaction()
        async with committed:
            await committed.fetch_all("SELECT 1")
        rolled_back = await session.begin()
        await session.rollback()
        for transaction in (committed, rolled_back, session.transaction()):
            calls: list[Callable[[], Any]] = [
                lambda tx=transaction: tx.fetch_all("SELECT 1"),  # type: ignore[misc]
                lambda tx=transaction: tx.commit(),  # type: ignore[misc]
                lambda tx=transaction: tx.rollback(),  # type: ignore[misc]
                lambda tx=transaction: tx.savepoint().__aenter__(),  # type: ignore[misc]
                lambda tx=transaction: anext(tx.stream("SELECT 1")),  # type: ignore[misc]
            ]
            for call in calls:
                async with refused(router, TransactionStateError, "not open", "Begin", tenant="acme"):
                    await call()
        async with refused(router, TransactionStateError, "Begin a new one"):
            await committed.begin()
        async with refused(router, TransactionStateError, "Call begin() first", tenant="acme"):
            await session.commit()


async def test_a_transaction_inside_of_a_transaction_is_refused(router: Router) -> None:
    """One session has one transaction; the error names savepoint()."""
    async with router.session("acme") as session:
        async with session.transaction() as tx:
            with pytest.raises(TransactionStateError, match="savepoint"):
                session.transaction()
            with pytest.raises(TransactionStateError, match="savepoint"):
                await session.begin()
            assert await tx.fetch_value("SELECT 1") == 1
        await good(router)


async def test_an_unknown_isolation_level_is_refused(router: Router) -> None:
    """Isolation levels are the four of the standard; anything else never reaches a server."""
    session = router.session("acme")
    async with refused(router, TransactionStateError, "read committed"):
        session.transaction(isolation="snapshot; DROP TABLE t")


async def test_bad_time_limits_are_refused_wherever_one_is_given(router: Router) -> None:
    """timeout= is above zero for sessions, transactions and streams too: 0 does not mean "no limit"."""
    async with refused(router, UsageError, "timeout is 0"):
        router.session("acme", timeout=0)
    async with router.session("acme") as session:
        async with refused(router, UsageError, "timeout is -1"):
            session.transaction(timeout=-1)
        async with refused(router, UsageError, "timeout is 0"):
            await anext(session.stream("SELECT 1", timeout=0))
    async with refused(router, UsageError, "timeout is 0"):
        await router.ping(timeout=0)
    async with refused(router, UsageError, "eventual"):
        router.session("acme", consistency="exact")


async def test_two_tasks_on_one_transaction_are_refused(engine: Engine, router: Router) -> None:
    """A second statement while one runs is refused, on every engine; the first is not harmed."""
    async with router.session("acme") as session, session.transaction() as tx:
        first = asyncio.create_task(tx.fetch_all(engine.sleep(0.2)))
        await asyncio.sleep(0.05)
        with pytest.raises(
            ConcurrentUse, match="Give each task, and each stream, a session of its own"
        ) as caught:
            await tx.fetch_all("SELECT 1")
        assert caught.value.tenant == "acme"
        assert len(await first) == 1
        assert await tx.fetch_value("SELECT 1") == 1
    await good(router)


async def test_another_event_loop_is_refused(engine: Engine, router: Router) -> None:
    """Connections belong to the loop that opened the router; every way in from another says so."""
    await good(router)
    session = router.session("acme")
    transaction = session.transaction()
    found: list[BaseException | None] = []

    async def elsewhere() -> None:
        calls: list[Callable[[], Any]] = [
            lambda: router.fetch_all("SELECT 1", tenant="acme"),
            lambda: session.execute("SELECT 1"),
            lambda: transaction.begin(),
            lambda: anext(session.stream("SELECT 1")),
            lambda: session.connection().__aenter__(),
            lambda: session.orm().__aenter__(),
            lambda: router.ping(),
            lambda: router.close(),
        ]
        for call in calls:
            try:
                await call()
            except BaseException as exc:
                found.append(exc)
            else:
                found.append(None)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert [type(exc) for exc in found] == [WrongEventLoop] * 8, found
    assert "Open one router per loop" in str(found[0])
    await good(router)


async def test_a_transaction_used_from_another_event_loop_is_refused(engine: Engine, router: Router) -> None:
    """Not even the end of a transaction runs on another loop; the transaction goes on where it began."""
    found: list[BaseException] = []

    async def elsewhere(tx: Any) -> None:
        for call in (lambda: tx.fetch_all("SELECT 1"), tx.commit, tx.rollback):
            try:
                await call()
            except BaseException as exc:
                found.append(exc)

    async with router.session("acme") as session, session.transaction() as tx:
        thread = threading.Thread(target=lambda: asyncio.run(elsewhere(tx)))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert [type(exc) for exc in found] == [WrongEventLoop] * 3, found
        assert await tx.fetch_value("SELECT 1") == 1
    await good(router)


# --- servers ---------------------------------------------------------------------------------------------


@on(*SERVED)
async def test_an_unreachable_server_is_told(engine: Engine, unused_tcp_port: int) -> None:
    """Who cannot be reached is named with address and user, for a write and for a read; nothing was sent."""
    dead = {"primary": {"host": "127.0.0.1", "port": unused_tcp_port}, "replicas": []}
    async with engine.open(cluster=dead) as router:
        for verb in (router.execute, router.fetch_all):
            with pytest.raises(ConnectError) as caught:
                await verb("SELECT 1", tenant="acme")
            error = caught.value
            assert f"cannot connect to main/primary at 127.0.0.1:{unused_tcp_port} as router_" in str(error)
            assert "no primary (it had none since this router was opened)" in str(error)
            assert (error.sent.value, error.tenant, error.cluster) == ("no", "acme", "main")
        pings = await router.ping()
        assert [ping.ok for ping in pings] == [False]
        assert "cannot connect" in (pings[0].error or "")


@on(*SERVED)
async def test_an_unreachable_replica_fails_no_read(engine: Engine, unused_tcp_port: int) -> None:
    """A replica that is down costs an attempt; the read is answered."""
    dead = {"replicas": [{"name": "r1", "host": "127.0.0.1", "port": unused_tcp_port}]}
    async with engine.open(cluster=dead) as router:
        await good(router)
        assert [ping.ok for ping in await router.ping()] == [True, False]


@on(*SERVED)
async def test_a_wrong_password_is_told_at_once(engine: Engine) -> None:
    """The server refused the login: AuthenticationFailed, not tried again, without the password."""
    login = {"username": "router_app", "password": f"{CANARY}-wrong"}
    async with engine.open(cluster={"credentials": {"writer": login}}) as router:
        with pytest.raises(errors.AuthenticationFailed) as caught:
            await router.execute("SELECT 1", tenant="acme", primary=True)
        assert "cannot connect to main/primary" in str(caught.value)
        assert "router_app" in str(caught.value)
        assert caught.value.code in ("28P01", "1045")
        assert caught.value.attempts == ()
        assert CANARY not in str(caught.value)


async def test_a_missing_database_is_told(engine: Engine) -> None:
    """A database that is not there is named, and other tenants are not harmed."""
    config = engine.config()
    name = f"{engine.prefix}_gone"
    section = {"isolation": "database", "database": name}
    lost = parse(
        {
            "version": 1,
            "clusters": {"main": engine.cluster()},
            "tenants": {
                "acme": {"cluster": "main", **engine.tenant("acme")},
                "lost": {"cluster": "main", **section},
            },
        },
        config.source,
    )
    async with Router(lost) as router:
        async with (
            refused(router, DatabaseNotFound, name, tenant="lost")
            if not isinstance(engine, Sqlite)
            else _nothing()
        ):
            await router.fetch_all("SELECT 1", tenant="lost")
        await good(router)


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    """SQLite creates the file with the first use of the writer."""
    yield


@on("postgresql-schema")
async def test_a_missing_schema_is_told(engine: Engine) -> None:
    """A schema that is not there is an error, never the next one on a search path."""
    async with engine.open(("acme", "nowhere")) as router:
        for verb in (router.execute, router.fetch_all):
            async with refused(
                router, DatabaseNotFound, "schema 'nowhere' does not exist", "Create it", tenant="nowhere"
            ):
                await verb("SELECT 1", tenant="nowhere")


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """SQLite's folder may be in the way of a file: an error of ours, not sqlite3's."""
    (tmp_path / "data").write_text("a file, not a folder")
    async with Sqlite(tmp_path).open() as router:
        with pytest.raises(ConnectError, match="cannot connect to main/primary"):
            await router.execute("CREATE TABLE t (a INT)", tenant="acme")


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    """A file of something else under the database's name is refused, and left as it is."""
    engine = Sqlite(tmp_path)
    (tmp_path / "data").mkdir()
    engine.file("acme").write_text("this is not a database " * 100)
    async with engine.open() as router:
        with pytest.raises(ConnectError):
            await router.execute("CREATE TABLE t (a INT)", tenant="acme")
    assert engine.file("acme").read_text().startswith("this is not")
