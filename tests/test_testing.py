"""The doubles for users' tests do what a user's test relies on."""

import contextlib
import os
from pathlib import Path

import pytest

from router.config import parse
from router.dispatcher import Dispatcher
from router.errors import ConfigurationError, RouterError, UsageError
from router.events import ConnectionOpened, Event, RequestEvent, RequestFailed, RequestFinished
from router.router import Router
from router.testing import ManualClock, record, sqlite_router
from router.topology import Role


def test_clock_moves_only_when_told() -> None:
    """The clock stands still between advances."""
    clock = ManualClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    clock.advance(2.5)
    assert clock() == 7.5
    assert repr(clock) == "<ManualClock 7.5>"


def test_clock_does_not_go_back() -> None:
    """A monotonic clock refuses a step backwards."""
    clock = ManualClock()
    with pytest.raises(UsageError, match="does not go back"):
        clock.advance(-1)


async def test_clock_drives_a_router(tmp_path: Path) -> None:
    """A router that is given the clock times its requests with it: no time passes unless told."""
    config = parse(
        {
            "version": 1,
            "clusters": {"main": {"engine": "sqlite", "primary": {"path": str(tmp_path)}}},
            "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}},
        }
    )
    async with Router(config, clock=ManualClock()) as router:
        with record(router) as recorded:
            await router.execute("CREATE TABLE t (id INTEGER)", tenant="acme")
    assert [event.total for event in recorded.requests] == [0.0]


async def test_router_is_real() -> None:
    """Rows are stored, reads go to readers and writes to the writer; each tenant has its own."""
    async with sqlite_router(("acme", "globex")) as router:
        with record(router) as writes:
            for tenant in ("acme", "globex"):
                await router.execute("CREATE TABLE t (name TEXT)", tenant=tenant)
                await router.execute("INSERT INTO t VALUES (:name)", {"name": tenant}, tenant=tenant)
        writes.assert_role(Role.PRIMARY)
        writes.assert_count(4)
        with record(router) as reads:
            assert await router.fetch_value("SELECT name FROM t", tenant="acme") == "acme"
        reads.assert_role("replica")
        reads.assert_reason("read")
        assert await router.fetch_value("SELECT name FROM t", tenant="globex") == "globex"


async def test_router_keeps_files_in_a_given_folder(tmp_path: Path) -> None:
    """A folder that is given is used and left; names that no file may have are replaced."""
    async with sqlite_router(["acme", "7-up"], tmp_path, schemas=["more-data"]) as router:
        await router.execute("CREATE TABLE t (id INTEGER)", tenant="acme")
        await router.execute("CREATE TABLE t (id INTEGER)", tenant="7-up", schema="more-data")
    files = {file for file in os.listdir(tmp_path) if file.endswith(".db")}
    assert files == {"acme.db", "tenant_2.tenant_2_more_data.db"}


async def test_router_refuses_odd_names() -> None:
    """Tenant names are checked as in a configuration."""
    with pytest.raises(ConfigurationError, match="not a valid tenant id"):
        async with sqlite_router(["Not Valid"]):
            pass


async def test_record_takes_the_asked_events_once() -> None:
    """Only events of the given classes are recorded, once each, in order, until the block ends."""
    async with sqlite_router() as router:
        with record(router.dispatcher, RequestEvent, RequestFinished, RequestFailed) as recorded:
            await router.execute("CREATE TABLE t (id INTEGER)", tenant="acme")
            with pytest.raises(RouterError):
                await router.execute("INSERT INTO missing VALUES (1)", tenant="acme")
        before = len(router.dispatcher.stats())
        await router.fetch_all("SELECT 1", tenant="acme")
    assert [type(event) for event in recorded.events] == [RequestFinished, RequestFailed]
    assert recorded.of(ConnectionOpened) == []
    assert repr(recorded) == "<Recorded 2 events, 2 requests>"
    assert before == len(router.dispatcher.stats())


def test_record_ends_with_its_block() -> None:
    """The listener is gone after the block, also after an error."""
    dispatcher = Dispatcher()
    with pytest.raises(KeyError), record(dispatcher) as recorded:
        dispatcher.emit(Event(1.0))
        raise KeyError
    dispatcher.emit(Event(2.0))
    assert [event.at for event in recorded.events] == [1.0]
    assert dispatcher.stats() == ()


async def test_assertions_name_what_happened_instead() -> None:
    """A failed assertion lists the requests with node, reason and error, and no bound value."""
    async with sqlite_router(schemas=["analytics"]) as router:
        with record(router) as recorded:
            await router.execute("CREATE TABLE t (name TEXT UNIQUE)", tenant="acme")
            for _ in range(2):
                with contextlib.suppress(RouterError):
                    await router.execute("INSERT INTO t VALUES (:name)", {"name": "canary"}, tenant="acme")
            await router.fetch_value("SELECT 1", tenant="acme", schema="analytics", primary=True)
    with pytest.raises(AssertionError) as role:
        recorded.assert_role("replica")
    with pytest.raises(AssertionError, match="routed for read only") as reason:
        recorded.assert_reason("read")
    with pytest.raises(AssertionError, match="expected 9 requests, but there were 4:"):
        recorded.assert_count(9)
    assert str(role.value).splitlines() == [
        "expected requests to the replica only, but there were 4:",
        "  acme primary (ddl) on main/primary: CREATE TABLE t (name TEXT UNIQUE)",
        "  acme primary (write) on main/primary: INSERT INTO t VALUES (:name)",
        "  acme primary (write) on main/primary failed with UniqueViolation: INSERT INTO t VALUES (:name)",
        "  acme/analytics primary (declared_primary) on main/primary: SELECT 1",
    ]
    assert "canary" not in str(role.value) + str(reason.value)


def test_assertions_fail_where_nothing_happened() -> None:
    """No request at all is no success."""
    with record(Dispatcher()) as recorded:
        pass
    recorded.assert_count(0)
    for check in (lambda: recorded.assert_role("primary"), lambda: recorded.assert_reason("read")):
        with pytest.raises(AssertionError, match="but there were none"):
            check()
