"""What may be repeated, code by code: each is provoked on a real server, and judged as the table says.

Not provoked, for want of a server that does it at will: SQLSTATE 40003, 08007, 25P04, 53100, 53200, 58xxx and
XX000; MySQL's 1047, 1129, 1158 to 1161, 1180, 1181, 1836, 2014, 2027, 2055, 3024, 3100, 3101, 3572 and 4031;
SQLite's IOERR and PROTOCOL. Their classes are in ``test_codes_that_no_server_gives_at_will``.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import asyncpg
import pytest
from pymysql import err

from router import Router, errors, predicates
from router.drivers import mysql_errors, postgresql_errors, sqlite_errors
from router.drivers.driver import Endpoint, Login
from router.drivers.registry import driver_for
from router.errors import RouterError, Sent
from router.events import RetryScheduled
from router.retries import Verdict, judge, judge_transaction, outcome_unknown
from router.topology import Node, Role
from router.transaction import Transaction
from tests.engines import Engine, Recorder, Sqlite, only

R, A, E, P = Verdict.RAISE, Verdict.AGAIN, Verdict.ELSEWHERE, Verdict.PRIMARY


class Row(NamedTuple):
    """Hold a row of the table: what the error is, and what follows from it."""

    kind: type[RouterError]
    replica: Verdict  # of a read on a replica
    primary: Verdict  # of a read, or a write declared idempotent, on the primary
    write: Verdict  # of any other write
    whole: bool  # whether the whole transaction may run again
    unknown: bool = False  # whether it leaves the outcome of a commit open


CONFLICT = (E, A, R, True)
LOST = (E, A, R, True, True)
NEVER = (R, R, R, False)
ROWS = {
    "40001": Row(errors.SerializationFailure, *CONFLICT),
    "40P01": Row(errors.Deadlock, *CONFLICT),
    "55P03": Row(errors.LockTimeout, *CONFLICT),
    "55006": Row(errors.LockTimeout, *CONFLICT),
    "57014": Row(errors.StatementCancelled, *CONFLICT),
    "25006": Row(errors.ReadOnlyViolation, P, A, A, True),
    "25P02": Row(errors.TransactionAborted, *NEVER),
    "0A000": Row(errors.StaleStatement, A, A, A, True),
    "26000": Row(errors.StaleStatement, A, A, A, True),
    "53300": Row(errors.TooManyConnections, E, A, A, True),
    "53400": Row(errors.ServerError, E, R, R, False),  # temp_file_limit, as PostgreSQL 15 uses it
    "28P01": Row(errors.AuthenticationFailed, *NEVER),
    "3D000": Row(errors.DatabaseNotFound, E, R, R, False),
    "42P01": Row(errors.InvalidStatement, *NEVER),
    "22012": Row(errors.DataError, *NEVER),
    "23505": Row(errors.UniqueViolation, *NEVER),
    "1213": Row(errors.Deadlock, *CONFLICT),
    "1205": Row(errors.LockTimeout, *CONFLICT),
    "1020": Row(errors.SerializationFailure, *CONFLICT),
    "1317": Row(errors.StatementCancelled, *CONFLICT),
    "1969": Row(errors.StatementTimeout, *NEVER),
    "1290": Row(errors.ReadOnlyViolation, P, A, A, True),
    "1792": Row(errors.ReadOnlyViolation, P, A, A, True),
    "1226": Row(errors.TooManyConnections, E, A, A, True),
    "2013": Row(errors.ConnectionLost, *LOST),
    "1045": Row(errors.AuthenticationFailed, *NEVER),
    "1062": Row(errors.UniqueViolation, *NEVER),
    "1146": Row(errors.InvalidStatement, *NEVER),
    "SQLITE_BUSY": Row(errors.LockTimeout, *CONFLICT),
    "SQLITE_BUSY_SNAPSHOT": Row(errors.SerializationFailure, *CONFLICT),
    "SQLITE_LOCKED": Row(errors.LockTimeout, *CONFLICT),
    "SQLITE_READONLY": Row(errors.ReadOnlyViolation, P, R, R, False),
    "SQLITE_FULL": Row(errors.ServerError, E, R, R, False),
    "SQLITE_CORRUPT": Row(errors.ServerError, E, R, R, False),
    "SQLITE_NOTADB": Row(errors.DatabaseNotFound, E, R, R, False),
    "SQLITE_CANTOPEN": Row(errors.DatabaseNotFound, E, R, R, False),
}
# What a client without these codes is told: "no answer", see M in the drivers' translation.
LOST_ROW = Row(errors.ConnectionLost, *LOST)
GONE_ROW = Row(errors.ConnectionLost, E, A, A, True)


def check(error: RouterError, row: Row) -> None:
    """Compare an error with its row."""
    assert type(error) is row.kind, error
    assert judge(error, idempotent=True, on_replica=True) is row.replica
    assert judge(error, idempotent=True, on_replica=False) is row.primary
    assert judge(error, idempotent=False, on_replica=False) is row.write
    assert judge_transaction(error, commit_sent=False) is row.whole
    assert outcome_unknown(error) is row.unknown
    if row.kind is not errors.ReadOnlyViolation:  # whose second run only a change of roles can cure
        assert predicates.is_retryable(error) is row.whole


class Bench(SimpleNamespace):
    """Hold a router, its engine and a table with one row; ``other`` is a second router on the same."""

    router: Router
    other: Router
    engine: Engine
    items: str

    def run(self, sql: str) -> str:
        """Run SQL on the server with all rights."""
        return str(self.engine.server.run(sql, self.database))

    @property
    def database(self) -> str:
        """Return the name of the tenant's database."""
        return str(self.engine.tenant("acme")["database"])

    async def until(self, sql: str) -> None:
        """Wait until the server answers with something other than nothing or 0."""
        async with asyncio.timeout(30):
            while (await asyncio.to_thread(self.run, sql)) in ("", "0"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
async def bench(engine: Engine, router: Router, items: str) -> Any:
    """Give a table with one row, and a second router."""
    await router.execute(f"INSERT INTO {items} (name, amount) VALUES ('a', 1)", tenant="acme")
    async with engine.open(connections=1) as other:
        yield Bench(router=router, other=other, engine=engine, items=items)


async def failing(work: Awaitable[object]) -> RouterError:
    """Return the error that ``work`` raises."""
    with pytest.raises(RouterError) as caught:
        await work
    return caught.value


@contextlib.asynccontextmanager
async def locked(bench: Bench) -> Any:
    """Hold the lock of the row in another transaction."""
    async with bench.other.session("acme") as session, session.transaction() as tx:
        await tx.execute(f"UPDATE {bench.items} SET amount = 9 WHERE id = 1")
        yield


async def in_tx(bench: Bench, *texts: str, router: Router | None = None, wait: float = 0.0) -> object:
    """Run texts in one transaction, one after the other."""
    async with (router or bench.router).session("acme").transaction() as tx:
        for text in texts[:-1]:
            await tx.execute(text)
        await asyncio.sleep(wait)
        return await tx.fetch_all(texts[-1])


# --- PostgreSQL ------------------------------------------------------------------------------------------


# no longer being prepared, but run
ASLEEP = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%{}%'"


async def pg_40001(b: Bench) -> RouterError:
    async def conflict() -> None:
        async with b.router.session("acme").transaction(isolation="repeatable read") as tx:
            await tx.fetch_all(f"SELECT * FROM {b.items}")
            await b.other.execute(f"UPDATE {b.items} SET amount = 9", tenant="acme")
            await tx.execute(f"UPDATE {b.items} SET amount = 8")

    return await failing(conflict())


async def pg_40p01(b: Bench) -> RouterError:
    return await deadlock(b)


async def deadlock(b: Bench) -> RouterError:
    await b.router.execute(f"INSERT INTO {b.items} (name, amount) VALUES ('b', 1)", tenant="acme")
    meet = asyncio.Barrier(2)

    async def cross(router: Router, first: str, second: str) -> None:
        async with router.session("acme").transaction() as tx:
            await tx.execute(f"UPDATE {b.items} SET amount = 2 WHERE name = '{first}'")
            await meet.wait()
            await tx.execute(f"UPDATE {b.items} SET amount = 2 WHERE name = '{second}'")

    ended = await asyncio.gather(cross(b.router, "a", "b"), cross(b.other, "b", "a"), return_exceptions=True)
    (error,) = (each for each in ended if isinstance(each, RouterError))
    return error


async def pg_55p03(b: Bench) -> RouterError:
    async with locked(b):
        return await failing(in_tx(b, f"SELECT * FROM {b.items} FOR UPDATE NOWAIT"))


async def pg_55006(b: Bench) -> RouterError:
    use = (f"DECLARE c CURSOR FOR SELECT * FROM {b.items}", "FETCH 1 FROM c", f"DROP TABLE {b.items}")
    return await failing(in_tx(b, *use))


async def pg_57014(b: Bench) -> RouterError:
    sleep = asyncio.create_task(failing(in_tx(b, "SELECT 'cancel me' FROM pg_sleep(60)")))
    await b.until(f"SELECT count(pg_cancel_backend(pid)) {ASLEEP.format('cancel m_')}")
    return await sleep


async def pg_25006(b: Bench) -> RouterError:
    return await failing(in_tx(b, "SET TRANSACTION READ ONLY", f"DELETE FROM {b.items} RETURNING 1"))


async def pg_25p02(b: Bench) -> RouterError:
    async def go_on() -> None:
        async with b.router.session("acme").transaction() as tx:
            with contextlib.suppress(errors.DataError):
                await tx.fetch_all("SELECT 1 / 0")
            await tx.fetch_all("SELECT 1")

    return await failing(go_on())


async def pg_0a000(b: Bench) -> RouterError:
    sql = f"SELECT * FROM {b.items}"
    await in_tx(b, sql, router=b.other)
    await b.router.execute(f"ALTER TABLE {b.items} ADD COLUMN more INT", tenant="acme")
    return await failing(in_tx(b, sql, router=b.other))


async def pg_26000(b: Bench) -> RouterError:
    async def forget() -> None:
        async with b.other.session("acme").transaction() as tx:
            await tx.fetch_all("SELECT 1")
            await tx.execute_raw("DEALLOCATE ALL")
            await tx.fetch_all("SELECT 1")

    return await failing(forget())


async def pg_53300(b: Bench) -> RouterError:
    b.run(f"ALTER DATABASE {b.database} CONNECTION LIMIT 0")
    try:
        return await failing(in_tx(b, "SELECT 1", router=b.other))
    finally:
        b.run(f"ALTER DATABASE {b.database} CONNECTION LIMIT -1")


async def pg_53400(b: Bench) -> RouterError:
    b.run(f"ALTER DATABASE {b.database} SET temp_file_limit = '64kB'")
    b.run(f"ALTER DATABASE {b.database} SET work_mem = '64kB'")
    try:
        big = "SELECT max(n) FROM (SELECT n FROM generate_series(1, 100000) n ORDER BY -n) q GROUP BY n % 9"
        return await failing(in_tx(b, big, router=b.other))
    finally:
        b.run(f"ALTER DATABASE {b.database} RESET ALL; ALTER DATABASE {b.database} SET deadlock_timeout = 30")


async def bad_password(b: Bench) -> RouterError:
    login = {**b.engine.login("router_app"), "password": "wrong"}  # type: ignore[attr-defined]
    async with b.engine.open(cluster={"credentials": {"writer": login}}) as router:
        return await failing(in_tx(b, "SELECT 1", router=router))


async def pg_3d000(b: Bench) -> RouterError:
    target = b.other.session("acme")._target
    target.database = "nowhere"
    return await failing(in_tx(b, "SELECT 1", router=b.other))


def one(text: str) -> Callable[[Bench], Awaitable[RouterError]]:
    """Return what makes a single statement of ``text`` fail."""

    async def provoke(b: Bench) -> RouterError:
        return await failing(b.router.fetch_all(text.format(b.items), tenant="acme", primary=True))

    return provoke


PG: dict[str, Callable[[Bench], Awaitable[RouterError]]] = {
    "40001": pg_40001,
    "40P01": pg_40p01,
    "55P03": pg_55p03,
    "55006": pg_55006,
    "57014": pg_57014,
    "25006": pg_25006,
    "25P02": pg_25p02,
    "0A000": pg_0a000,
    "26000": pg_26000,
    "53300": pg_53300,
    "53400": pg_53400,
    "28P01": bad_password,
    "3D000": pg_3d000,
    "42P01": one("SELECT * FROM nowhere"),
    "22012": one("SELECT 1 / 0"),
    "23505": one("INSERT INTO {} (name) VALUES ('a') RETURNING 1"),
}


@only("postgresql")
@pytest.mark.parametrize("code", PG)
async def test_postgresql(bench: Bench, code: str) -> None:
    """Each SQLSTATE has its class, and is judged as the table says (fault cases 5, 8, 27)."""
    error = await PG[code](bench)
    assert error.code == code
    check(error, ROWS[code])


@only("postgresql")
@pytest.mark.parametrize("setting", ["idle_session_timeout", "idle_in_transaction_session_timeout"])
async def test_a_session_that_postgresql_closed_while_it_idled(
    bench: Bench, setting: str, heard: Recorder
) -> None:
    """57P05 costs nobody anything; after 25P03 nothing was sent, the connection goes (fault case 7)."""
    if setting == "idle_session_timeout":
        async with bench.engine.open(
            connections=1, cluster={"server_settings": {setting: 50}, "replicas": []}
        ) as router:
            told = Recorder(router)
            await router.fetch_all("SELECT 1", tenant="acme")
            await asyncio.sleep(0.3)
            await router.execute(f"UPDATE {bench.items} SET amount = 5", tenant="acme")
            assert (told.last.attempts, told.of(RetryScheduled)) == (1, [])
        return
    error = await failing(in_tx(bench, f"SET LOCAL {setting} = 50", "SELECT 1", wait=0.3))
    check(error, GONE_ROW)  # asyncpg has dropped the server's words: nothing tells it from a lost connection
    assert bench.router.status().pools[0].in_use == 0


@only("postgresql")
async def test_a_backend_that_is_ended(bench: Bench) -> None:
    """57P01 in mid-statement reads as a lost connection: whether it was applied is open (fault case 2)."""
    sleep = asyncio.create_task(failing(in_tx(bench, "SELECT 'end me' FROM pg_sleep(60)")))
    await bench.until(f"SELECT count(pg_terminate_backend(pid)) {ASLEEP.format('end m_')}")
    check(await sleep, LOST_ROW)


# --- MariaDB ---------------------------------------------------------------------------------------------


async def my_1205(b: Bench) -> RouterError:
    async with locked(b):
        return await failing(
            in_tx(b, "SET SESSION innodb_lock_wait_timeout = 0", f"SELECT * FROM {b.items} FOR UPDATE")
        )


async def my_1020(b: Bench) -> RouterError:
    async def conflict() -> None:
        async with b.router.session("acme").transaction(isolation="repeatable read") as tx:
            await tx.execute("SET SESSION innodb_snapshot_isolation = ON")
            await tx.fetch_all(f"SELECT * FROM {b.items}")
            await b.other.execute(f"UPDATE {b.items} SET amount = 9", tenant="acme")
            await tx.execute(f"UPDATE {b.items} SET amount = 8")

    return await failing(conflict())


async def killed(b: Bench, how: str) -> RouterError:
    sleep = asyncio.create_task(failing(in_tx(b, "SELECT 7 + SLEEP(60) AS kill_me")))
    found = (
        "SELECT id FROM information_schema.processlist "
        "WHERE info LIKE '%kill\\_m_%' AND id <> connection_id()"
    )
    await b.until(found)
    b.run(f"KILL {how} {b.run(found)}")
    return await sleep


async def my_1969(b: Bench) -> RouterError:
    return await failing(in_tx(b, "SET SESSION max_statement_time = 0.05", "SELECT SLEEP(60)"))


async def my_1290(b: Bench) -> RouterError:
    b.run("SET GLOBAL read_only = ON")
    try:
        return await failing(in_tx(b, f"DELETE FROM {b.items}"))
    finally:
        b.run("SET GLOBAL read_only = OFF")


async def my_1792(b: Bench) -> RouterError:
    lease = b.router.session("acme").connection()
    async with lease as lent:
        await lent.run("control", "START TRANSACTION READ ONLY", 5.0)
        return await failing(lent.run("execute", f"DELETE FROM {b.items}", (), 5.0))


async def my_1226(b: Bench) -> RouterError:
    b.run("GRANT USAGE ON *.* TO router_app@'%' WITH MAX_USER_CONNECTIONS 2")
    try:
        async with (
            b.engine.open(cluster={"checks": {"interval": "1h", "timeout": "5s"}}) as first,
            b.engine.open(cluster={"checks": {"interval": "1h", "timeout": "5s"}}) as second,
            first.session("acme").transaction(),  # one, and a probe the other
        ):
            # of a pool that has a connection it would wait for that one
            return await failing(in_tx(b, "SELECT 1", router=second))
    finally:
        b.run("GRANT USAGE ON *.* TO router_app@'%' WITH MAX_USER_CONNECTIONS 0")


MY: dict[str, Callable[[Bench], Awaitable[RouterError]]] = {
    "1213": deadlock,
    "1205": my_1205,
    "1020": my_1020,
    "1317": lambda b: killed(b, "QUERY"),
    "1969": my_1969,
    "1290": my_1290,
    "1792": my_1792,
    "1226": my_1226,
    "2013": lambda b: killed(b, "CONNECTION"),
    "1045": bad_password,
    "1062": one("INSERT INTO {} (name) VALUES ('a') RETURNING 1"),
    "1146": one("SELECT * FROM nowhere"),
}


@only("mariadb")
@pytest.mark.parametrize("code", MY)
async def test_mariadb(bench: Bench, code: str) -> None:
    """Each error number has its class, and is judged as the table says (fault cases 5, 6, 8)."""
    error = await MY[code](bench)
    assert error.code == code
    check(error, ROWS[code])


# --- SQLite ----------------------------------------------------------------------------------------------


async def lite_busy(b: Bench) -> RouterError:
    with contextlib.closing(sqlite3.connect(b.engine.file("acme"), isolation_level=None)) as other:  # type: ignore[attr-defined]
        other.execute("BEGIN IMMEDIATE")
        async with b.engine.open(cluster={"options": {"timeout": 0.01}}) as router:
            return await failing(router.execute(f"DELETE FROM {b.items}", tenant="acme"))


async def lite_snapshot(b: Bench) -> RouterError:
    async with b.other.session("acme").connection() as lent:
        await lent.run("begin", readonly=True, isolation=None, timeout=5.0)  # deferred
        await lent.run("fetch_all", f"SELECT * FROM {b.items}", (), 5.0)
        with contextlib.closing(sqlite3.connect(b.engine.file("acme"))) as other, other:  # type: ignore[attr-defined]
            other.execute(f"UPDATE {b.items} SET amount = 9")
        return await failing(lent.run("execute", f"DELETE FROM {b.items}", (), 5.0))


async def lite_locked(b: Bench) -> RouterError:
    await b.router.execute(f"INSERT INTO {b.items} (name) VALUES ('b')", tenant="acme")
    async with b.other.session("acme").connection() as lent:
        raw = lent.connection.driver_connection
        async with raw.execute(f"SELECT * FROM {b.items}") as cursor:
            await cursor.fetchone()
            return await failing(lent.run("execute", f"DROP TABLE {b.items}", (), 5.0))


async def lite_pragma(b: Bench, *texts: str) -> RouterError:
    async with b.other.session("acme").connection() as lent:
        for text in texts[:-1]:
            await lent.run("execute", text, (), 5.0)
        return await failing(lent.run("execute", texts[-1], (), 5.0))


async def lite_broken(b: Bench, name: str, content: bytes, offset: int = 0) -> RouterError:
    """Return the error of a database file with something wrong in it."""
    assert isinstance(b.engine, Sqlite)
    file = b.engine.file(name)
    with contextlib.closing(sqlite3.connect(file)) as made, made:
        made.execute("CREATE TABLE t (a TEXT)")
        made.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 200)
    data = bytearray(file.read_bytes())
    data[offset : offset + len(content)] = content
    file.write_bytes(data)
    async with b.engine.open((name,)) as router:
        return await failing(router.fetch_all("SELECT a FROM t", tenant=name, primary=True))


