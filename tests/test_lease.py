"""Leases on real servers: what a tenant leaves on a connection is gone before the next one gets it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from router import Router
from router.errors import CommitOutcomeUnknown, ConcurrentUse, DatabaseError, InvalidStatement
from router.events import CommitUnknown, ConnectionClosed, ConnectionOpened
from tests.engines import Engine, Recorder, Sqlite


def on(*engines: str) -> pytest.MarkDecorator:
    """Run a test on these engines only."""
    return pytest.mark.parametrize("engine", engines, indirect=True, scope="module")


SERVED = ("postgresql", "postgresql-schema", "mariadb")


@asynccontextmanager
async def single(engine: Engine, **cluster: Any) -> AsyncIterator[tuple[Router, Recorder]]:
    """Open a router with one connection to the primary, so that the next request must get the same."""
    section = {
        "connections": {"max": 1},
        **({} if isinstance(engine, Sqlite) else {"replicas": []}),
        **cluster,
    }
    async with engine.open(cluster=section) as router:
        yield router, Recorder(router)


async def value(router: Router, sql: str, tenant: str = "acme") -> Any:
    return await router.fetch_value(sql, tenant=tenant, primary=True)


def connections(heard: Recorder) -> tuple[int, list[str]]:
    """Return how many connections were opened, and why some were closed."""
    return len(heard.of(ConnectionOpened)), [event.reason for event in heard.of(ConnectionClosed)]


POSTGRESQL: dict[str, tuple[str, str, Any]] = {
    # what is done, how it shows, what must show afterwards
    "setting": ("SET work_mem = '5MB'", "SELECT current_setting('work_mem')", "4MB"),
    "search path": ("SET search_path = pg_catalog", "SELECT current_schema()", "acme|public"),
    "set_config": (
        "SELECT set_config('search_path', 'pg_catalog', false)",
        "SELECT current_schema()",
        "acme|public",
    ),
    "own setting": ("SET app.tenant = 'acme'", "SELECT current_setting('app.tenant', true)", "|None"),
    "role": ("SET ROLE pg_monitor", "SELECT current_user", "router_app"),
    "advisory lock": (
        "SELECT pg_advisory_lock(77)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "0",
    ),
    "temporary table": (
        "CREATE TEMPORARY TABLE left_over (a int)",
        "SELECT count(*) FROM pg_class WHERE relname = 'left_over'",
        "0",
    ),
    "listen": ("LISTEN channel", "SELECT count(*) FROM pg_listening_channels()", "0"),
    "cursor": (
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) FROM pg_cursors WHERE is_holdable",
        "0",
    ),
    "writable": ("SET default_transaction_read_only = off", "SHOW default_transaction_read_only", "off"),
    "statement timeout": (
        "SET statement_timeout = 1",
        "SHOW statement_timeout",
        "33s",
    ),  # the wall: 30 s and a tenth
}


@pytest.fixture
def member(engine: Engine) -> Iterator[None]:
    """Let router_app take another role, for one test."""
    engine.server.run("GRANT pg_monitor TO router_app")
    yield
    engine.server.run("REVOKE pg_monitor FROM router_app")


@on("postgresql", "postgresql-schema")
@pytest.mark.usefixtures("member")
@pytest.mark.parametrize("case", POSTGRESQL)
async def test_postgresql_forgets_what_a_tenant_did(engine: Engine, case: str) -> None:
    """Session state of PostgreSQL does not reach the next tenant; a reset or a new connection sees to it."""
    done, shown, expected = POSTGRESQL[case]
    async with single(engine) as (router, heard):
        await router.fetch_all(done, tenant="acme", primary=True)
        seen = {str(await value(router, shown, tenant)) for tenant in ("globex", "acme")}
        if case in ("search path", "set_config"):
            seen = {str(await value(router, shown))}
        assert seen <= {*expected.split("|"), ""}, seen
        opened, reasons = connections(heard)
        if engine.id == "postgresql-schema":
            assert (opened, reasons) in ((1, []), (2, ["dirty"])), "either reset or replaced"


@on(*SERVED)
async def test_a_reset_keeps_the_connection(engine: Engine) -> None:
    """What a reset can undo costs no new connection."""
    text = "SET work_mem = '5MB'" if engine.dialect == "postgresql" else "SET @a = 1"
    async with single(engine) as (router, heard):
        for _ in range(3):
            await router.execute(text, tenant="acme")
            assert await value(router, "SELECT 1") == 1
        assert connections(heard) == (1, [])


MARIADB: dict[str, tuple[str, str, Any]] = {
    "user variable": ("SET @left = 'over'", "SELECT @left", None),
    "assigned in a query": ("SELECT @left := 7", "SELECT @left", None),
    "sql mode": ("SET sql_mode = ''", "SELECT @@sql_mode = @@GLOBAL.sql_mode", 1),
    "temporary table": (
        "CREATE TEMPORARY TABLE left_over (a int)",
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'left_over'",
        0,
    ),
    "lock": ("SELECT GET_LOCK('left', 1)", "SELECT IS_USED_LOCK('left')", None),
    "use": ("USE mysql", "SELECT DATABASE() = 'mysql'", 0),
    "autocommit": ("SET autocommit = 0", "SELECT @@autocommit", 1),
    "character set": ("SET NAMES latin1", "SELECT @@character_set_client", "utf8mb4"),
    "foreign keys": ("SET foreign_key_checks = 0", "SELECT @@foreign_key_checks", 1),
}


@on("mariadb")
@pytest.mark.parametrize("case", MARIADB)
async def test_mariadb_forgets_what_a_tenant_did(engine: Engine, case: str) -> None:
    """The same for MariaDB, where all tenants share the connections of a node."""
    done, shown, expected = MARIADB[case]
    async with single(engine) as (router, heard):
        await router.fetch_all(done, tenant="acme", primary=True)
        for tenant in ("globex", "acme"):
            assert await value(router, shown, tenant) == expected
            assert await value(router, "SELECT DATABASE()", tenant) == f"{engine.prefix}_{tenant}"
        opened, reasons = connections(heard)
        assert (opened, reasons) in ((1, []), (2, ["dirty"])), "either reset or replaced"


@on(*SERVED)
async def test_a_replica_stays_read_only_after_a_reset(engine: Engine, items: str) -> None:
    """A tenant that makes its replica session writable does not leave it so."""
    await engine.settle()
    off = (
        "SET default_transaction_read_only = off"
        if engine.dialect == "postgresql"
        else "SET SESSION TRANSACTION READ WRITE"
    )
    shown = (
        "SHOW default_transaction_read_only" if engine.dialect == "postgresql" else "SELECT @@tx_read_only"
    )
    replica = engine.cluster()["replicas"][0]
    async with engine.open(cluster={"replicas": [replica], "connections": {"max": 1}}) as router:
        before = await router.fetch_value(shown, tenant="acme", readonly=True)
        await router.execute(off, tenant="acme", readonly=True)
        assert await router.fetch_value(shown, tenant="acme", readonly=True) == before
        assert before in ("on", 1)


async def test_a_lent_connection_is_not_reused(engine: Engine) -> None:
    """Whoever had the driver's own connection in hands may have done anything to it."""
    async with single(engine) as (router, heard):
        async with router.session("acme").connection() as lease:
            raw = lease.connection.driver_connection
        async with router.session("acme").connection() as lease:
            assert lease.connection.driver_connection is not raw
        assert connections(heard)[1] == ["lent", "lent"][: len(connections(heard)[1])]


