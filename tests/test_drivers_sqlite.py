"""The threads behind SQLite's connections: they end quietly, whenever the event loop ends."""

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from router.drivers.driver import Endpoint, Login
from router.drivers.sqlite import SqliteConnection, SqliteDriver
from router.drivers.sqlite_threads import DatabaseFile, DatabaseFiles
from router.errors import Sent, ServerError
from router.topology import Node, Role
from tests.engines import Sqlite
from tests.test_pool import Clock


async def _password() -> str:
    return ""


def _endpoint(folder: Path) -> Endpoint:
    node = Node("primary", "main", Role.PRIMARY, path=str(folder))
    return Endpoint(node, "acme", Login("", _password), readonly=False)


async def _connect(folder: Path) -> SqliteConnection:
    made = await SqliteDriver().connect(_endpoint(folder), 5)
    assert isinstance(made, SqliteConnection)
    return made


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException | None]]:
    """Collect what threads raise; pytest would tell of it only in a test that happens to run later."""
    seen: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    yield seen


def _threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def _run_and_join(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in a loop of its own, and wait for the threads that it left behind."""
    before = _threads()
    asyncio.run(work())
    for thread in _threads() - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_thread_that_is_busy_when_the_loop_ends(tmp_path: Path, failures: list[Any]) -> None:
    """A statement that outlives the loop has nobody to answer; its thread still closes the file and ends."""

    async def work() -> None:
        connection = await _connect(tmp_path)
        task = asyncio.create_task(connection._call(None, lambda _raw: time.sleep(0.3)))
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        connection.terminate()

    _run_and_join(work)
    assert failures == []


def test_a_close_that_is_given_up(tmp_path: Path, failures: list[Any]) -> None:
    """A close that runs out of time leaves nothing behind but a thread on its way out."""

    async def work() -> None:
        connection = await _connect(tmp_path)
        busy = asyncio.create_task(connection._call(None, lambda _raw: time.sleep(0.3)))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await connection.close(0.05)
        busy.cancel()

    _run_and_join(work)
    assert failures == []


def test_a_connect_that_fails_last_thing(tmp_path: Path, failures: list[Any]) -> None:
    """A file that is no database stops its thread without an answer that comes after the loop."""
    (tmp_path / "acme.db").write_text("no database at all " * 100)

    async def work() -> None:
        with pytest.raises(Exception, match="not a database"):
            await _connect(tmp_path)

    for _ in range(20):
        _run_and_join(work)
    assert failures == []


def test_a_connect_that_is_cancelled(tmp_path: Path, failures: list[Any]) -> None:
    """A connect that is cancelled at its first step closes what its thread opens after that."""

    async def work() -> None:
        task = asyncio.create_task(_connect(tmp_path))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    _run_and_join(work)
    assert failures == []


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_a_file_that_is_gone_takes_no_writes(tmp_path: Path, replaced: bool) -> None:
    """SQLite would go on with the file that nobody can open any more: such a write would be lost."""
    async with Sqlite(tmp_path).open() as router:
        await router.execute("CREATE TABLE t (a INTEGER)", tenant="acme")
        await router.execute("INSERT INTO t VALUES (1)", tenant="acme")
        assert await router.fetch_value("SELECT count(*) FROM t", tenant="acme") == 1
        for file in (tmp_path / "data").glob("acme.db*"):
            file.unlink()
        if replaced:
            with contextlib.closing(sqlite3.connect(tmp_path / "data" / "acme.db")) as restored:
                restored.execute("CREATE TABLE t (a INTEGER)")
        with pytest.raises(ServerError, match="removed or replaced") as caught:
            await router.execute("INSERT INTO t VALUES (2)", tenant="acme")
        assert caught.value.sent is Sent.NO
        if replaced:
            # the restored file is used from now on, by readers too
            await router.execute("INSERT INTO t VALUES (3)", tenant="acme")
            assert await router.fetch_all("SELECT a FROM t", tenant="acme") == [(3,)]


async def test_a_commit_into_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    """What was written in the transaction cannot be kept, and nobody is told that it was."""
    async with Sqlite(tmp_path).open() as router, router.session("acme") as session:
        await session.execute("CREATE TABLE t (a INTEGER)")
        with pytest.raises(ServerError, match="removed or replaced"):
            async with session.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (1)")
                (tmp_path / "data" / "acme.db").rename(tmp_path / "elsewhere.db")


async def test_a_reader_follows_a_file_that_is_replaced(tmp_path: Path) -> None:
    """It looks for itself, soon and not at each read, also where nobody writes."""
    async with Sqlite(tmp_path).open() as router:
        await router.execute("CREATE TABLE t (a INTEGER)", tenant="acme")
        assert await router.fetch_all("SELECT a FROM t", tenant="acme") == []
        for file in (tmp_path / "data").glob("acme.db*"):
            file.unlink()
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "acme.db")) as restored:
            restored.execute("CREATE TABLE t (a INTEGER)")
            restored.execute("INSERT INTO t VALUES (1)")
            restored.commit()
        await asyncio.sleep(0.05)
        with contextlib.suppress(ServerError):
            await router.fetch_all("SELECT a FROM t", tenant="acme")
        assert await router.fetch_all("SELECT a FROM t", tenant="acme") == [(1,)]


async def test_only_who_may_write_looks_at_the_file_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look lets another thread have the interpreter, which costs a small read more than its own work."""
    path = tmp_path / "acme.db"
    path.touch()
    looks: list[str] = []
    stat, clock = os.stat, Clock()

    def count(at: str) -> os.stat_result:
        looks.append(at)
        return stat(at)

    monkeypatch.setattr("router.drivers.sqlite_threads.os.stat", count)
    file = DatabaseFile(path, clock)
    looks.clear()
    for _ in range(10):
        file.check(0.0)
    assert len(looks) == 10
    for _ in range(10):
        file.check(0.02)
    assert len(looks) == 10, "somebody has just looked"
    clock.now += 0.03
    file.check(0.02)
    file.check(0.02)
    assert len(looks) == 11


async def test_who_finds_the_file_gone_finds_it_for_all(tmp_path: Path) -> None:
    """A reader that has just seen the file does not go on with it after a writer was refused."""
    path = tmp_path / "acme.db"
    path.touch()
    clock = Clock()
    files = DatabaseFiles(clock)
    file = files.at(path)
    assert files.at(path) is file
    path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(ServerError, match="removed or replaced"):
        file.check(0.0)
    with pytest.raises(ServerError, match="removed or replaced"):
        file.check(0.02)
    (tmp_path / "elsewhere.db").rename(path)
    assert file.gone, "what it was told once it keeps to"
    assert files.at(path) is not file