async def lite_cantopen(b: Bench) -> RouterError:
    b.engine.file("folder").mkdir(exist_ok=True)  # type: ignore[attr-defined]
    async with b.engine.open(("folder",)) as router:
        return await failing(router.execute("CREATE TABLE t (a INT)", tenant="folder"))


LITE: dict[str, Callable[[Bench], Awaitable[RouterError]]] = {
    "SQLITE_BUSY": lite_busy,
    "SQLITE_BUSY_SNAPSHOT": lite_snapshot,
    "SQLITE_LOCKED": lite_locked,
    "SQLITE_READONLY": lambda b: lite_pragma(b, "PRAGMA query_only = ON", f"DELETE FROM {b.items}"),
    "SQLITE_FULL": lambda b: lite_pragma(
        b, "PRAGMA max_page_count = 5", "CREATE TABLE large AS SELECT zeroblob(1000000) AS a"
    ),
    "SQLITE_CORRUPT": lambda b: lite_broken(b, "corrupt", b"\xff" * 4096, 4096),
    "SQLITE_NOTADB": lambda b: lite_broken(b, "notadb", b"no database, but text " * 5),
    "SQLITE_CANTOPEN": lite_cantopen,
}


@only("sqlite")
@pytest.mark.parametrize("code", LITE)
async def test_sqlite(bench: Bench, code: str) -> None:
    """Each result code has its class, and is judged as the table says."""
    error = await LITE[code](bench)
    assert error.code == code
    check(error, ROWS[code])