async def test_a_lease_serves_one_statement_at_a_time(engine: Engine) -> None:
    """A lease that is busy refuses a second statement instead of mixing their answers."""
    async with single(engine) as (router, _), router.session("acme").connection() as lease:
        first = asyncio.create_task(lease.run("fetch_all", engine.sleep(0.1), (), 5.0))
        await asyncio.sleep(0.02)
        with pytest.raises(ConcurrentUse):
            await lease.run("fetch_all", "SELECT 1", (), 5.0)
        assert len(await first) == 1


async def test_a_failed_statement_leaves_the_connection_usable(engine: Engine) -> None:
    """An error that the server answered with does not cost the connection."""
    async with single(engine) as (router, heard):
        for _ in range(3):
            with pytest.raises((InvalidStatement, DatabaseError)):
                await router.fetch_all("SELECT * FROM nope", tenant="acme", primary=True)
        assert connections(heard) == (1, [])


# --- the reply to a commit is lost -----------------------------------------------------------------------


class Cutter:
    """Stand between router and server; once armed, cut the wire instead of the answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.armed: bytes | None = None  # text of the request whose answer is not passed on
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[int]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._writers:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, before = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers += [writer, before]
        cut = asyncio.Event()

        async def there() -> None:
            while data := await reader.read(65536):
                if self.armed is not None and self.armed in data:
                    cut.set()
                    self.armed = None
                before.write(data)
            before.close()

        async def back() -> None:
            while data := await behind.read(65536):
                if cut.is_set():
                    break
                writer.write(data)
            writer.close()
            before.close()

        for work in (there, back):
            task = asyncio.create_task(work())
            self._tasks.add(task)


@pytest.fixture
async def cut(engine: Engine) -> AsyncIterator[tuple[Router, Cutter]]:
    """Open a router whose wire to the primary can be cut."""
    cutter = Cutter(engine.server.primary.port)
    async with (
        cutter.listen() as port,
        engine.open(cluster={"primary": {"host": "127.0.0.1", "port": port}, "replicas": []}) as router,
    ):
        yield router, cutter


@on(*SERVED)
async def test_a_commit_whose_answer_is_lost_is_unknown(cut: tuple[Router, Cutter], engine: Engine) -> None:
    """The server committed, the answer never came: CommitOutcomeUnknown, and the row is there once."""
    router, cutter = cut
    heard, table = Recorder(router), engine.name()
    await router.execute(f"CREATE TABLE {table} (a INT)", tenant="acme")
    with pytest.raises(CommitOutcomeUnknown, match="may have been applied, or not"):
        async with router.session("acme") as session, session.transaction() as tx:
            await tx.execute(f"INSERT INTO {table} VALUES (1)")
            cutter.armed = b"COMMIT"
    assert len(heard.of(CommitUnknown)) == 1
    assert await value(router, f"SELECT count(*) FROM {table}") == 1


@on(*SERVED)
async def test_an_autocommit_write_whose_answer_is_lost_is_not_repeated(
    cut: tuple[Router, Cutter], engine: Engine
) -> None:
    """The server executed, the answer never came: not repeated, unless the caller said that it may be."""
    router, cutter = cut
    table = engine.name()
    await router.execute(f"CREATE TABLE {table} (a INT)", tenant="acme")
    insert = f"INSERT INTO {table} VALUES (1)"
    calls: list[Callable[[], Any]] = [
        lambda: router.execute(insert, tenant="acme"),
        lambda: router.fetch_all(insert, tenant="acme"),
        lambda: router.execute_raw(insert, tenant="acme"),
    ]
    if engine.dialect == "postgresql":
        calls = calls[
            2:
        ]  # the others prepare first: cutting that answer leaves a write that was not executed
    for number, call in enumerate(calls, 1):
        cutter.armed = insert.encode()  # the name alone, such as t4, may be part of int4
        with pytest.raises(CommitOutcomeUnknown):
            await call()
        assert await value(router, f"SELECT count(*) FROM {table}") == number