# --- what no server gives at will ------------------------------------------------------------------------


def pg(code: str) -> RouterError:
    """Return our error of a SQLSTATE."""
    made = asyncpg.PostgresError.new({"C": code, "M": "words"})
    return postgresql_errors.translate(made)


def my(number: int, text: str = "words") -> RouterError:
    """Return our error of an error number."""
    return mysql_errors.translate(err.OperationalError(number, text))


def lite(code: int) -> RouterError:
    """Return our error of a result code."""
    made = sqlite3.OperationalError("words")
    made.sqlite_errorcode, made.sqlite_errorname = code, "NAME"
    return sqlite_errors.translate(made)


SERVER = Row(errors.ServerError, E, R, R, False)
CONNECT = Row(errors.ConnectError, E, A, A, True)


@pytest.mark.parametrize(
    ("error", "row"),
    [
        *((pg(code), LOST_ROW) for code in ("40003", "08007", "08000", "08003", "08006", "08P01")),
        *((pg(code), LOST_ROW) for code in ("57P01", "57P02", "57P04", "57P05")),
        *((pg(code), LOST_ROW._replace(whole=False)) for code in ("25P03", "25P04")),
        *((pg(code), CONNECT) for code in ("08001", "08004", "57P03")),
        *((pg(code), SERVER) for code in ("53100", "53200", "58000", "58030", "XX000", "XX001")),
        *((pg(code), Row(errors.IntegrityError, *NEVER)) for code in ("23P01", "23001")),
        *((my(n), LOST_ROW) for n in (1053, 1158, 1159, 1160, 1161, 1180, 1181, 1927)),
        *((my(n), LOST_ROW) for n in (2006, 2013, 2014, 2027, 2055, 4031)),
        *((my(n), CONNECT) for n in (1047, 1129, 2002, 2003, 2005)),
        *((my(n), Row(errors.TooManyConnections, E, A, A, True)) for n in (1040, 1203)),
        *((my(n), Row(errors.ReadOnlyViolation, P, A, A, True)) for n in (1836, 3100)),
        (my(1290, "running with the --read-only option"), ROWS["1290"]),
        (my(1290, "running with the --secure-file-priv option"), Row(errors.DatabaseError, *NEVER)),
        (my(3101), Row(errors.SerializationFailure, *CONFLICT)),
        (my(3572), Row(errors.LockTimeout, *CONFLICT)),
        (my(3024), Row(errors.StatementTimeout, *NEVER)),
        *((lite(n), Row(errors.LockTimeout, *CONFLICT)) for n in (261, 773, 262, 15)),
        (lite(10), SERVER),
    ],
    ids=lambda value: f"{value.code}" if isinstance(value, RouterError) else "",
)
def test_codes_that_no_server_gives_at_will(error: RouterError, row: Row) -> None:
    """The rest of the table, from errors as the drivers make them."""
    if row.kind is errors.ConnectionLost:
        assert error.sent is Sent.UNKNOWN
    check(error, row)


# --- MySQL's lock wait timeout ---------------------------------------------------------------------------


@only("mariadb")
@pytest.mark.parametrize("nested", [False, True])
async def test_half_of_a_transaction_is_never_committed(bench: Bench, nested: bool) -> None:
    """After 1205 only the statement is undone on the server: nothing more runs, nothing stays.

    (fault case 6)
    """
    update = f"UPDATE {bench.items} SET amount = 5 WHERE name = 'a'"
    async with locked(bench):
        with pytest.raises(errors.TransactionAborted):
            async with bench.router.session("acme").transaction() as tx:
                await tx.execute("SET SESSION innodb_lock_wait_timeout = 0")
                await tx.execute(f"INSERT INTO {bench.items} (name) VALUES ('half')")
                with pytest.raises(errors.LockTimeout):
                    if nested:
                        async with tx.savepoint():
                            await tx.execute(update)
                    else:
                        await tx.execute(update)
                with pytest.raises(errors.TransactionAborted):
                    await tx.execute(f"INSERT INTO {bench.items} (name) VALUES ('more')")
                with pytest.raises(errors.TransactionAborted):
                    async with tx.savepoint():
                        pass
                # the block's end commits, which is refused
    rows = await bench.router.fetch_all(f"SELECT name FROM {bench.items}", tenant="acme", primary=True)
    assert [row.name for row in rows] == ["a"]


@only("mariadb")
async def test_run_repeats_a_transaction_that_waited_in_vain_for_a_lock(bench: Bench) -> None:
    """session.run rolls back and makes the whole transaction again; all of it counts, once (fault case 6)."""
    runs = 0

    async def work(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            await holder.__aexit__(None, None, None)
        await tx.execute("SET SESSION innodb_lock_wait_timeout = 0")
        await tx.execute(f"INSERT INTO {bench.items} (name) VALUES ('b')")
        await tx.execute(f"UPDATE {bench.items} SET amount = 5 WHERE name = 'a'")

    holder = locked(bench)
    await holder.__aenter__()
    await bench.router.session("acme").run(work)
    rows = await bench.router.fetch_all(
        f"SELECT name, amount FROM {bench.items}", tenant="acme", primary=True
    )
    assert (runs, {row.name: row.amount for row in rows}) == (2, {"a": 5, "b": None})


@only("mariadb")
async def test_a_refusal_to_wait_leaves_the_transaction_open(bench: Bench) -> None:
    """NOWAIT is asked for to be told: MariaDB says 1205 for it too, and the transaction goes on."""
    async with locked(bench), bench.router.session("acme").transaction() as tx:
        await tx.execute(f"INSERT INTO {bench.items} (name) VALUES ('b')")
        with pytest.raises(errors.LockTimeout) as caught:
            await tx.fetch_all(f"SELECT * FROM {bench.items} WHERE name = 'a' FOR UPDATE NOWAIT")
        assert caught.value.code == "1205"
        await tx.execute(f"INSERT INTO {bench.items} (name) VALUES ('c')")
    rows = await bench.router.fetch_all(f"SELECT name FROM {bench.items}", tenant="acme", primary=True)
    assert sorted(row.name for row in rows) == ["a", "b", "c"]


# --- roles that change -----------------------------------------------------------------------------------


@only("mariadb")
async def test_a_write_refused_while_roles_change_is_made_again(bench: Bench, heard: Recorder) -> None:
    """The primary refuses once, nothing was applied; the second attempt meets it writable (fault case 8)."""
    bench.run("SET GLOBAL read_only = ON")
    open_again = lambda event: bench.run("SET GLOBAL read_only = OFF")  # noqa: E731
    bench.router.dispatcher.subscribe(RetryScheduled, open_again)
    try:
        await bench.router.execute(f"UPDATE {bench.items} SET amount = amount + 1", tenant="acme")
    finally:
        bench.run("SET GLOBAL read_only = OFF")
    assert [event.code for event in heard.of(RetryScheduled)] == ["1290"]
    amount = f"SELECT amount FROM {bench.items}"
    assert await bench.router.fetch_value(amount, tenant="acme", primary=True) == 2


@only("mariadb")
async def test_a_script_is_not_made_again(bench: Bench, heard: Recorder) -> None:
    """Of several statements in a text the first may have been applied before the second was refused."""
    first = f"UPDATE {bench.items} SET amount = amount + 1"
    text = f"{first}; SET SESSION TRANSACTION READ ONLY; DELETE FROM {bench.items}"
    with pytest.raises(errors.ReadOnlyViolation):
        await bench.router.session("acme").execute_raw(text)
    assert heard.of(RetryScheduled) == []
    amount = f"SELECT amount FROM {bench.items}"
    assert await bench.router.fetch_value(amount, tenant="acme", primary=True) == 2


@only("postgresql", "mariadb")
async def test_a_replica_refuses_a_write(bench: Bench) -> None:
    """What reaches a replica that was taken for the primary is not applied, and says so (fault case 8)."""
    await bench.engine.settle()
    driver, replica = driver_for(bench.engine.cluster()["engine"]), bench.engine.server.replicas[0]

    async def password() -> str:
        return str(replica.password("router_app"))

    node = Node("r1", "main", Role.PRIMARY, replica.host, replica.port)
    connection = await driver.connect(
        Endpoint(node, bench.database, Login("router_app", password), readonly=False), 5.0
    )
    try:
        with pytest.raises(Exception, match="read-only") as caught:
            await connection.execute(f"DELETE FROM {bench.items}", (), 5.0)
    finally:
        await connection.close(5.0)
    error = driver.translate(caught.value)
    check(error, ROWS[error.code or ""])


@only("postgresql")
async def test_run_repeats_after_a_refusal_to_write(bench: Bench) -> None:
    """A transaction that met a read-only primary runs again as a whole (fault case 8)."""
    runs = 0

    async def work(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            await tx.execute("SET TRANSACTION READ ONLY")
        await tx.execute(f"UPDATE {bench.items} SET amount = amount + 1")

    await bench.router.session("acme").run(work)
    assert runs == 2


@only("postgresql")
async def test_a_stale_plan_in_a_transaction_is_cured_by_running_it_again(bench: Bench) -> None:
    """Inside of a transaction it is an error that session.run repeats (fault case 27)."""
    sql = f"SELECT * FROM {bench.items}"
    runs = 0

    async def work(tx: Transaction) -> int:
        nonlocal runs
        runs += 1
        row = await tx.fetch_one(sql)
        assert row is not None
        return len(row)

    assert await bench.other.session("acme").run(work) == 3
    await bench.router.execute(f"ALTER TABLE {bench.items} ADD COLUMN more INT", tenant="acme")
    assert await bench.other.session("acme").run(work) == 4
    assert runs == 3


# --- SQLite's busy commit --------------------------------------------------------------------------------


@only("sqlite")
async def test_a_commit_that_finds_the_file_busy_is_made_again(bench: Bench) -> None:
    """With a rollback journal a reader can hold up the COMMIT; the transaction waits for another one."""
    assert isinstance(bench.engine, Sqlite)
    file = bench.engine.file("acme")
    async with bench.engine.open(cluster={"options": {"timeout": 0.01}, "readers": 0}) as router:
        session = router.session("acme")
        await bench.router.close()  # to change the journal nobody else may have the file open
        await bench.other.close()
        transaction = session.transaction()
        async with session.connection() as lent:
            await lent.run("execute", "PRAGMA journal_mode = DELETE", (), 5.0)
            lent.broken = ""
        async with transaction as tx:
            await tx.execute(f"UPDATE {bench.items} SET amount = 5")
            reader = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            reader.execute("BEGIN")
            reader.execute(f"SELECT * FROM {bench.items}").fetchall()
            asyncio.get_running_loop().call_later(0.2, reader.execute, "ROLLBACK")
        reader.close()
        assert await session.fetch_value(f"SELECT amount FROM {bench.items}") == 5
